"""Statements that look as if they only read: what the check lets through changes nothing.

The statements are made of pieces, most of which do harm or hide it. What is taken for read-only is
run as the owner of everything, on a server of each kind, and looked at: no row, table, sequence,
setting, lock, large object, notification or session is another one afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backend.db_connector import DatabaseConnector
from backend.steering.statements.read_only import ReadOnlyCheck
from tests.foreign_server import AnyServer, explorer_dsn
from tests.integration.steering_servers import owner, session

pytestmark = pytest.mark.integration

HARMFUL = (
    "nextval('trial.numbers')", "setval('trial.numbers', 9)", "pg_catalog.nextval('trial.numbers')",
    '"nextval"(\'trial.numbers\')', "U&\"n\\0065xtval\"('trial.numbers')",
    "NextVal('trial.numbers')", "table_to_xml('trial.counting_view', true, true, '')",
    "schema_to_xml('trial', true, true, '')", "database_to_xml(true, true, '')",
    "set_config('work_mem', '77MB', false)", "set_config('autopilot.mark', 'x', false)",
    "pg_advisory_lock(7)", "pg_try_advisory_lock_shared(8)", "pg_notify('a', 'b')",
    "lo_create(4242)", "lo_from_bytea(4243, 'x')", "lo_export(4242, '/tmp/autopilot-never')",
    "pg_terminate_backend(0)", "pg_cancel_backend(0)", "pg_reload_conf()", "pg_switch_wal()",
    "pg_stat_reset()", "pg_sleep(0)", "txid_current()", "pg_current_xact_id()", "random()",
    "query_to_xml('DELETE FROM trial.parents', true, true, '')", "trial.liar_of_volatile(1)",
    "trial.careless(1)", "trial.ticket()", "(SELECT n FROM trial.counting_view)",
    "1 OPERATOR(trial.@+@) 2", "((SELECT p FROM trial.parents p LIMIT 1)).secret",
    "pg_read_file('PG_VERSION')", "pg_ls_dir('.')", "dblink('dbname=x', 'SELECT 1')",
    "currval('trial.numbers')", "trial.total(1)", "clock_timestamp()", "setseed(0.5)",
)  # fmt: skip
HARMLESS = ("1", "count(*)", "'a;b'", "$$; DELETE FROM trial.parents; $$", "E'\\'; DROP TABLE x'",
            "now()", "trial.careful(2)", "$q$ FOR UPDATE $q$", "U&'\\0061'", "NULL", "upper('a')",
            "'it''s' || ';'", "ARRAY[1, 2]", "CASE WHEN true THEN 1 END")  # fmt: skip
GAPS = (" ", "/* ; */", "/* /* nested */ */", "--x\n", "\n", "\t", "\f", "/*+ SeqScan(p) */")
WRITES = (
    "DELETE FROM trial.parents", "INSERT INTO trial.parents VALUES (-1, 0, 'x')",
    "UPDATE trial.parents SET kind = -1", "TRUNCATE trial.parents", "DROP TABLE trial.parents",
    "CREATE TABLE trial.made AS SELECT 1", "SELECT 1 AS x INTO trial.made",
    "SELECT * FROM trial.parents FOR UPDATE", "DO $$BEGIN DELETE FROM trial.parents; END$$",
    "COPY trial.parents TO PROGRAM 'touch /tmp/autopilot-never'", "COPY trial.parents FROM STDIN",
    "SET work_mem = '77MB'", "SET SESSION AUTHORIZATION DEFAULT", "RESET ALL", "DISCARD ALL",
    "LISTEN a", "NOTIFY a", "LOCK trial.parents", "CALL trial.careless(1)", "VACUUM", "CHECKPOINT",
    "EXPLAIN ANALYZE DELETE FROM trial.parents", "PREPARE p AS DELETE FROM trial.parents",
    "EXECUTE p", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "COMMIT", "ROLLBACK", "BEGIN",
    "SET TRANSACTION READ WRITE", "ALTER SYSTEM SET work_mem = '77MB'", "LOAD 'x'",
    "REFRESH MATERIALIZED VIEW v", "IMPORT FOREIGN SCHEMA a FROM SERVER trial_server INTO trial",
    "MERGE INTO trial.parents p USING trial.parents q ON false WHEN MATCHED THEN DELETE",
)  # fmt: skip

VALUE = st.sampled_from(HARMLESS) | st.sampled_from(HARMFUL)
GAP = st.sampled_from(GAPS)
SELECT = st.one_of(
    st.builds("SELECT{}{}".format, GAP, VALUE),
    st.builds("SELECT p.id FROM trial.parents p WHERE p.id <> 0 AND ({}) IS NULL".format, VALUE),
    st.builds("SELECT 1 FROM trial.parents ORDER BY {} LIMIT 1".format, VALUE),
    st.builds("SELECT 1 FROM LATERAL (SELECT {}) AS x".format, VALUE),
    st.builds("VALUES ({}), ({})".format, VALUE, VALUE),
    st.builds("SELECT sum(1) FILTER (WHERE ({}) IS NULL) OVER () FROM trial.parents".format, VALUE),
    st.builds("SELECT 1 LIMIT (SELECT count(*) FROM (SELECT {}) y)".format, VALUE),
    st.just("TABLE trial.parents"),
    st.sampled_from(WRITES),
)
STATEMENT = st.one_of(
    SELECT,
    st.builds("WITH a AS ({}) SELECT * FROM a".format, SELECT),
    st.builds("WITH a AS MATERIALIZED ({}) SELECT 1".format, SELECT),
    st.builds("WITH a AS ({} RETURNING *) SELECT * FROM a".format, st.sampled_from(WRITES)),
    st.builds("{}{};{}{}".format, GAP, SELECT, GAP, SELECT),
    st.builds("({}) UNION ALL ({})".format, SELECT, SELECT),
    st.builds("SELECT EXISTS ({})".format, SELECT),
    st.builds("EXPLAIN (ANALYZE) {}".format, SELECT),
    st.builds("{}\x00; DELETE FROM trial.parents".format, SELECT),
    st.builds("{} --{}".format, SELECT, st.sampled_from(["\r DELETE", "\u2028DELETE", "\x85;"])),
    st.text(max_size=30).map("SELECT {}".format),
)

LOOK = """
SELECT (SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM trial.parents p),
       (SELECT last_value FROM trial.numbers), (SELECT is_called FROM trial.numbers),
       (SELECT count(*) FROM pg_class WHERE relnamespace = 'trial'::regnamespace),
       (SELECT count(*) FROM pg_largeobject_metadata), (SELECT count(*) FROM pg_stat_file('.')),
       (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bystander')
"""
MINE = """
SELECT current_setting('work_mem'), current_setting('autopilot.mark', true), current_user,
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
       (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_prepared_statements),
       (SELECT count(*) FROM pg_listening_channels())
"""


class Bench:
    """The check, and a session of the server's superuser to run what it lets through."""

    def __init__(self, server: AnyServer, check: ReadOnlyCheck, cursor: Any) -> None:
        self.check, self._server, self._cursor = check, server, cursor
        self.let_through = 0

    def look(self) -> list[Any]:
        """The state of the server, and of the session."""
        with owner(self._server) as other:
            other.execute(LOOK)
            found = other.fetchall()
        self._cursor.execute(MINE)
        return [*found, *self._cursor.fetchall()]

    def run(self, statement: str) -> None:
        """Run it, with no net but the check: in a transaction that may write, and is kept."""
        with contextlib.suppress(psycopg2.DataError, psycopg2.ProgrammingError):
            self._cursor.execute("BEGIN READ WRITE")
            self._cursor.execute("SET LOCAL statement_timeout = '10s'")
            self._cursor.execute(statement)
        self._cursor.execute("COMMIT")


@pytest.fixture(scope="module")
def bench(server: AnyServer) -> Iterator[Bench]:
    with owner(server) as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION trial.liar_of_volatile(int) RETURNS int LANGUAGE sql "
            "VOLATILE AS 'UPDATE trial.parents SET kind = $1; SELECT 1'"
        )
    connector = DatabaseConnector(explorer_dsn(server))
    bystander = server.dsn().update_query_dict({"application_name": "bystander"})
    with session(bystander), session(server.dsn()) as cursor:
        yield Bench(server, ReadOnlyCheck(connector), cursor)
    connector.close()


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STATEMENT)
@example("WITH a AS (DELETE FROM trial.parents RETURNING *) SELECT * FROM a")
@example("SELECT U&\"n\\0065xtval\"('trial.numbers')")
def test_what_is_let_through_changes_nothing(bench: Bench, statement: str) -> None:
    verdict = bench.check.check(statement)
    if not verdict.is_read_only:
        assert verdict.refusal
        return
    bench.let_through += 1
    before = bench.look()
    bench.run(verdict.statement)
    assert bench.look() == before


def test_some_were_let_through_and_harm_would_have_been_seen(bench: Bench) -> None:
    assert bench.let_through > 10
    before = bench.look()
    bench.run("SELECT nextval('trial.numbers')")
    assert bench.look() != before
    before = bench.look()
    bench.run("UPDATE trial.parents SET kind = kind + 1")
    assert bench.look() != before


@pytest.mark.parametrize("value", HARMFUL)
def test_every_harmful_piece_is_refused(bench: Bench, value: str) -> None:
    for statement in (f"SELECT {value}", f"WITH a AS (SELECT {value}) SELECT 1 FROM a"):
        verdict = bench.check.check(statement)
        assert not verdict.is_read_only, statement


@pytest.mark.parametrize("statement", WRITES)
def test_every_write_is_refused(bench: Bench, statement: str) -> None:
    for text in (statement, f"SELECT 1; {statement}", f"/* SELECT */ {statement}"):
        assert not bench.check.check(text).is_read_only, text
