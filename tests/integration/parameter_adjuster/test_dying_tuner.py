"""The tuner dies or hangs: the server goes back to its last good configuration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backend.db_connector import WATCHDOG_APPLICATION, DatabaseConnector
from backend.domain.clock import SystemClock
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import StaleEpochError
from backend.targets.postgresql import PostgresTarget
from backend.telemetry import SqlStore
from backend.watchdog import run_watchdog
from tests.foreign_server import AnyServer, tuner_dsn
from tests.integration.tuned_servers import Tuner, auto_conf
from tests.waiting import eventually

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
_TUNER = """
import json, sys, threading
from sqlalchemy.engine import make_url
from backend.catalog import load_catalog
from backend.db_connector import DatabaseConnector
from backend.domain.clock import SystemClock
from backend.domain.server import HostFacts
from backend.lease import TunerLease
from backend.parameter_adjuster import ParameterAdjuster
from backend.targets.postgresql import PostgresTarget
from backend.telemetry import open_store

url, store_url, ttl_s, *hang = json.loads(sys.stdin.readline())
store = open_store(store_url)
target = PostgresTarget(DatabaseConnector(make_url(url)))
catalog = load_catalog(target.describe().version, HostFacts(8 << 30, 4.0))
lease = TunerLease(store, float(ttl_s), SystemClock())
adjuster = ParameterAdjuster(target, store, catalog, SystemClock())
if not target.hold_tuner_lock():
    sys.exit("no lock")
adjuster.apply({"work_mem": 65536, "random_page_cost": 1.1}, actor="agent", epoch=lease.epoch)
lease.renew()
if hang:
    with store.transaction():
        lease.renew()
        print("applied", flush=True)
        threading.Event().wait()
print("applied", flush=True)
threading.Event().wait(0.5)
while lease.renew():
    threading.Event().wait(0.5)
try:
    adjuster.apply({"jit": False}, actor="agent", epoch=lease.epoch)
except Exception as error:
    print(type(error).__name__, flush=True)
"""


@pytest.fixture(scope="session", params=["embedded_server", "least_server"])
def server(request: pytest.FixtureRequest) -> AnyServer:
    """One of our own, and one on which tuner and watchdog have what is printed and no more."""
    found: AnyServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def watched(
    server: AnyServer, tmp_path: Path, store: SqlStore, human: Callable[..., Any]
) -> Iterator[None]:
    """A watchdog beside the server."""
    stop = threading.Event()

    def connect() -> PostgresTarget:
        return PostgresTarget(
            DatabaseConnector(tuner_dsn(server), application_name=WATCHDOG_APPLICATION)
        )

    thread = threading.Thread(
        target=run_watchdog,
        args=(store, connect),
        kwargs={"stop_event": stop, "poll_interval_s": 0.1},
    )
    thread.start()
    yield
    stop.set()
    thread.join()


def start_tuner(
    server: AnyServer, tmp_path: Path, ttl_s: float, *more: str
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _TUNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    address = tuner_dsn(server).render_as_string(hide_password=False)
    process.stdin.write(json.dumps([address, f"sqlite:///{tmp_path}/store.db", ttl_s, *more]))
    process.stdin.write("\n")
    process.stdin.flush()
    if process.stdout.readline() != "applied\n":
        process.kill()
        process.communicate()
        pytest.fail("the tuner did not get so far")
    return process


@pytest.mark.faults
@pytest.mark.usefixtures("watched")
def test_a_killed_tuner_leaves_the_last_good_configuration(
    server: AnyServer, tmp_path: Path, store: SqlStore, human: Callable[..., Any]
) -> None:
    process = start_tuner(server, tmp_path, ttl_s=60)
    try:
        assert human("SHOW work_mem") == [("64MB",)]
        process.send_signal(signal.SIGKILL)
        eventually(lambda: human("SHOW work_mem") == [("4MB",)], "the rollback")
        eventually(lambda: not store.open_changes(), "the journal's end")
        assert not {"work_mem", "random_page_cost"} & set(auto_conf(server))
        eventually(lambda: bool(store.events()), "the event")
        assert store.events()[-1].kind == "watchdog_rollback"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.faults
@pytest.mark.usefixtures("watched")
def test_a_stopped_tuner_is_rolled_back_and_may_not_act_when_it_wakes(
    server: AnyServer, tmp_path: Path, store: SqlStore, human: Callable[..., Any]
) -> None:
    process = start_tuner(server, tmp_path, ttl_s=2.0)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        eventually(lambda: human("SHOW work_mem") == [("4MB",)], "the rollback")
        eventually(lambda: not store.open_changes(), "the journal's end")
        sessions = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'autopilot_tuner'"
        eventually(lambda: human(sessions) == [], "the end of the tuner's sessions")
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.readline() == f"{StaleEpochError.__name__}\n"
        assert not {"work_mem", "random_page_cost", "jit"} & set(auto_conf(server))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.usefixtures("watched")
def test_a_tuner_that_hangs_inside_a_transaction_is_ended(
    server: AnyServer, tmp_path: Path, store: SqlStore, human: Callable[..., Any]
) -> None:
    """It locks the store, so that nobody could even note that its epoch is over."""
    process = start_tuner(server, tmp_path, 1.0, "hang")
    try:
        eventually(lambda: human("SHOW work_mem") == [("4MB",)], "the rollback", 60)
        assert process.wait(timeout=10) == -signal.SIGKILL
        eventually(lambda: not store.open_changes(), "the journal's end")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.faults
def test_after_everything_died_the_next_start_reconciles(
    server: AnyServer, tmp_path: Path, store: SqlStore, human: Callable[..., Any]
) -> None:
    process = start_tuner(server, tmp_path, ttl_s=60)
    process.kill()
    process.communicate()
    server.stop("immediate")
    if isinstance(server, EmbeddedPostgres):
        server.start_or_recover()
    else:
        server.start()
    assert human("SHOW work_mem") == [("64MB",)]
    tuner = Tuner(server, store)
    try:
        result = tuner.adjuster.reconcile(tuner.epoch)
    finally:
        tuner.target.close()
    assert result.clean
    assert {row.knob for row in result.rolled_back} == {"work_mem", "random_page_cost"}
    assert human("SHOW work_mem") == [("4MB",)]


def test_the_epoch_is_the_only_thing_that_counts(tuner: Tuner, store: SqlStore) -> None:
    batch = tuner.apply(work_mem=65536)
    assert not store.lease_expired(SystemClock().now() + timedelta(seconds=1))
    newer = store.acquire_lease("somebody else", 60)
    with pytest.raises(StaleEpochError):
        tuner.roll_back(batch)
    tuner.epoch = newer
    tuner.roll_back(batch)
