"""The freeze switch: nothing new is served, and what was served goes on."""

from __future__ import annotations

import pytest

from backend.domain.steering import ClassKey, SteeringMode
from tests.serving_product import Product
from tests.steered_classes import KEY, OTHER_KEY

THIRD_KEY = ClassKey("aaaabbbbccccdddd", KEY.search_path)


@pytest.fixture
def product(tmp_path):
    return Product(tmp_path)


def test_frozen_serves_nothing_new_and_goes_on_with_what_it_served(product):
    product.verify()
    product.tick()
    product.frozen = True
    product.verify(OTHER_KEY)
    for _ in range(20):
        product.tick()
    assert list(product.steered()) == [KEY]
    product.frozen = False
    product.tick()
    assert set(product.steered()) == {KEY, OTHER_KEY}


def test_frozen_withdraws(product):
    product.verify()
    product.tick()
    product.frozen = True
    product.register.withdraw(KEY, "slower by now")
    product.tick()
    assert product.steered() == {}
    assert "slower by now" in product.store.events[-1].message


def test_another_hint_set_of_the_same_class_is_new(product):
    product.verify()
    product.tick()
    product.frozen = True
    product.verify(settings={"enable_hashjoin": "off"}, under={"enable_hashjoin": "on"})
    product.tick()
    assert product.steered() == {}


def test_a_restart_while_frozen_goes_on_with_what_was_served(product):
    product.verify()
    product.tick()
    product.frozen = True
    product.service = product.start()
    product.tick()
    assert list(product.steered()) == [KEY]


def test_an_orderly_restart_while_frozen_does_so_too(product):
    product.verify()
    product.verify(OTHER_KEY)
    product.register.set_mode(OTHER_KEY, SteeringMode.PIN)
    product.tick()
    product.frozen = True
    product.verify(THIRD_KEY)
    product.tick()
    product.service.close()
    product.clock.advance(3600)
    product.service = product.start()
    assert product.steered() == {}
    product.tick()
    assert set(product.steered()) == {KEY, OTHER_KEY}
    assert [kind for _, kind in product.store.told()] == ["hint_set_served"] * 2
