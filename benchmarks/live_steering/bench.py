"""The server under test, statements of its store, and their runs under hint sets."""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from statistics import median
from typing import TypeVar

import numpy as np
from sqlalchemy.engine import URL

from backend.catalog.hint_sets import load_hint_sets
from backend.db_connector import DatabaseConnector
from backend.domain.plans import DEFAULT_HINT_SET, ExplainedPlan, HintSet, PlanRun
from backend.domain.server import ServerInfo
from backend.errors import SteeringError
from backend.steering.running.runner import StatementRunner
from backend.steering.statements.read_only import ReadOnlyCheck, ReadOnlyVerdict
from backend.workload.scope import Scope
from backend.workload.shape import StoreShape
from backend.workload.statements import PARAMETER_DIMENSIONS, STATEMENTS, Parameters

READS = tuple(name for name, statement in STATEMENTS.items() if statement.kind != "write")
"""All classes of the demo's mixes that only read."""

WORTH_S = 0.02
MOST_REPEATS = 10
"""A run that takes less than ``WORTH_S`` is repeated, so often at the most; the median counts."""

T = TypeVar("T")
Tracked = Callable[[Sequence[T], str], Iterator[T]]


def parameters(name: str, scale: float, seed: int, role: str, number: int) -> Parameters:
    """Parameters of a statement of a class.

    Each role (what the statement is for) has statements of its own, drawn as the demo's clients
    draw them, evenly over the class's parameters.
    """
    words = [seed, number, zlib.crc32(role.encode()), zlib.crc32(name.encode())]
    point = np.random.default_rng(words).random(PARAMETER_DIMENSIONS)
    return STATEMENTS[name].parameters(
        tuple(float(u) for u in point), Scope(StoreShape.at_scale(scale))
    )


class Bench:
    """Tries statements of the demo store.

    Args:
        url: the database, under a role that may read it.
        info: the server.
        scale: of its store.
        seed: of the statements.
        max_timeout_s: the longest that any run may take.
    """

    def __init__(
        self, url: URL, info: ServerInfo, scale: float, seed: int, max_timeout_s: float
    ) -> None:
        self.scale, self.seed, self.max_timeout_s = scale, seed, max_timeout_s
        self.catalog = load_hint_sets(info.version, info.host)
        self.runner = StatementRunner(url, self.catalog)
        self._connector = DatabaseConnector(url)
        self._check = ReadOnlyCheck(self._connector)
        self.verdict = lru_cache(maxsize=None)(self._verdict)

    def close(self) -> None:
        """End the sessions."""
        self.runner.close()
        self._connector.close()

    def hint_set(self, name: str) -> HintSet:
        """The hint set of a name: its toggles, joined with ``+``."""
        if name == DEFAULT_HINT_SET.name:
            return DEFAULT_HINT_SET
        return self.catalog.combine(name.split("+"))

    def text(self, name: str, role: str, number: int) -> str:
        """A statement of a class, with its literals."""
        found = parameters(name, self.scale, self.seed, role, number)
        return self.runner.fill_in(STATEMENTS[name].sql, found)

    def _verdict(self, name: str, role: str, number: int) -> ReadOnlyVerdict:
        verdict = self._check.check(self.text(name, role, number))
        if not verdict.is_read_only:
            raise SteeringError(f"{name} is not shown to be read-only: {verdict.refusal}")
        return verdict

    def plans(
        self, verdict: ReadOnlyVerdict, hint_sets: Sequence[HintSet]
    ) -> list[ExplainedPlan | None]:
        """What the planner would do under each hint set."""
        return self.runner.explain(verdict, hint_sets)

    def default_s(self, verdict: ReadOnlyVerdict) -> float:
        """The default plan's latency, its data in the caches: the median of some runs."""
        self._finished(self.runner.run(verdict, [DEFAULT_HINT_SET], [self.max_timeout_s])[0])
        first = self.runner.run(verdict, [DEFAULT_HINT_SET], [self.max_timeout_s])[0]
        runs = [first, *self._repeated(verdict, first.latency_s)]
        return median(run.latency_s for run in map(self._finished, runs))

    def _repeated(self, verdict: ReadOnlyVerdict, latency_s: float) -> list[PlanRun]:
        count = max(2, repeats_for(latency_s))
        return self.runner.run(verdict, [DEFAULT_HINT_SET] * count, [self.max_timeout_s] * count)

    def _finished(self, run: PlanRun) -> PlanRun:
        if run.checksum is None:
            raise SteeringError(
                f"under the default plan a statement {run.outcome.value}: {run.detail}",
                remedy="a smaller --scale, or a longer --max-timeout",
            )
        return run

    def measured(
        self,
        verdict: ReadOnlyVerdict,
        hint_sets: Sequence[HintSet],
        timeout_s: float,
        repeats: int,
        rng: np.random.Generator,
    ) -> list[list[PlanRun]]:
        """Run all hint sets in an order by lot, again and again; the runs of each.

        A hint set that ran into its time-out is not run again.
        """
        timeout_s = min(timeout_s, self.max_timeout_s)
        runs: list[list[PlanRun]] = [[] for _ in hint_sets]
        for _ in range(repeats):
            order = [i for i in rng.permutation(len(hint_sets)) if not (
                runs[i] and runs[i][-1].timed_out)]  # fmt: skip
            found = self.runner.run(
                verdict, [hint_sets[i] for i in order], [timeout_s] * len(order)
            )
            for index, run in zip(order, found, strict=True):
                runs[index].append(run)
        return runs


def repeats_for(default_s: float) -> int:
    """How often a statement is run in one go, so that its time can be told from the noise."""
    return min(max(math.ceil(WORTH_S / max(default_s, 1e-6)), 1), MOST_REPEATS)


def typical_s(runs: Sequence[PlanRun]) -> tuple[float, bool]:
    """The median latency of runs, and whether one of them says no more than a lower bound."""
    bound = [run.latency_s for run in runs if run.checksum is None]
    return (max(bound), True) if bound else (median(run.latency_s for run in runs), False)


@contextlib.contextmanager
def bench_on(
    url: URL, info: ServerInfo, scale: float, seed: int, max_timeout_s: float
) -> Iterator[Bench]:
    """A bench, closed at the end."""
    bench = Bench(url, info, scale, seed, max_timeout_s)
    try:
        yield bench
    finally:
        bench.close()
