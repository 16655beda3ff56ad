"""The loading steps: names that identify them, keys that are scattered one to one."""

from __future__ import annotations

from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.workload import load_steps
from backend.workload.shape import StoreShape


@given(n=st.integers(1, 1_000_000))
def test_the_multiplier_scatters_one_to_one(n: int) -> None:
    assert gcd(load_steps.coprime_near(n), n) == 1


@pytest.mark.parametrize("scale", [0.001, 0.0137, 0.25])
def test_ranks_reach_every_key_once(scale: float) -> None:
    shape = StoreShape.at_scale(scale)
    products = {load_steps.product_of_rank(rank, shape) for rank in range(shape.products)}
    assert products == set(range(1, shape.products + 1))


@pytest.mark.parametrize("scale", [0.001, 0.25, 2.0])
def test_steps_have_names_of_their_own_and_known_lanes(scale: float) -> None:
    shape = StoreShape.at_scale(scale)
    steps = [
        *load_steps.row_steps(shape, 0),
        *load_steps.index_steps(),
        *load_steps.key_steps(shape),
        *load_steps.vacuum_steps(),
    ]
    names = [step.name for step in steps]
    assert len(names) == len(set(names))
    assert {step.lane for step in steps} == {0, 1}


def test_scale_one_is_about_ten_million_rows() -> None:
    shape = StoreShape.at_scale(1.0)
    rows = (
        shape.customers + shape.products + shape.orders + shape.reviews + shape.events
        + shape.expected_order_items
    )  # fmt: skip
    assert rows == pytest.approx(10e6, rel=0.03)


def test_another_seed_writes_another_text() -> None:
    assert load_steps.prose(1) == load_steps.prose(1) != load_steps.prose(2)
