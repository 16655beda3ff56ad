"""Served, timed, judged, withdrawn: an application's engine and the service, on a real server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.domain.clock import ManualClock
from backend.domain.modes import Mode
from backend.domain.service_latency import service_latency
from backend.domain.steering import ClassKey, SteeringState
from backend.protocols import Store
from backend.steering.client import fingerprint, functions_called
from backend.steering.places import SteeringPlaces
from backend.steering.register import SteeringRegister
from backend.steering.serving.service import RECORD_EVERY_S, SteeringService
from backend.telemetry import open_store
from tests.foreign_server import AnyServer, client_dsn
from tests.query_steering import SEARCH_PATH, steered_engine, steering
from tests.steered_classes import counted, evidence

pytestmark = pytest.mark.integration

WORK = """
SELECT current_setting('work_mem'), count(*)
  FROM generate_series(1, CASE current_setting('work_mem') WHEN {slow} THEN 120000 ELSE 2000 END)
"""
"""It tells under which setting it ran, and takes long under one of them."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(sa.make_url(f"sqlite:///{tmp_path}/telemetry.db"))) as store:
        yield store


class Autopilot:
    """A service with one verified class, on a clock that is turned by hand."""

    def __init__(self, folder: Path, store: Store, sql: str) -> None:
        self.store, self.places = store, SteeringPlaces(folder / "steering")
        self.clock = ManualClock(datetime.now(timezone.utc))
        self.register = SteeringRegister(store, self.clock)
        self.service = SteeringService(
            self.register,
            self.places,
            store,
            self.clock,
            mode=lambda: Mode.AUTO,
            frozen=lambda: False,
        )
        self.key = ClassKey(str(fingerprint(sql)), SEARCH_PATH)
        self.register.add(self.key, sql)
        self.register.verify(
            self.key,
            evidence(
                hint_set="work_mem_64mb",
                settings={"work_mem": "64MB"},
                under={"work_mem": "4MB"},
                functions=tuple(functions_called(sql) or ()),
                verified_at=self.clock.now(),
            ),
        )
        self.service.tick()

    def hear(self) -> None:
        """Until what was reported is stored and judged."""
        for seconds in (1.0, 1.0, RECORD_EVERY_S):
            self.clock.advance(seconds)
            self.service.tick()


def _run(engine: sa.Engine, sql: str, times: int) -> Counter[str]:
    """Under which work_mem it ran how often."""
    with engine.connect() as connection:
        found = Counter(connection.execute(sa.text(sql)).scalar_one() for _ in range(times))
    steering(engine).report()
    return found


@pytest.mark.parametrize(("slow", "stays"), [("'4MB'", True), ("'64MB'", False)])
def test_what_pays_is_served_on_and_what_is_slower_ends(
    server: AnyServer, tmp_path: Path, store: Store, slow: str, stays: bool
) -> None:
    sql = WORK.format(slow=slow)
    autopilot = Autopilot(tmp_path, store, sql)
    with steered_engine(
        client_dsn(server),
        source=autopilot.places.table,
        query_steering_report=autopilot.places.timings,
        query_steering_default_share=0.4,
        query_steering_seed=1,
    ) as (engine, _):
        found = _run(engine, sql, 150)
        assert min(found["64MB"], found["4MB"]) > 40
        autopilot.hear()

        timings = store.service_timings()
        assert counted(timings) == {"steered": found["64MB"], "default": found["4MB"]}
        # Of most executions: on a busy machine single ones take whatever time.
        typical = service_latency(timings)[autopilot.key].typical
        assert typical is not None
        assert (typical.high < 0) if stays else (typical.low > 0)

        record = autopilot.register.get(autopilot.key)
        assert record is not None
        assert (record.state is SteeringState.VERIFIED) is stays
        assert autopilot.service.served == stays
        kinds = [event.kind for event in store.events()]
        assert kinds.count("hint_set_served") == 1
        assert kinds.count("hint_set_withdrawn") == (not stays)

        steering(engine).refresh()
        assert ("64MB" in _run(engine, sql, 20)) is stays


def test_after_a_good_end_the_application_goes_on_with_the_default_plan(
    server: AnyServer, tmp_path: Path, store: Store
) -> None:
    sql = WORK.format(slow="'never'")
    autopilot = Autopilot(tmp_path, store, sql)
    with steered_engine(client_dsn(server), source=autopilot.places.table) as (engine, _):
        assert set(_run(engine, sql, 3)) == {"64MB"}
        autopilot.service.close()
        steering(engine).refresh()
        assert set(_run(engine, sql, 3)) == {"4MB"}
