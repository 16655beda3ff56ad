"""Clients who turn to other work for a while: nothing else of what they offer moves."""

from __future__ import annotations

from itertools import islice, takewhile

import pytest

from backend.workload.mixes import MIXES
from backend.workload.runner import Shift, WorkloadSettings
from backend.workload.schedule import Arrival

SETTINGS = WorkloadSettings(mix="mixed", seed=5, time_scale=100.0, scale=0.01)


def arrivals(settings: WorkloadSettings, until_s: float) -> list[Arrival]:
    return list(takewhile(lambda a: a.offset_s < until_s, settings.arrivals()))


def shifted(from_s: float, until_s: float, **changes: object) -> WorkloadSettings:
    shift = Shift("analytical", from_s, until_s)
    return WorkloadSettings(**{**vars(SETTINGS), **changes, "shift": shift})


def test_outside_the_shift_arrivals_are_those_without_one() -> None:
    plain, turned = arrivals(SETTINGS, 120.0), arrivals(shifted(30.0, 60.0), 120.0)

    def outside(some: list[Arrival]) -> list[Arrival]:
        return [a for a in some if not 30.0 <= a.offset_s < 60.0]

    assert outside(turned) == outside(plain)


def test_inside_only_the_other_mix_is_offered_at_its_own_rate() -> None:
    turned = arrivals(shifted(30.0, 60.0, queries_per_hour=100.0), 60.0)
    inside = [a for a in turned if a.offset_s >= 30.0]
    assert {a.class_name for a in inside} <= set(MIXES["analytical"].day)
    usual_rate_per_s = MIXES["analytical"].default_rate_per_s
    assert len(inside) == pytest.approx(30.0 * usual_rate_per_s, rel=0.4)


def test_weights_of_the_usual_mix_do_not_hold_in_the_shift() -> None:
    turned = shifted(0.0, 10.0, query_distribution={"product_by_id": 50.0})
    assert "product_by_id" not in {a.class_name for a in arrivals(turned, 10.0)}


def test_arrivals_are_in_the_order_of_time_and_the_same_each_time() -> None:
    settings = shifted(10.0, 20.0)
    first = list(islice(settings.arrivals(), 2000))
    assert first == list(islice(settings.arrivals(), 2000))
    offsets = [a.offset_s for a in first]
    assert offsets == sorted(offsets)


def test_a_shift_that_is_over_before_the_start_changes_nothing() -> None:
    assert arrivals(shifted(-30.0, -10.0), 20.0) == arrivals(SETTINGS, 20.0)
