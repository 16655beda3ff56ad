"""Catalogue, adjuster and watchdog on real servers: the bundled version and Debian's 15."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import pytest

from backend.catalog import KnobCatalog, load_catalog, never_reason
from backend.catalog.entries import same_value
from backend.db_connector import WATCHDOG_APPLICATION, DatabaseConnector
from backend.domain.clock import SystemClock
from backend.domain.modes import ChangeState
from backend.domain.server import HostFacts
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import AdjustmentError, EmbeddedServerError, StaleEpochError
from backend.parameter_adjuster import ParameterAdjuster
from backend.targets.postgresql import PostgresTarget
from backend.telemetry import SqlStore, open_store
from backend.watchdog import run_watchdog

pytestmark = pytest.mark.integration

HOST = HostFacts(memory_bytes=8 << 30, cpu_count=4.0, free_disk_bytes=100 << 30)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", params=["embedded_server", "debian_server"])
def server(request: pytest.FixtureRequest) -> EmbeddedPostgres:
    found: EmbeddedPostgres = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def human(server: EmbeddedPostgres) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Runs SQL as somebody else, whatever happens to the server in between."""

    def run(*statements: str) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(
            **server.dsn().translate_connect_args(username="user"), application_name="human"
        )
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    yield run
    run("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db")
    yield opened
    opened.close()


def restarter(server: EmbeddedPostgres) -> Callable[[], None]:
    def restart() -> None:
        try:
            server.restart()
        except EmbeddedServerError:
            server.start_or_recover()
            raise

    return restart


class Tuner:
    """A target, a lease and an adjuster on it."""

    def __init__(self, server: EmbeddedPostgres, store: SqlStore, host: HostFacts = HOST) -> None:
        self.target = PostgresTarget(DatabaseConnector(server.dsn()), restarter=restarter(server))
        self.catalog: KnobCatalog = load_catalog(self.target.describe().version, host)
        self.store = store
        self.epoch = store.acquire_lease("test", 600)
        self.adjuster = ParameterAdjuster(self.target, store, self.catalog, SystemClock())

    def apply(self, **after: Any) -> str:
        return self.adjuster.apply(
            after, actor="test", epoch=self.epoch, allow_restart=True
        ).batch_id

    def roll_back(self, batch_id: str) -> None:
        result = self.adjuster.roll_back(batch_id, epoch=self.epoch, reason="test")
        assert result.clean
        assert result.conflicts == ()

    def states(self) -> set[ChangeState]:
        return {row.state for row in self.store.changes()}


@pytest.fixture
def tuner(server: EmbeddedPostgres, store: SqlStore, human: Callable[..., Any]) -> Iterator[Tuner]:
    made = Tuner(server, store)
    yield made
    made.adjuster.reconcile(store.current_epoch())
    made.target.close()


def auto_conf(server: EmbeddedPostgres) -> dict[str, str]:
    """The entries of postgresql.auto.conf, from the file itself."""
    text = (server.cluster_dir / "postgresql.auto.conf").read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+) = '(.*)'$", text, re.MULTILINE))


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(0.02)


# -- the catalogue against the servers --------------------------------------------------------


def test_every_entry_agrees_with_pg_settings(
    tuner: Tuner, human: Callable[..., list[tuple[Any, ...]]]
) -> None:
    rows = human(
        "SELECT name, vartype, coalesce(unit, ''), min_val, max_val, boot_val, context, enumvals "
        "FROM pg_settings"
    )
    settings = {row[0]: row[1:] for row in rows}
    kinds = {"bool": "boolean", "enum": "categorical"}
    contexts = {"postmaster": "restart", "sighup": "reload"}
    for entry in tuner.catalog:
        knob = entry.knob
        assert knob.name in settings, f"{knob.name}: no such setting"
        vartype, unit, low, high, boot, context, choices = settings[knob.name]
        assert knob.kind == kinds.get(vartype, vartype), knob.name
        assert (knob.unit or "") == unit, knob.name
        assert knob.context == contexts.get(context, "session"), knob.name
        if context not in contexts:
            assert context in ("user", "superuser"), knob.name
        if knob.kind in ("integer", "real"):
            assert float(low) <= knob.bounds[0] < knob.bounds[1] <= float(high), knob.name
            assert all(float(low) <= float(s) <= float(high) for s in knob.special), knob.name
            assert same_value(float(boot), float(knob.default or 0)), knob.name
        elif knob.kind == "categorical":
            assert set(knob.choices) <= set(choices), knob.name
            assert knob.default == boot, knob.name
        else:
            assert knob.default is (boot == "on"), knob.name


def test_the_never_list_names_what_the_servers_have(
    human: Callable[..., list[tuple[Any, ...]]],
) -> None:
    names = [row[0] for row in human("SELECT name FROM pg_settings WHERE context <> 'internal'")]
    never = {name for name in names if never_reason(name)}
    assert {"fsync", "full_page_writes", "autovacuum", "max_connections", "port"} <= never
    assert len(never) > 150


# -- applying and undoing ---------------------------------------------------------------------


def test_all_knobs_that_need_no_restart_at_once(tuner: Tuner, server: EmbeddedPostgres) -> None:
    space = tuner.catalog.space(tunable_only=False)
    before = auto_conf(server)
    rng = random.Random(7)
    for _ in range(2):
        values = {
            knob.name: knob.decode(_vector(rng, knob.width))
            for knob in space
            if not knob.name.startswith("enable_")
        }
        batch = tuner.apply(**values)
        readings = tuner.target.read_knobs(list(values))
        for name, value in values.items():
            assert same_value(readings[name].value, value), name
        tuner.roll_back(batch)
        assert auto_conf(server) == before
    assert tuner.states() == {ChangeState.ROLLED_BACK}


def test_spelling_and_absence_are_restored(
    tuner: Tuner, server: EmbeddedPostgres, human: Callable[..., Any]
) -> None:
    human("ALTER SYSTEM SET work_mem = '16MB'", "SELECT pg_reload_conf()")
    batch = tuner.apply(work_mem="64MB", random_page_cost=1.23456789, jit=False)
    assert human("SHOW work_mem") == [("64MB",)]
    assert auto_conf(server)["work_mem"] == "65536"
    tuner.roll_back(batch)
    assert {k: v for k, v in auto_conf(server).items() if k != "shared_buffers"} == {
        "work_mem": "16MB"
    }
    assert human("SHOW work_mem") == [("16MB",)]
    assert human("SHOW jit") == [("on",)]


def test_a_refused_value_undoes_the_whole_batch(
    tuner: Tuner, server: EmbeddedPostgres, human: Callable[..., Any]
) -> None:
    """The server refuses the second knob: a role that may set only the first."""
    if int(human("SHOW server_version_num")[0][0]) < 150000:
        pytest.skip("privileges on single settings came with version 15")
    human(
        "DROP ROLE IF EXISTS half_a_tuner",
        "CREATE ROLE half_a_tuner LOGIN PASSWORD 'half' IN ROLE pg_read_all_settings",
        "GRANT ALTER SYSTEM ON PARAMETER work_mem TO half_a_tuner",
        "GRANT EXECUTE ON FUNCTION pg_reload_conf() TO half_a_tuner",
        "GRANT SELECT ON pg_file_settings TO half_a_tuner",
        "GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO half_a_tuner",
    )
    url = server.dsn().set(username="half_a_tuner", password="half")
    target = PostgresTarget(DatabaseConnector(url))
    adjuster = ParameterAdjuster(target, tuner.store, tuner.catalog, SystemClock())
    before = auto_conf(server)
    try:
        with pytest.raises(AdjustmentError, match="stands again") as caught:
            adjuster.apply(
                {"work_mem": 65536, "random_page_cost": 1.1}, actor="test", epoch=tuner.epoch
            )
        assert "GRANT SET, ALTER SYSTEM ON PARAMETER random_page_cost" in str(caught.value)
    finally:
        target.close()
        human("DROP OWNED BY half_a_tuner", "DROP ROLE half_a_tuner")
    assert auto_conf(server) == before
    assert tuner.states() == {ChangeState.FAILED}


def test_role_settings_that_would_win_are_noticed(
    tuner: Tuner, human: Callable[..., Any], server: EmbeddedPostgres
) -> None:
    human("ALTER ROLE CURRENT_USER SET work_mem = '5MB'")
    try:
        with pytest.raises(AdjustmentError, match="which wins over our entry"):
            tuner.apply(work_mem=65536)
    finally:
        human("ALTER ROLE CURRENT_USER RESET work_mem")
    assert "work_mem" not in auto_conf(server)
    assert tuner.states() == set()


def test_a_broken_configuration_file_is_no_success(
    tuner: Tuner, server: EmbeddedPostgres, human: Callable[..., Any]
) -> None:
    """With an error in postgresql.conf a reload does nothing at all; we must notice."""
    path = server.cluster_dir / "postgresql.conf"
    original = path.read_text(encoding="utf-8")
    path.write_text(original + "\nthis is = not = a setting\n", encoding="utf-8")
    try:
        with pytest.raises(AdjustmentError, match="work_mem"):
            tuner.adjuster.apply(
                {"work_mem": 65536}, actor="test", epoch=tuner.epoch, verify_timeout_s=0.5
            )
    finally:
        path.write_text(original, encoding="utf-8")
    assert human("SHOW work_mem") == [("4MB",)]
    assert tuner.adjuster.reconcile(tuner.epoch).clean
    assert "work_mem" not in auto_conf(server)


def test_a_humans_value_stays(
    tuner: Tuner, server: EmbeddedPostgres, human: Callable[..., Any]
) -> None:
    batch = tuner.apply(work_mem=65536, jit=False)
    human("ALTER SYSTEM SET work_mem = '9MB'", "SELECT pg_reload_conf()")
    result = tuner.adjuster.roll_back(batch, epoch=tuner.epoch, reason="test")
    assert [row.knob for row in result.conflicts] == ["work_mem"]
    assert auto_conf(server)["work_mem"] == "9MB"
    assert "jit" not in auto_conf(server)
    assert tuner.states() == {ChangeState.CONFLICT, ChangeState.ROLLED_BACK}


def test_kept_changes_are_undone_on_request(
    tuner: Tuner, server: EmbeddedPostgres, human: Callable[..., Any]
) -> None:
    kept = tuner.adjuster.keep(tuner.apply(work_mem=65536, wal_compression="lz4"))
    assert tuner.adjuster.reconcile(tuner.epoch).rolled_back == ()
    assert human("SHOW work_mem") == [("64MB",)]
    tuner.adjuster.roll_back(kept, epoch=tuner.epoch, reason="operator")
    assert "work_mem" not in auto_conf(server)
    assert human("SHOW wal_compression") == [("off",)]


def test_arms_change_places_many_times(tuner: Tuner, server: EmbeddedPostgres) -> None:
    before = auto_conf(server)
    for _ in range(10):
        batch = tuner.adjuster.apply(
            {"work_mem": 65536, "random_page_cost": 1.1, "jit": False},
            actor="agent",
            epoch=tuner.epoch,
            trial_id=3,
        )
        tuner.roll_back(batch.batch_id)
    assert auto_conf(server) == before
    assert len(tuner.store.changes()) == 3


# -- restarts ---------------------------------------------------------------------------------


def test_restart_knobs(tuner: Tuner, human: Callable[..., Any]) -> None:
    before = human("SHOW shared_buffers")
    batch = tuner.apply(shared_buffers="64MB", wal_buffers="8MB", work_mem=65536)
    assert human("SHOW shared_buffers") == [("64MB",)]
    assert human("SHOW wal_buffers") == [("8MB",)]
    tuner.roll_back(batch)
    assert human("SHOW shared_buffers") == before
    assert human("SHOW work_mem") == [("4MB",)]


def test_wal_buffers_may_choose_for_themselves(tuner: Tuner, human: Callable[..., Any]) -> None:
    batch = tuner.apply(wal_buffers=2048)
    second = tuner.apply(wal_buffers=-1)
    assert human("SHOW wal_buffers") == [("4MB",)]
    tuner.roll_back(second)
    assert human("SHOW wal_buffers") == [("16MB",)]
    tuner.roll_back(batch)
    assert human("SHOW wal_buffers") == [("4MB",)]


def test_a_server_that_does_not_start_comes_back_as_it_was(
    server: EmbeddedPostgres, store: SqlStore, human: Callable[..., Any]
) -> None:
    huge = HostFacts(memory_bytes=1 << 50, cpu_count=4.0)
    tuner = Tuner(server, store, huge)
    before = auto_conf(server)
    try:
        with pytest.raises(AdjustmentError, match="stands again"):
            tuner.apply(shared_buffers="300TB", work_mem=65536)
        assert auto_conf(server) == before
        assert human("SHOW work_mem") == [("4MB",)]
        assert tuner.states() == {ChangeState.FAILED}
    finally:
        tuner.target.close()


# -- the tuner dies ---------------------------------------------------------------------------

_TUNER = """
import sys, threading
from sqlalchemy.engine import make_url
from backend.catalog import load_catalog
from backend.db_connector import DatabaseConnector
from backend.domain.clock import SystemClock
from backend.domain.server import HostFacts
from backend.lease import TunerLease
from backend.parameter_adjuster import ParameterAdjuster
from backend.targets.postgresql import PostgresTarget
from backend.telemetry import open_store

url, store_url, ttl_s, *hang = sys.stdin.readline().strip().split(" ")
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


@pytest.fixture
def watched(
    server: EmbeddedPostgres, tmp_path: Path, store: SqlStore, human: Callable[..., Any]
) -> Iterator[None]:
    """A watchdog beside the server."""
    stop = threading.Event()

    def connect() -> PostgresTarget:
        return PostgresTarget(
            DatabaseConnector(server.dsn(), application_name=WATCHDOG_APPLICATION)
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
    server: EmbeddedPostgres, tmp_path: Path, ttl_s: float, *more: str
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
    address = server.dsn().render_as_string(hide_password=False)
    process.stdin.write(" ".join([address, f"sqlite:///{tmp_path}/store.db", str(ttl_s), *more]))
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
    server: EmbeddedPostgres, tmp_path: Path, store: SqlStore, human: Callable[..., Any]
) -> None:
    process = start_tuner(server, tmp_path, ttl_s=60)
    try:
        assert human("SHOW work_mem") == [("64MB",)]
        process.send_signal(signal.SIGKILL)
        wait_for(lambda: human("SHOW work_mem") == [("4MB",)], "the rollback")
        wait_for(lambda: not store.open_changes(), "the journal's end")
        assert not {"work_mem", "random_page_cost"} & set(auto_conf(server))
        wait_for(lambda: bool(store.events()), "the event")
        assert store.events()[-1].kind == "watchdog_rollback"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.faults
@pytest.mark.usefixtures("watched")
def test_a_stopped_tuner_is_rolled_back_and_may_not_act_when_it_wakes(
    server: EmbeddedPostgres, tmp_path: Path, store: SqlStore, human: Callable[..., Any]
) -> None:
    process = start_tuner(server, tmp_path, ttl_s=2.0)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        wait_for(lambda: human("SHOW work_mem") == [("4MB",)], "the rollback")
        wait_for(lambda: not store.open_changes(), "the journal's end")
        sessions = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'autopilot_tuner'"
        wait_for(lambda: human(sessions) == [], "the end of the tuner's sessions")
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
    server: EmbeddedPostgres, tmp_path: Path, store: SqlStore, human: Callable[..., Any]
) -> None:
    """It locks the store, so that nobody could even note that its epoch is over."""
    process = start_tuner(server, tmp_path, 1.0, "hang")
    try:
        wait_for(lambda: human("SHOW work_mem") == [("4MB",)], "the rollback", 60)
        assert process.wait(timeout=10) == -signal.SIGKILL
        wait_for(lambda: not store.open_changes(), "the journal's end")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.faults
def test_after_everything_died_the_next_start_reconciles(
    server: EmbeddedPostgres, tmp_path: Path, store: SqlStore, human: Callable[..., Any]
) -> None:
    process = start_tuner(server, tmp_path, ttl_s=60)
    process.kill()
    process.communicate()
    server.stop("immediate")
    server.start_or_recover()
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


def _vector(rng: random.Random, width: int) -> Any:

    values: Sequence[float] = [rng.uniform(-1, 1) for _ in range(width)]
    return np.array(values)
