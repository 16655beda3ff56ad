"""The tuner under a load that shifts between workloads without a statement in common.

Transactional by day, analytical by night, and back; on the simulated database, in simulated time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.modes import Arm, CommandKind, Mode, Phase, TrialKind, Verdict
from backend.domain.records import TrialRecord
from backend.orchestrator import SystemOrchestrator
from backend.targets.simulated import Noise, ResponseModel, SimulatedDatabase
from backend.targets.simulated_load import LoadScript
from backend.targets.simulated_model import DEFAULT_SPACE, FloatArray, SimulatedClass
from backend.telemetry import open_store
from tests.simulated_run import Run, settings_in

SPACE = KnobSpace(
    [
        DEFAULT_SPACE[name]
        for name in ("random_page_cost", "jit", "cpu_tuple_cost", "effective_io_concurrency")
    ]
)
DAY = (
    SimulatedClass("SELECT * FROM products WHERE product_id = $1", 40.0, 0.8),
    SimulatedClass("SELECT * FROM orders WHERE customer_id = $1", 20.0, 3.0),
    SimulatedClass("INSERT INTO events (customer_id, kind) VALUES ($1, $2)", 20.0, 1.5, True),
)
NIGHT = (
    SimulatedClass("SELECT brand_id, count(*) FROM products GROUP BY brand_id", 6.0, 15.0),
    SimulatedClass("SELECT region, sum(amount) FROM order_items GROUP BY region", 4.0, 40.0),
    SimulatedClass("SELECT day, sum(amount) FROM orders GROUP BY day", 5.0, 30.0),
)


BEST: Mapping[str, Mapping[str, KnobValue]] = {
    "day": {"random_page_cost": 1.2, "jit": False},
    "night": {"random_page_cost": 8.0, "jit": True},
    "both": {},
}
SHORT = {"window_s": 5, "settle_s": 1, "baseline_s": 30, "rest_s": 60}


class TwoTastes(ResponseModel):
    """By day random pages should be cheap and JIT off, by night dear and on."""

    def __init__(self) -> None:
        super().__init__(SPACE, (*DAY, *NIGHT), gain=0.0)

    def _log_factors(self, config: KnobConfig) -> FloatArray:
        pages, jit = math.log(float(config["random_page_cost"])), float(config["jit"])
        by_day = 0.25 * (pages - math.log(1.2)) ** 2 + 0.15 * jit
        by_night = 0.25 * (pages - math.log(8.0)) ** 2 + 0.15 * (1.0 - jit)
        return np.array([by_day] * len(DAY) + [by_night] * len(NIGHT))

    def index_by_day(self, config: Mapping[str, KnobValue]) -> float:
        """The exact index of a configuration by day; 1 is the default one."""
        return self._index(config, slice(0, len(DAY)))

    def index_by_night(self, config: Mapping[str, KnobValue]) -> float:
        """The exact index of a configuration by night; 1 is the default one."""
        return self._index(config, slice(len(DAY), None))

    def _index(self, config: Mapping[str, KnobValue], offered: slice) -> float:
        def total_ms(values: Mapping[str, KnobValue]) -> float:
            arrivals, service = self.arrivals[offered], self.service_ms(values)[offered]
            return float((arrivals * service).sum()) * float(
                self.contention(self.utilisation(service, arrivals))
            )

        default = SPACE.default_config()
        return total_ms(default.replace(config)) / total_ms(default)


class Clients(LoadScript):
    """A load that the test shifts by hand."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.offer("day")

    def offer(self, workload: str) -> None:
        """Shift to ``day``, ``night``, or ``both``."""
        object.__setattr__(self, "offered", workload)

    def factors(self, seconds: FloatArray, classes: int) -> FloatArray:
        by_day = np.arange(classes) < len(DAY)
        here = {"day": by_day, "night": ~by_day, "both": np.ones(classes)}[self.offered]
        return np.tile(here.astype(np.float64), (len(seconds), 1))


class KnowsTheAnswer:
    """In the place of the agent: proposes the best configuration for what is offered."""

    proposer = "the test"

    def __init__(self, clients: Clients) -> None:
        self.clients, self.workload = clients, "shop"
        self.objectives: list[tuple[str, float]] = []

    def load(self, present: KnobConfig) -> None: ...

    def ask(self, state: object, present: KnobConfig) -> KnobConfig:
        return present.replace(BEST[self.clients.offered])

    def fit(self, config: KnobConfig) -> KnobConfig:
        return config

    def tell(self, config: KnobConfig, objective: float, *_: object, **__: object) -> None:
        self.objectives.append((self.workload, objective))


class Shifting(Run):
    """A run whose load the test shifts; ``scripted``: without the real agent."""

    def __init__(
        self,
        folder: Path,
        target: SimulatedDatabase | None = None,
        clients: Clients | None = None,
        *,
        scripted: bool = True,
        mode: Mode = Mode.AUTO,
        days: float | None = None,
        **level1: object,
    ) -> None:
        self.clients = clients or Clients()
        self.model = TwoTastes()
        noise = Noise(sigma=0.01, shared_sigma=0.01, per_call=0.3)
        self.target = target or SimulatedDatabase(self.model, load=self.clients, noise=noise)
        self.clock = self.target.clock
        self.settings = settings_in(folder, **{**SHORT, **level1})
        self.orchestrator = SystemOrchestrator(
            self.settings, target_factory=lambda _: self.target, clock=self.clock
        )
        self.orchestrator.initialize_components()
        self.orchestrator._components.deployment.mode = mode
        self.agent = KnowsTheAnswer(self.clients)
        if scripted:
            self.orchestrator._components.learner = self.agent  # type: ignore[assignment]
        self.orchestrator.begin(duration_days=days)
        self.loop = self.orchestrator.loop
        self.store = open_store(self.settings.store_url)

    @property
    def index_now(self) -> float | None:
        """The published index of the newest window outside trials."""
        return [w.index for w in self.store.windows(limit=50) if w.trial_id is None][-1]

    def started_again(self, folder: Path) -> Shifting:
        """The next tuner, after this one was killed or ended."""
        self.target.reopen()
        return Shifting(folder, self.target, self.clients)

    def promoted(self, count: int = 1) -> bool:
        """Whether so many promotions were accepted."""
        return self.verdicts(TrialKind.PROMOTION).count(Verdict.ACCEPT) >= count

    def tried(self, kind: TrialKind) -> bool:
        """Whether a trial of that kind runs and has measured something."""
        trial = self.loop.trial
        return trial is not None and trial.plan.kind is kind and trial.progress > 0

    def told(self, kind: str) -> list[str]:
        """The messages of the events of a kind."""
        return [event.message for event in self.store.events() if event.kind == kind]

    def number(self) -> int | None:
        """The workload in force."""
        present = self.loop.workloads.present
        return present.number if present is not None else None


def test_trials_go_on_by_night_and_again_by_day(tmp_path: Path) -> None:
    run = Shifting(tmp_path)
    run.go(1000, until=lambda: run.promoted() and run.loop.trial is None)
    best_by_day = run.model.index_by_day(run.target.effective_config)
    assert best_by_day < 0.62
    factor_by_day = run.loop.workloads.in_force.chain.factor
    assert factor_by_day == pytest.approx(best_by_day, rel=0.05)

    run.clients.offer("night")
    run.go(1000, until=lambda: run.promoted(2))
    assert run.number() == 2
    before = run.store.policy_versions()[-2].config
    assert run.store.policy_versions()[-1].index == pytest.approx(
        run.model.index_by_night(BEST["night"]) / run.model.index_by_night(before), rel=0.1
    )
    run.go(200, until=lambda: Verdict.ACCEPT in run.verdicts(TrialKind.PROBATION)[1:])

    run.clients.offer("day")
    run.go(1000, until=lambda: run.promoted(3))
    assert run.number() == 1
    assert len(run.told("baseline")) == 2  # the day's was kept
    assert run.loop.workloads.in_force.chain.factor == pytest.approx(factor_by_day, rel=0.1)
    assert run.model.index_by_day(run.target.effective_config) == pytest.approx(best_by_day)
    # What the agent was told is on the scale of each workload, whatever stood meanwhile.
    by_day = [objective for workload, objective in run.agent.objectives if workload == "shop"]
    assert by_day[0] == 1.0
    assert by_day[1:] == pytest.approx([best_by_day] * 4, rel=0.15)
    by_night = [objective for workload, objective in run.agent.objectives if workload == "shop 2"]
    assert by_night[0] == 1.0
    assert len(by_day) + len(by_night) == len(run.agent.objectives)
    run.orchestrator.end()


def test_the_published_index_is_that_of_the_workload_that_is_offered(tmp_path: Path) -> None:
    run = Shifting(tmp_path)
    run.go(1000, until=lambda: run.promoted())
    run.command(CommandKind.PAUSE)
    run.go(60)
    by_day = run.index_now
    assert by_day == pytest.approx(run.model.index_by_day(BEST["day"]), rel=0.05)
    run.clients.offer("night")
    run.go(25)
    assert run.index_now is None  # its statements are not those of the reference
    run.go(60)
    assert run.index_now == pytest.approx(1.0, rel=0.1)
    run.orchestrator.save_status()
    status = run.store.status()
    assert status is not None
    assert status.index == pytest.approx(1.0, rel=0.1)
    # What stands is changed by hand at night: by day it is measured against the day's reference.
    run.command(CommandKind.SET_KNOBS, knobs={"random_page_cost": 4.0})
    run.clients.offer("day")
    run.go(60)
    assert run.number() == 1
    now = run.model.index_by_day(run.target.effective_config)
    assert now > 1.2 * by_day
    assert run.index_now == pytest.approx(now, rel=0.1)
    assert run.loop.workloads.in_force.index_standing == pytest.approx(now, rel=0.1)
    run.orchestrator.end()


def test_a_trial_that_the_load_leaves_proves_nothing(tmp_path: Path) -> None:
    run = Shifting(tmp_path)
    run.go(600, until=lambda: run.tried(TrialKind.PROMOTION))
    run.clients.offer("night")
    run.go(300, until=lambda: run.loop.trial is None)
    assert run.verdicts(TrialKind.PROMOTION) == [Verdict.INCONCLUSIVE]
    assert run.target.effective_config == SPACE.default_config()
    # Before it is known what is offered now, nothing is tried.
    run.go(20)
    assert run.loop.trial is None
    run.go(60, until=lambda: run.loop.trial is not None)
    assert run.number() == 2
    assert run.loop.trial is not None
    offered = set(run.target.keys[len(DAY) :])
    assert set(run.loop.trial.plan.shares.per_class) == offered
    run.orchestrator.end()


def test_a_burst_is_no_workload(tmp_path: Path) -> None:
    run = Shifting(tmp_path)
    run.go(600, until=lambda: run.promoted())
    run.command(CommandKind.PAUSE)
    run.clients.offer("both")
    run.go(20)  # a baseline takes 30 s
    assert run.loop.workloads.away
    run.orchestrator.save_status()
    status = run.store.status()
    assert status is not None
    assert status.activity == "measuring the baseline of another workload"
    assert status.progress is not None
    assert 0.0 < status.progress < 1.0
    run.clients.offer("day")
    run.go(60)
    assert (run.number(), len(run.loop.workloads.known)) == (1, 1)
    assert not run.loop.workloads.away
    run.orchestrator.end()


def test_a_reference_that_holds_little_of_the_load_is_left(tmp_path: Path) -> None:
    """Its classes still run; but most of the time goes to statements that nobody would judge."""
    run = Shifting(tmp_path)
    run.go(600, until=lambda: run.promoted())
    run.clients.offer("both")
    run.go(600, until=lambda: run.number() == 2)
    assert set(run.loop.workloads.in_force.chain.reference.per_class) == set(run.target.keys)
    run.clients.offer("day")
    run.go(200, until=lambda: run.number() == 1)
    assert run.number() == 1
    run.orchestrator.end()


class TestProbation:
    def test_where_the_load_leaves_in_the_middle_it_is_undone(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path)
        run.go(600, until=lambda: run.tried(TrialKind.PROBATION))
        run.clients.offer("night")
        run.go(300, until=lambda: run.loop.trial is None)
        assert run.verdicts(TrialKind.PROBATION) == [Verdict.INCONCLUSIVE]
        assert run.target.effective_config == SPACE.default_config()
        run.clients.offer("day")
        run.go(60, until=lambda: run.loop.workloads.ready)
        assert run.loop.workloads.in_force.chain.factor == 1.0  # as before the promotion
        run.orchestrator.end()

    def test_where_the_load_left_before_it_began_it_is_undone(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path)
        run.go(600, until=lambda: run.promoted())
        run.command(CommandKind.PAUSE)
        run.clients.offer("night")
        run.go(120)
        assert run.number() == 2
        assert run.target.effective_config["jit"] is False  # paused: it stands, not yet proven
        run.command(CommandKind.RESUME)
        run.go(5, until=lambda: bool(run.told("rollback")))
        assert run.target.effective_config == SPACE.default_config()
        assert TrialKind.PROBATION not in {trial.kind for trial in run.store.trials()[2:]}
        run.orchestrator.end()

    def test_waits_for_its_workload_while_nothing_may_be_tried(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path)
        run.go(600, until=lambda: run.promoted())
        run.command(CommandKind.PAUSE)
        run.clients.offer("night")
        run.go(120)
        run.clients.offer("day")
        run.go(60)
        run.command(CommandKind.RESUME)
        run.go(300, until=lambda: Verdict.ACCEPT in run.verdicts(TrialKind.PROBATION))
        assert Verdict.ACCEPT in run.verdicts(TrialKind.PROBATION)
        assert run.target.effective_config["jit"] is False
        run.orchestrator.end()


class TestTheNextTuner:
    def test_knows_the_workloads_of_the_last_one(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path)
        run.go(600, until=lambda: Verdict.ACCEPT in run.verdicts(TrialKind.PROBATION))
        run.clients.offer("night")
        run.go(600, until=lambda: run.number() == 2)
        factors = {w.number: w.chain.factor for w in run.loop.workloads.known}
        run.orchestrator.end()

        second = run.started_again(tmp_path)
        second.go(200, until=lambda: second.number() is not None)
        assert second.number() == 2
        second.clients.offer("day")
        second.go(400, until=lambda: second.number() == 1)
        assert {w.number: w.chain.factor for w in second.loop.workloads.known} == factors
        assert len(second.told("baseline")) == 2
        standing = second.model.index_by_day(second.target.effective_config)
        assert second.loop.workloads.in_force.index_standing == pytest.approx(standing, rel=0.1)
        second.orchestrator.end()

    def test_goes_on_with_the_probation(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path)
        run.go(600, until=lambda: run.tried(TrialKind.PROBATION))
        # The process is gone without a word.
        second = run.started_again(tmp_path)
        second.go(200, until=lambda: second.tried(TrialKind.PROBATION))
        assert second.verdicts(TrialKind.PROBATION) == [Verdict.ABORTED, None]
        second.go(200, until=lambda: second.loop.trial is None)
        assert second.verdicts(TrialKind.PROBATION)[1] is Verdict.ACCEPT
        second.orchestrator.end()
        third = run.started_again(tmp_path)
        third.go(150)
        assert len(third.verdicts(TrialKind.PROBATION)) == 2  # it was ended
        third.orchestrator.end()


class TestFinalComparison:
    def test_is_made_on_what_is_offered_at_the_end(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path, days=0.01)  # 864 s
        run.go(1000, until=lambda: Verdict.ACCEPT in run.verdicts(TrialKind.PROBATION))
        run.clients.offer("night")
        run.go(3000, until=lambda: run.loop.phase is Phase.FINISHED)
        final = run.store.trials()[-1]
        assert (final.kind, final.verdict) == (TrialKind.FINAL, Verdict.ACCEPT)
        assert set(final.class_effects) == {str(key) for key in run.target.keys[len(DAY) :]}
        assert final.effect is not None
        truth = run.model.index_by_night(run.target.effective_config)
        assert final.effect == pytest.approx(truth - 1, abs=0.05)
        assert run.told("final_comparison") == ["the final comparison is made on workload 2 of 2"]

    def test_is_begun_anew_where_the_load_leaves(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path, days=0.01)  # 864 s
        run.go(1000, until=lambda: run.tried(TrialKind.FINAL))
        run.clients.offer("night")
        run.go(2000, until=lambda: run.loop.phase is Phase.FINISHED)
        finals = [trial for trial in run.store.trials() if trial.kind is TrialKind.FINAL]
        assert [trial.verdict for trial in finals] == [Verdict.INCONCLUSIVE, Verdict.REJECT]
        # What was proven by day is worse by night, and the comparison says so.
        truth = run.model.index_by_night(run.target.effective_config)
        assert truth > 2.0
        assert finals[-1].effect == pytest.approx(truth - 1, rel=0.2)
        assert run.loop.final_trial is not None
        assert run.loop.final_trial.record_id == finals[-1].id


def test_what_was_approved_waits_for_the_load_that_it_was_proven_under(tmp_path: Path) -> None:
    run = Shifting(tmp_path, mode=Mode.APPROVE)
    run.go(300, until=lambda: bool(run.store.experiment_plans()))
    run.command(CommandKind.APPROVE_PLAN, plan_id=1)
    run.go(900, until=lambda: bool(run.store.promotions()))
    (promotion,) = run.store.promotions()
    run.clients.offer("night")
    run.go(300, until=lambda: run.number() == 2)
    run.command(CommandKind.APPROVE, trial_id=promotion.trial_id)
    deployment = run.orchestrator._components.deployment
    run.go(60)
    assert deployment.deviating == {}
    run.clients.offer("day")
    run.go(300, until=lambda: bool(deployment.deviating))
    assert run.number() == 1
    proven = run.store.trial(promotion.trial_id)
    assert proven is not None
    assert deployment.deviating == dict(proven.after)
    run.orchestrator.end()


def test_each_workload_gets_its_advice(tmp_path: Path) -> None:
    run = Shifting(tmp_path, mode=Mode.ADVISE)
    for workload, number in (("day", 1), ("night", 2), ("day", 1)):
        run.clients.offer(workload)
        run.go(200, until=lambda number=number: run.number() == number)  # type: ignore[misc]
    day = "worth a try: random_page_cost = 1.2, jit = False"
    assert run.told("advice") == [day, "worth a try: random_page_cost = 8.0", day]
    assert not run.store.trials()
    run.orchestrator.end()


def better_where_it_was_promoted(run: Shifting, offered: Mapping[int, str]) -> list[bool]:
    """Of each accepted promotion, whether it truly is better in the workload of that moment."""
    found, config = [], SPACE.default_config()
    for version in run.store.policy_versions():
        former, config = config, SPACE.default_config().replace(version.config)
        if version.trial_id is not None:
            by_day = offered[version.trial_id] == "day"
            index = run.model.index_by_day if by_day else run.model.index_by_night
            found.append(index(config) < index(former))
    return found


@pytest.mark.slow
def test_the_agent_answers_a_workload_that_comes_back_within_one_trial(tmp_path: Path) -> None:
    run = Shifting(tmp_path, scripted=False)
    offered: dict[int, str] = {}

    def live_through(workload: str, number: int, trials: int) -> list[TrialRecord]:
        """Offer it until so many trials that began in it are over; those trials.

        Rechecks of what the other workload's promotions left do not count.
        """
        run.clients.offer(workload)
        run.go(600, until=lambda: run.number() == number)
        begun = len(run.store.trials())

        def new() -> list[TrialRecord]:
            return [t for t in run.store.trials()[begun:] if t.kind is not TrialKind.RECHECK]

        run.go(3600, until=lambda: run.loop.trial is None and len(new()) >= trials)
        offered.update({trial.id: workload for trial in new() if trial.id is not None})
        return new()

    def best_by(workload: str, index: Callable[[Mapping[str, KnobValue]], float]) -> float:
        """The exact index of the best configuration that was promoted in a workload.

        Noise may make another one look better by a few percent.
        """
        return min(
            index(version.config)
            for version in run.store.policy_versions()
            if version.trial_id is not None and offered[version.trial_id] == workload
        )

    for trials in (live_through("day", 1, 14), live_through("night", 2, 14)):
        told = [trial for trial in trials if trial.verdict in (Verdict.ACCEPT, Verdict.REJECT)]
        assert len(told) >= 8
    by_day, by_night = run.model.index_by_day, run.model.index_by_night
    standing = dict(run.target.effective_config)
    assert by_day(standing) > 1.2 * best_by("day", by_day)  # the night's answer is not the day's

    (first,) = live_through("day", 1, 1)
    tried = next(w for w in run.store.windows(trial_id=first.id) if w.arm is Arm.CANDIDATE)
    assert by_day(tried.config) < 1.1 * best_by("day", by_day)
    live_through("day", 1, 2)  # its promotion and its probation
    standing = dict(run.target.effective_config)
    assert by_day(standing) < 1.1 * best_by("day", by_day)

    (first,) = live_through("night", 2, 1)
    assert by_night({**standing, **first.after}) < 1.1 * best_by("night", by_night)
    assert len(run.loop.workloads.known) == 2
    assert all(better_where_it_was_promoted(run, offered))
    run.orchestrator.end()
