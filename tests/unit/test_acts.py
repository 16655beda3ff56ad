"""The acts of a demonstration: when they come, and what is left of them after a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg2
import pytest
from sqlalchemy.engine import URL

from backend.demonstration import ACTS, GROWTH, SHIFT, SHIFTED_MIX, acts_of
from backend.domain.clock import ManualClock
from backend.domain.records import EventRecord
from backend.processes import acts
from backend.processes.acts import ClientActs
from backend.run_options import RunOptions
from backend.workload.mixes import MIXES
from tests.waiting import Passing

URL_OF_DEMO = URL.create("postgresql", host="127.0.0.1")
DURATION_S = 2 * 86400 / 100


class Told:
    """A store that keeps events."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def add_event(self, event: EventRecord) -> int:
        assert event.kind == "act"
        self.messages.append(event.message)
        return len(self.messages)


def played(
    monkeypatch: pytest.MonkeyPatch,
    *,
    past_s: float = 0.0,
    grow: Callable[..., None] = lambda *_: None,
    **changes: object,
) -> tuple[list[str], list[str], ClientActs]:
    """Messages, what was done to the store of the demo, and the acts, all played to the end."""
    clock, done, told = ManualClock(), [], Told()

    def growing(*arguments: object) -> None:
        done.append("grow")
        grow(*arguments)

    monkeypatch.setattr(acts, "grow", growing)
    monkeypatch.setattr(acts, "shrink", lambda _: done.append("shrink"))
    options = RunOptions(
        **{  # type: ignore[arg-type]
            "duration_days": 2.0,
            "fast_mode": True,
            "from_defaults": True,
            "begun_at": clock.now().timestamp() - past_s,
            **changes,
        }
    )
    client = ClientActs(options, URL_OF_DEMO, "mixed", 0.01, told, clock, Passing(clock))  # type: ignore[arg-type]
    client.start()
    for thread in threading.enumerate():
        if thread.name == "acts":
            thread.join(10.0)
    return told.messages, done, client


def test_short_and_endless_runs_are_left_in_peace() -> None:
    assert acts_of(1.0) == acts_of(None) == ()
    assert acts_of(2.0) == acts_of(14.0) == ACTS


def test_only_a_demonstration_has_acts() -> None:
    assert RunOptions(duration_days=14.0).acts == ()
    assert RunOptions(duration_days=14.0, from_defaults=True).acts == ACTS


def test_acts_follow_each_other_and_end_before_the_comparison() -> None:
    spans = [act.span_s(1.0) for act in ACTS]
    assert spans == sorted(spans)
    assert all(0.0 < begin <= end < 0.6 for begin, end in spans)


def test_each_mix_can_turn_to_another_one() -> None:
    assert set(SHIFTED_MIX) == set(MIXES)
    assert all(other in MIXES and other != mix for mix, other in SHIFTED_MIX.items())


def test_clients_turn_come_back_and_make_the_data_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    messages, done, client = played(monkeypatch)
    assert done == ["shrink", "grow"]
    assert [message.split()[0:2] for message in messages] == [
        ["clients", "turn"], ["clients", "are"], ["the", "data"], ["the", "data"],
    ]  # fmt: skip
    shift = next(act for act in ACTS if act.name == SHIFT)
    assert client.shift is not None
    assert (client.shift.from_s, client.shift.until_s) == pytest.approx(shift.span_s(DURATION_S))


def test_a_process_started_again_plays_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    growth = next(act for act in ACTS if act.name == GROWTH)
    past_s = growth.span_s(DURATION_S)[0] - 1.0
    messages, done, client = played(monkeypatch, past_s=past_s)
    assert done == ["shrink", "grow"]
    assert len(messages) == 2
    assert client.shift is not None
    assert client.shift.until_s < 0.0


def test_what_has_grown_stays_when_the_process_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert played(monkeypatch, past_s=0.9 * DURATION_S)[:2] == ([], [])


def test_a_short_run_plays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    messages, done, client = played(monkeypatch, duration_days=1.0)
    assert (messages, done, client.shift) == ([], [], None)


def test_a_failed_growth_is_told_and_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise psycopg2.OperationalError("disk full")

    messages, _, _ = played(monkeypatch, grow=fail)
    assert "disk full" in caplog.text
    assert len(messages) == 3
