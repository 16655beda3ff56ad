"""The demo store and the workload on a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import WorkloadError
from backend.steering.client import (
    SteeringEntry,
    fingerprint,
    take_samples,
    take_spool,
    write_table,
)
from backend.steering.places import SteeringPlaces
from backend.workload import store as store_module
from backend.workload.connection import connect
from backend.workload.generator import (
    ALL_CLASSES,
    LATE_AFTER_S,
    StatementRecord,
    WorkloadGenerator,
)
from backend.workload.growth import GROWN_FROM, grow, shrink
from backend.workload.mixes import MIXES
from backend.workload.runner import WorkloadSettings, interval_records, run_workload
from backend.workload.schedule import ArrivalSchedule
from backend.workload.scope import Scope
from backend.workload.shape import StoreShape
from backend.workload.statements import STATEMENTS
from backend.workload.store import DemoStore
from tests.waiting import eventually

pytestmark = pytest.mark.integration

SCALE = 0.005
SHAPE = StoreShape.at_scale(SCALE)
DATABASE = "workload_test"


def rows(url: URL, sql: str) -> list[tuple[Any, ...]]:
    with closing(connect(url, application_name="test")) as connection:
        cursor = connection.cursor()
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture(scope="module")
def url(embedded_server: EmbeddedPostgres) -> Iterator[URL]:
    admin = embedded_server.dsn("postgres")
    rows(admin, f"DROP DATABASE IF EXISTS {DATABASE}")
    rows(admin, f"CREATE DATABASE {DATABASE}")
    yield embedded_server.dsn(DATABASE)
    rows(embedded_server.dsn("postgres"), f"DROP DATABASE {DATABASE} WITH (FORCE)")


@pytest.fixture(scope="module")
def store(url: URL) -> DemoStore:
    loaded = DemoStore(url, scale=SCALE, seed=7)
    loaded.load()
    return loaded


def content(url: URL) -> list[tuple[Any, ...]]:
    """Return a hash of each loaded table's rows, whatever their order."""
    return [
        rows(
            url,
            f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM shop.{table} t",
        )[0]
        for table in ("customers", "products", "orders", "order_items", "reviews", "events")
    ]


def test_an_interrupted_load_goes_on_and_ends_with_the_same_content(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DemoStore(url, scale=SCALE, seed=7)
    assert not store.is_loaded()
    assert [check.ok for check in store.verify()] == [False]
    run_step = store_module._run_step

    def fail_at_reviews(cursor: Any, step: Any) -> None:
        run_step(cursor, step)
        if step.name.startswith("events"):
            cursor.connection.close()  # the next step of this lane meets a lost connection

    monkeypatch.setattr(store_module, "_run_step", fail_at_reviews)
    with pytest.raises(WorkloadError, match="failed at step 'reviews 1'"):
        store.load()
    monkeypatch.undo()
    assert not store.is_loaded()

    seen: list[tuple[str, int, int]] = []
    store.load(lambda step, done, total: seen.append((step, done, total)))
    assert store.is_loaded()
    assert "events 1" not in {step for step, _, _ in seen}
    assert seen[-1][0] == "complete"
    assert seen[-1][1] == seen[-1][2]
    interrupted = content(url)

    store.drop()
    store.load()
    assert content(url) == interrupted


def test_a_loaded_store_passes_its_checks_and_loading_again_does_nothing(store: DemoStore) -> None:
    failed = [check for check in store.verify() if not check.ok]
    assert not failed
    seen: list[str] = []
    store.load(lambda step, *_: seen.append(step))
    assert not seen
    assert store.size_bytes() > 5_000_000


def test_a_check_fails_when_the_data_is_wrong(store: DemoStore, url: URL) -> None:
    rows(url, "UPDATE shop.orders SET total = total + 1 WHERE order_id = 1")
    try:
        failed = [check.name for check in store.verify() if not check.ok]
    finally:
        rows(url, "UPDATE shop.orders SET total = total - 1 WHERE order_id = 1")
    assert failed == ["loaded orders whose total is not the sum of their lines"]


def test_another_store_is_not_written_over(store: DemoStore, url: URL) -> None:
    other = DemoStore(url, scale=SCALE * 2, seed=7)
    assert not other.is_loaded()
    with pytest.raises(WorkloadError, match=r"scale 0\.005, seed 7 lies in this database"):
        other.load()
    assert store.is_loaded()


def test_two_loaders_do_not_load_at_once(store: DemoStore, url: URL) -> None:
    with closing(connect(url, application_name="test")) as connection:
        connection.cursor().execute("SELECT pg_advisory_lock(%s)", (store_module.LOADER_LOCK,))
        with pytest.raises(WorkloadError, match="another process is loading"):
            store.load()


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_every_statement_finds_or_writes_rows(store: DemoStore, url: URL, name: str) -> None:
    statement = STATEMENTS[name]
    touched = 0
    with closing(connect(url, application_name="test")) as connection:
        cursor = connection.cursor()
        for point in ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), (0.9, 0.8, 0.7)):
            cursor.execute(statement.sql, statement.parameters(point, Scope(SHAPE)))
            touched += cursor.rowcount
    # At this small scale a narrow report may find nothing; what every shop page needs, it finds.
    assert touched > 0 or name in {"never_bought", "city_returns", "supplier_shipments"}


COUNTS = """SELECT (SELECT count(*) FROM shop.orders), (SELECT count(*) FROM shop.order_items),
                   (SELECT count(*) FROM shop.events)"""


def test_the_store_grows_by_the_share_asked_for_once_and_shrinks_again(
    store: DemoStore, url: URL
) -> None:
    loaded = rows(url, COUNTS)[0]
    for _ in range(2):  # what is there is not added again
        grow(url, SHAPE, 0.25, 0.0, threading.Event())
        grown = [now / before for now, before in zip(rows(url, COUNTS)[0], loaded, strict=True)]
        assert grown == pytest.approx([1.25, 1.25, 1.25], abs=0.03)
    whole = f"""SELECT count(*) FROM shop.orders o WHERE o.order_id >= {GROWN_FROM} AND o.total <>
                (SELECT sum(round(quantity * unit_price * (1 - discount), 2))
                 FROM shop.order_items i WHERE i.order_id = o.order_id)"""
    assert rows(url, whole) == [(0,)]
    shrink(url)
    assert rows(url, COUNTS)[0] == loaded


def test_growth_stops_when_it_is_told(store: DemoStore, url: URL) -> None:
    before, stop = rows(url, COUNTS)[0], threading.Event()
    stop.set()
    try:
        grow(url, SHAPE, 1.0, 3600.0, stop)
        assert before < rows(url, COUNTS)[0]
    finally:
        shrink(url)


@pytest.fixture(params=["plain", "steered"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> SteeringPlaces | None:
    """No plug-in, or one that steers every query of the pages (to the plan that it has anyway)."""
    if request.param == "plain":
        return None
    places = SteeringPlaces(tmp_path / "steering")
    places.folder.mkdir()
    write_table(
        places.table,
        [
            SteeringEntry(
                fingerprint(statement.sql.replace("%s", "$1")),
                search_path='"$user", public',
                hint_set="no_tidscan",
                settings={"enable_tidscan": "off"},
                under={"enable_tidscan": "on"},
            )
            for statement in STATEMENTS.values()
            if statement.kind in ("simple", "two-table join")
        ],
        expires_at_s=time.time() + 3600,
    )
    return places


def generator(
    url: URL,
    places: SteeringPlaces | None,
    *,
    rate_per_s: float = 100.0,
    mix: str = "oltp",
    **arguments: Any,
) -> WorkloadGenerator:
    schedule = ArrivalSchedule(MIXES[mix], rate_per_s * 3600, seed=1, shape=SHAPE)
    arguments = {"max_concurrency": 4, "default_share": 0.25, **arguments}
    return WorkloadGenerator(url, schedule, steering=places, **arguments)


def test_offered_statements_complete_and_are_counted_once(
    store: DemoStore, url: URL, places: SteeringPlaces | None
) -> None:
    load = generator(url, places)
    load.start()
    eventually(lambda: load.stats().completed >= 100, "100 completed statements")
    named = rows(url, "SELECT count(*) FROM pg_stat_activity WHERE application_name ="
                 " 'autopilot_demo'")  # fmt: skip
    load.stop()
    assert named == [(4,)]
    stats, interval = load.stats(), load.drain_interval()
    whole = next(entry for entry in interval.classes if entry.class_name == ALL_CLASSES)
    assert not stats.running
    assert stats.errors == stats.timeouts == 0
    assert (
        whole.offered
        == stats.offered
        == sum(entry.offered for entry in interval.classes if entry.class_name != ALL_CLASSES)
    )
    assert whole.completed == stats.completed == interval.response.count
    assert whole.mean_ms is not None
    assert whole.service_mean_ms is not None
    assert whole.service_mean_ms <= whole.mean_ms
    assert load.drain_interval().response.count == 0
    assert rows(url, "SELECT count(*) FROM pg_stat_activity WHERE application_name ="
                " 'autopilot_demo'") == [(0,)]  # fmt: skip


def test_killed_connections_are_counted_and_replaced(
    store: DemoStore, url: URL, places: SteeringPlaces | None
) -> None:
    load = generator(url, places)
    load.start()
    try:
        eventually(lambda: load.stats().connected == 4, "four connections")
        rows(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'autopilot_demo'",
        )
        eventually(lambda: load.stats().errors >= 1, "errors after the kill")
        before = load.stats().completed
        eventually(lambda: load.stats().completed > before + 50, "statements after the kill")
        assert load.stats().connected == 4
    finally:
        load.stop()


def test_a_server_restart_is_survived(
    store: DemoStore,
    url: URL,
    embedded_server: EmbeddedPostgres,
    places: SteeringPlaces | None,
) -> None:
    load = generator(url, places)
    load.start()
    try:
        eventually(lambda: load.stats().completed >= 20, "a running workload")
        embedded_server.restart()
        before = load.stats()
        eventually(lambda: load.stats().completed > before.completed + 50, "work after a restart")
        assert load.stats().errors >= 1
    finally:
        load.stop()


def test_overload_is_bounded_and_dropped_arrivals_are_counted(store: DemoStore, url: URL) -> None:
    with closing(connect(url, application_name="test")) as blocker:
        cursor = blocker.cursor()
        cursor.execute("BEGIN; LOCK TABLE shop.orders, shop.products IN ACCESS EXCLUSIVE MODE")
        load = generator(url, None, rate_per_s=1000)
        load.start()
        try:
            eventually(
                lambda: load.stats().dropped > 0 and load.stats().uptime_s > 2 * LATE_AFTER_S,
                "dropped arrivals, and others that waited long enough to be late",
            )
            assert load.stats().waiting <= 4 * 16
            cursor.execute("ROLLBACK")
            eventually(lambda: load.stats().late > 0, "late arrivals once the lock is gone")
        finally:
            load.stop()
    stats = load.stats()
    assert stats.offered == stats.completed + stats.errors + stats.timeouts + stats.dropped


def test_a_slow_statement_times_out_and_the_connection_stays(
    store: DemoStore, url: URL, places: SteeringPlaces | None
) -> None:
    load = generator(
        url, places, rate_per_s=50, mix="simple", max_concurrency=2, statement_timeout_s=0.1
    )
    with closing(connect(url, application_name="test")) as blocker:
        cursor = blocker.cursor()
        cursor.execute("BEGIN; LOCK TABLE shop.orders, shop.products IN ACCESS EXCLUSIVE MODE")
        load.start()
        try:
            eventually(lambda: load.stats().timeouts >= 2, "timeouts")
            cursor.execute("ROLLBACK")
            before = load.stats().completed
            eventually(lambda: load.stats().completed > before + 20, "work after the lock")
            assert load.stats().errors == 0
        finally:
            load.stop()


@pytest.mark.parametrize("places", ["steered"], indirect=True)
def test_the_plug_in_steers_the_classes_of_its_table_and_reports_all_it_timed(
    store: DemoStore, url: URL, places: SteeringPlaces
) -> None:
    seen: list[StatementRecord] = []
    load = generator(url, places, on_record=seen.append)
    load.start()
    eventually(lambda: load.stats().completed >= 200, "200 completed statements")
    load.stop()
    pages = {name for name, s in STATEMENTS.items() if s.kind in ("simple", "two-table join")}
    timed = sum(record.class_name in pages for record in seen)
    take_spool(places.timings)
    reports, broken = take_spool(places.timings)
    by_arm = {"steered": 0, "default": 0}
    for entry in (entry for report in reports for entry in report.classes):
        by_arm[entry.arm] += entry.executions
    assert broken == 0
    assert sum(by_arm.values()) == timed
    assert by_arm["steered"] > by_arm["default"] > 0
    assert load.stats().errors == 0
    take_samples(places.spooled_samples)
    classes, broken = take_samples(places.spooled_samples)
    assert broken == 0
    texts = [sample.text for sampled in classes for sample in sampled.samples]
    assert any("FROM shop.orders WHERE order_id = " in text for text in texts)
    assert not [text for text in texts if "%s" in text or "set_config" in text]
    assert {sampled.search_path for sampled in classes} == {'"$user", public'}


def test_the_runner_hands_out_every_interval_and_ends_when_told(store: DemoStore, url: URL) -> None:
    stop = threading.Event()
    records: list[Any] = []

    def collect(interval: Any) -> None:
        records.extend(r for r in interval_records(interval) if r.class_name == ALL_CLASSES)
        if sum(record.completed for record in records) > 30:
            stop.set()

    totals = run_workload(
        url,
        WorkloadSettings(mix="simple", scale=SCALE, interval_s=0.1, max_concurrency=2),
        stop,
        collect,
    )
    assert len(records) >= 2
    assert sum(record.offered for record in records) == totals.offered
    assert sum(record.completed for record in records) == totals.completed
