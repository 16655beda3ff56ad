"""The lineage of policy versions: what each changed, what was undone, and the way back."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from backend.domain.modes import CommandKind
from backend.domain.policies import PolicyVersionRecord
from backend.domain.steering import ServedHint
from dashboard import decisions_undone, decisions_versions
from dashboard.cache import CachedReader
from dashboard.decisions_changes import change_between, earliest_of_each_state, undoings
from tests.dashboard import fake_steering as fake
from tests.dashboard.fake_store import FakeStore
from tests.dashboard.parts import text_of, view

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=timezone.utc)


def version(number: int, parent: int | None = None, **fields: object) -> PolicyVersionRecord:
    given = {"config": {}, "author": "autopilot", **fields}
    at = NOW + timedelta(minutes=number)
    return PolicyVersionRecord(created_at=at, id=number, parent_id=parent, **given)


def hint(hint_set: str = "no_nestloop", **fields: object) -> ServedHint:
    evidence = fake.evidence(NOW, hint_set, {"enable_nestloop": "off"}, 100.0, 60.0)
    return ServedHint(fake.STEERED, "SELECT 1", evidence, **fields)


# -- what changes ------------------------------------------------------------------------------


def test_a_change_names_knobs_hint_sets_and_weights_on_both_sides():
    before = version(1, config={"jit": False, "work_mem": 4096}, weights={"genome": "a.json"})
    after = version(2, 1, config={"jit": False, "max_wal_size": 8}, steering=(hint(),))
    change = change_between(before, after)
    assert change.knobs == {"work_mem": (4096, None), "max_wal_size": (None, 8)}
    assert change.hint_sets == {fake.STEERED: (None, hint())}
    assert change.weights == {"genome": ("a.json", None)}


def test_versions_of_one_state_do_not_differ_and_the_first_of_them_is_known():
    one, other = (version(n, config={"jit": False}, steering=(hint(),)) for n in (1, 4))
    assert not change_between(one, other)
    pinned = version(5, steering=(hint(pinned=True),), config={"jit": False})
    assert change_between(other, pinned)
    first = earliest_of_each_state([one, version(2), other, pinned])
    assert sorted(first.values()) == [1, 2, 5]


def undone_by(*versions: PolicyVersionRecord) -> dict[int, list[int]]:
    return {u.by.id: [v.id for v in u.undone] for u in undoings(versions)}


def test_a_return_undoes_all_that_was_deployed_since():
    assert undone_by(
        version(1),
        version(2, 1, config={"jit": False}),
        version(3, 2, config={"jit": False, "work_mem": 8192}, steering=(hint(),)),
        version(4, 3),
    ) == {4: [2, 3]}


def test_a_knob_or_hint_set_that_alone_goes_back_is_undone_too():
    root = version(1, config={"work_mem": 4096})
    second = version(2, 1, config={"work_mem": 8192})
    third = version(3, 2, config={"work_mem": 8192, "jit": False}, steering=(hint(),))
    knob_back = version(4, 3, config={"work_mem": 4096, "jit": False}, steering=(hint(),))
    hint_back = replace(knob_back, id=5, parent_id=4, steering=())
    assert undone_by(root, second, third, knob_back, hint_back) == {4: [2], 5: [3]}


def test_what_goes_on_to_a_new_value_or_differs_in_nothing_is_not_undone():
    root = version(1, config={"work_mem": 4096})
    assert (
        undone_by(
            root,
            version(2, 1, config={"work_mem": 8192}),
            version(3, 2, config={"work_mem": 16384}),
            version(4, 3, config={"work_mem": 4096}),
            version(5, 4, config={"work_mem": 4096}),
            version(6, 99, config={}),
        )
        == {}
    )


def test_what_the_server_was_found_with_was_never_deployed():
    assert undone_by(version(1, config={"jit": False}), version(2, 1, config={})) == {}


# -- the lineage -------------------------------------------------------------------------------


def test_each_version_says_what_it_changed_and_on_which_evidence(store):
    text = text_of(decisions_versions.lineage(view(store)))
    for shown in (
        "Version 7", "as version 5", "after version 6", "by human@dashboard",
        "32\u00a0MB", "no nested loops", "withdrawn", "served, pinned", "knob-policy-5f0e12ab.npz",
        "trial 16", "\u22123.1\u00a0% [\u22125.6\u00a0% to \u22120.6\u00a0%] at 95\u00a0%",
        "UTC+00:00",
    ):  # fmt: skip
        assert shown in text, shown
    assert json.dumps(fake.HOSTILE)[1:-1] in text


def test_every_version_but_the_deployed_one_can_be_gone_back_to(store):
    text = text_of(decisions_versions.lineage(view(store)))
    assert [f'"type": "return", "version": {n}' in text for n in range(1, 8)] == 6 * [True] + [
        False
    ]


def test_older_versions_are_shown_when_asked_for():
    store = FakeStore(empty=True)
    store._versions = [version(n, n - 1 or None, config={"work_mem": n}) for n in range(1, 131)]
    few = text_of(decisions_versions.lineage(view(store)))
    assert "110 older versions are not shown" in few
    assert "Version 110" not in few
    every = text_of(decisions_versions.lineage(view(store, decisions_versions_shown="1000")))
    assert 'Version 1"' in every
    assert "are not shown" not in every
    odd = text_of(decisions_versions.lineage(view(store, decisions_versions_shown="x; DROP")))
    assert odd == few


def test_a_version_whose_parent_is_gone_says_so():
    store = FakeStore(empty=True)
    store._versions = [version(9, 8, config={"work_mem": 8192})]
    text = text_of(decisions_versions.lineage(view(store)))
    assert "after version 8" in text
    assert "Its parent is not known any more" in text
    assert "work_mem" in text


def test_the_confirmation_lists_what_will_change_against_what_is_deployed(store):
    text = text_of(decisions_versions.confirmation(view(store, decisions_return_to=2)))
    assert "against version 7" in text
    for undone in ("random_page_cost", "jit", "max_wal_size", "plan-policy-77aa01c3.npz"):
        assert undone in text
    assert 'work_mem"' not in text
    assert text.count("withdrawn") == 2
    (button,) = [
        part
        for part in text.split('"type": "command"')[1:]
        if f'"kind": "{CommandKind.ROLL_BACK.value}"' in part
    ]
    assert '\\"version_id\\": 2' in button


def test_the_confirmation_says_that_proofs_are_looked_at_again(store):
    words = "is not served again, but to be proven anew"
    back, on = (
        text_of(decisions_versions.confirmation(view(store, decisions_return_to=n))) for n in (2, 4)
    )
    assert words not in back
    assert words in on


def test_the_confirmation_warns_of_a_restart(store):
    first = store._versions[0]
    store._versions[0] = replace(first, config={"shared_buffers": 32768})
    text = text_of(decisions_versions.confirmation(view(store, decisions_return_to=1)))
    assert "shared_buffers: takes effect with a restart" in text


def test_the_confirmation_of_a_version_that_is_gone_has_no_button(store):
    text = text_of(decisions_versions.confirmation(view(store, decisions_return_to=4711)))
    assert "No such version" in text
    assert '"type": "command"' not in text


def test_versions_are_read_again_only_when_there_is_a_new_one(store):
    now_s = [0.0]
    reader = CachedReader(store, 0.25, clock=lambda: now_s[0])
    before = reader.policy_versions(limit=1000)
    now_s[0] = 2.0
    assert reader.policy_versions(limit=1000) is before
    store._versions.append(replace(store._versions[-1], id=8, parent_id=7))
    now_s[0] = 4.0
    assert reader.policy_versions(limit=1000)[-1].id == 8


# -- Safety ------------------------------------------------------------------------------------


def test_safety_tells_what_was_undone_how_long_it_stood_and_why(store):
    text = text_of(decisions_undone.undone_table(view(store)))
    assert "Version 6, of human@dashboard" in text
    assert "checkpoint_timeout" in text
    assert "4\u00a0min 57\u00a0s" in text or "4\u00a0min 58\u00a0s" in text
    assert "drift: the latency index rose by 6.2 %" in text
    assert "since then version 7" in text


def test_safety_says_that_nothing_was_undone():
    store = FakeStore(empty=True)
    store._versions = [version(1), version(2, 1, config={"jit": False})]
    assert "Nothing was undone" in text_of(decisions_undone.undone_table(view(store)))
