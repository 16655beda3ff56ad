"""One loaded data folder for all tests of this folder, and a product on it for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running_product import RunningProduct, open_folder


@pytest.fixture(scope="session")
def loaded_folder() -> Iterator[Path]:
    """A data folder; the first product on it loads the demo store, the others find it."""
    with open_folder() as folder:
        yield folder
        RunningProduct(folder).server.destroy()


@pytest.fixture
def make_product(loaded_folder: Path) -> Iterator[Any]:
    """Make products that are ended with the test, whatever became of them."""
    made: list[RunningProduct] = []

    def make(**sections: Any) -> RunningProduct:
        made.append(RunningProduct(loaded_folder, **sections))
        return made[-1]

    yield make
    for product in made:
        print(product.story())
        product.end()


@pytest.fixture
def product(make_product: Any) -> RunningProduct:
    """A product that was just started."""
    running: RunningProduct = make_product()
    return running.start()
