"""Statements read back from the logs that a real server writes, in its three formats."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from backend.embedded_postgres import EmbeddedPostgres
from backend.steering.client import fingerprint
from backend.steering.statements.samples import Gathered
from backend.steering.statements.statement_logs import read_statement_logs
from tests.integration.conftest import open_folder
from tests.waiting import eventually

pytestmark = pytest.mark.integration

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
SUFFIXES = ("log", "csv", "json")
SCRIPT = r"""
SET log_min_duration_statement = 0;
SELECT 'one''s
second	line', 'ü' AS a, 4711;
SELECT $1::int + 1, $2::text, $3::text, '$1' \bind 41 'it''s\n$2' 'x\\y' \g
SELECT $1::int + 1, $2::text, $3::text, '$1' \bind 42 '' 'z' \g
/* autopilot */ SELECT 1;
SELECT /* autopilot */ 2;
INSERT INTO logged VALUES (1), (2);
SELECT id FROM logged WHERE id = 1 FOR UPDATE;
SELECT nothing FROM nowhere;
SELECT pg_sleep(0.05), 'volatile';
SELECT count(*) FROM logged, pg_sleep(0);
SET log_min_duration_statement = -1;
SET log_statement = 'all';
SELECT max(id) FROM logged;
SELECT max(id) FROM logged WHERE id < $1 \bind 5 \g
SET log_statement = 'none';
SET log_parameter_max_length = 3;
SET log_min_duration_statement = 0;
SELECT $1 || 'cut short' \bind 'abcdef' \g
SET log_min_duration_statement = -1;
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SELECT min(id),
       'explained ''too'
  FROM logged;
SELECT id FROM logged WHERE id > $1 AND $2::text = 'Query Parameters: ' \bind 0 'a\nb' \g
SET auto_explain.log_format = 'json';
SELECT id FROM logged
 WHERE id > $1 AND $2::text <> '' \bind 7 'in "json"' \g
SET auto_explain.log_format = 'xml';
SELECT id + 1 FROM logged;
"""
EXPECTED = [
    "SELECT 'one''s\nsecond\tline', 'ü' AS a, 4711",
    "SELECT '41'::int + 1, 'it''s\n$2'::text, 'x\\y'::text, '$1'",
    "SELECT '42'::int + 1, ''::text, 'z'::text, '$1'",
    "SELECT max(id) FROM logged",
    "SELECT max(id) FROM logged WHERE id < '5'",
    "SELECT min(id),\n       'explained ''too'\n  FROM logged",
    "SELECT id FROM logged WHERE id > '0' AND 'a\nb'::text = 'Query Parameters: '",
    "SELECT id FROM logged\n WHERE id > '7' AND 'in \"json\"'::text <> ''",
]


@pytest.fixture(scope="module")
def logging_server() -> Iterator[EmbeddedPostgres]:
    """A server that has logged `SCRIPT` in all three formats."""
    with open_folder() as folder:
        server = EmbeddedPostgres(Path(folder))
        try:
            server.ensure_started()
            run_psql(
                server,
                "CREATE TABLE logged (id int);"
                "ALTER SYSTEM SET logging_collector = on;"
                "ALTER SYSTEM SET log_destination = 'stderr,csvlog,jsonlog';"
                "ALTER SYSTEM SET log_filename = 'server.log';",
            )
            server.restart()
            run_psql(server, SCRIPT)
            for suffix in SUFFIXES:
                wait_until_logged("id + 1 FROM logged", log_of(server, suffix))
            yield server
        finally:
            server.destroy()


def run_psql(server: EmbeddedPostgres, script: str) -> None:
    url = server.dsn()
    subprocess.run(
        [server.bin_dir / "psql", "-X", "-q", "-h", str(url.host), "-p", str(url.port), "-U",
         str(url.username), "-d", str(url.database), "-f", "-"],
        input=script, text=True, check=True, capture_output=True, timeout=60,
        env={**os.environ, "PGPASSWORD": server.password, "PGCLIENTENCODING": "UTF8"},
    )  # fmt: skip


def wait_until_logged(text: str, log: Path) -> None:
    """The server's logger writes a little later."""
    eventually(
        lambda: log.exists() and text in log.read_text(encoding="utf-8"), f"{text} is in {log}"
    )


def log_of(server: EmbeddedPostgres, suffix: str) -> Path:
    return server.cluster_dir / "log" / f"server.{suffix}"


def read(
    path: Path, positions: dict[str, int] | None = None, database: str | None = None
) -> tuple[list[str], Gathered, dict[str, int]]:
    long_ago_s = path.stat().st_mtime - 60
    os.utime(path, (long_ago_s, long_ago_s))  # the server has written all that it will
    found, reached = read_statement_logs(
        [path], positions or {}, search_path="public", at=NOW, database=database
    )
    return [sample.text for sample in found.samples], found, reached


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_executed_is_read_back(logging_server: EmbeddedPostgres, suffix: str) -> None:
    texts, found, _ = read(log_of(logging_server, suffix))
    assert sorted(texts) == sorted(EXPECTED)
    assert {sample.source for sample in found.samples} == {"log"}
    uses = {use.key.fingerprint: use for use in found.uses}
    added = uses[fingerprint("SELECT $1::int + 1, $2::text, $3::text, 'x'")]
    assert (added.executions, added.timed) == (2, 2)
    assert 0 < added.total_s < 10
    untimed = uses[fingerprint("SELECT max(id) FROM logged")]
    assert (untimed.executions, untimed.timed, untimed.total_s) == (1, 0, 0.0)
    explained = uses[fingerprint("SELECT min(id), 'x' FROM logged")]
    assert (explained.executions, explained.timed) == (1, 1)
    left_out = {
        "the autopilot's own": 2,
        "with parameters cut short (log_parameter_max_length)": 1,
        "plans of auto_explain that cannot be read": 1,
    }
    assert found.skipped.items() >= left_out.items()
    assert set(found.skipped) - set(left_out) == {"not a plain query"}


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_other_databases_are_left_out(logging_server: EmbeddedPostgres, suffix: str) -> None:
    log = log_of(logging_server, suffix)
    assert read(log, database=logging_server.dsn().database)[0] != []
    texts, found, _ = read(log, database="another")
    assert texts == []
    assert found.skipped["of another database"] >= len(EXPECTED)


def test_reading_goes_on_where_it_ended_over_a_rotation(logging_server: EmbeddedPostgres) -> None:
    def execute(statement: str, log: Path) -> None:
        run_psql(logging_server, f"SET log_min_duration_statement = 0;\n{statement};")
        wait_until_logged(statement, log)

    log = log_of(logging_server, "log")
    texts, _, reached = read(log)
    assert texts != []
    execute("SELECT 'new'", log)
    texts, _, reached = read(log, reached)
    assert texts == ["SELECT 'new'"]
    assert read(log, reached)[0] == []
    renamed = log.rename(log.with_name("server.log.1"))
    execute("SELECT 'just renamed'", renamed)  # the server does not know yet
    run_psql(logging_server, "SELECT pg_rotate_logfile();")
    wait_until_logged("", log)
    execute("SELECT 'after it'", log)
    long_ago_s = log.stat().st_mtime - 60
    os.utime(renamed, (long_ago_s, long_ago_s))
    texts, _, reached = read(log, reached)
    assert texts == ["SELECT 'just renamed'", "SELECT 'after it'"]
    assert read(log, reached)[0] == []
    # The whole folder tells the same, each of its logs by itself.
    renamed.rename(log.with_name("older.log"))
    found, _ = read_statement_logs([log.parent], reached, search_path="public", at=NOW)
    assert {s.text for s in found.samples} >= {*EXPECTED, "SELECT 'new'"}
    assert found.skipped["the autopilot's own"] == 4  # of the csv and the JSON
