"""Settings that are refused, with the key and the bound."""

from __future__ import annotations

from typing import get_args

import pytest

from backend.config import Settings
from backend.domain.workload import PARAMETER_LIMITS, STATEMENT_CLASSES
from backend.errors import ConfigError
from backend.settings.workload import WorkloadSection
from backend.workload.mixes import MIXES
from backend.workload.runner import WorkloadSettings
from backend.workload.scope import PARAMETER_RANGES
from backend.workload.statements import STATEMENTS
from tests.settings_texts import loader


@pytest.fixture
def load(tmp_path, monkeypatch):
    return loader(tmp_path, monkeypatch)


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("safety: {query_timeout: 0}", ["safety.query_timeout", "greater than 0", "got 0"]),
        ("database: {port: 70000}", ["database.port", "65535", "got 70000"]),
        ("database: {max_connections: 2}", ["database.max_connections", "equal to 3", "got 2"]),
        ("dashboard: {port: web}", ["dashboard.port", "valid integer", "got 'web'"]),
        ("mode: wild", ["mode", "'observe'", "'auto'", "got 'wild'"]),
        ("workload: {name: other}", ["workload.name", "'oltp'", "got 'other'"]),
        ("level0: {knob: {gamma: 1}}", ["level0.knob.gamma", "less than 1", "got 1"]),
        ("safety: {rollback_threshold: .inf}", ["safety.rollback_threshold", "finite", "got inf"]),
        ("level1: {max_settle_s: 0}", ["level1.max_settle_s", "equal to 2", "got 0"]),
        ("level1: {alpha: .nan}", ["level1.alpha", "finite", "got nan"]),
        ("level0: {knob: {hidden_layers: [8, 0]}}", ["level0.knob.hidden_layers.1", "got 0"]),
        ("level0: {knob: {hidden_layers: []}}", ["level0.knob.hidden_layers", "at least 1"]),
        ("level2: {bounds: {gamma: [0, .inf]}}", ["level2.bounds.gamma", "finite"]),
        (
            "level1: {min_blocks: 9, max_blocks: 4}",
            ["level1.max_blocks = 4", "level1.min_blocks = 9"],
        ),
    ],
)
def test_a_bad_value_is_named_with_its_key_and_bound(load, text, words):
    with pytest.raises(ConfigError) as raised:
        load(text)
    for word in (*words, "config.yaml.example"):
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [("saftey: {}", "saftey"), ("safety: {querry: 1}", "safety.querry"), ("7: 1", "7")],
)
def test_an_unknown_key_is_named(load, text, key):
    with pytest.raises(ConfigError, match=rf"\b{key}\b"):
        load(text)


def test_an_unknown_key_of_the_environment_is_named(load):
    with pytest.raises(ConfigError, match=r"safety\.querry"):
        load(env={"AUTOPILOT_SAFETY__QUERRY": "1"})


@pytest.mark.parametrize(
    "env",
    [
        {"AUTOPILOT_SAFETY": "x", "AUTOPILOT_SAFETY__QUERY_TIMEOUT": "1"},
        {"AUTOPILOT_MODE": "observe", "AUTOPILOT_MODE__X": "1"},
        {"AUTOPILOT_SAFETY": "x"},
        {"AUTOPILOT_SAFETY__": "x"},
        {"AUTOPILOT_LEVEL0__KNOB__HIDDEN_LAYERS": "[1, "},
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(load, env):
    with pytest.raises(ConfigError):
        load(env=env)


@pytest.mark.parametrize("key", ["mode", "level1"])
def test_settings_cannot_be_changed_later(key):
    with pytest.raises(ValueError, match="frozen"):
        setattr(Settings(), key, None)


# -- the demo's workload ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("query_distribution: {order_by_nid: 2}", ["order_by_nid", "order_by_id, customer_by"]),
        ("query_distribution: {order_by_id: -1}", ["order_by_id", "equal to 0", "-1"]),
        ("parameter_ranges: {rank: [0, 1]}", ["'rank'", "period_age_days, customer_rank"]),
        ("parameter_ranges: {product_rank: [0.5, 2]}", ["product_rank = (0.5, 2)", "(0, 1)"]),
        ("parameter_ranges: {product_rank: [0.5, 0.1]}", ["(0.5, 0.1)", "lower bound first"]),
    ],
)
def test_what_the_workload_would_refuse_is_refused_with_the_settings(load, text, words):
    with pytest.raises(ConfigError) as raised:
        load(f"workload: {{{text}}}")
    assert text.partition(":")[0] in raised.value.message
    for word in words:
        assert word in raised.value.message
    assert "[key]" not in raised.value.message
    assert "Value error" not in raised.value.message
    assert raised.value.remedy


def test_the_workload_knows_the_words_that_settings_may_use(load):
    assert tuple(STATEMENTS) == STATEMENT_CLASSES
    assert set(PARAMETER_RANGES) == set(PARAMETER_LIMITS)
    assert get_args(WorkloadSection.model_fields["name"].annotation) == tuple(MIXES)
    found = load(
        "workload: {query_distribution: {add_review: 0, order_by_id: 2.5}, "
        "parameter_ranges: {period_age_days: [30, 330]}}"
    ).workload
    assert found.query_distribution == {"add_review": 0.0, "order_by_id": 2.5}
    assert found.parameter_ranges == {"period_age_days": (30.0, 330.0)}
    schedule = WorkloadSettings.of(found, 1.0).schedule()
    assert "add_review" not in schedule.mix.day
    assert schedule.mix.day["order_by_id"] == 2.5
    assert schedule.scope.ranges == found.parameter_ranges
