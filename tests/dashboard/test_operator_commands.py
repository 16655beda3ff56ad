"""What an operator may ask for, and what is refused with which reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.modes import CommandKind
from backend.errors import AutopilotError, KnobBoundsError, NeverKnobError, UnknownKnobError
from dashboard.operator_commands import MOST_TRACKED, CommandError, make_command, track
from tests.dashboard.fake_store import knob_statuses

ACTOR = "alice@dashboard"
STATUSES = knob_statuses()
STEER = {"fingerprint": "5f1a9c0d7e34b218", "search_path": '"$user", public', "mode": "pin"}


def test_a_good_change_is_typed_and_named():
    command = make_command(
        "set_knobs", {"knobs": {"work_mem": "8192", "jit": "on"}}, STATUSES, ACTOR
    )
    assert command.kind is CommandKind.SET_KNOBS
    assert command.payload == {"knobs": {"work_mem": 8192, "jit": True}}
    assert command.actor == ACTOR


@pytest.mark.parametrize(
    ("knobs", "error", "words"),
    [
        ({"work_mem": 1}, KnobBoundsError, ("work_mem", "64")),
        ({"work_mem": 10**9}, KnobBoundsError, ("524288",)),
        ({"work_mem": float("nan")}, KnobBoundsError, ("finite",)),
        ({"work_mem": True}, KnobBoundsError, ("not a number",)),
        ({"work_mem": "9" * 200}, KnobBoundsError, ("200 characters",)),
        ({"wal_compression": "evil"}, KnobBoundsError, ("pglz",)),
        ({"fsync": False}, UnknownKnobError, ("fsync", "never written", "durability")),
        ({"work_mem": 8192, "archive_command": "rm"}, UnknownKnobError, ("archive_command",)),
        ({"huge_pages": "on"}, NeverKnobError, ("no huge pages",)),
    ],
)
def test_bad_values_and_forbidden_knobs_are_refused_with_the_reason(knobs, error, words):
    with pytest.raises(error) as caught:
        make_command("set_knobs", {"knobs": knobs}, STATUSES, ACTOR)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("drop_table", {}),
        (None, {}),
        (["pause"], {}),
        ("pause", {"why": 1}),
        ("pause", None),
        ("set_mode", {"mode": "yolo"}),
        ("set_mode", {"mode": ["auto"]}),
        ("set_knobs", {}),
        ("set_knobs", {"knobs": {}}),
        ("set_knobs", {"knobs": [1]}),
        ("approve", {"trial_id": "1"}),
        ("approve", {"trial_id": True}),
        ("decline", {"trial_id": -1}),
        ("roll_back", {"batch_id": ""}),
        ("roll_back", {"batch_id": 7}),
        ("roll_back", {"batch_id": "a", "version_id": 1}),
        ("roll_back", {"version_id": 0}),
        ("deploy_version", {}),
        ("deploy_version", {"version_id": "2"}),
        ("deploy_version", {"version_id": 2, "batch_id": "a"}),
        ("steer", {}),
        ("steer", {**STEER, "mode": "yolo"}),
        ("steer", {**STEER, "mode": None}),
        ("steer", {**STEER, "fingerprint": "5F1A9C0D7E34B218"}),
        ("steer", {**STEER, "fingerprint": "5f1a9c0d7e34b218' OR 1"}),
        ("steer", {**STEER, "fingerprint": 7}),
        ("steer", {**STEER, "search_path": None}),
        ("steer", {**STEER, "search_path": "x" * 1001}),
        ("steer", {**STEER, "hint_set": "no_nestloop"}),
    ],
)
def test_malformed_commands_are_refused(kind, payload):
    with pytest.raises(CommandError):
        make_command(kind, payload, STATUSES, ACTOR)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("pause", {}),
        ("freeze", {}),
        ("set_mode", {"mode": "approve"}),
        ("roll_back", {}),
        ("roll_back", {"batch_id": "trial-4"}),
        ("roll_back", {"version_id": 2}),
        ("deploy_version", {"version_id": 2}),
        ("approve", {"trial_id": 18}),
        ("steer", STEER),
        ("steer", {**STEER, "search_path": "", "mode": "off"}),
    ],
)
def test_good_commands_pass_unchanged(kind, payload):
    assert make_command(kind, payload, STATUSES, ACTOR).payload == payload


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    kind=st.sampled_from([k.value for k in CommandKind]) | JSON,
    payload=JSON
    | st.builds(
        lambda knobs: {"knobs": knobs},
        st.dictionaries(st.sampled_from([s.name for s in STATUSES]), JSON, max_size=3),
    ),
)
def test_any_json_is_either_accepted_or_refused_with_a_reason(kind, payload):
    reason = ""
    try:
        command = make_command(kind, payload, STATUSES, ACTOR)
    except AutopilotError as error:
        command, reason = None, error.message
    assert (command is None) == bool(reason)


def test_only_the_newest_commands_are_tracked():
    tracked: list[dict] = []
    for number in range(MOST_TRACKED + 3):
        tracked = track(tracked, number, "")
    assert [t["id"] for t in tracked] == list(range(3, MOST_TRACKED + 3))
    assert track(tracked, None, "because")[-1]["error"] == "because"
