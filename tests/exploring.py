"""A made-up server for the live exploration: plans, latencies and answers are known."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from backend.catalog.hint_sets import HintSetCatalog, load_hint_sets
from backend.domain.clock import ManualClock
from backend.domain.plans import (
    ExplainedPlan,
    HintSet,
    PlanFeatures,
    PlanRun,
    RunOutcome,
)
from backend.domain.server import HostFacts
from backend.domain.steering import (
    ClassKey,
    PlanRunRecord,
    StatementSample,
    SteeredClassRecord,
    SteeringState,
)
from backend.errors import ServerError
from backend.settings.steering import SteeringSection
from backend.steering.plans.plan_features import FEATURE_NAMES
from backend.steering.register import SteeringRegister
from backend.steering.running.runner import StatementRunner
from backend.steering.search.exploration import LiveExploration
from backend.steering.statements.read_only import ReadOnlyCheck, ReadOnlyVerdict

PATH = "public"
TOGGLES = ("no_nestloop", "no_hashjoin", "no_mergejoin", "no_seqscan", "no_indexscan", "no_sort")


def small_catalog(toggles: Sequence[str] = TOGGLES) -> HintSetCatalog:
    """The default plan and a hint set for each of these toggles."""
    whole = load_hint_sets(17, HostFacts(memory_bytes=8 << 30, cpu_count=2.0))
    hint_sets = tuple(whole.combine(names) for names in [(), *((name,) for name in toggles)])
    return dataclasses.replace(whole, hint_sets=hint_sets)


@dataclass
class Behaviour:
    """What a class's plan does on the made-up server."""

    latency_s: float = 1.0
    outcome: RunOutcome = RunOutcome.FINISHED
    answer: str = "right"
    detail: str = ""


@dataclass
class MadeUpClass:
    """A class: its default plan, and hint set → plan; equal names of plans are one plan."""

    name: str
    default: Behaviour = field(default_factory=Behaviour)
    others: dict[str, Behaviour] = field(default_factory=dict)
    same_as_default: set[str] = field(default_factory=set)
    refusal: str = ""
    unexplained: set[str] = field(default_factory=set)
    broken: str = ""
    version: str = ""
    statements: int = 3
    weight: float = 0.0

    @property
    def key(self) -> ClassKey:
        return ClassKey(hashlib.sha256(self.name.encode()).hexdigest()[:16], PATH)

    @property
    def texts(self) -> list[str]:
        return [f"SELECT {number} FROM {self.name}" for number in range(self.statements)]

    def plan(self, hint_set: HintSet) -> str:
        """Name of the plan under a hint set."""
        if hint_set.is_default or hint_set.name in self.same_as_default:
            return "default" + self.version
        return f"{hint_set.name}{self.version}"

    def behaviour(self, hint_set: HintSet) -> Behaviour:
        if self.plan(hint_set).startswith("default"):
            return self.default
        return self.others.get(hint_set.name, Behaviour(self.default.latency_s * 2.0))


def slow(**others: Behaviour) -> MadeUpClass:
    """A class of 2 s whose other plans take twice as long, but for those named."""
    return MadeUpClass("slow", Behaviour(2.0), {**others})


class MadeUpServer:
    """Classes by name; time passes on the clock while statements run.

    Args:
        classes: the most valuable first.
        clock: turned by what runs.
        noise: standard deviation of the logarithm of latencies.
    """

    def __init__(
        self, classes: Sequence[MadeUpClass], clock: ManualClock, noise: float = 0.0
    ) -> None:
        self.classes, self.clock = {c.name: c for c in classes}, clock
        self._noise, self._rng = noise, np.random.default_rng(0)
        self.settings = {"work_mem": "4MB", "enable_nestloop": "on", "random_page_cost": "4"}
        self.ran: list[tuple[str, str, float]] = []
        self.explained: list[tuple[str, str]] = []
        self.before_run: Callable[[str, HintSet], None] = lambda name, hint_set: None

    def of(self, statement: str) -> MadeUpClass:
        return self.classes[statement.rsplit(" ", 1)[1]]

    # -- a StatementRunner ---------------------------------------------------------------------

    def explain(
        self, verdict: ReadOnlyVerdict, hint_sets: Sequence[HintSet], *, timeout_s: float = 5.0
    ) -> list[ExplainedPlan | None]:
        of = self.of(verdict.statement)
        if of.broken:
            raise ServerError(of.broken)
        self.clock.advance(0.001 * len(hint_sets))
        self.explained += [(of.name, hint_set.name) for hint_set in hint_sets]
        return [None if h.name in of.unexplained else self._plan(of, h) for h in hint_sets]

    def _plan(self, of: MadeUpClass, hint_set: HintSet) -> ExplainedPlan:
        name = of.plan(hint_set)
        plan_hash = hashlib.sha256(f"{of.name} {name}".encode()).hexdigest()[:32]
        values = np.random.default_rng(int(plan_hash[:8], 16)).normal(size=len(FEATURE_NAMES))
        return ExplainedPlan(plan_hash, PlanFeatures(FEATURE_NAMES, values), 100.0, 1.0)

    def run(
        self, verdict: ReadOnlyVerdict, hint_sets: Sequence[HintSet], timeouts_s: Sequence[float]
    ) -> list[PlanRun]:
        of = self.of(verdict.statement)
        runs = []
        for hint_set, timeout_s in zip(hint_sets, timeouts_s, strict=True):
            self.before_run(of.name, hint_set)
            does = of.behaviour(hint_set)
            whole_s = does.latency_s * math.exp(self._noise * self._rng.normal())
            latency_s = min(whole_s, timeout_s)
            self.clock.advance(latency_s)
            self.ran.append((of.name, hint_set.name, timeout_s))
            if does.outcome is RunOutcome.FINISHED and whole_s > timeout_s:
                runs.append(PlanRun(RunOutcome.TIMED_OUT, timeout_s))
            elif does.outcome is RunOutcome.FINISHED:
                runs.append(PlanRun(does.outcome, latency_s, 1, does.answer))
            else:
                runs.append(PlanRun(does.outcome, 0.01, detail=does.detail))
        return runs

    def in_force(self, settings: Sequence[str]) -> Mapping[str, str]:
        return {name: self.settings.get(name, "on") for name in settings}

    def plan_text(
        self, verdict: ReadOnlyVerdict, hint_set: HintSet, *, timeout_s: float = 5.0
    ) -> str:
        return self.of(verdict.statement).plan(hint_set)

    # -- a ReadOnlyCheck -------------------------------------------------------------------------

    def check(self, statement: str, search_path: str) -> ReadOnlyVerdict:
        refusal = self.of(statement).refusal
        return ReadOnlyVerdict("", refusal) if refusal else ReadOnlyVerdict(statement)


class MadeUpBook:
    """All classes of a server, in their order."""

    def __init__(self, server: MadeUpServer) -> None:
        self._server = server

    def keys(self) -> list[ClassKey]:
        return [made_up.key for made_up in self._server.classes.values()]

    def samples(self, key: ClassKey) -> tuple[StatementSample, ...]:
        made_up = next(c for c in self._server.classes.values() if c.key == key)
        now = self._server.clock.now()
        return tuple(StatementSample(key, text, now, "file") for text in made_up.texts)

    def weight(self, key: ClassKey) -> float:
        return next(c.weight for c in self._server.classes.values() if c.key == key)

    def text(self, key: ClassKey) -> str:
        made_up = next(c for c in self._server.classes.values() if c.key == key)
        return f"SELECT $1 FROM {made_up.name}"


class MemoryStore:
    """Steering's tables of the store."""

    def __init__(self) -> None:
        self.records: dict[ClassKey, SteeredClassRecord] = {}
        self.runs: list[PlanRunRecord] = []

    def save_steered_classes(self, classes: Sequence[SteeredClassRecord]) -> None:
        self.records |= {record.key: record for record in classes}

    def steered_classes(self) -> list[SteeredClassRecord]:
        return [self.records[key] for key in sorted(self.records)]

    def add_plan_runs(self, runs: Sequence[PlanRunRecord]) -> None:
        self.runs += runs

    def plan_runs(
        self, *, fingerprint: str | None = None, limit: int = 10_000
    ) -> list[PlanRunRecord]:
        return [r for r in self.runs if fingerprint in (None, r.key.fingerprint)][-limit:]


class World:
    """An exploration on a made-up server, and what is left of it after a restart."""

    def __init__(
        self,
        *classes: MadeUpClass,
        agent: Any = None,
        catalog: HintSetCatalog | None = None,
        max_timeout_s: float = 30.0,
        noise: float = 0.0,
    ) -> None:
        self.clock = ManualClock()
        self.server = MadeUpServer(classes, self.clock, noise)
        self.store = MemoryStore()
        self.agent, self.catalog = agent, catalog or small_catalog()
        self.settings = SteeringSection(max_timeout_s=max_timeout_s)
        self.restart()

    def restart(self) -> None:
        self.register = SteeringRegister(cast(Any, self.store), self.clock)
        self.exploration = LiveExploration(
            self.settings,
            MadeUpBook(self.server),
            lambda search_path: cast(StatementRunner, self.server),
            cast(ReadOnlyCheck, self.server),
            self.catalog,
            self.register,
            self.store,
            self.agent,
            self.clock,
        )

    def work(self, until: Callable[[], bool] = lambda: False, most: int = 5000) -> None:
        """Step until there is nothing to do, or so far."""
        for _ in range(most):
            if until() or not self.exploration.step():
                return
        raise AssertionError(f"still at work after {most} steps: {self.exploration.activity}")

    def record(self, name: str) -> SteeredClassRecord:
        record = self.register.get(self.server.classes[name].key)
        assert record is not None
        return record

    def runs(self, name: str, hint_set: str) -> int:
        return sum(ran[:2] == (name, hint_set) for ran in self.server.ran)


def verified() -> World:
    """The class ``slow`` is served ``no_seqscan``."""
    world = World(slow(no_seqscan=Behaviour(0.3)))
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED
    return world


def change_settings(world: World, **settings: str) -> None:
    """Change what is in force on the server, and let it be noticed."""
    world.server.settings.update(settings or {"random_page_cost": "1.1"})
    world.clock.advance(11.0)
