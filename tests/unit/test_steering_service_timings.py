"""Timings from the spool become records, each of them once."""

from __future__ import annotations

import json

import pytest

from backend.errors import StoreError
from tests.serving_product import Product
from tests.steered_classes import HINT_SET, KEY, OTHER_KEY, class_timings, counted


@pytest.fixture
def product(tmp_path):
    return Product(tmp_path)


def test_timings_become_a_record_for_each_arm(product):
    product.verify()
    product.tick()
    began = product.clock.now()
    product.report(class_timings("steered", [0.01] * 9), class_timings("default", [0.02]))
    product.report(class_timings("steered", [0.01], cancelled=1, failed=2))
    product.hear()
    assert counted(product.store.timings) == {"steered": 10, "default": 1}
    default, steered = product.store.timings
    assert (default.key, default.hint_set, default.arm) == (KEY, HINT_SET, "default")
    assert (steered.cancelled, steered.failed) == (1, 2)
    assert steered.total_s == pytest.approx(0.1)
    assert sum(steered.buckets.values()) == 10
    assert began <= steered.started_at < steered.ended_at <= product.clock.now()


def test_timings_are_added_up_to_a_record_a_minute(product):
    product.verify()
    product.tick()
    for _ in range(120):
        product.report(class_timings("steered", [0.01]))
        product.tick()
    product.service.close()
    assert counted(product.store.timings) == {"steered": 120}
    assert len(product.store.timings) <= 12


def test_a_report_that_is_read_twice_counts_once(product):
    product.verify()
    product.tick()
    product.report(class_timings("steered", [0.01] * 3))
    lines = product.places.timings.read_bytes()
    product.hear()
    product.places.timings.write_bytes(lines * 2)
    product.report(class_timings("steered", [0.01]))
    product.hear()
    assert counted(product.store.timings) == {"steered": 4}


def test_timings_that_belong_to_nothing_or_cannot_be_are_left_out(product):
    product.verify()
    product.tick()
    product.report(
        class_timings("steered", [0.01], fingerprint=OTHER_KEY.fingerprint),
        class_timings("steered", [0.01], hint_set="another"),
        class_timings("steered", [0.01], buckets={10**9: 1}),
        class_timings("steered", [0.01], buckets={-5: 1}),
        class_timings("steered", [0.01], executions=10**6),
        class_timings("steered", [0.01], total_s=1e9),
    )
    with product.places.timings.open("ab") as file:
        file.write(b"not JSON\n" + json.dumps({"version": 99}).encode() + b"\n")
    product.report(class_timings("steered", [0.01]))
    product.hear()
    product.hear()
    assert counted(product.store.timings) == {"steered": 1}
    assert ("warning", "steering_file") in product.store.told()


def test_what_the_store_did_not_take_is_stored_later(product):
    product.verify()
    product.tick()
    product.report(class_timings("steered", [0.01] * 5))
    product.tick()
    product.store.broken = True
    with pytest.raises(StoreError):
        product.tick()
    product.store.broken = False
    product.tick()
    assert counted(product.store.timings) == {"steered": 5}
