"""The benchmark of single knobs: what is replayed, and how replays are compared."""

from __future__ import annotations

import pytest

from backend.catalog import load_catalog
from backend.domain.server import HostFacts
from backend.workload.mixes import mix_named
from backend.workload.schedule import ArrivalSchedule
from backend.workload.shape import StoreShape
from backend.workload.statements import STATEMENTS
from benchmarks import workload_knobs

GIB = 1024**3


def test_the_same_arrivals_are_replayed_and_nothing_is_written() -> None:
    schedule = ArrivalSchedule(mix_named("mixed"), seed=1, shape=StoreShape.at_scale(0.05))
    grouped = workload_knobs.arrivals_by_class(schedule, 120)
    assert sum(map(len, grouped.values())) == 120
    assert all(STATEMENTS[name].kind != "write" for name in grouped)
    assert all(a.class_name == name for name, found in grouped.items() for a in found)
    assert grouped == workload_knobs.arrivals_by_class(schedule, 120)


def test_every_setting_may_be_set_for_a_session() -> None:
    catalog = load_catalog(17, HostFacts(8 * GIB, 2))
    for arm in workload_knobs.ARMS:
        for name, value in arm.items():
            assert catalog.knob(name).knob.context == "session"
            if name != "work_mem":  # its bound depends on the machine
                catalog.check(name, value)


def test_replays_are_compared_round_by_round() -> None:
    defaults = [{"report": 2.0, "page": 0.1}, {"report": 4.0, "page": 0.2}]
    here = [{"report": 1.0, "page": 0.05}, {"report": 2.0, "page": 0.1}]
    found = workload_knobs.outcome(
        {"work_mem": "32MB"}, here, defaults, {"report": 10, "page": 100}
    )
    assert found.name == "work_mem 32MB"
    assert found.ratio.value == pytest.approx(0.5)
    assert (found.ratio.low, found.ratio.high) == (pytest.approx(0.5), pytest.approx(0.5))
    assert found.ms_per_statement == pytest.approx(1000 * 1.575 / 110)
    assert found.changed[0] == ("report", pytest.approx(300.0), pytest.approx(150.0))


def test_the_defaults_have_a_name() -> None:
    assert workload_knobs.name_of({}) == workload_knobs.DEFAULTS
