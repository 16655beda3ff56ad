"""Advice on real servers under load: it finds something, and leaves everything as it was."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy.engine import URL

from backend.advice.gathering import APPLICATION, StatedMachine, Visit
from backend.commands.advise import observe_and_advise
from backend.config import PathSettings, Settings, load_settings
from backend.db_connector import STATEMENT_TAG
from backend.domain.modes import Mode, Phase, TrialKind, TrialState, Verdict
from backend.domain.records import StatusRecord, TrialRecord
from backend.errors import AutopilotError, ServerConnectionError, ServerError
from backend.targets.postgresql import PostgresTarget
from backend.targets.postgresql_lookup import AWS_RDS
from backend.telemetry import open_store
from tests.foreign_server import AnyServer, adviser_dsn, foreign_server, roles_of
from tests.integration.steering_servers import owner, session
from tests.running_product import REPOSITORY, clean_environment
from tests.waiting import eventually

pytestmark = pytest.mark.integration

MINUTES = 0.05
SECRET = "Secret-Literal-9"
HOSTILE = 'odd"name<script>\x1b[31m'
SPILLING = "SELECT count(*) FROM (SELECT n, t FROM advised.numbers ORDER BY t, n OFFSET 1) AS s"
LITERAL = f"SELECT count(*) FROM advised.numbers WHERE t = '{SECRET}'"
STATE = """
SELECT (SELECT jsonb_object_agg(name, setting || source || pending_restart) FROM pg_settings),
       (SELECT jsonb_agg(to_jsonb(s)) FROM pg_db_role_setting AS s),
       (SELECT jsonb_agg(r.rolname ORDER BY r.oid) FROM pg_roles AS r),
       (SELECT jsonb_agg(d.datname ORDER BY d.oid) FROM pg_database AS d),
       (SELECT jsonb_agg((c.oid, c.relname, c.relkind, c.relacl)::text ORDER BY c.oid)
          FROM pg_class AS c WHERE c.relpersistence <> 't'),
       (SELECT md5(string_agg(n || t, '' ORDER BY n)) FROM advised.numbers),
       (SELECT jsonb_agg(to_jsonb(f)) FROM pg_file_settings AS f)
"""


@pytest.fixture
def loaded(server: AnyServer) -> Iterator[AnyServer]:
    """A server with a table, and a client that reads it all the time."""
    with owner(server) as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS advised CASCADE")
        cursor.execute("CREATE SCHEMA advised")
        cursor.execute(
            "CREATE TABLE advised.numbers AS SELECT n, md5(n::text) AS t "
            "FROM generate_series(1, 60000) AS n"
        )
        quoted = HOSTILE.replace('"', '""')
        cursor.execute(f'CREATE TABLE advised."{quoted}" AS TABLE advised.numbers')
        cursor.execute("SELECT pg_reload_conf()")
    stop = threading.Event()
    rounds: list[int] = []
    client = threading.Thread(target=read_on, args=(server, stop, rounds))
    client.start()
    try:
        eventually(lambda: rounds, "the client's first statements", 30)
        yield server
    finally:
        stop.set()
        client.join()
        with owner(server) as cursor:
            cursor.execute("DROP SCHEMA advised CASCADE")


def read_on(server: AnyServer, stop: threading.Event, rounds: list[int]) -> None:
    with owner(server) as cursor:
        cursor.execute("SET work_mem = '1MB'")
        while not stop.wait(0.05):
            cursor.execute(SPILLING)
            cursor.execute(LITERAL)
            rounds.append(1)


@contextlib.contextmanager
def monitor(server: AnyServer) -> Iterator[URL]:
    """The address of a role that may look at statistics, and nothing else."""
    if roles_of(server):
        yield adviser_dsn(server)
        return
    with owner(server) as cursor:
        cursor.execute("DROP ROLE IF EXISTS advised_monitor")
        cursor.execute("CREATE ROLE advised_monitor LOGIN PASSWORD 'monitor-pw'")
        cursor.execute("GRANT pg_monitor TO advised_monitor")
    try:
        yield server.dsn().set(username="advised_monitor", password="monitor-pw")
    finally:
        with owner(server) as cursor:
            cursor.execute("DROP ROLE advised_monitor")


def settings_of(url: URL, folder: Path) -> Settings:
    return load_settings(
        dsn=url.set(drivername="postgresql").render_as_string(hide_password=False),
        overrides={
            "paths": PathSettings.under(folder),
            "telemetry": {"collection_interval": 1},
        },
        environ={},
    )


def advise(settings: Settings, stated: StatedMachine) -> tuple[str, dict, str]:
    """The text, the JSON and the page."""
    text = io.StringIO()
    observe_and_advise(settings, Console(file=text, width=120), minutes=MINUTES, stated=stated)
    folder = settings.paths.data_dir
    document = json.loads((folder / "advice.json").read_text(encoding="utf-8"))
    return text.getvalue(), document, (folder / "advice.html").read_text(encoding="utf-8")


def test_it_finds_something_and_changes_nothing(loaded: AnyServer, tmp_path: Path) -> None:
    record_a_trial(loaded, tmp_path)
    with owner(loaded) as cursor:
        cursor.execute("SELECT pg_stat_statements_reset()")
        cursor.execute(STATE)
        before = cursor.fetchall()
        text, document, page = advise(
            settings_of(adviser_dsn(loaded), tmp_path), StatedMachine(memory_gib=16, cores=4)
        )
        cursor.execute(STATE)
        assert cursor.fetchall() == before
        cursor.execute(
            "SELECT query FROM pg_stat_statements WHERE position(%s IN query) > 0", (STATEMENT_TAG,)
        )
        ours = [row[0].lstrip().split()[0].upper() for row in cursor.fetchall()]
        assert ours
        assert set(ours) <= {"SELECT", "WITH"}

    found = {finding["key"]: finding for finding in document["findings"]}
    assert "temporary-files" in found
    assert "heaviest-statement" in found
    assert "stale-statistics" in found
    knobs = {knob["name"]: knob for knob in document["knobs"]}
    assert knobs["work_mem"]["basis"] == "finding"
    assert knobs["work_mem"]["expected_effect"] == "not measured here"
    assert bool(knobs["work_mem"]["texts"][0]["obstacle"]) is (roles_of(loaded) is not None)
    assert knobs["random_page_cost"]["basis"] == "trial"
    assert knobs["random_page_cost"]["proposed"] == "1.3"
    assert "-20.0 % to -4.0 %" in knobs["random_page_cost"]["expected_effect"]
    assert "shared_buffers" in {one["knob"] for one in document["withheld"]}, "all is cached"
    assert document["statements"][0]["calls"] > 0
    assert "Knobs worth changing" in text
    assert_every_text_works_and_can_be_undone(loaded, document)
    everything = text + page + json.dumps(document)
    for secret in (SECRET, str(adviser_dsn(loaded).password)):
        assert secret not in everything
    assert "<script>" not in page
    assert "\x1b" not in text


def assert_every_text_works_and_can_be_undone(server: AnyServer, document: dict[str, Any]) -> None:
    """What the advice offers as SQL is run, as its reader would, and taken back."""
    ran = 0
    with owner(server) as cursor:
        cursor.execute(STATE)
        before = cursor.fetchall()
        for knob in document["knobs"]:
            for copy in knob["texts"]:
                # The owner may do what the adviser may not.
                may = not copy["obstacle"] or roles_of(server)
                if copy["form"].startswith("ALTER") and may:
                    cursor.execute(copy["text"])
                    cursor.execute(copy["undo"])
                    ran += 1
        for copy in document["together"]:
            if copy["form"] == "ALTER SYSTEM":
                for part in (copy["text"], copy["undo"]):
                    for statement in part.replace("SELECT pg_reload_conf();", "").splitlines():
                        cursor.execute(statement)
        cursor.execute(STATE)
        assert cursor.fetchall() == before
        for finding in document["findings"]:
            for statement in finding["statements"]:
                cursor.execute(statement)
    assert ran > 10


def record_a_trial(server: AnyServer, folder: Path) -> None:
    """A store in which a value was accepted on this server."""
    url, now = server.dsn(), datetime.now(timezone.utc)
    with closing(open_store(f"sqlite:///{folder / 'telemetry.db'}")) as store:
        address = f"{url.host}:{url.port}/{url.database}"
        store.save_status(StatusRecord(now, Mode.ADVISE, Phase.OPTIMISED, server=address))
        store.save_trial(
            TrialRecord(
                TrialKind.PROMOTION, TrialState.FINISHED, "knob agent", now,
                {"random_page_cost": None}, {"random_page_cost": 1.3}, finished_at=now,
                verdict=Verdict.ACCEPT, effect=-0.12, ci_low=-0.2, ci_high=-0.04,
            )
        )  # fmt: skip


def test_a_role_that_may_only_look_gets_advice_with_the_obstacles(
    loaded: AnyServer, tmp_path: Path
) -> None:
    with monitor(loaded) as url:
        text, document, _ = advise(settings_of(url, tmp_path), StatedMachine())
    assert document["server"]["role"] == url.username
    assert document["statements"][0]["text"]
    assert document["knobs"]
    for knob in document["knobs"]:
        forms = {copy["form"]: copy for copy in knob["texts"]}
        assert "GRANT ALTER SYSTEM" in forms["ALTER SYSTEM"]["obstacle"]
        assert not forms["postgresql.conf"]["obstacle"]
    assert any("postgresql.auto.conf" in line for line in document["unknown"])
    assert str(url.password) not in text


def test_a_managed_service_is_told_by_the_role_it_makes(loaded: AnyServer, tmp_path: Path) -> None:
    with owner(loaded) as cursor:
        cursor.execute("CREATE ROLE rds_superuser")
        try:
            text, document, _ = advise(
                settings_of(adviser_dsn(loaded), tmp_path), StatedMachine(memory_gib=16, cores=4)
            )
        finally:
            cursor.execute("DROP ROLE rds_superuser")
    assert document["server"]["managed_by"] == AWS_RDS
    assert "aws rds modify-db-parameter-group" in text
    assert "ALTER SYSTEM to itself" in text


@pytest.mark.parametrize("server", ["embedded_server"], indirect=True)
def test_what_was_seen_is_told_where_the_server_is_lost_at_the_end(
    loaded: AnyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise ServerConnectionError("the server is gone")

    monkeypatch.setattr(PostgresTarget, "query_texts", lost)
    text, document, _ = advise(settings_of(adviser_dsn(loaded), tmp_path), StatedMachine(16, 4))
    assert "temporary-files" in {finding["key"] for finding in document["findings"]}
    assert document["statements"][0]["text"] == ""
    assert "the server is gone" in text


@pytest.mark.parametrize("version", [14, 16, 18])
def test_other_versions_with_and_without_statement_statistics(
    version: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server = request.getfixturevalue(f"server_{version}")
    text, document, _ = advise(settings_of(server.dsn(), tmp_path), StatedMachine(16, 4))
    assert f"PostgreSQL {version}" in text
    assert "random_page_cost" in {knob["name"] for knob in document["knobs"]}
    told = " ".join(document["unknown"])
    assert ("Single statements cannot be seen" in told) is (not server.has_statements)


def test_a_stand_by_gets_advice_that_fits_one(server_18: AnyServer, tmp_path: Path) -> None:
    with foreign_server(server_18.bin_dir, copy_of=server_18) as stand_by:
        _, document, _ = advise(settings_of(stand_by.dsn(), tmp_path), StatedMachine(16, 4))
    assert document["server"]["stand_by"]
    withheld = {one["knob"]: one["reason"] for one in document["withheld"]}
    assert "primary" in withheld["autovacuum_vacuum_insert_scale_factor"]
    jit = next(knob for knob in document["knobs"] if knob["name"] == "jit")
    forms = {copy["form"]: copy for copy in jit["texts"]}
    assert "stand-by" in forms["ALTER SYSTEM"]["note"]
    assert "primary" in forms["ALTER ROLE"]["obstacle"]


@pytest.mark.parametrize("server", ["embedded_server"], indirect=True)
def test_ctrl_c_ends_it_early_and_tells_what_was_seen(loaded: AnyServer, tmp_path: Path) -> None:
    with owner(loaded) as cursor:
        cursor.execute("SELECT pg_stat_statements_reset()")
        process = subprocess.Popen(
            [sys.executable, "run.py", "advise", "--minutes", "60", "--data-dir", str(tmp_path)],
            cwd=REPOSITORY,
            env=clean_environment(
                AUTOPILOT_TELEMETRY__COLLECTION_INTERVAL="1",
                DATABASE_URL=adviser_dsn(loaded)
                .set(drivername="postgresql")
                .render_as_string(hide_password=False),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            eventually(lambda: snapshots_taken(cursor) >= 2, "two snapshots", 60)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, errors
    assert "Nothing was changed" in output
    assert "Traceback" not in errors
    assert {path.name for path in tmp_path.iterdir()} == {"advice.json", "advice.html"}


def snapshots_taken(cursor: Any) -> int:
    cursor.execute(
        "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements "
        "WHERE query LIKE '%autopilot%' AND query LIKE '%taken_at%' AND query LIKE '%loaded_at%'"
    )
    return int(cursor.fetchone()[0])


def test_the_sessions_only_read(loaded: AnyServer, tmp_path: Path) -> None:
    with Visit(settings_of(adviser_dsn(loaded), tmp_path), StatedMachine()) as visit:
        with pytest.raises(ServerError, match="read-only"):
            visit.connector.execute("CREATE TABLE advised.never (n int)")
        with session(loaded.dsn()) as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", (APPLICATION,)
            )
            assert cursor.fetchone()[0] == 1


def test_an_embedded_server_that_does_not_run_is_told(tmp_path: Path) -> None:
    settings = load_settings(overrides={"paths": PathSettings.under(tmp_path)}, environ={})
    with pytest.raises(AutopilotError, match="does not run"):
        Visit(settings, StatedMachine())
    assert not list(tmp_path.iterdir())
