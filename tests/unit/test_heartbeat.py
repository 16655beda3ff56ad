"""Signs of life: who is silent, and who was only not asked."""

from __future__ import annotations

import os

import pytest

from backend.domain.clock import ManualClock
from backend.heartbeat import BEAT_S, BEGINNING_S, HUNG_S, Heart, Pulse

LOOK_S = 0.2


class Life:
    """A process and its starter on one clock that is turned by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.pulse = Pulse(self.clock.monotonic_s)
        self.heart = Heart(os.dup(self.pulse.writing_end), 300.0, self.clock.monotonic_s)
        self.pulse.given()

    def pass_time(self, seconds: float, look_every_s: float = LOOK_S, beats: bool = False) -> bool:
        """Look all the while; whether it was ever found silent."""
        silent = False
        for _ in range(round(seconds / look_every_s)):
            self.clock.advance(look_every_s)
            if beats:
                self.heart.beat()
            silent = self.pulse.is_silent() or silent
        return silent


@pytest.fixture
def life():
    made = Life()
    yield made
    made.pulse.close()
    os.close(made.heart._descriptor)


def test_who_beats_is_not_silent(life: Life) -> None:
    assert not life.pass_time(60.0, BEAT_S, beats=True)


def test_who_stops_beating_is(life: Life) -> None:
    life.heart.beat()
    assert not life.pass_time(HUNG_S - 1)
    assert life.pass_time(2.0)
    life.heart.beat()
    assert not life.pulse.is_silent()


def test_the_first_beat_may_come_late(life: Life) -> None:
    assert not life.pass_time(BEGINNING_S - 1)
    assert life.pass_time(2.0)


def test_time_in_which_nobody_looked_does_not_count(life: Life) -> None:
    life.heart.beat()
    assert not life.pulse.is_silent()
    # A starter that comes to look every ten seconds says nothing about the process.
    assert not life.pass_time(100.0, look_every_s=10.0)


def test_work_that_does_not_go_on_stops_the_heart(life: Life) -> None:
    life.heart.beat()
    life.clock.advance(301.0)
    assert not life.pulse.is_silent()
    assert life.pass_time(HUNG_S + 1, beats=True)
    life.heart.turned()
    assert not life.pass_time(HUNG_S + 1, beats=True)


def test_a_full_pipe_and_a_starter_that_is_gone_hurt_nobody(life: Life) -> None:
    for _ in range(70_000):
        life.heart.beat()
    assert not life.pulse.is_silent()
    reading_end = life.pulse._reading_end
    life.pulse._reading_end = os.open(os.devnull, os.O_RDONLY)
    os.close(reading_end)
    life.heart.beat()
