"""What the steering service writes for plug-ins: which classes, for how long, on a bad disk."""

from __future__ import annotations

import stat

import pytest

from backend.domain.modes import Mode
from backend.domain.steering import ClassKey, SteeringMode, SteeringState
from backend.steering.serving.table_writer import REWRITE_AFTER_S
from tests.serving_product import Product
from tests.steered_classes import HINT_SET, KEY, OTHER_KEY


@pytest.fixture
def product(tmp_path):
    return Product(tmp_path)


# -- the table --------------------------------------------------------------------------------


def test_a_verified_class_is_served_with_what_was_proven(product):
    product.verify()
    product.tick()
    entry = product.steered()[KEY]
    assert (entry.hint_set, dict(entry.settings)) == (HINT_SET, {"enable_nestloop": "off"})
    assert (dict(entry.under), entry.functions) == ({"enable_nestloop": "on"}, {"count"})
    assert (entry.mode, product.service.served) == ("auto", 1)
    assert product.store.told() == [("info", "hint_set_served")]
    assert "2.0 times as fast" in product.store.events[0].message


def test_an_empty_table_is_written_too(product):
    product.tick()
    assert product.table().entries == ()


def test_the_folder_is_made_for_its_owner_and_group_alone(product):
    product.tick()
    assert stat.S_IMODE(product.places.folder.stat().st_mode) & 0o007 == 0


def test_nothing_is_steered_a_minute_after_the_autopilot_died(product):
    product.verify()
    product.tick()
    product.clock.advance(59)
    assert KEY in product.steered()
    product.clock.advance(1)
    assert product.steered() == {}


def test_a_table_that_did_not_change_is_written_before_it_expires_and_not_at_every_tick(product):
    product.verify()
    product.tick()
    first = product.places.table.stat().st_ino
    product.tick(REWRITE_AFTER_S - 1)
    assert product.places.table.stat().st_ino == first
    for _ in range(10):
        product.tick()
        assert KEY in product.steered()
    assert [kind for _, kind in product.store.told()] == ["hint_set_served"]


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.ADVISE, Mode.APPROVE])
def test_other_modes_than_auto_serve_what_a_human_pinned(product, mode):
    product.verify()
    product.verify(OTHER_KEY)
    product.register.set_mode(OTHER_KEY, SteeringMode.PIN)
    product.mode = mode
    product.tick()
    assert list(product.steered()) == [OTHER_KEY]
    assert product.steered()[OTHER_KEY].mode == "pin"


def test_a_class_that_is_off_is_not_in_the_table(product):
    product.verify()
    product.register.set_mode(KEY, SteeringMode.OFF)
    product.tick()
    assert product.table().entries == ()


def test_an_entry_that_plug_ins_would_refuse_costs_the_others_nothing(product):
    product.verify(settings={"enable_nestloop": "off; DROP TABLE orders"})
    product.verify(OTHER_KEY)
    product.tick()
    product.tick()
    assert list(product.steered()) == [OTHER_KEY]
    withdrawn = product.register.get(KEY)
    assert withdrawn.state is SteeringState.WITHDRAWN
    assert "plug-ins would refuse it" in withdrawn.reason


def test_a_pinned_entry_that_plug_ins_would_refuse_is_withdrawn_once(product):
    product.verify(settings={"fsync": "off"}, under={"fsync": "on"})
    product.register.set_mode(KEY, SteeringMode.PIN)
    product.tick()
    changed_at = product.register.get(KEY).updated_at
    product.tick()
    assert product.register.get(KEY).updated_at == changed_at
    assert product.steered() == {}


def test_a_table_that_is_too_large_holds_what_matters_most(product):
    functions = tuple(f"{'f' * 120}_{number}" for number in range(300))
    keys = [ClassKey(f"{number:016x}", "public") for number in range(80)]
    for number, key in enumerate(keys):
        product.verify(key, functions=functions, default_ms=100.0 + number)
    product.register.set_mode(keys[0], SteeringMode.PIN)
    product.tick()
    steered = product.steered()
    assert 0 < len(steered) < len(keys)
    assert keys[0] in steered
    assert keys[-1] in steered
    assert keys[1] not in steered


def test_after_a_good_end_nothing_is_steered_at_all(product):
    product.verify()
    product.register.set_mode(KEY, SteeringMode.PIN)
    product.tick()
    product.service.close()
    assert product.table().expires_at_s == 0  # of whatever clock
    assert product.steered() == {}
    assert product.service.served == 0


def test_a_good_end_before_anything_was_served_is_one_too(product):
    product.service.close()
    assert product.steered() == {}


def test_the_next_process_goes_on_without_telling_it_again(product):
    product.verify()
    product.tick()
    product.service = product.start()
    product.tick()
    assert KEY in product.steered()
    assert product.store.told() == [("info", "hint_set_served")]


# -- the disk ---------------------------------------------------------------------------------


def test_a_disk_that_fails_is_told_once_and_stops_nobody(product):
    product.places.folder.parent.mkdir()
    product.places.folder.write_text("a file where the folder should be")
    product.verify()
    for _ in range(3):
        product.tick()
    assert product.service.served == 0
    assert product.store.told() == [("error", "steering_file")] * 2  # the table, the spool
    product.places.folder.unlink()
    product.tick()
    assert KEY in product.steered()
    assert product.store.told()[2:] == [
        ("info", "steering_file"),
        ("info", "steering_file"),
        ("info", "hint_set_served"),
    ]
