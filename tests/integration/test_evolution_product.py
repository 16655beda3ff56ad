"""An evolution in the product as a user starts it: begins by itself, gives way, ends with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy.engine import URL

from backend.domain.clock import SystemClock
from backend.evolution.process import NICE
from backend.telemetry import open_store
from tests.recorded_tuning import recorded, store_transitions, workload
from tests.running_product import RunningProduct, lives, open_folder, send
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow]

INTERVAL_S = 60.0
"""An evolution may take half of it: it is still at work when it is ended."""
BEGINS_S = 240.0
"""Generous: the server is made and the demo store loaded first, on a machine that may be busy."""
END_S = 30.0


@pytest.fixture
def product() -> Iterator[RunningProduct]:
    with open_folder() as folder:
        with closing(open_store(URL.create("sqlite", database=str(folder / "telemetry.db")))) as s:
            data = recorded([workload(seed) for seed in (1, 2, 3)], 12, seed=1)
            store_transitions(s, SystemClock(), data)
        running = RunningProduct(folder, level2={"evaluation_interval": INTERVAL_S})
        try:
            yield running.start()
        finally:
            print(running.story())
            running.end()


def test_it_begins_by_itself_gives_way_and_ends_with_the_product(product: RunningProduct) -> None:
    evolution = eventually(lambda: product.child("evolution"), "it begins", BEGINS_S)
    began = {e.kind: e.at for e in product.store.events(limit=200)}
    assert "baseline" in began  # nothing of the baseline was measured beside it

    if hasattr(os, "SCHED_IDLE"):
        eventually(
            lambda: os.sched_getscheduler(evolution.pid) == os.SCHED_IDLE, "it gives way", BEGINS_S
        )
    eventually(lambda: evolution.nice() == NICE, "it is nice", BEGINS_S)
    record = eventually(product.store.evolution, "it tells that it is at work", BEGINS_S)
    assert record.by_itself
    assert record.ended_at is None
    assert record.began_at > began["baseline"]

    send(product.supervisor, signal.SIGTERM)
    assert product.wait_for_exit(END_S) == 0
    assert not lives(evolution)
    left = product.store.evolution()
    assert left is not None
    assert left.ended_at is None  # it goes on with the next start
