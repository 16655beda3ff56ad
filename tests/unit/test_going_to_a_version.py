"""Going to a policy version: its knobs, hint sets and weights stand again, or nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backend.domain.steering import DatabaseIdentity, SteeringMode, SteeringState
from backend.errors import AdjustmentError, ConfigError, ConflictError, ServerError, StoreError
from backend.policy_versions import STEERING
from backend.steering.restoring import SET_ASIDE
from tests.deployed_versions import Deployed, identities
from tests.steered_classes import KEY, OTHER_KEY, evidence


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    with closing(Deployed(tmp_path)) as made:
        yield made


def test_all_of_it_comes_back(deployed: Deployed) -> None:
    deployed.knobs(work_mem=8192)
    deployed.prove(KEY)
    deployed.versions.deploy_weights({"plan policy": "a.npz"}, author="level 1", note="")
    wanted = deployed.active
    deployed.knobs(work_mem=65536, random_page_cost=2)
    deployed.register.set_mode(KEY, SteeringMode.OFF, "ann")
    deployed.prove(OTHER_KEY, "no_hashjoin")
    deployed.versions.deploy_weights({"plan policy": "b.npz"}, author="level 1", note="")
    last = deployed.active

    arrival = deployed.go_to(wanted)

    assert arrival.version == deployed.active
    assert (arrival.version.parent_id, arrival.version.author) == (last.id, "tester")
    assert arrival.version.config == wanted.config == {"work_mem": 8192}
    assert identities(arrival.version.steering) == identities(wanted.steering)
    assert arrival.version.weights == wanted.weights
    assert deployed.consistent()
    assert [hint.key for hint in arrival.steering.again] == [KEY]
    assert [hint.key for hint in arrival.steering.withdrawn] == [OTHER_KEY]
    other = deployed.register.get(OTHER_KEY)
    assert other is not None
    assert (other.state, other.reason) == (SteeringState.WITHDRAWN, f"{SET_ASIDE}{wanted.id}")


def test_and_forward_again(deployed: Deployed) -> None:
    first = deployed.active
    deployed.knobs(work_mem=8192)
    deployed.prove(KEY)
    last = deployed.prove(OTHER_KEY, "no_hashjoin")
    deployed.go_to(first)
    assert deployed.active.steering == ()
    deployed.go_to(last)
    assert deployed.active.config == last.config
    assert identities(deployed.active.steering) == identities(last.steering)
    assert deployed.consistent()


def test_a_pin_comes_back_and_goes(deployed: Deployed) -> None:
    free = deployed.prove()
    deployed.register.set_mode(KEY, SteeringMode.PIN, "ann")
    pinned = deployed.active
    deployed.go_to(free)
    assert deployed.register.classes()[0].mode is SteeringMode.AUTO
    deployed.go_to(pinned)
    assert deployed.register.classes()[0].mode is SteeringMode.PIN


def test_a_pinned_class_that_the_version_did_not_serve_is_served_no_longer(
    deployed: Deployed,
) -> None:
    first = deployed.active
    deployed.prove()
    deployed.register.set_mode(KEY, SteeringMode.PIN, "ann")
    deployed.go_to(first)
    (record,) = deployed.register.classes()
    assert (record.state, record.mode) == (SteeringState.WITHDRAWN, SteeringMode.AUTO)


def test_a_class_that_was_forgotten_is_known_again(deployed: Deployed) -> None:
    wanted = deployed.prove()
    deployed.register.withdraw(KEY, "no statement of it is known any more")
    deployed.register.forget(deployed.register.classes())
    deployed.go_to(wanted)
    assert identities(deployed.register.hints()) == identities(wanted.steering)


# -- what does not count any more -----------------------------------------------------------------


def _other_settings(deployed: Deployed) -> None:
    deployed.in_force = {"enable_nestloop": "off"}


def _nobody_knows(deployed: Deployed) -> None:
    deployed.in_force = None


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (_other_settings, "proven under enable_nestloop = on, and off is in force"),
        (_nobody_knows, "could not be read"),
    ],
)
def test_a_proof_that_does_not_count_here_and_now_serves_nothing(
    deployed: Deployed, happens: Callable[[Deployed], None], why: str
) -> None:
    wanted = deployed.prove()
    deployed.register.set_mode(KEY, SteeringMode.OFF, "ann")
    happens(deployed)
    arrival = deployed.go_to(wanted)
    assert arrival.version.steering == ()
    assert deployed.register.hints() == ()
    ((hint, told),) = arrival.steering.anew
    assert hint.key == KEY
    assert why in told
    assert why in arrival.told
    assert "to be proven anew" in deployed.register.classes()[0].reason
    assert deployed.consistent()


def test_a_proof_of_another_server_serves_nothing(deployed: Deployed) -> None:
    wanted = deployed.prove()
    deployed.start(DatabaseIdentity("7002", "shop"))
    assert deployed.active.steering == ()
    arrival = deployed.go_to(wanted)
    assert arrival.version.steering == ()
    assert "another database" in arrival.told


@pytest.mark.parametrize("state", [SteeringState.DEFAULT_BEST, SteeringState.EXPLORING])
def test_what_service_has_refuted_is_not_served_by_going_back(
    deployed: Deployed, state: SteeringState
) -> None:
    wanted = deployed.prove()
    deployed.register.withdraw(KEY, "12 % slower than the default plan in service")
    first = deployed.go_to(wanted)
    assert "12 % slower" in first.told
    assert first.version.steering == ()
    deployed.register.update(KEY, state=state, reason="")
    assert deployed.go_to(wanted).version.steering == ()


def test_a_newer_proof_gives_way_to_the_version_s_own(deployed: Deployed) -> None:
    wanted = deployed.prove(KEY, "no_nestloop")
    deployed.prove(KEY, "no_hashjoin")
    deployed.go_to(wanted)
    (hint,) = deployed.active.steering
    assert hint.evidence.hint_set == "no_nestloop"
    assert deployed.consistent()


def test_what_is_served_already_goes_on_without_a_question(deployed: Deployed) -> None:
    """It is the search's to look at again, as after any change of knobs."""
    before = deployed.prove()
    deployed.knobs(work_mem=8192)
    deployed.in_force = None
    arrival = deployed.go_to(before)
    assert identities(arrival.version.steering) == identities(before.steering)
    assert arrival.steering.records == ()


def test_weights_whose_file_is_gone_are_told_and_others_stay(deployed: Deployed) -> None:
    versions = deployed.versions
    versions.deploy_weights({"knob policy": "a", "plan policy": "b"}, author="level 1", note="")
    wanted = deployed.active
    versions.deploy_weights({"knob policy": "c", "plan policy": "d"}, author="level 1", note="")
    deployed.lost = {"a"}
    arrival = deployed.go_to(wanted)
    assert arrival.version.weights == {"knob policy": "c", "plan policy": "b"}
    assert "weights of the knob policy are gone" in arrival.told


def test_the_active_version_is_gone_to_only_where_it_does_not_stand(deployed: Deployed) -> None:
    version = deployed.knobs(work_mem=8192)
    with pytest.raises(ConfigError, match="is what is deployed"):
        deployed.go_to(version)
    deployed.server.foreign_set("work_mem", 1234, reload=True)
    assert deployed.go_to(version).version.config == {"work_mem": 8192}
    assert deployed.server.value_of_entry("work_mem") == 8192


# -- when it fails --------------------------------------------------------------------------------


def stands_as(deployed: Deployed, before: object) -> None:
    assert deployed.active == before
    assert deployed.consistent()
    assert not deployed.store.open_changes()


@pytest.mark.parametrize("broken", ["save_steered_classes", "add_policy_version", "add_event"])
def test_a_store_that_fails_leaves_everything_as_it_was(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    wanted = deployed.active
    deployed.knobs(work_mem=8192)
    before, classes = deployed.prove(), deployed.register.classes()

    def fail(*_: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(deployed.store, broken, fail)
        with pytest.raises(StoreError):
            deployed.go_to(wanted)
    stands_as(deployed, before)
    assert deployed.register.classes() == classes


def test_a_server_that_refuses_leaves_everything_as_it_was(deployed: Deployed) -> None:
    wanted = deployed.knobs(work_mem=8192)
    deployed.knobs(work_mem=4096)
    before = deployed.prove()
    deployed.server.steps.fail_at("write work_mem", lambda: ServerError("read-only file system"))
    with pytest.raises(AdjustmentError, match="read-only"):
        deployed.go_to(wanted)
    deployed.server.steps.clear()
    deployed.adjuster.reconcile(deployed.epoch)
    stands_as(deployed, before)


def test_somebody_else_s_value_is_left_alone(deployed: Deployed) -> None:
    wanted = deployed.active
    deployed.knobs(work_mem=8192)
    before = deployed.prove()
    real = deployed.adjuster.keepable

    def meanwhile(batch_id: str):
        deployed.server.foreign_set("work_mem", 1234, reload=True)
        return real(batch_id)

    deployed.adjuster.keepable = meanwhile  # type: ignore[method-assign]
    with pytest.raises(ConflictError):
        deployed.go_to(wanted)
    assert deployed.active == before
    assert deployed.server.value_of_entry("work_mem") == 1234


# -- on start -------------------------------------------------------------------------------------


def test_what_stands_is_continued(deployed: Deployed) -> None:
    deployed.knobs(work_mem=8192)
    before = deployed.prove()
    deployed.start()
    assert deployed.active == before


def test_knobs_changed_while_away_are_a_version_of_the_server_s_owner(deployed: Deployed) -> None:
    before = deployed.prove()
    deployed.server.foreign_set("work_mem", 9999, reload=True)
    deployed.start()
    version = deployed.active
    assert (version.author, version.parent_id) == ("server", before.id)
    assert version.config == {"work_mem": 9999}
    assert identities(version.steering) == identities(before.steering)


def test_hint_sets_changed_while_away_are_a_version_of_their_own(deployed: Deployed) -> None:
    deployed.knobs(work_mem=8192)
    before = deployed.prove()
    (record,) = deployed.store.steered_classes()
    newer = replace(record, evidence=replace(evidence(hint_set="no_hashjoin"), server="7001",
                                             database="shop"))  # fmt: skip
    deployed.store.save_steered_classes([newer])
    deployed.start()
    version = deployed.active
    assert (version.author, version.parent_id) == (STEERING, before.id)
    assert (version.config, version.index) == (before.config, before.index)
    assert [hint.evidence.hint_set for hint in version.steering] == ["no_hashjoin"]
    assert deployed.consistent()


def test_an_autopilot_of_before_versions_kept_hint_sets_adopts_them(deployed: Deployed) -> None:
    deployed.prove()
    bare = replace(deployed.active, id=None, steering=())
    deployed.store.add_policy_version(bare)
    deployed.start()
    assert [hint.key for hint in deployed.active.steering] == [KEY]
