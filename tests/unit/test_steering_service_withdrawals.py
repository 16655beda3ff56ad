"""What the steering service withdraws by the timings of plug-ins, and what not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from backend.domain.steering import ClassKey, SteeringMode, SteeringState
from backend.steering.serving.service import RECORD_EVERY_S
from tests.serving_product import Product
from tests.steered_classes import KEY, START, class_timings


@pytest.fixture
def product(tmp_path):
    return Product(tmp_path)


def _serve_hours(product, hours, steered_s, default_s, default_pairs=10):
    for _ in range(hours):
        product.report(
            class_timings("steered", [steered_s, steered_s * 1.3] * 200),
            class_timings("default", [default_s, default_s * 1.3] * default_pairs),
        )
        product.tick()
        product.tick(3590)


def test_what_pays_stays(product):
    product.verify()
    product.tick()
    _serve_hours(product, 30, 0.01, 0.02)
    assert KEY in product.steered()
    assert product.register.get(KEY).state is SteeringState.VERIFIED


def test_what_got_slower_is_withdrawn_although_it_paid_for_long(product):
    product.verify()
    product.tick()
    _serve_hours(product, 48, 0.01, 0.02)
    _serve_hours(product, 4, 0.06, 0.02)
    assert product.steered() == {}
    record = product.register.get(KEY)
    assert record.state is SteeringState.WITHDRAWN
    assert "proven slower than the default plan" in record.reason
    assert product.store.told()[-1] == ("warning", "hint_set_withdrawn")
    assert record.reason in product.store.events[-1].message


def test_a_restart_forgets_no_timings(product):
    product.verify()
    product.tick()
    _serve_hours(product, 2, 0.015, 0.01, default_pairs=4)
    before = product.register.get(KEY).state
    product.service = product.start()
    _serve_hours(product, 2, 0.015, 0.01, default_pairs=4)
    assert before is SteeringState.VERIFIED
    assert product.register.get(KEY).state is SteeringState.WITHDRAWN


def test_timings_from_before_the_proof_do_not_count(product):
    product.verify()
    product.tick()
    _serve_hours(product, 2, 0.06, 0.02)
    assert product.register.get(KEY).state is SteeringState.WITHDRAWN
    product.verify()
    product.tick()
    _serve_hours(product, 2, 0.01, 0.02)
    assert KEY in product.steered()


@pytest.mark.parametrize("seen_ahead", [False, True])
def test_a_clock_that_was_ahead_while_it_was_verified_hides_nothing(product, seen_ahead):
    product.clock.set_wall_clock(START + timedelta(days=1))
    product.verify()
    product.tick()
    if seen_ahead:
        _serve_hours(product, 1, 0.01, 0.02)
    product.clock.set_wall_clock(START + timedelta(hours=2))
    product.tick(RECORD_EVERY_S)
    _serve_hours(product, 4, 0.06, 0.02)
    record = product.register.get(KEY)
    assert record.state is SteeringState.WITHDRAWN
    assert "proven slower" in record.reason


def test_a_restart_after_the_clock_was_set_right_hides_nothing_either(product):
    product.verify(verified_at=START + timedelta(days=1))
    product.service = product.start()
    product.tick()
    _serve_hours(product, 4, 0.06, 0.02)
    assert product.register.get(KEY).state is SteeringState.WITHDRAWN


def test_a_pinned_class_stays_however_slow(product):
    product.verify()
    product.register.set_mode(KEY, SteeringMode.PIN)
    product.tick()
    _serve_hours(product, 5, 0.06, 0.02)
    assert KEY in product.steered()


def test_a_class_goes_to_be_verified_again_once_a_day(product):
    product.verify()
    product.tick()

    def serve_slowly():
        product.clock.advance(4000)
        product.report(class_timings("steered", [0.03] * 40))
        product.hear()

    serve_slowly()
    assert "to be verified again" in product.register.get(KEY).reason
    product.verify()
    product.tick()
    serve_slowly()
    assert product.register.get(KEY).state is SteeringState.VERIFIED
    product.clock.advance(timedelta(days=1).total_seconds())
    serve_slowly()
    assert product.register.get(KEY).state is SteeringState.WITHDRAWN


def test_a_load_that_slows_every_class_down_sends_none_to_be_verified_again(product):
    keys = [ClassKey(f"{number:016x}", KEY.search_path) for number in range(5)]
    for key in keys:
        product.verify(key)
    product.tick(4000)
    product.report(
        *(class_timings("steered", [0.03] * 40, fingerprint=k.fingerprint) for k in keys[1:]),
        class_timings("steered", [0.2] * 40, fingerprint=keys[0].fingerprint),
    )
    product.hear()
    assert sorted(product.steered()) == keys[1:]
