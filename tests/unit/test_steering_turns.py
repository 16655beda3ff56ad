"""Turns: the explorer keeps to its share, and never overlaps with a trial."""

from __future__ import annotations

import threading

import pytest

from backend.domain.clock import ManualClock
from backend.steering.turns import MAX_SAVED_S, MAX_TURN_S, MIN_TURN_S, ExplorationTurns


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def turns(clock: ManualClock) -> ExplorationTurns:
    return ExplorationTurns(0.2, clock)


def may_begin(turns: ExplorationTurns, *, running: bool = False) -> bool:
    """Let the tuner act; whether a trial may begin. ``running``: one runs afterwards."""
    told: list[bool] = []

    def tick(may: bool) -> bool:
        told.append(may)
        return running

    turns.advance_tuner(tick)
    return told[0]


def test_a_turn_begins_when_enough_was_saved(clock: ManualClock, turns: ExplorationTurns) -> None:
    assert not turns.claim()
    clock.advance(MIN_TURN_S / 0.2 - 1)
    assert not turns.claim()
    assert may_begin(turns)
    clock.advance(2)
    assert turns.claim()
    assert turns.exploring
    assert not may_begin(turns)


def test_no_turn_begins_while_a_trial_runs(clock: ManualClock, turns: ExplorationTurns) -> None:
    may_begin(turns, running=True)
    clock.advance(1000)
    assert not turns.claim()
    may_begin(turns)
    assert turns.claim()


def test_who_has_saved_enough_comes_next(clock: ManualClock, turns: ExplorationTurns) -> None:
    """The tuner looks more often than the explorer: it must not begin trial after trial."""
    may_begin(turns, running=True)
    clock.advance(1000)
    assert not turns.claim()
    assert not may_begin(turns)  # the trial is over; the next one has to wait
    assert turns.claim()
    turns.end()
    assert may_begin(turns)


def test_a_turn_that_was_asked_for_and_not_taken_is_over(
    clock: ManualClock, turns: ExplorationTurns
) -> None:
    may_begin(turns, running=True)
    clock.advance(1000)
    turns.claim()
    turns.end()
    assert not may_begin(turns)
    clock.advance(6)  # the explorer's thread hangs
    assert may_begin(turns)


def test_a_turn_ends_with_the_savings(clock: ManualClock, turns: ExplorationTurns) -> None:
    clock.advance(MIN_TURN_S / 0.2)
    assert turns.claim()
    turns.spend(MIN_TURN_S + 4)
    clock.advance(4)
    assert not turns.claim()
    turns.end()
    # What went beyond them is owed: 3.2 s of the 4 are left, and another turn has to be saved up.
    clock.advance((MIN_TURN_S + 3) / 0.2)
    assert not turns.claim()
    clock.advance(2)
    assert turns.claim()


def test_a_turn_is_no_longer_than_a_bound(clock: ManualClock, turns: ExplorationTurns) -> None:
    clock.advance(MAX_SAVED_S / 0.2)
    assert turns.claim()
    clock.advance(MAX_TURN_S)
    assert not turns.claim()
    assert turns.exploring  # until it is ended: what follows the last statement belongs to it
    turns.end()
    assert not turns.exploring


def test_savings_have_a_bound(clock: ManualClock, turns: ExplorationTurns) -> None:
    clock.advance(1e6)
    assert turns.claim()
    turns.spend(MAX_SAVED_S)
    assert not turns.claim()


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_over_a_long_time_the_share_is_kept(clock: ManualClock, share: float) -> None:
    turns, spent_s = ExplorationTurns(share, clock), 0.0
    for step in range(20_000):
        may_begin(turns, running=step % 400 < 100)  # a trial every now and then
        if turns.claim():
            clock.advance(0.7)
            turns.spend(0.7)
            spent_s += 0.7
        else:
            turns.end()
        clock.advance(0.3)
    assert 0.8 * share < spent_s / clock.monotonic_s() <= share


def test_windows_are_told_of_statements_tried_meanwhile(
    clock: ManualClock, turns: ExplorationTurns
) -> None:
    assert not turns.disturbed_since_asked()
    clock.advance(1000)
    turns.claim()
    assert turns.disturbed_since_asked()
    assert turns.disturbed_since_asked()  # the turn goes on
    turns.end()
    assert turns.disturbed_since_asked()
    assert not turns.disturbed_since_asked()


def test_trial_and_turn_never_overlap_between_threads() -> None:
    """The clock stands still at a rich moment; both sides try as often as they can."""
    clock = ManualClock()
    turns = ExplorationTurns(1.0, clock)
    state = {"trial": False, "statement": False}
    clashes: list[str] = []
    done = threading.Event()

    def tick(may: bool) -> bool:
        if state["trial"] or may:
            state["trial"] = True
            if state["statement"]:
                clashes.append("a trial began while a statement ran")
            state["trial"] = len(clashes) > 0
        return state["trial"]

    def explorer() -> None:
        for _ in range(3000):
            clock.advance(10)
            if turns.claim():
                state["statement"] = True
                if state["trial"]:
                    clashes.append("a statement ran in a trial")
                state["statement"] = False
                turns.end()
        done.set()

    thread = threading.Thread(target=explorer)
    thread.start()
    while not done.is_set():
        turns.advance_tuner(tick)
    thread.join()
    assert clashes == []


def test_work_waits_for_the_trial_and_holds_up_what_comes_next(
    clock: ManualClock, turns: ExplorationTurns
) -> None:
    may_begin(turns, running=True)
    assert not turns.begin_work()
    assert not may_begin(turns)  # that trial is over; the next one has to wait for the work
    assert turns.begin_work()
    clock.advance(1000)
    assert not may_begin(turns)
    assert not turns.claim()
    turns.end_work()
    assert may_begin(turns)
    assert turns.claim()


def test_work_waits_for_the_end_of_a_turn(clock: ManualClock, turns: ExplorationTurns) -> None:
    clock.advance(1000)
    assert turns.claim()
    assert not turns.begin_work()
    turns.end()
    assert not may_begin(turns)
    assert turns.begin_work()


def test_work_disturbs_what_is_measured(turns: ExplorationTurns) -> None:
    assert not turns.disturbed_since_asked()
    assert turns.begin_work()
    assert turns.disturbed_since_asked()
    assert turns.disturbed_since_asked()
    turns.end_work()
    assert turns.disturbed_since_asked()
    assert not turns.disturbed_since_asked()
