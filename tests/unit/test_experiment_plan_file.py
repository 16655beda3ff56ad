"""Experiment plans that people write: what is taken, what is refused, and that nothing slips by."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.experiment_plans import ExperimentPlanRecord, KnobRange
from backend.domain.server import HostFacts
from backend.errors import (
    AutopilotError,
    ConfigError,
    KnobBoundsError,
    NeverKnobError,
    UnknownKnobError,
)
from backend.experiment_plan_draft import draft
from backend.experiment_plan_file import as_yaml, plan_of, read_file
from backend.strict_yaml import MAX_BYTES
from tests.fake_server import CATALOG

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=timezone.utc)
SPACE = CATALOG.space()
HOST = HostFacts(memory_bytes=8 << 30, cpu_count=4.0)
GOOD: dict[str, Any] = {
    "knobs": {
        "work_mem": {"low": "4MB", "high": "256MB"},
        "random_page_cost": {"low": 1.1, "high": 4},
        "jit": {"choices": [True, False]},
    },
    "hours": ["Mon-Fri 01:00-05:00 Europe/Berlin"],
    "trials": 40,
    "days": 7,
    "note": "nights only",
}


def plan(document: object) -> ExperimentPlanRecord:
    return plan_of(document, CATALOG, SPACE, server_id="7", author="alice", now=NOW)


def test_a_plan_is_taken_with_units_in_the_knobs_own() -> None:
    found = plan(GOOD)
    assert found.knobs == (
        KnobRange("work_mem", 4096.0, 262144.0, unit="kB"),
        KnobRange("random_page_cost", 1.1, 4.0),
        KnobRange("jit", choices=(True, False)),
    )
    assert (found.trials, found.expires_at) == (40, NOW + timedelta(days=7))
    assert (found.author, found.server_id, found.note) == ("alice", "7", "nights only")


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key not in keys}


def with_knob(name: object, given: object) -> dict[str, Any]:
    return {**GOOD, "knobs": {name: given}}


@pytest.mark.parametrize(
    ("document", "error", "told"),
    [
        (None, ConfigError, "is a mapping"),
        ([], ConfigError, "is a mapping"),
        ({**GOOD, "run": "rm -rf"}, ConfigError, "has no run"),
        (without("knobs"), ConfigError, "knobs must map"),
        ({**GOOD, "knobs": {}}, ConfigError, "knobs must map"),
        (with_knob("fsync", {"choices": [False]}), NeverKnobError, "fsync"),
        (with_knob("no_such", {"low": 1, "high": 2}), UnknownKnobError, "no_such"),
        (with_knob(7, {"low": 1, "high": 2}), ConfigError, "no knob's name"),
        (with_knob("shared_buffers", {"low": "1GB", "high": "2GB"}), ConfigError, "not be tried"),
        (with_knob("work_mem", {"choices": [4096]}), ConfigError, "write {low"),
        (with_knob("jit", {"low": 0, "high": 1}), ConfigError, "write {choices"),
        (with_knob("work_mem", {"low": "1kB", "high": "64MB"}), KnobBoundsError, "outside"),
        (with_knob("work_mem", {"low": "64MB", "high": "4MB"}), ConfigError, "above its high"),
        (with_knob("work_mem", {"low": "4MB; DROP", "high": "5MB"}), KnobBoundsError, "number"),
        (with_knob("work_mem", {"low": True, "high": "5MB"}), KnobBoundsError, "number"),
        (with_knob("work_mem", {"low": float("nan"), "high": 1e9}), KnobBoundsError, "finite"),
        (with_knob("jit", {"choices": []}), ConfigError, "no list"),
        (with_knob("jit", {"choices": ["maybe"]}), KnobBoundsError, "neither on nor off"),
        (without("trials"), ConfigError, "trials is missing"),
        ({**GOOD, "trials": 0}, ConfigError, "trials = 0"),
        ({**GOOD, "trials": True}, ConfigError, "trials = True"),
        ({**GOOD, "trials": 10**9}, ConfigError, "trials ="),
        (without("days"), ConfigError, "either expires or days"),
        ({**GOOD, "expires": "2026-11-23T00:00:00Z"}, ConfigError, "either expires or days"),
        ({**GOOD, "days": 0}, ConfigError, "days = 0"),
        ({**GOOD, "days": 91}, ConfigError, "days = 91"),
        ({**GOOD, "days": float("inf")}, ConfigError, "days = inf"),
        ({**without("days"), "expires": "soon"}, ConfigError, "no time with a zone"),
        ({**without("days"), "expires": "2026-11-23T00:00:00"}, ConfigError, "with a zone"),
        ({**without("days"), "expires": "2026-11-21T00:00:00Z"}, ConfigError, "not within"),
        ({**GOOD, "hours": "Mon 01:00-02:00"}, ConfigError, "hours is no list"),
        ({**GOOD, "hours": ["whenever"]}, ConfigError, "is not like"),
        ({**GOOD, "hours": [3]}, ConfigError, "something else than texts"),
        ({**GOOD, "note": "x" * 501}, ConfigError, "note is no text"),
    ],
)
def test_what_is_refused_and_why(document: object, error: type[AutopilotError], told: str) -> None:
    with pytest.raises(error) as caught:
        plan(document)
    assert told in str(caught.value)


SCRAPS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from([*SPACE.names, "fsync", "archive_command", "port"]) | st.text(max_size=8)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "knobs": st.dictionaries(
                NAMES,
                st.fixed_dictionaries({"low": SCRAPS, "high": SCRAPS})
                | st.fixed_dictionaries({"choices": st.lists(SCRAPS, max_size=3)})
                | SCRAPS,
                max_size=4,
            ),
            "hours": SCRAPS,
            "trials": SCRAPS | st.integers(1, 50),
            "days": st.integers(1, 9) | SCRAPS,
            "note": SCRAPS | st.just(""),
        },
    )
)
def test_whatever_is_written_it_is_a_plan_inside_the_bounds_or_refused(
    document: dict[str, Any],
) -> None:
    try:
        found = plan(document)
    except AutopilotError:
        return
    assert found.misfit("7", SPACE) == ""
    for knob in found.knobs:
        assert knob.name in SPACE
        for value in (knob.low, knob.high) if knob.low is not None else knob.choices:
            CATALOG.check(knob.name, value)


def test_the_tuners_own_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    own = draft(
        SPACE,
        HOST,
        SPACE.default_config(),
        server_id="7",
        now=NOW,
        hours=("Mon-Fri 01:00-05:00 Europe/Berlin",),
    )
    assert own.misfit("7", SPACE) == ""
    assert {"work_mem", "random_page_cost"} <= set(own.ranges)
    assert set(own.ranges) == set(SPACE.names)
    file = tmp_path / "plan.yaml"
    file.write_text(as_yaml(own), encoding="utf-8")
    again = plan(read_file(file))
    assert (again.knobs, again.hours, again.trials) == (own.knobs, own.hours, own.trials)
    assert again.expires_at == own.expires_at


def test_what_the_rules_advise_lies_inside_the_draft() -> None:
    from backend.expert_rules import expert_proposals

    present = SPACE.default_config()
    own = draft(SPACE, HOST, present, server_id="7", now=NOW, hours=())
    for proposal in expert_proposals(SPACE, HOST, present):
        for name, value in proposal.config.items():
            if name in own.ranges and value != present[name]:
                assert own.ranges[name].holds(value), (proposal.name, name, value)


def test_a_time_of_yaml_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    text = yaml.safe_dump({**without("days"), "expires": NOW + timedelta(days=2)})
    file.write_text(text, encoding="utf-8")
    assert plan(read_file(file)).expires_at == NOW + timedelta(days=2)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"- a list", "holds no experiment plan"),
        (b"knobs: [", "line 1 is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"note: !!python/object/apply:os.system ['true']", "is not YAML"),
        (b"note: !!set {a, b}", "something else than texts"),
        (b"note: 2026-01-01", "something else than texts"),
        (b"x: " + b"y" * MAX_BYTES, "larger than"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        read_file(file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path / "none.yaml")


def test_what_is_read_can_be_queued(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(GOOD), encoding="utf-8")
    queued = plan(json.loads(json.dumps(read_file(file))))
    assert queued.ranges == plan(GOOD).ranges
