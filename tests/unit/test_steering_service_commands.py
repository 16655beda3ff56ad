"""Operators' commands to the steering service, and what it answers."""

from __future__ import annotations

import pytest

from backend.domain.modes import Mode
from backend.domain.steering import SteeringMode
from backend.errors import SteeringError
from tests.serving_product import Product
from tests.steered_classes import HINT_SET, KEY


@pytest.fixture
def product(tmp_path):
    return Product(tmp_path)


def _command(**others):
    payload = {"fingerprint": KEY.fingerprint, "search_path": KEY.search_path, "mode": "pin"}
    return {**payload, **others}


def test_a_human_pins_and_it_is_served_at_once(product):
    product.verify()
    product.mode = Mode.OBSERVE
    product.tick()
    answer = product.service.set_mode(_command())
    assert answer == f"{KEY.fingerprint} is pinned to {HINT_SET} until somebody chooses otherwise"
    assert product.steered()[KEY].mode == "pin"


def test_a_human_switches_off_and_back(product):
    product.verify()
    product.tick()
    assert "keeps the default plan" in product.service.set_mode(_command(mode="off"))
    assert product.steered() == {}
    assert "an operator switched its steering off" in product.store.events[-1].message
    assert f"steers it with {HINT_SET}" in product.service.set_mode(_command(mode="auto"))
    assert KEY in product.steered()


def test_the_answer_says_why_a_class_is_not_steered(product):
    product.verify()
    product.register.withdraw(KEY, "slower by now")
    assert "slower by now" in product.service.set_mode(_command(mode="auto"))
    product.frozen = True
    assert "not yet: the freeze switch is on" in product.service.set_mode(_command(mode="pin"))
    assert product.steered() == {}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fingerprint": "xyz"}, "16 hexadecimal digits"),
        ({"fingerprint": None}, "16 hexadecimal digits"),
        ({"fingerprint": 7}, "16 hexadecimal digits"),
        ({"search_path": None}, "not a text"),
        ({"search_path": ["public"]}, "not a text"),
        ({"mode": "always"}, "auto, pin, off"),
        ({"mode": None}, "auto, pin, off"),
        ({"mode": ["pin"]}, "auto, pin, off"),
        ({"search_path": "audit"}, "no query class"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_with_a_remedy(product, wrong, said):
    product.verify()
    with pytest.raises(SteeringError, match=said) as refusal:
        product.service.set_mode(_command(**wrong))
    assert refusal.value.remedy
    assert product.register.get(KEY).mode is SteeringMode.AUTO


def test_an_empty_command_is_refused(product):
    with pytest.raises(SteeringError):
        product.service.set_mode({})
