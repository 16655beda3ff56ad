"""The rules of a trial in the live comparison, and of the tuner that asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.domain.clock import ManualClock
from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue
from backend.domain.server import HostFacts
from backend.errors import KnobBoundsError
from backend.memory_budget import MemoryBudget
from benchmarks.harness.offers import LoadCounts
from benchmarks.harness.windows import Measured
from benchmarks.live import tuning
from benchmarks.live.records import Part, Results
from benchmarks.live.tuning import CENSORED_FROM, MethodRun, Outcome, best_measured, judge
from tests.live_comparison import GIB, PROTOCOL, SHARES, measured


def test_a_trial_is_judged_against_the_defaults_around_it() -> None:
    found = judge(measured(8.0), [measured(10.0), measured(14.0)], SHARES, 0, "")
    assert found.objective == pytest.approx(8.0 / 12.0)
    assert not found.censored
    assert found.quality == pytest.approx(1.0)
    assert found.coverage == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("candidate", "timeouts", "crash", "objective", "reason"),
    [
        (None, 0, "gone", CENSORED_FROM, "gone"),
        (measured(5.0), 2, "", CENSORED_FROM, "2 statements timed out"),
        (measured(30.0), 2, "", 3.0, "2 statements timed out"),
        (measured(5.0, calls=2), 0, "", CENSORED_FROM, "no statement came back"),
    ],
)
def test_a_crash_or_a_time_out_leaves_a_bound(
    candidate: Measured | None, timeouts: int, crash: str, objective: float, reason: str
) -> None:
    found = judge(candidate, [measured(10.0)], SHARES, timeouts, crash)
    assert found.censored
    assert found.objective == pytest.approx(objective)
    assert reason in found.reason


def test_a_pile_of_arrivals_is_the_configurations_fault_and_no_swing_of_the_load() -> None:
    slow = measured(40.0, calls=30)
    assert slow.quality(SHARES, measured(10.0)).value < 0.3
    piled = replace(slow, after=LoadCounts(backlog=True))
    assert piled.quality(SHARES, measured(10.0)).value == pytest.approx(1.0)


def test_the_final_configuration_is_the_best_by_its_own_measurements() -> None:
    defaults, a, b, c = (KnobConfig({"work_mem": value}) for value in (4, 5, 6, 7))
    tried = [
        (a, Outcome(0.7, 1, 1, False)),
        (a, Outcome(0.9, 1, 1, False)),
        (b, Outcome(0.78, 1, 1, False)),
        (c, Outcome(0.2, 1, 1, False)),
        (c, Outcome(1.15, 1, 1, True)),
        (defaults, Outcome(0.5, 1, 1, False)),
    ]
    assert best_measured(tried, defaults) == (b, pytest.approx(0.78))


def test_without_anything_better_the_defaults_stay() -> None:
    defaults, a = KnobConfig({"work_mem": 4}), KnobConfig({"work_mem": 5})
    assert best_measured([(a, Outcome(1.02, 1, 1, False))], defaults) == (defaults, 1.0)
    assert best_measured([], defaults) == (defaults, 1.0)


SPACE = KnobSpace(
    [
        Knob("work_mem", "integer", 64, 2097151, "log", "kB", 4096),
        Knob("jit", "boolean", default=True),
    ]
)


def fake_live(memory_limit_gb: float = 2.0) -> Any:
    """The parts of a LiveServer that the rules look at."""
    budget = MemoryBudget(HostFacts(8 * GIB, 2.0), 8, memory_limit_gb)
    return SimpleNamespace(
        space=SPACE,
        defaults=SPACE.default_config(),
        standing=SPACE.default_config(),
        budget=budget,
        workload=SimpleNamespace(name="mixed"),
        violations=[],
        durability=[],
        forget=lambda: None,
    )


def test_a_proposal_over_the_budget_is_shrunk_and_counted() -> None:
    live = fake_live()
    wild = tuning.fit(live, {"work_mem": 2_000_000})
    assert wild.clamped
    live.budget.check(wild.config)
    assert wild.config["jit"] is True  # completed with the defaults
    assert not tuning.fit(live, {"work_mem": 8192}).clamped


class FakeTuner:
    """Asks for what it is given, remembers what it is told."""

    def __init__(self, proposals: list[Mapping[str, KnobValue]]) -> None:
        self._proposals = iter(proposals)
        self.told: list[tuple[Mapping[str, KnobValue], float, bool]] = []

    def ask(self, state: NDArray[np.float64] | None = None) -> KnobConfig:
        return KnobConfig(next(self._proposals))

    def tell(
        self,
        config: Mapping[str, KnobValue],
        objective: float,
        state: NDArray[np.float64] | None = None,
        quality: float = 1.0,
        censored: bool = False,
    ) -> None:
        self.told.append((config, objective, censored))


class FakeStage:
    """Answers with the objective of work_mem / 10000, or else as told; a trial takes 20 s."""

    def __init__(self, clock: ManualClock, told: Iterator[float]) -> None:
        self._clock, self._told = clock, told
        self.defaults = measured(10.0)
        self.overrun = False

    def try_out(self, config: KnobConfig) -> Outcome:
        self._clock.advance(20.0)
        index = next(self._told, float(config["work_mem"]) / 10_000)
        return Outcome(index, 0.9, 1.0, False)


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    clock = ManualClock()
    monkeypatch.setattr(tuning, "time", SimpleNamespace(monotonic=clock.monotonic_s))

    @contextmanager
    def fake_stage(*_: Any) -> Iterator[FakeStage]:
        yield FakeStage(clock, iter(told))

    monkeypatch.setattr(tuning, "stage", fake_stage)
    results = Results(tmp_path / "results.jsonl")
    told: list[float] = []

    def run(
        tuner: FakeTuner,
        minutes: float = 1.0,
        name: str = "random",
        indexes: Sequence[float] = (),
    ) -> tuple[Part, Results]:
        told.extend(indexes)
        protocol = replace(PROTOCOL, minutes=minutes)
        method = MethodRun(fake_live(), name, 1, protocol, results, lambda _: None)
        done = method.tuned(tuner)
        method.finish(done)
        return done, Results(results.path)

    return run


def test_a_tuner_is_told_the_defaults_first_and_ends_with_its_time(tuned: Any) -> None:
    tuner = FakeTuner([{"work_mem": 9000}, {"work_mem": 12_000}, {"work_mem": 5000}])
    done, written = tuned(tuner)
    # Trials of 20 s in 60 s: the third begins at 40 s, when less than two windows are left.
    assert tuner.told[0] == (SPACE.default_config(), 1.0, False)
    assert [objective for _, objective, _ in tuner.told[1:]] == [0.9, 1.2]
    assert [e.harmful for e in done.evaluations] == [False, True]
    assert [e.regret for e in done.evaluations] == pytest.approx([0.0, 0.3])
    assert done.final == {"work_mem": 9000}
    assert written.parts[done.key] == done


def test_the_tuner_learns_what_was_tried_not_what_it_asked(tuned: Any) -> None:
    tuner = FakeTuner([{"work_mem": 2_000_000, "jit": False}] * 3)
    done, _ = tuned(tuner)
    config, _, _ = tuner.told[1]
    assert config["work_mem"] < 2_000_000
    assert config["jit"] is False
    assert done.clamped == 2
    assert all(e.clamped for e in done.evaluations)


LUCKY = (0.2, 0.6, 0.7, *[1.2] * 8)
"""What the first eleven trials of five minutes measure."""
PROPOSALS = [{"work_mem": 5000 + number} for number in range(14)]


@pytest.mark.parametrize("name", ["ours", "ours-warm"])
def test_ours_measures_its_best_again_and_leaves_no_lucky_one_behind(tuned: Any, name: str) -> None:
    tuner = FakeTuner(PROPOSALS)
    done, written = tuned(tuner, 5.0, name, (*LUCKY, 0.9, 0.65, 0.7))
    assert done.final == {"work_mem": 5001}
    assert done.final_objective == pytest.approx(0.65)  # the new measurement alone
    assert [e.again for e in done.evaluations] == [False] * 11 + [True] * 3
    assert [e.changes["work_mem"] for e in done.evaluations[-3:]] == [5000, 5001, 5002]
    assert [e.number for e in done.evaluations] == list(range(1, 15))
    assert len(tuner.told) == 12  # the defaults and what was asked
    assert written.parts[done.key] == done


def test_ours_leaves_the_defaults_where_nothing_is_confirmed(tuned: Any) -> None:
    done, _ = tuned(FakeTuner(PROPOSALS), 5.0, "ours", (*LUCKY, 1.1, 1.2, 1.0))
    assert done.final == {}


def test_a_peer_asks_to_the_end_and_keeps_its_lowest(tuned: Any) -> None:
    done, _ = tuned(FakeTuner(PROPOSALS), 5.0, "random", (*LUCKY, 1.1, 1.2, 1.3))
    assert done.final == {"work_mem": 5000}
    assert not any(e.again for e in done.evaluations)
    assert len(done.evaluations) == 14


def test_a_tuner_that_asks_nothing_but_nonsense_is_given_up(tuned: Any) -> None:
    done, _ = tuned(FakeTuner([{"work_mem": -5}] * 1000))
    assert done.refused == tuning.MAX_REFUSED
    assert not done.evaluations
    assert done.final == {}


def test_a_proposal_out_of_bounds_is_no_configuration() -> None:
    with pytest.raises(KnobBoundsError):
        tuning.fit(fake_live(), {"work_mem": 1})
