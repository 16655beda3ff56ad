"""What the pages say of a server that is only looked at, and where a plan has to come first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.domain.modes import Mode
from dashboard.overview_tiles import tiles
from dashboard.pages.safety import state
from dashboard.trial_table import trial_table
from tests.dashboard.fake_store import FakeStore
from tests.dashboard.parts import text_of, view


@pytest.fixture
def foreign(store: FakeStore) -> FakeStore:
    """A server of somebody's own before its first trial: no clients of ours, no trials."""
    store._trials, store._intervals = [], []
    set_mode(store, Mode.OBSERVE, workload="")
    return store


def set_mode(store: FakeStore, mode: Mode, **fields: object) -> None:
    assert store._status is not None
    store._status = replace(store._status, mode=mode, **fields)


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.ADVISE])
def test_where_nothing_is_tried_no_trial_is_announced(foreign: FakeStore, mode: Mode) -> None:
    set_mode(foreign, mode)
    assert f"In mode {mode.value} nothing is tried" in text_of(trial_table(view(foreign)))
    assert "In this mode nothing is tried" in text_of(state(view(foreign)))


def test_trials_wait_for_a_plan_in_approve_and_for_the_baseline_in_auto(foreign: FakeStore) -> None:
    set_mode(foreign, Mode.APPROVE)
    assert "approved an experiment plan" in text_of(trial_table(view(foreign)))
    set_mode(foreign, Mode.AUTO)
    assert "when the baseline is measured" in text_of(trial_table(view(foreign)))
    assert "nothing is tried" not in text_of(state(view(foreign)))


def test_a_percentile_that_a_server_does_not_tell_is_said_to_be(foreign: FakeStore) -> None:
    assert "not told by a server" in text_of(tiles(view(foreign), foreign._windows, []))


def test_a_freeze_and_a_pause_hold_trials_up(foreign: FakeStore) -> None:
    set_mode(foreign, Mode.APPROVE)
    assert '"nothing"' in text_of(state(view(foreign)))
    set_mode(foreign, Mode.APPROVE, paused=True)
    assert "the pause" in text_of(state(view(foreign)))
    set_mode(foreign, Mode.APPROVE, frozen=True)
    assert "the freeze" in text_of(state(view(foreign)))
