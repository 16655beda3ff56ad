"""The known workloads: a shift is noticed, a known one recognised, a new one measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from backend.config import Level1Section
from backend.domain.clock import ManualClock
from backend.domain.metrics import MetricsWindow
from backend.domain.records import KnownWorkloadRecord
from backend.workloads import MOST_KNOWN, Workloads
from tests.windows import START, key, window

NOTHING: dict[str, object] = {}
TUNED = {"work_mem": 8192}


class Store:
    def __init__(self) -> None:
        self.saved: Sequence[KnownWorkloadRecord] = ()

    def known_workloads(self) -> Sequence[KnownWorkloadRecord]:
        return self.saved

    def save_known_workloads(self, workloads: Sequence[KnownWorkloadRecord]) -> None:
        self.saved = tuple(workloads)


class Observed:
    """Workloads fed with windows of five seconds."""

    def __init__(self, store: Store | None = None, factor: float = 1.0) -> None:
        self.store = store or Store()
        self.entries = NOTHING
        level1 = Level1Section(baseline_s=30)
        self.all = Workloads(self.store, ManualClock(START), level1, factor)

    def see(self, what: MetricsWindow, times: int = 1) -> list[int]:
        """The numbers of the workloads that were shifted to."""
        shifts = [self.all.observe(what, self.entries) for _ in range(times)]
        return [shift.workload.number for shift in shifts if shift is not None]

    @property
    def number(self) -> int | None:
        return self.all.present.number if self.all.present else None


def offered(*numbers: int, slower: float = 1.0, calls: int = 40) -> MetricsWindow:
    """Five seconds in which these classes ran."""
    return window(dict.fromkeys(numbers, (calls, 5.0 * slower)), 5.0)


DAY, NIGHT = offered(1, 2, 3), offered(7, 8)


@pytest.fixture
def by_day() -> Observed:
    """Day and night are known; it is day."""
    seen = Observed()
    assert seen.see(DAY, 6) == [1]
    assert seen.see(NIGHT, 8) == [2]
    assert seen.see(DAY, 3) == [1]
    return seen


def test_the_first_baseline_goes_on_from_where_the_deployed_version_stands() -> None:
    seen = Observed(factor=0.8)
    assert seen.see(DAY, 5) == []
    assert (seen.all.present, seen.all.progress) == (None, pytest.approx(25 / 30))
    assert seen.see(DAY) == [1]
    assert seen.all.in_force.chain.factor == 0.8
    assert seen.all.in_force.standing == 0.8
    assert seen.all.ready
    assert seen.all.progress is None
    # Another workload was never measured before: its index begins at 1.
    seen.see(NIGHT, 8)
    assert (seen.number, seen.all.in_force.chain.factor) == (2, 1.0)


def test_while_the_load_is_another_one_nothing_may_be_tried() -> None:
    seen = Observed()
    seen.see(DAY, 6)
    ready = []
    for _ in range(8):
        seen.see(NIGHT)
        ready.append(seen.all.ready)
    # Three windows make a moment; the day's last ones still count as long as they are in it.
    assert ready == [True, *[False] * 6, True]
    assert seen.number == 2


def test_the_window_in_which_the_load_moves_belongs_to_no_baseline() -> None:
    seen = Observed()
    seen.see(DAY, 6)
    seen.see(offered(1, 7, 8))
    seen.see(NIGHT, 9)
    assert seen.number == 2
    assert set(seen.all.in_force.chain.reference.per_class) == {key(7), key(8)}


def test_a_known_workload_is_recognised_after_a_moment(by_day: Observed) -> None:
    assert by_day.see(NIGHT, 2) == []
    assert by_day.see(NIGHT) == [2]
    assert by_day.all.ready
    assert [w.number for w in by_day.all.known] == [1, 2]


def test_it_is_recognised_by_what_it_has_most_in_common_with() -> None:
    seen = Observed()
    seen.see(offered(1, 2, 3, 4), 6)
    seen.see(offered(7, 8, 9), 8)
    seen.see(offered(21, 22), 8)
    assert seen.number == 3
    assert seen.see(offered(1, 2, 3, 8), 3) == [1]
    seen.see(offered(21, 22), 3)
    assert seen.see(offered(3, 7, 8, 9), 3) == [2]


def test_an_idle_window_says_nothing(by_day: Observed) -> None:
    assert by_day.see(window({}, 5.0), 50) == []
    assert by_day.all.ready


def test_a_few_statements_say_nothing_yet(by_day: Observed) -> None:
    few = offered(7, calls=5)
    assert by_day.see(few, 9) == []
    assert by_day.see(few) == []
    assert by_day.number == 1
    assert by_day.see(offered(7, 8, calls=5), 10) == [2]


def test_a_class_that_rests_for_a_window_is_no_shift(by_day: Observed) -> None:
    for _ in range(5):
        assert by_day.see(offered(1)) == []
        assert by_day.see(offered(2, 3)) == []
    assert (by_day.number, by_day.all.away) == (1, False)


def test_a_load_of_which_the_reference_knows_little_is_left(by_day: Observed) -> None:
    """All classes of the day run on, in a third of the time."""
    busy = window({1: (40, 5.0), 2: (40, 5.0), 3: (40, 5.0), 9: (40, 30.0)}, 5.0)
    assert by_day.see(busy, 8) == [3]
    # Less than the rest of the time: it stays.
    seen = Observed()
    seen.see(DAY, 6)
    assert seen.see(window({1: (40, 5.0), 2: (40, 5.0), 3: (40, 5.0), 9: (40, 5.0)}, 5.0), 20) == []


def test_unsound_windows_tell_what_is_offered_and_make_no_baseline(by_day: Observed) -> None:
    strange = offered(31, 32)
    for _ in range(30):
        assert by_day.all.observe(strange, NOTHING, sound=False) is None
    assert by_day.all.away
    for _ in range(2):
        assert by_day.all.observe(NIGHT, NOTHING, sound=False) is None
    shift = by_day.all.observe(NIGHT, NOTHING, sound=False)
    assert shift is not None
    assert (shift.workload.number, shift.baseline) == (2, None)


def test_where_no_statement_comes_back_there_is_no_reference() -> None:
    seen = Observed()
    for start in range(100, 3000, 50):
        assert seen.see(offered(*range(start, start + 50), calls=1)) == []
    assert seen.all.present is None


def test_after_a_foreign_window_of_a_trial_nothing_is_tried_before_a_look(by_day: Observed) -> None:
    workloads = by_day.all
    workloads.forget_recent()
    workloads.saw_in_trial(NIGHT)
    assert not workloads.ready
    workloads.saw_in_trial(DAY)
    assert workloads.ready
    workloads.saw_in_trial(NIGHT)
    by_day.see(DAY, 2)
    assert not workloads.ready
    by_day.see(DAY)
    assert workloads.ready


def test_the_least_recently_seen_is_forgotten() -> None:
    seen = Observed()
    for number in range(1, MOST_KNOWN + 1):
        seen.see(offered(10 * number), 7)
    assert seen.see(offered(10), 3) == [1]
    seen.see(offered(1000), 7)
    numbers = [workload.number for workload in seen.all.known]
    assert numbers == [*range(3, MOST_KNOWN + 1), 1, MOST_KNOWN + 1]
    assert [record.number for record in seen.store.saved] == numbers
    for number in [*numbers[:-2], 1]:  # now the newest one is the next to go, and its number too
        seen.see(offered(10 * number), 3)
    assert seen.see(offered(2000), 7) == [MOST_KNOWN + 2]
    assert MOST_KNOWN + 1 not in [workload.number for workload in seen.all.known]


class TestWhatStands:
    def test_a_promotion_links_the_chain_of_its_workload_alone(self, by_day: Observed) -> None:
        workload = by_day.all.in_force
        chain = workload.linked(-0.5, [offered(1, 2, 3, slower=0.6)])
        assert chain.factor == pytest.approx(0.6065, abs=1e-4)
        by_day.all.promoted(chain, TUNED)
        assert by_day.all.in_force.standing == chain.factor
        by_day.entries = TUNED
        # By night it was never proven: it is measured against the night's reference.
        by_day.see(offered(7, 8, slower=1.5), 3)
        night = by_day.all.in_force
        assert (night.number, night.chain.factor) == (2, 1.0)
        assert night.standing == pytest.approx(1.5)
        # And what is proven there begins with what was measured.
        assert night.linked(-0.5, [NIGHT]).factor == pytest.approx(1.5 * 0.6065, abs=1e-4)
        by_day.see(DAY, 3)
        assert by_day.all.in_force.standing == chain.factor

    def test_a_change_by_hand_is_measured_before_anything_is_tried(self, by_day: Observed) -> None:
        by_day.entries = TUNED
        by_day.all.changed(TUNED)
        assert by_day.all.in_force.standing is None
        assert by_day.all.in_force.index_standing == 1.0
        assert not by_day.all.ready
        by_day.see(offered(1, 2, 3, slower=0.7), 3)
        assert by_day.all.in_force.standing == pytest.approx(0.7)
        assert by_day.all.in_force.chain.factor == 1.0
        assert by_day.all.ready
        by_day.all.changed(NOTHING)
        assert by_day.all.in_force.standing == 1.0

    def test_an_undone_promotion_leaves_no_trace(self, by_day: Observed) -> None:
        before = by_day.all.in_force
        by_day.all.promoted(before.linked(-0.5, [DAY]), TUNED)
        by_day.all.undone(before, NOTHING)
        assert by_day.all.in_force.chain == before.chain
        assert by_day.all.in_force.standing == 1.0
        assert by_day.store.saved[-1].factor == 1.0

    def test_undone_from_another_workload(self, by_day: Observed) -> None:
        before = by_day.all.in_force
        by_day.all.promoted(before.linked(-0.5, [DAY]), TUNED)
        by_day.entries = TUNED
        by_day.see(NIGHT, 3)
        by_day.all.undone(before, NOTHING)
        assert by_day.all.in_force.standing == 1.0  # what stood when it was measured stands again
        by_day.entries = NOTHING
        by_day.see(DAY, 3)
        assert by_day.all.in_force.chain == before.chain


class TestTheNextTuner:
    def test_measures_what_stands_and_recognises_it(self, by_day: Observed) -> None:
        by_day.all.promoted(by_day.all.in_force.linked(-0.5, [DAY]), TUNED)
        by_day.see(NIGHT, 3)
        second = Observed(by_day.store, factor=0.3)
        assert second.number is None
        second.entries = TUNED
        assert second.see(DAY, 5) == []  # a run begins with a baseline of its own
        assert second.see(DAY) == [1]
        known = second.all.in_force
        assert known.chain == by_day.all.known[0].chain
        assert known.noise == by_day.all.known[0].noise
        assert known.standing == known.chain.factor == pytest.approx(0.6065, abs=1e-4)

    @pytest.mark.parametrize(
        "damage",
        [
            {"factor": float("nan")},
            {"factor": 0.0},
            {"noise": -1.0},
            {"classes": {}},
            {"classes": {"no key": {"share": 1.0, "mean_ms": 1.0}}},
            {"classes": {str(key(1)): {"share": 1.0}}},
            {"classes": {str(key(1)): {"share": float("inf"), "mean_ms": 1.0}}},
        ],
    )
    def test_does_without_what_is_damaged(
        self, by_day: Observed, damage: dict[str, object]
    ) -> None:
        first, second = by_day.store.saved
        by_day.store.saved = (replace(first, **damage), second)  # type: ignore[arg-type]
        assert [w.number for w in Observed(by_day.store).all.known] == [second.number]
