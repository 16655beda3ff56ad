"""Records survive the way through rows and JSON."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain import experiment_plans, policies, records, steering
from backend.domain.modes import ChangeState, Mode, Phase
from backend.telemetry import schema
from backend.telemetry.codec import (
    dump_json,
    from_document,
    from_row,
    load_json,
    to_document,
    to_row,
)
from tests.contracts import records as full

RECORDS = [
    full.window(),
    full.INTERVAL,
    full.TRIAL,
    full.CHANGE,
    full.VERSION,
    full.EVENT,
    full.COMMAND,
    full.LEARNING,
    full.KNOB,
    full.STATUS,
    full.QUERY_CLASS,
    full.window().queries[0],
    full.STEERED_CLASS,
    replace(full.STEERED_CLASS, evidence=None),
    full.PLAN_RUN,
    full.SERVICE_TIMING,
    full.STEERING_STATUS,
    full.EXPERIMENT_PLAN,
    full.PROMOTION_THAT_WAITS,
    full.FREEZE,
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_document_is_read_back(record: Any) -> None:
    if isinstance(record, records.WindowRecord):
        record = replace(record, queries=())
    document = json.loads(dump_json(to_document(record)))
    assert from_document(type(record), document) == record


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (records.WindowRecord, schema.windows),
        (records.QueryWindowRecord, schema.window_queries),
        (records.QueryClassRecord, schema.query_classes),
        (records.ClientIntervalRecord, schema.client_intervals),
        (records.TrialRecord, schema.trials),
        (records.ChangeRecord, schema.changes),
        (experiment_plans.ExperimentPlanRecord, schema.experiment_plans),
        (experiment_plans.PromotionRecord, schema.promotions),
        (policies.PolicyVersionRecord, schema.policy_versions),
        (policies.PolicyUpdateRecord, schema.policy_updates),
        (policies.GenomeRecord, schema.genomes),
        (records.EventRecord, schema.events),
        (records.CommandRecord, schema.commands),
        (records.LearningRecord, schema.learning),
        (records.KnobSpaceRecord, schema.knob_spaces),
        (records.TransitionRecord, schema.transitions),
        (steering.SteeredClassRecord, schema.steered_classes),
        (steering.PlanRunRecord, schema.plan_runs),
        (steering.ServiceTimingRecord, schema.service_timings),
    ],
)
def test_every_field_has_a_column(kind: type, table: Any) -> None:
    names = {f.name for f in fields(kind)} - {"queries"}
    if "key" in names and kind.__module__ == steering.__name__:
        names = names - {"key"} | {f.name for f in fields(steering.ClassKey)}
    missing = names - set(table.c.keys())
    assert not missing, f"{table.name} lacks {missing}: add columns and a migration"


def test_a_document_of_an_older_version_takes_defaults() -> None:
    document = to_document(full.STATUS)
    del document["limits"]
    document["field of a newer version"] = 1
    assert from_document(records.StatusRecord, document) == replace(full.STATUS, limits={})


def test_a_record_in_a_record_is_columns_or_one_object() -> None:
    row = to_row(full.STEERED_CLASS)
    assert "key" not in row
    assert (row["fingerprint"], row["search_path"]) == (
        full.CLASS_KEY.fingerprint,
        full.CLASS_KEY.search_path,
    )
    assert row["evidence"]["verified_at"] == full.EVIDENCE.verified_at.isoformat()
    row["evidence"] = load_json(dump_json(row["evidence"]))
    assert from_row(steering.SteeredClassRecord, row) == full.STEERED_CLASS
    row["evidence"] = None
    assert from_row(steering.SteeredClassRecord, row).evidence is None


def test_evidence_of_another_version_is_read() -> None:
    row = to_row(full.STEERED_CLASS)
    row["evidence"]["field of a newer version"] = 1
    assert from_row(steering.SteeredClassRecord, row) == full.STEERED_CLASS


def test_rows_hold_plain_values() -> None:
    change = replace(
        full.CHANGE,
        epoch=np.int64(3),
        state=ChangeState.KEPT,  # type: ignore[arg-type]
    )
    row = to_row(change)
    assert type(row["epoch"]) is int
    assert type(row["state"]) is str
    assert "id" not in row
    assert to_row(full.window(quality=np.float32(0.5)))["quality"] == 0.5


def test_numbers_that_are_not_finite() -> None:
    row = to_row(full.window(index=math.inf, quality=math.nan, rates={"a": math.nan}))
    assert row["index"] is None
    assert row["quality"] is None
    row["rates"] = load_json(dump_json(row["rates"]))
    read = from_row(records.WindowRecord, row)
    assert read.index is None
    assert math.isnan(read.quality)
    assert math.isnan(read.rates["a"])


def test_json_takes_what_people_put_into_details() -> None:
    odd = {
        "mode": Mode.AUTO,
        "phase": [Phase.BASELINE],
        "at": datetime(2026, 1, 1, tzinfo=timezone.utc),
        "number": np.float64("nan"),
        "array": np.array([1.0, math.inf]),
        "set": {2, 1},
        "path": Path("x"),
        "error": ValueError("no"),
        5: (1, 2),
        "record": full.QUERY_CLASS,
    }
    assert load_json(dump_json(odd)) == {
        "mode": "auto",
        "phase": ["baseline"],
        "at": "2026-01-01T00:00:00+00:00",
        "number": "NaN",
        "array": [1.0, "Infinity"],
        "set": [1, 2],
        "path": "x",
        "error": "no",
        "5": [1, 2],
        "record": {
            "key": full.QUERY_CLASS.key,
            "text": full.QUERY_CLASS.text,
            "first_seen_at": full.NOW.isoformat(),
        },
    }


@given(
    st.dictionaries(
        st.text(), st.one_of(st.booleans(), st.integers(), st.floats(), st.text(), st.none())
    )
)
def test_json_is_strict(value: dict[str, Any]) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    json.loads(dump_json(value), parse_constant=refuse)
