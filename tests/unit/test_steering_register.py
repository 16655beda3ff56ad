"""What stands for each query class: changes that count, that do not, and who may see them."""

from __future__ import annotations

import threading

import pytest

from backend.domain.clock import ManualClock
from backend.domain.modes import Mode
from backend.domain.steering import ClassKey, DatabaseIdentity, SteeringMode, SteeringState
from backend.errors import SteeringError, StoreError
from backend.steering.register import SteeringRegister
from tests.steered_classes import KEY, OTHER_KEY, START, MemoryStore, evidence

TEXT = "SELECT count(*) FROM orders WHERE id = $1"
STAGING, PRODUCTION = DatabaseIdentity("7001", "shop"), DatabaseIdentity("7002", "shop")


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def register(store, clock):
    return SteeringRegister(store, clock)


def _verified(register):
    register.add(KEY, TEXT)
    return register.verify(KEY, evidence())


def test_a_class_becomes_known_once(register):
    first = register.add(KEY, TEXT)
    register.update(KEY, probes=3)
    assert first.state is SteeringState.WAITING
    assert register.add(KEY, "another text").probes == 3
    assert register.get(KEY).text == TEXT


def test_classes_are_ordered_by_key(register):
    for key in (OTHER_KEY, KEY):
        register.add(key, TEXT)
    assert [record.key for record in register.classes()] == [KEY, OTHER_KEY]


def test_a_change_is_stored_and_dated(register, store, clock):
    register.add(KEY, TEXT)
    clock.advance(5)
    changed = register.update(KEY, state=SteeringState.EXPLORING, plans=4)
    assert store.classes[KEY] == changed == register.get(KEY)
    assert (changed.updated_at - START).total_seconds() == 5


def test_what_an_earlier_process_stored_stands(register, store, clock):
    stands = _verified(register)
    assert SteeringRegister(store, clock).get(KEY) == stands


@pytest.mark.parametrize(
    "change",
    [
        lambda register: register.withdraw(KEY, "slower"),
        lambda register: register.set_mode(KEY, SteeringMode.OFF),
        lambda register: register.update(KEY, probes=9),
        lambda register: register.add(OTHER_KEY, TEXT),
    ],
)
def test_nothing_changes_where_the_store_fails(register, store, change):
    _verified(register)
    before = register.classes()
    store.broken = True
    with pytest.raises(StoreError):
        change(register)
    assert register.classes() == before


def test_evidence_stays_when_its_hint_set_is_withdrawn(register):
    _verified(register)
    withdrawn = register.withdraw(KEY, "slower by now")
    assert (withdrawn.state, withdrawn.reason) == (SteeringState.WITHDRAWN, "slower by now")
    assert withdrawn.evidence == evidence()


def test_a_new_proof_takes_the_reason_away(register):
    _verified(register)
    register.withdraw(KEY, "slower by now")
    assert register.verify(KEY, evidence(hint_set="no_hashjoin")).reason == ""


def test_a_hint_set_that_was_proven_meanwhile_is_not_withdrawn_for_another(register):
    _verified(register)
    newer = register.verify(KEY, evidence(hint_set="no_hashjoin"))
    assert register.withdraw(KEY, "slower", evidence()) == newer
    assert register.withdraw(KEY, "slower", newer.evidence).state is SteeringState.WITHDRAWN


@pytest.mark.parametrize("state", list(SteeringState))
@pytest.mark.parametrize("wanted", list(SteeringMode))
@pytest.mark.parametrize("mode", list(Mode))
def test_who_is_served(register, state, wanted, mode):
    _verified(register)
    register.set_mode(KEY, wanted)
    register.update(KEY, state=state)
    verified_in_auto = mode is Mode.AUTO and state is SteeringState.VERIFIED
    expected = wanted is SteeringMode.PIN or (wanted is SteeringMode.AUTO and verified_in_auto)
    assert bool(register.served(mode)) is expected


def test_nothing_is_served_without_a_proof(register):
    register.add(KEY, TEXT)
    register.update(KEY, state=SteeringState.VERIFIED)
    assert not register.served(Mode.AUTO)


def test_nothing_is_pinned_without_a_proof(register):
    register.add(KEY, TEXT)
    with pytest.raises(SteeringError, match="so none is pinned"):
        register.set_mode(KEY, SteeringMode.PIN)
    assert register.get(KEY).mode is SteeringMode.AUTO


@pytest.mark.parametrize("key", [OTHER_KEY, ClassKey(KEY.fingerprint, "audit")])
def test_a_class_that_is_not_known(register, key):
    register.add(KEY, TEXT)
    assert register.get(key) is None
    for change in (
        lambda: register.update(key, probes=1),
        lambda: register.withdraw(key, "slower"),
        lambda: register.set_mode(key, SteeringMode.OFF),
    ):
        with pytest.raises(SteeringError, match="no query class"):
            change()


def test_two_threads_lose_no_change(register):
    register.add(KEY, TEXT)
    begin = threading.Barrier(2)

    def count(field):
        begin.wait()
        for value in range(1, 301):
            register.update(KEY, **{field: value})

    threads = [threading.Thread(target=count, args=(field,)) for field in ("probes", "plans")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = register.get(KEY)
    assert (record.probes, record.plans) == (300, 300)


# -- evidence of another server -------------------------------------------------------------------


@pytest.fixture
def staging(store, clock):
    register = SteeringRegister(store, clock, STAGING)
    _verified(register)
    return register


def test_what_is_proven_says_where(staging):
    assert staging.get(KEY).evidence.home == STAGING


@pytest.mark.parametrize(
    ("home", "said"),
    [
        (PRODUCTION, "proven on another server: 7001, and this is 7002"),
        (DatabaseIdentity("7001", "hr"), "proven in another database: shop, and this is hr"),
    ],
)
def test_what_was_proven_elsewhere_is_withdrawn(staging, store, clock, home, said):
    register = SteeringRegister(store, clock, home)
    assert register.proven_elsewhere() == staging.classes()
    register.withdraw_proven_elsewhere()
    assert not register.served(Mode.AUTO)
    assert store.classes[KEY].state is SteeringState.WITHDRAWN
    assert store.classes[KEY].reason == said
    assert register.proven_elsewhere() == ()


def test_nobody_knows_where_evidence_of_before_was_made(store, clock):
    _verified(SteeringRegister(store, clock))
    register = SteeringRegister(store, clock, PRODUCTION)
    register.withdraw_proven_elsewhere()
    assert not register.served(Mode.AUTO)
    assert "not written down" in register.get(KEY).reason


def test_a_pin_does_not_count_on_another_server(staging, store, clock):
    staging.set_mode(KEY, SteeringMode.PIN)
    register = SteeringRegister(store, clock, PRODUCTION)
    register.withdraw_proven_elsewhere()
    assert not register.served(Mode.AUTO)
    assert "its pin does not count here" in register.get(KEY).reason
    with pytest.raises(SteeringError, match="on another server") as refused:
        register.set_mode(KEY, SteeringMode.PIN)
    assert refused.value.remedy
    register.verify(KEY, evidence())
    assert register.set_mode(KEY, SteeringMode.PIN).is_served(Mode.OBSERVE)


def test_what_was_proven_here_stands_on_the_next_start(staging, store, clock):
    before = staging.classes()
    register = SteeringRegister(store, clock, STAGING)
    register.withdraw_proven_elsewhere()
    assert register.classes() == before == register.served(Mode.AUTO)


# -- forgetting -----------------------------------------------------------------------------------


def test_what_is_forgotten_is_gone_for_good(register, store, clock):
    first, second = register.add(KEY, TEXT), register.add(OTHER_KEY, TEXT)
    register.forget([first])
    assert register.classes() == (second,)
    assert SteeringRegister(store, clock).classes() == (second,)


def test_what_changed_meanwhile_is_not_forgotten(register):
    looked_at = register.add(KEY, TEXT)
    stands = register.set_mode(KEY, SteeringMode.OFF)
    register.forget([looked_at])
    assert register.get(KEY) == stands


def test_nothing_is_forgotten_where_the_store_fails(register, store):
    record = register.add(KEY, TEXT)
    store.broken = True
    with pytest.raises(StoreError):
        register.forget([record])
    assert register.get(KEY) == record
