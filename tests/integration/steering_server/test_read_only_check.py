"""The read-only check on real servers: what is shown to be harmless, and what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.engine import URL

from backend.db_connector import DatabaseConnector
from backend.errors import ServerConnectionError
from backend.steering.statements.read_only import ReadOnlyCheck
from tests.foreign_server import AnyServer
from tests.integration.steering_servers import owner
from tests.integration.trial_statements import GROUPS

pytestmark = pytest.mark.integration
JOIN = "SELECT p.label, c.weight FROM trial.parents p JOIN trial.children c ON c.parent = p.id"


@pytest.mark.parametrize(
    "statement",
    [
        JOIN,
        GROUPS + ";",
        "SELECT 1 /* a comment */ -- and another",
        "TABLE trial.parents",
        "VALUES (1, 'a'), (2, 'b')",
        "WITH big AS (SELECT * FROM trial.parents WHERE kind > 3) SELECT count(*) FROM big",
        "SELECT id FROM trial.parents UNION SELECT parent FROM trial.children ORDER BY 1 LIMIT 5",
        "SELECT * FROM parents",
        "SELECT id, kind FROM trial.plain_view WHERE kind IN (1, 2) AND id BETWEEN 1 AND 9",
        "SELECT p.id::text, trial.careful(p.id), now(), coalesce(label, ''), upper(label) "
        "FROM trial.parents p WHERE label LIKE 'p%' AND EXISTS (SELECT FROM trial.children)",
        "SELECT trial.again(), jsonb_path_query('1', '$')",
        "SELECT row_number() OVER (ORDER BY id) FROM trial.parents",
        "SELECT * FROM trial.parents TABLESAMPLE bernoulli (10) REPEATABLE (1)",
        "SELECT g FROM generate_series(1, 3) AS g, LATERAL (SELECT g + 1) AS h",
        "SELECT ';', 'DELETE FROM trial.parents', $$ FOR UPDATE $$",
    ],
)
def test_queries_are_shown_to_be_read_only(check: Any, statement: str) -> None:
    verdict = check(statement)
    assert verdict.refusal == ""
    assert verdict.is_read_only
    assert verdict.statement == statement.rstrip(";")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("", "0 statements"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT FROM WHERE", "cannot be parsed"),
        ("SELECT 1\0; DELETE FROM trial.parents", "NUL"),
        ("SELECT " + "1," * 30_000 + "1", "more than 20000"),
        ("SELECT 1" + "+1" * 60_000, "more than 20000"),
        ("SELECT '" + "a" * 300_000 + "'", "more than 200000"),
        ("INSERT INTO trial.parents VALUES (0, 0, '')", "an INSERT"),
        ("UPDATE trial.parents SET kind = 0", "an UPDATE"),
        ("DELETE FROM trial.parents", "a DELETE"),
        ("MERGE INTO trial.parents p USING trial.children c ON false WHEN MATCHED THEN DELETE",
         "a MERGE"),
        ("WITH gone AS (DELETE FROM trial.parents RETURNING *) SELECT * FROM gone", "a DELETE"),
        ("SELECT * INTO trial.copy FROM trial.parents", "INTO"),
        ("CREATE TABLE trial.copy AS SELECT 1", "not a query"),
        ("SELECT * FROM trial.parents FOR UPDATE", "FOR UPDATE"),
        ("SELECT * FROM (SELECT * FROM trial.parents FOR KEY SHARE) p", "FOR UPDATE or FOR SHARE"),
        ("COPY trial.parents TO STDOUT", "a COPY"),
        ("COPY (SELECT 1) TO PROGRAM 'rm -rf /'", "a COPY"),
        ("EXPLAIN ANALYZE SELECT 1", "an EXPLAIN"),
        ("PREPARE p AS SELECT 1", "not a query"),
        ("EXECUTE p", "an EXECUTE"),
        ("DECLARE c CURSOR FOR SELECT 1", "not a query"),
        ("SET work_mem = '1GB'", "not a query"),
        ("BEGIN", "transaction control"),
        ("VACUUM", "not a query"),
        ("LOCK trial.parents", "not a query"),
        ("CALL trial.careless(1)", "not a query"),
        ("DO 'BEGIN END'", "not a query"),
        ("SELECT random()", "random is volatile"),
        ("SELECT pg_catalog.pg_sleep(1)", "pg_sleep is volatile"),
        ("SELECT nextval('trial.numbers')", "nextval is volatile"),
        ("SELECT set_config('work_mem', '1GB', false)", "set_config is volatile"),
        ("SELECT pg_advisory_lock(1)", "pg_advisory_lock is volatile"),
        ("SELECT pg_terminate_backend(1)", "pg_terminate_backend is volatile"),
        ("SELECT lo_import('/etc/passwd')", "lo_import is volatile"),
        ("SELECT pg_notify('a', 'b')", "pg_notify is volatile"),
        ("SELECT query_to_xml('DELETE FROM trial.parents', true, true, '')", "volatile"),
        ("SELECT 1 FROM trial.parents ORDER BY trial.careless(id)", "careless is volatile"),
        ("SELECT * FROM ROWS FROM (trial.careless(1), trial.careful(2)) AS r", "careless"),
        ("SELECT count(*) FILTER (WHERE careless(id) > 0) FROM trial.parents", "careless"),
        ("SELECT trial.total(id) FROM trial.parents", "total is volatile"),
        ("SELECT 1 OPERATOR(trial.@+@) 2", "operator @+@"),
        ("SELECT p.secret FROM trial.parents p", ".secret may call"),
        ("SELECT (p).secret FROM trial.parents p", ".secret may call"),
        ("SELECT ((SELECT p FROM trial.parents p LIMIT 1)).secret", ".secret may call"),
        ("SELECT trial.ticket()", "in the defaults of ticket: pg_catalog.nextval is volatile"),
        ("SELECT 1::trial.checked", "domain checked"),
        ("SELECT n FROM trial.counting_view", "in the view trial.counting_view"),
        ("SELECT n FROM view_of_view", "in the view trial.view_of_view: in the view"),
        ("SELECT * FROM trial.elsewhere", "foreign table"),
        ("SELECT * FROM trial.halves", "foreign table"),
        ("SELECT * FROM trial.guarded", "row security"),
        ("SELECT * FROM trial.nowhere", "no table or view 'nowhere'"),
        ("SELECT trial.nothing(1)", "no function 'nothing'"),
        ("SELECT * FROM trial.parents TABLESAMPLE system (10)", "REPEATABLE"),
        ("SELECT * FROM trial.parents TABLESAMPLE trial.x (10) REPEATABLE (1)", "TABLESAMPLE"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_with_the_reason(
    check: Any, statement: str, reason: str
) -> None:
    verdict = check(statement)
    assert not verdict.is_read_only
    assert reason in verdict.refusal
    assert verdict.statement == ""


def test_somebody_may_vouch_for_a_volatile_function(check: Any) -> None:
    statement = "SELECT trial.careless(id), pg_sleep(0) FROM trial.parents"
    assert check("SELECT trial.careless(1)", "trial.careless").is_read_only
    assert "pg_sleep" in check(statement, "trial.careless").refusal
    assert "careless" in check("SELECT trial.careless(1)", "other.careless").refusal


def test_a_volatile_cast_spoils_the_whole_database(server: AnyServer, check: Any) -> None:
    with owner(server) as cursor:
        cursor.execute(
            "CREATE FUNCTION trial.to_box(trial.parents) RETURNS box LANGUAGE sql VOLATILE "
            "AS 'SELECT NULL::box'; "
            "CREATE CAST (trial.parents AS box) WITH FUNCTION trial.to_box AS IMPLICIT"
        )
        try:
            assert "volatile function to_box" in check("SELECT 1").refusal
        finally:
            cursor.execute("DROP FUNCTION trial.to_box CASCADE")


@pytest.fixture
def tenant(server: AnyServer) -> Iterator[None]:
    with owner(server) as cursor:
        cursor.execute(
            "CREATE ROLE trial_tenant; CREATE SCHEMA trial_tenant AUTHORIZATION trial_tenant; "
            "CREATE TABLE trial_tenant.parents (id int, kind int); "
            "CREATE TABLE trial_tenant.alone (id int)"
        )
        yield
        cursor.execute("DROP SCHEMA trial_tenant CASCADE; DROP ROLE trial_tenant")


@pytest.mark.usefixtures("tenant")
@pytest.mark.parametrize(
    ("statement", "search_path", "refusal"),
    [
        ("SELECT id FROM parents", '"$user", public', "trial_tenant.parents"),
        ("SELECT 1 WHERE 1 IN (SELECT id FROM parents)", '"$user", trial', "trial_tenant.parents"),
        ("SELECT id FROM parents", "trial", ""),
        ("SELECT id FROM trial.parents", '"$user", public', ""),
        ("SELECT id FROM children", '"$user", trial', ""),
        ("SELECT id FROM alone", '"$user", public', ""),
        ("SELECT id FROM trial.plain_view", '"$user", public', ""),
    ],
)
def test_what_means_another_table_to_each_role_is_refused(
    url: URL, statement: str, search_path: str, refusal: str
) -> None:
    with contextlib.closing(DatabaseConnector(url)) as connector:
        verdict = ReadOnlyCheck(connector).check(statement, search_path)
    assert refusal in verdict.refusal
    assert verdict.is_read_only is (not refusal)


def test_a_server_that_cannot_be_asked_is_no_refusal(url: URL) -> None:
    check = ReadOnlyCheck(DatabaseConnector(url.set(port=1)))
    with pytest.raises(ServerConnectionError):
        check.check("SELECT upper('a')")
