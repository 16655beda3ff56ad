"""The generator where there is no server: what it cannot do ends the run, with the cause."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from backend.errors import WorkloadError
from backend.workload.generator import WorkloadGenerator
from backend.workload.mixes import mix_named
from backend.workload.runner import WorkloadSettings, run_workload
from backend.workload.schedule import ArrivalSchedule
from backend.workload.shape import StoreShape

IMPOSSIBLE = make_url("postgresql://u@127.0.0.1:1/shop?no_such_option=1")
UNREACHABLE = make_url("postgresql://u@127.0.0.1:1/shop")


def schedule() -> ArrivalSchedule:
    return ArrivalSchedule(mix_named("simple"), seed=1, shape=StoreShape.at_scale(0.01))


def test_an_address_that_can_never_work_ends_the_run_with_the_cause() -> None:
    settings = WorkloadSettings(mix="simple", scale=0.01, max_concurrency=2, interval_s=0.05)
    with pytest.raises(WorkloadError, match="stopped by itself") as caught:
        run_workload(IMPOSSIBLE, settings, threading.Event())
    assert isinstance(caught.value.__cause__, ProgrammingError)


def test_a_server_that_is_away_is_waited_for() -> None:
    generator = WorkloadGenerator(UNREACHABLE, schedule(), max_concurrency=1)
    generator.start()
    try:
        assert generator.running
        assert generator.failure is None
    finally:
        generator.stop()
    assert generator.failure is None
    assert not generator.running
