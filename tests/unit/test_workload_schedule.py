"""The arrival schedule: frozen, endless, Poisson inside a slot, even across windows."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import WorkloadError
from backend.workload.mixes import MIXES, Mix, mix_named
from backend.workload.runner import WorkloadSettings
from backend.workload.schedule import ArrivalSchedule
from backend.workload.scope import Scope
from backend.workload.shape import StoreShape
from backend.workload.statements import KINDS, PARAMETER_DIMENSIONS, STATEMENTS

SHAPE = StoreShape.at_scale(0.01)
MIXED = MIXES["mixed"]


def schedule(**changes: object) -> ArrivalSchedule:
    arguments: dict[str, object] = {"seed": 3, "time_scale": 100.0, "shape": SHAPE} | changes
    mix = arguments.pop("mix", MIXED)
    return ArrivalSchedule(mix, **arguments)  # type: ignore[arg-type]


def test_same_seed_gives_the_same_arrivals_each_time_it_is_iterated() -> None:
    once = schedule()
    assert list(islice(once, 500)) == list(islice(once, 500)) == list(islice(schedule(), 500))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"mix": MIXES["oltp"]},
        {"queries_per_hour": 5000.0},
        {"time_scale": 50.0},
        {"shape": StoreShape.at_scale(0.02)},
    ],
)
def test_fingerprint_tells_schedules_apart(changes: dict[str, object]) -> None:
    assert schedule().fingerprint == schedule().fingerprint
    assert schedule(**changes).fingerprint != schedule().fingerprint


def test_rate_is_per_simulated_hour_and_its_mean_over_a_day_is_kept() -> None:
    fast = schedule(queries_per_hour=180.0)
    assert fast.rate_per_s == pytest.approx(5.0)
    assert fast.day_length_s == pytest.approx(864.0)
    assert fast.expected_until(864.0) == pytest.approx(5.0 * 864.0)
    arrivals = sum(1 for a in islice(fast, 5000) if a.offset_s < 864.0)
    assert arrivals == pytest.approx(5.0 * 864.0, abs=6)


def test_night_has_half_the_volume_of_the_day() -> None:
    fast = schedule()
    peak_s = 6 / 24 * 864  # it starts at 8, the peak is at 14
    assert fast.daylight_at(peak_s) == pytest.approx(1.0)
    assert fast.rate_at(peak_s + 432) == pytest.approx(fast.rate_at(peak_s) / 2)


@given(offset_s=st.floats(0, 5000), step_s=st.floats(0.001, 100))
def test_expected_arrivals_are_the_integral_of_the_rate(offset_s: float, step_s: float) -> None:
    fast = schedule()
    grown = fast.expected_until(offset_s + step_s) - fast.expected_until(offset_s)
    middle = fast.rate_at(offset_s + step_s / 2)
    assert grown > 0
    # The rate is a cosine of the day: Simpson's rule is exact enough over a part of it.
    simpson = (fast.rate_at(offset_s) + 4 * middle + fast.rate_at(offset_s + step_s)) / 6
    assert grown == pytest.approx(simpson * step_s, rel=1e-3)


def test_arrivals_are_in_order_and_irregular_like_a_poisson_process() -> None:
    offsets = [a.offset_s for a in islice(schedule(), 2000)]
    gaps = [b - a for a, b in pairwise(offsets)]
    assert min(gaps) >= 0
    mean = sum(gaps) / len(gaps)
    spread = math.sqrt(sum((g - mean) ** 2 for g in gaps) / len(gaps))
    # An exponential gap has spread = mean; a metronome would have none.
    assert 0.8 < spread / mean < 1.2


def test_adjacent_windows_are_asked_nearly_the_same() -> None:
    windows: dict[int, Counter[str]] = {}
    for arrival in islice(schedule(), 5000):
        windows.setdefault(int(arrival.offset_s // 10), Counter())[arrival.class_name] += 1
    complete = [windows[k] for k in range(max(windows))]
    for first, second in pairwise(complete):
        assert abs(sum(first.values()) - sum(second.values())) < 0.12 * sum(first.values())
        for name in MIXED.day:
            assert abs(first[name] - second[name]) <= 2 + 0.35 * first[name]


def test_the_mix_shifts_towards_reports_at_night() -> None:
    day, night = MIXED.shares(1.0), MIXED.shares(0.0)
    assert sum(day.values()) == pytest.approx(1.0)
    assert sum(night.values()) == pytest.approx(1.0)
    assert night["product_pairs"] > day["product_pairs"]
    assert night["product_by_id"] < day["product_by_id"]
    counts = Counter(
        a.class_name
        for a in islice(schedule(queries_per_hour=180.0), 5000)
        if 500 < a.offset_s < 780  # the hours around two at night
    )
    assert counts["daily_revenue"] / counts.total() > 1.08 * day["daily_revenue"]


@settings(max_examples=200)
@given(
    name=st.sampled_from(sorted(STATEMENTS)),
    point=st.tuples(*[st.floats(0, 1, exclude_max=True)] * PARAMETER_DIMENSIONS),
    scale=st.sampled_from([0.001, 0.02, 0.25, 3.0]),
)
def test_parameters_fit_the_statement_and_the_store(
    name: str, point: tuple[float, ...], scale: float
) -> None:
    shape = StoreShape.at_scale(scale)
    statement = STATEMENTS[name]
    parameters = statement.parameters(point, Scope(shape))
    assert statement.sql.replace("%%", "").count("%s") == len(parameters)
    bounds = {
        "product_by_id": shape.products,
        "customer_by_id": shape.customers,
        "order_by_id": shape.orders,
        "order_lines": shape.orders,
        "customer_orders": shape.customers,
        "bought_together": shape.products,
    }
    if name in bounds:
        assert 1 <= parameters[0] <= bounds[name]


def test_parameters_of_a_class_cover_its_range_evenly() -> None:
    categories = [
        a.parameters[0] for a in islice(schedule(), 4000) if a.class_name == "category_views"
    ][:100]
    assert len(set(categories)) > 75  # chance alone would reach 68 of the 120


def test_every_kind_and_every_class_is_used() -> None:
    assert {s.kind for s in STATEMENTS.values()} == set(KINDS)
    assert {STATEMENTS[name].kind for name in MIXED.day} == set(KINDS)
    assert {name for mix in MIXES.values() for name in mix.day} == set(STATEMENTS)
    assert {STATEMENTS[name].kind for name in MIXES["simple"].day} == {"simple"}


def test_mistakes_are_refused_with_the_value_and_the_remedy() -> None:
    with pytest.raises(WorkloadError, match=r"'nightly'[\s\S]*analytical, mixed, oltp, simple"):
        mix_named("nightly")
    with pytest.raises(WorkloadError, match="unknown statement classes: \\['nothing'\\]"):
        Mix("m", "", {"nothing": 1.0}, 1.0, {})
    with pytest.raises(WorkloadError, match="weights above 0"):
        Mix("m", "", {"product_by_id": 0.0}, 1.0, {})
    with pytest.raises(WorkloadError, match=r"swing 1\.5"):
        Mix("m", "", {"product_by_id": 1.0}, 1.0, {}, swing=1.5)
    with pytest.raises(WorkloadError, match="time scale 0"):
        schedule(time_scale=0)
    with pytest.raises(WorkloadError, match=r"queries per hour -1"):
        schedule(queries_per_hour=-1)
    with pytest.raises(WorkloadError, match=r"scale 0 is outside \[0.001, 100.0\]"):
        StoreShape.at_scale(0)


def test_weights_of_the_settings_replace_those_of_the_mix() -> None:
    settings = WorkloadSettings(
        mix="simple", query_distribution={"product_by_id": 0.0, "place_order": 7.0}
    )
    shares = settings.schedule().mix.shares(1.0)
    assert shares == pytest.approx(
        {"customer_by_id": 3 / 13, "order_by_id": 3 / 13, "place_order": 7 / 13}
    )
    with pytest.raises(WorkloadError, match="unknown statement classes"):
        WorkloadSettings(query_distribution={"nothing": 1.0}).schedule()


def test_ranges_of_the_settings_bound_the_parameters() -> None:
    settings = WorkloadSettings(
        mix="simple",
        scale=0.01,
        parameter_ranges={"customer_rank": (0.0, 0.001)},
        query_distribution={"product_by_id": 0.0, "order_by_id": 0.0},
    )
    asked = {a.parameters for a in islice(settings.schedule(), 200)}
    assert len(asked) <= 5  # the busiest thousandth of 4000 customers
    with pytest.raises(WorkloadError, match=r"no parameter range 'rank'"):
        WorkloadSettings(parameter_ranges={"rank": (0, 1)}).schedule()
    with pytest.raises(WorkloadError, match=r"customer_rank = \(0\.5, 2\) is not inside"):
        WorkloadSettings(parameter_ranges={"customer_rank": (0.5, 2)}).schedule()
