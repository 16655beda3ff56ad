"""The agents' state vector: fixed layout, finite whatever the readings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.catalog.metrics import postgresql_metrics
from backend.sample_filter import load_profile
from backend.state_features import FEATURES, STATE_WIDTH, state_vector
from tests.windows import window

NAMES = [feature.name for feature in FEATURES]
READINGS = ["connections_active", "host_cpu_percent", "waits_lock", "waits_io"]
RATES = ["blocks_hit", "blocks_read", "temp_bytes", "wal_bytes", "host_read_bytes"]


def _state(found):
    return dict(zip(NAMES, state_vector(found, load_profile(found)), strict=True))


def test_the_layout_is_the_list_of_features():
    vector = state_vector(window({}), load_profile(window({})))
    assert vector.shape == (STATE_WIDTH,) == (len(FEATURES),)
    assert vector.dtype == np.float64
    assert len(set(NAMES)) == len(NAMES)


def test_an_idle_server_is_a_zero_state_but_for_the_cache():
    state = _state(window({}))
    assert state.pop("cache_hit_ratio") == 1.0
    assert set(state.values()) == {0.0}


def test_readings_enter_where_they_belong():
    state = _state(
        window(
            {1: (50, 2.0), 2: (50, 4.0)},
            gauges={
                "connections_active": 3, "connections_idle": 2, "connections_waiting": 1,
                "host_cpu_percent": 70, "host_memory_percent": 30, "waits_lock": 4, "waits_io": 5,
            },
            rates={
                "blocks_hit": 90, "blocks_read": 10, "xact_commit": 9, "xact_rollback": 1,
                "tup_returned": 1000, "temp_bytes": 1e6, "wal_bytes": 1e5,
                "host_read_bytes": 600, "host_write_bytes": 400,
                "checkpoints_timed": 0.1, "checkpoints_requested": 0.2,
            },
        )
    )  # fmt: skip
    assert state["log_calls_per_s"] == pytest.approx(math.log1p(10))
    assert state["log_mean_ms"] == pytest.approx(math.log1p(3))
    assert state["mix_entropy"] == pytest.approx(math.log(2))
    assert (state["clients"], state["active_sessions"]) == (5, 3)
    assert (state["cpu_percent"], state["memory_percent"]) == (70, 30)
    assert state["log_io_bytes_per_s"] == pytest.approx(math.log1p(1000))
    assert state["checkpoints"] == pytest.approx(3)
    assert state["cache_hit_ratio"] == pytest.approx(0.9)
    assert state["log_temp_bytes_per_s"] == pytest.approx(math.log1p(1e6))
    assert (state["connections_waiting"], state["waits_lock"], state["waits_io"]) == (1, 4, 5)
    assert state["log_xact_rollback_per_s"] == pytest.approx(math.log1p(1))


def test_one_class_has_no_entropy_and_many_equal_ones_the_most():
    assert _state(window({1: (10, 1.0)}))["mix_entropy"] == 0
    many = _state(window(dict.fromkeys(range(8), (10, 1.0))))["mix_entropy"]
    assert many == pytest.approx(math.log(8))


@settings(deadline=None, max_examples=80)
@given(
    st.dictionaries(st.integers(0, 5), st.tuples(st.integers(0, 10**9), st.floats(0, 1e9))),
    st.dictionaries(st.sampled_from(READINGS), st.floats()),
    st.dictionaries(st.sampled_from(RATES), st.floats()),
)
def test_the_state_is_finite_whatever_the_readings(classes, gauges, rates):
    found = window(classes, gauges=gauges, rates=rates)
    vector = state_vector(found, load_profile(found))
    assert vector.shape == (STATE_WIDTH,)
    assert np.isfinite(vector).all()


def test_every_reading_is_in_the_catalogue():
    """A feature whose metric does not exist would be a constant zero."""
    seen: set[str] = set()

    class Watched(dict):
        def get(self, name, default=None):
            seen.add(name)
            return super().get(name, default)

    found = window({1: (10, 1.0)})
    for name in ("rates", "gauges"):
        object.__setattr__(found, name, Watched())
    state_vector(found, load_profile(found))
    catalogue = postgresql_metrics()
    assert len(seen) > 15
    assert seen <= set(catalogue.metrics) | set(catalogue.derived)
