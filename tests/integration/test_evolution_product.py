"""An evolution in the product as a user starts it: begins by itself, gives way, ends with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.engine import URL

from backend.evolution.process import NICE
from backend.telemetry import open_store
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
        running = RunningProduct(folder, level2={"evaluation_interval": INTERVAL_S})
        try:
            yield running.start()
        finally:
            print(running.story())
            running.end()


def record_a_run(product: RunningProduct) -> None:
    """As if the tuner had tried its knobs before: a dozen measurements of another run."""
    first = eventually(lambda: product.store.transitions(limit=1), "it records", BEGINS_S)[0]
    address = URL.create("sqlite", database=str(product.data_dir / "telemetry.db"))
    with closing(open_store(address)) as store:
        for step in range(12):
            config = {**first.config, "work_mem": 4096 * (step + 1)}
            at, objective = first.at + timedelta(milliseconds=step), 1.0 - step / 40
            store.add_transition(
                replace(first, id=None, at=at, run="earlier", config=config, objective=objective)
            )


def test_it_begins_by_itself_gives_way_and_ends_with_the_product(product: RunningProduct) -> None:
    record_a_run(product)
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
