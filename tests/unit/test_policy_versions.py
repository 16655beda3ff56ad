"""Versions of what is deployed: each change of it makes one, with the rest as it stands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from backend.config import PathSettings, load_settings
from backend.domain.steering import SteeringMode, SteeringState
from backend.errors import ConfigError, StoreError
from backend.policy_versions import AUTOPILOT, STEERING, PolicyVersions
from backend.steering_parts import planner_settings
from tests.deployed_versions import TEXT, Deployed
from tests.fake_server import FakeServer, Steps
from tests.steered_classes import KEY, OTHER_KEY, evidence


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    with closing(Deployed(tmp_path)) as made:
        yield made


def test_the_first_version_is_what_stands(deployed: Deployed) -> None:
    first = deployed.active
    assert (first.author, first.parent_id, first.index) == ("server", None, 1.0)
    assert (dict(first.config), first.steering, dict(first.weights)) == ({}, (), {})


# -- hint sets ------------------------------------------------------------------------------------


def test_a_proven_hint_set_makes_a_version_with_the_same_knobs(deployed: Deployed) -> None:
    before = deployed.knobs(work_mem=8192)
    version = deployed.prove()
    assert (version.parent_id, version.author) == (before.id, STEERING)
    assert version.config == before.config
    assert version.index == before.index
    (hint,) = version.steering
    assert (hint.key, hint.text, hint.pinned) == (KEY, TEXT, False)
    assert hint.evidence.pairs == evidence().pairs
    assert "40 to 60 % less time" in version.note


@pytest.mark.parametrize(
    ("change", "author", "told"),
    [
        (lambda r: r.withdraw(KEY, "slower by now"), STEERING, "slower by now"),
        (lambda r: r.set_mode(KEY, SteeringMode.OFF, "ann"), "ann", "switched off"),
    ],
)
def test_what_is_not_served_any_more_is_in_the_version_no_more(
    deployed: Deployed, change, author: str, told: str
) -> None:
    deployed.prove()
    change(deployed.register)
    assert deployed.active.steering == ()
    assert deployed.active.author == author
    assert told in deployed.active.note


def test_a_pin_is_a_change_and_so_is_taking_it_away(deployed: Deployed) -> None:
    deployed.prove()
    for mode, pinned in ((SteeringMode.PIN, True), (SteeringMode.AUTO, False)):
        deployed.register.set_mode(KEY, mode, "ann")
        (hint,) = deployed.active.steering
        assert hint.pinned is pinned
        assert deployed.active.author == "ann"


def test_what_changes_nothing_that_is_served_makes_no_version(deployed: Deployed) -> None:
    deployed.prove()
    before = deployed.active
    register = deployed.register
    register.update(KEY, probes=7, default_ms=3.0)
    register.add(OTHER_KEY, TEXT)
    register.set_mode(OTHER_KEY, SteeringMode.OFF)
    register.update(OTHER_KEY, state=SteeringState.EXPLORING)
    assert deployed.active == before


def test_each_class_stays_with_its_own(deployed: Deployed) -> None:
    deployed.prove(KEY)
    deployed.prove(OTHER_KEY, "no_hashjoin")
    assert [h.evidence.hint_set for h in deployed.active.steering] == ["no_nestloop", "no_hashjoin"]
    deployed.register.withdraw(KEY, "slower")
    assert [hint.key for hint in deployed.active.steering] == [OTHER_KEY]


def test_knobs_leave_hint_sets_and_weights_as_they_are(deployed: Deployed) -> None:
    deployed.prove()
    deployed.versions.deploy_weights({"plan policy": "a.npz"}, author="level 1", note="better")
    version = deployed.knobs(work_mem=8192)
    assert [hint.key for hint in version.steering] == [KEY]
    assert version.weights == {"plan policy": "a.npz"}


@pytest.mark.parametrize("broken", ["save_steered_classes", "add_policy_version", "add_event"])
def test_a_class_and_its_version_change_both_or_neither(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    deployed.prove()
    before, classes = deployed.active, deployed.register.classes()

    def fail(*_: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(deployed.store, broken, fail)
        with pytest.raises(StoreError):
            deployed.register.withdraw(KEY, "slower")
    assert deployed.active == before
    assert deployed.register.classes() == classes == tuple(deployed.store.steered_classes())


def test_nothing_makes_a_version_before_it_is_known_what_stands(deployed: Deployed) -> None:
    deployed.prove()
    deployed.versions.active = None
    number = len(deployed.store.policy_versions())
    deployed.register.withdraw(KEY, "proven elsewhere")
    assert len(deployed.store.policy_versions()) == number


# -- weights --------------------------------------------------------------------------------------


def test_weights_are_deployed_beside_each_other(deployed: Deployed) -> None:
    versions = deployed.versions
    versions.deploy_weights({"knob policy": "a.npz"}, author="level 1", note="8 % less")
    versions.deploy_weights({"plan policy": "b.npz"}, author="level 1", note="3 % less")
    assert versions.weights == {"knob policy": "a.npz", "plan policy": "b.npz"}
    versions.deploy_weights({"knob policy": ""}, author="level 1", note="drifted")
    assert versions.weights == {"plan policy": "b.npz"} == deployed.active.weights


def test_the_same_weights_make_no_version(deployed: Deployed) -> None:
    first = deployed.versions.deploy_weights({"genome": "a.json"}, author="level 2", note="")
    again = deployed.versions.deploy_weights({"genome": "a.json"}, author="level 2", note="")
    assert again == first


@pytest.mark.parametrize("name", ["../a.npz", "/etc/passwd", ".hidden", "a/b"])
def test_a_path_is_no_name_of_weights(deployed: Deployed, name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a file"):
        deployed.versions.deploy_weights({"genome": name}, author="level 2", note="")


def test_weights_need_something_deployed(deployed: Deployed) -> None:
    fresh = PolicyVersions(deployed.store, deployed.clock)
    with pytest.raises(ConfigError, match="nothing is deployed"):
        fresh.deploy_weights({"genome": "a.json"}, author="level 2", note="")


def test_what_is_recorded_with_it_is_undone_with_it(deployed: Deployed) -> None:
    before = deployed.active

    def deploy_and_fail() -> None:
        with deployed.versions.together():
            deployed.versions.deploy_weights({"genome": "a.json"}, author="level 2", note="")
            raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="full"):
        deploy_and_fail()
    assert deployed.active == before


# -- lineage --------------------------------------------------------------------------------------


def test_a_version_of_another_process_is_the_parent_of_the_next(deployed: Deployed) -> None:
    other = PolicyVersions(deployed.store, deployed.clock)
    other.go_on()
    made = other.deploy_weights({"genome": "a.json"}, author="level 2", note="faster")
    version = deployed.knobs(work_mem=8192)
    assert version.parent_id == made.id
    assert version.weights == {"genome": "a.json"}


def test_threads_that_change_different_things_make_one_lineage(deployed: Deployed) -> None:
    deployed.prove()
    begin = threading.Barrier(3)

    def knobs() -> None:
        begin.wait(10)
        for number in range(8):
            deployed.knobs(work_mem=1024 * (number + 1))
        deployed.go_to(deployed.versions.find(1))

    def hint_sets() -> None:
        begin.wait(10)
        for _ in range(4):
            deployed.register.withdraw(KEY, "slower")
            deployed.register.verify(KEY, evidence())

    def weights() -> None:
        begin.wait(10)
        for number in range(8):
            file = f"{number}.npz"
            deployed.versions.deploy_weights({"genome": file}, author="level 2", note="")

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work) for work in (knobs, hint_sets, weights)]:
            done.result(60)
    versions = deployed.store.policy_versions()
    assert len(versions) >= 2 + 8 + 1 + 8
    assert [v.parent_id for v in versions] == [None, *(v.id for v in versions[:-1])]
    assert deployed.consistent()


def test_settings_that_nobody_tells(tmp_path: Path) -> None:
    nowhere = {"host": "127.0.0.1", "port": 1, "dbname": "shop", "user": "nobody"}
    settings = load_settings(
        overrides={"paths": PathSettings.under(tmp_path), "database": nowhere}, environ={}
    )
    in_force = planner_settings(settings, FakeServer(Steps()).describe())
    assert in_force(["work_mem"]) is None


def test_since_when_the_knobs_stand(deployed: Deployed) -> None:
    first = deployed.active
    assert deployed.versions.knobs_since() == deployed.versions.root() == first
    by_hand = deployed.knobs(work_mem=8192)
    deployed.prove()
    deployed.versions.deploy_weights({"genome": "a.json"}, author="level 2", note="")
    since = deployed.versions.knobs_since()
    assert since is not None
    assert since.id == by_hand.id
    root = deployed.versions.root()
    assert root is not None
    assert root.id == first.id


@pytest.mark.parametrize("version_id", [0, 99, None, "1", [1], True])
def test_a_version_that_is_not_there(deployed: Deployed, version_id: object) -> None:
    with pytest.raises(ConfigError, match="there is no policy version") as refused:
        deployed.versions.find(version_id)
    assert refused.value.remedy


def test_autopilot_authors_are_told_apart() -> None:
    """Of a day's promotions of knobs there may be so many; hint sets do not count."""
    assert AUTOPILOT != STEERING
