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
from benchmarks.live import tuning
from benchmarks.live.outcomes import Outcome
from benchmarks.live.records import Part, Results
from benchmarks.live.tuning import MethodRun
from tests.live_comparison import GIB, PROTOCOL, measured

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

    def __init__(
        self, clock: ManualClock, told: Iterator[float], qualities: Iterator[float]
    ) -> None:
        self._clock, self._told, self._qualities = clock, told, qualities
        self.defaults = measured(10.0)
        self.overrun = False

    def try_out(self, config: KnobConfig) -> Outcome:
        self._clock.advance(20.0)
        index = next(self._told, float(config["work_mem"]) / 10_000)
        return Outcome(index, next(self._qualities, 1.0), 1.0, False)


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    clock = ManualClock()
    monkeypatch.setattr(tuning, "time", SimpleNamespace(monotonic=clock.monotonic_s))

    @contextmanager
    def fake_stage(*_: Any) -> Iterator[FakeStage]:
        yield FakeStage(clock, iter(told), iter(worth))

    monkeypatch.setattr(tuning, "stage", fake_stage)
    results = Results(tmp_path / "results.jsonl")
    told: list[float] = []
    worth: list[float] = []

    def run(
        tuner: FakeTuner,
        minutes: float = 1.0,
        name: str = "random",
        indexes: Sequence[float] = (),
        qualities: Sequence[float] = (),
    ) -> tuple[Part, Results]:
        told.extend(indexes)
        worth.extend(qualities)
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


def test_a_spoilt_window_makes_no_winner_of_ours(tuned: Any) -> None:
    spoilt = (0.3, *[1.0] * 10)
    done, _ = tuned(
        FakeTuner(PROPOSALS), 5.0, "ours", (*LUCKY, 0.3, 0.65, 0.66), (*spoilt, 0.3, 1.0, 1.0)
    )
    # An index of 0.2 that is worth 0.3 comes after 0.6; so does the new 0.3 after 0.65.
    again = [e.changes["work_mem"] for e in done.evaluations if e.again]
    assert again == [5001, 5000, 5002]
    assert done.final == {"work_mem": 5000}
    assert done.final_objective == pytest.approx(0.65)


def test_a_peers_lowest_is_its_own_however_spoilt(tuned: Any) -> None:
    done, _ = tuned(FakeTuner(PROPOSALS), 5.0, "random", LUCKY, (0.3, *[1.0] * 10))
    assert done.final == {"work_mem": 5000}


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
