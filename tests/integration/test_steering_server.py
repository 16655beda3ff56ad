"""Hint sets, the read-only check and the runner on a real server."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import URL

from backend.catalog.hint_sets import HintSetCatalog, load_hint_sets
from backend.db_connector import DatabaseConnector, is_tagged
from backend.domain.plans import DEFAULT_HINT_SET, HintSet, PlanRun, RunOutcome, distinct_arms
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import KnobError, ServerConnectionError, ServerError
from backend.steering.refusals import is_transient, said
from backend.steering.running import trial_session
from backend.steering.running.runner import StatementRunner
from backend.steering.statements.read_only import ReadOnlyCheck, ReadOnlyVerdict
from tests.integration.steering_servers import AMPLE, owner

pytestmark = pytest.mark.integration

SCHEMA = """
DROP SCHEMA IF EXISTS trial CASCADE;
CREATE SCHEMA trial;
CREATE TABLE trial.parents (id int PRIMARY KEY, kind int NOT NULL, label text NOT NULL);
CREATE TABLE trial.children (id int PRIMARY KEY, parent int NOT NULL, weight float8 NOT NULL);
INSERT INTO trial.parents SELECT i, i % 7, 'parent ' || i FROM generate_series(1, 2000) i;
INSERT INTO trial.children SELECT i, 1 + i % 2000, i / 3.0 FROM generate_series(1, 10000) i;
CREATE INDEX children_parent ON trial.children (parent);
CREATE SEQUENCE trial.numbers;
CREATE FUNCTION trial.careless(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION trial.careful(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION trial.liar() RETURNS bigint LANGUAGE plpgsql STABLE
    AS 'BEGIN RETURN nextval(''trial.numbers''); END';
CREATE FUNCTION trial.secret(trial.parents) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION trial.add_up(int, int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1 + $2';
CREATE FUNCTION trial.ticket(a int DEFAULT nextval('trial.numbers')) RETURNS int
    LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION trial.again(a int DEFAULT 1 + abs(-2)) RETURNS int
    LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE OR REPLACE FUNCTION trial.again(a int DEFAULT trial.again(1)) RETURNS int
    LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE AGGREGATE trial.total(int) (SFUNC = trial.add_up, STYPE = int, INITCOND = '0');
CREATE OPERATOR trial.@+@ (LEFTARG = int, RIGHTARG = int, FUNCTION = trial.add_up);
CREATE DOMAIN trial.checked AS int CHECK (trial.careless(VALUE) > 0);
CREATE VIEW trial.plain_view AS SELECT id, kind FROM trial.parents;
CREATE VIEW trial.counting_view AS SELECT nextval('trial.numbers') AS n;
CREATE VIEW trial.view_of_view AS SELECT n FROM trial.counting_view;
CREATE TABLE trial.guarded (id int);
ALTER TABLE trial.guarded ENABLE ROW LEVEL SECURITY;
CREATE FOREIGN DATA WRAPPER trial_wrapper;
CREATE SERVER trial_server FOREIGN DATA WRAPPER trial_wrapper;
CREATE FOREIGN TABLE trial.elsewhere (id int) SERVER trial_server;
CREATE TABLE trial.halves (id int) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE trial.half_elsewhere PARTITION OF trial.halves
    FOR VALUES FROM (0) TO (9) SERVER trial_server;
ANALYZE trial.parents, trial.children;
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'autopilot_reader') THEN
        CREATE ROLE autopilot_reader LOGIN PASSWORD 'reader-pw';
    END IF;
END $$;
GRANT USAGE ON SCHEMA trial TO autopilot_reader;
GRANT SELECT ON trial.parents, trial.children TO autopilot_reader;
GRANT USAGE ON SEQUENCE trial.numbers TO autopilot_reader;
"""
CLEAN_UP = """
DROP SCHEMA trial CASCADE;
DROP FOREIGN DATA WRAPPER trial_wrapper CASCADE;
DROP OWNED BY autopilot_reader;
DROP ROLE autopilot_reader;
"""
JOIN = "SELECT p.label, c.weight FROM trial.parents p JOIN trial.children c ON c.parent = p.id"
GROUPS = (
    "SELECT p.kind, count(*), sum(c.weight) FROM trial.parents p "
    "JOIN trial.children c ON c.parent = p.id WHERE p.id < 1500 GROUP BY p.kind ORDER BY 2"
)
NO_HASH = HintSet("no_hashjoin", {"enable_hashjoin": "off"})
NO_HASH_NO_LOOP = HintSet("loops", {"enable_hashjoin": "off", "enable_nestloop": "off"})


@pytest.fixture(scope="module", params=["embedded_server", "debian_server"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    made: EmbeddedPostgres = request.getfixturevalue(request.param)
    with owner(made) as cursor:
        cursor.execute(SCHEMA)
    yield made
    with owner(made) as cursor:
        cursor.execute(CLEAN_UP)


@pytest.fixture
def catalog(server: EmbeddedPostgres) -> HintSetCatalog:
    return load_hint_sets(server.version, AMPLE)


@pytest.fixture
def url(server: EmbeddedPostgres) -> URL:
    return server.dsn().set(username="autopilot_reader", password="reader-pw")


@pytest.fixture
def runner(url: URL, catalog: HintSetCatalog) -> Iterator[StatementRunner]:
    made = StatementRunner(url, catalog)
    yield made
    made.close()


@pytest.fixture
def check(url: URL) -> Iterator[Callable[..., ReadOnlyVerdict]]:
    connector = DatabaseConnector(url)

    def judge(statement: str, *allowed: str) -> ReadOnlyVerdict:
        return ReadOnlyCheck(connector, allowed_functions=allowed).check(statement)

    yield judge
    connector.close()


def run_one(runner: StatementRunner, statement: str, timeout_s: float = 20.0) -> PlanRun:
    return runner.run(ReadOnlyVerdict(statement), [DEFAULT_HINT_SET], [timeout_s])[0]


def settings_of(runner: StatementRunner) -> dict[str, str]:
    rows = runner._session.execute("SELECT name, setting FROM pg_settings")
    return dict(rows)


def state_of(server: EmbeddedPostgres, runner: StatementRunner) -> tuple[str, str]:
    with owner(server) as cursor:
        cursor.execute(
            "SELECT state, query FROM pg_stat_activity WHERE pid = %s",
            (runner._session.backend_pid,),
        )
        state, query = cursor.fetchone()
        return state, query


def wait_until_gone(server: EmbeddedPostgres, pid: int) -> None:
    deadline_s = time.monotonic() + 15
    with owner(server) as cursor:
        while True:
            cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,))
            if cursor.fetchone() is None:
                return
            assert time.monotonic() < deadline_s, f"session {pid} did not end"
            time.sleep(0.01)


# -- hint sets ------------------------------------------------------------------------------------


def test_any_role_may_set_each_setting_of_each_hint_set(url: URL, catalog: HintSetCatalog) -> None:
    settings = {name for hint_set in catalog for name in hint_set.settings}
    connection = psycopg2.connect(**url.translate_connect_args(username="user"))
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT name, context FROM pg_settings WHERE name = ANY(%s)", ([*settings],))
        assert dict(cursor.fetchall()) == dict.fromkeys(settings, "user")
        for hint_set in catalog:
            for name, value in hint_set.settings.items():
                cursor.execute(f"SET LOCAL {name} = '{value}'")
                cursor.execute(f"SHOW {name}")
                assert cursor.fetchone()[0] == value
            connection.rollback()
    finally:
        connection.close()


def test_hint_sets_lead_to_other_plans(
    runner: StatementRunner, catalog: HintSetCatalog, check: Any
) -> None:
    plans = runner.explain(check(GROUPS), catalog.hint_sets)
    assert all(plans)
    arms = distinct_arms([plan.plan_hash for plan in plans if plan is not None])
    assert 4 < len(arms) < len(catalog)
    default = plans[0]
    assert default is not None
    assert default.features["hash_join_count"] > 0
    assert default.features["scans_of_known_size"] == default.features["scans"]
    without = plans[catalog.hint_sets.index(NO_HASH)]
    assert without is not None
    assert without.features["hash_join_count"] == 0
    assert without.plan_hash != default.plan_hash


def test_explaining_again_gives_the_same_plans(runner: StatementRunner, check: Any) -> None:
    arms = [DEFAULT_HINT_SET, NO_HASH]
    assert runner.explain(check(GROUPS), arms) == runner.explain(check(GROUPS), arms)


def test_memory_is_an_arm_of_its_own_where_it_matters(
    runner: StatementRunner, catalog: HintSetCatalog, check: Any
) -> None:
    arms = [DEFAULT_HINT_SET, catalog.combine(["work_mem_64mb"])]
    sort = runner.explain(check("SELECT * FROM trial.children ORDER BY weight"), arms)
    scan = runner.explain(check("SELECT * FROM trial.children WHERE weight > 7"), arms)
    hashes = [[plan.plan_hash for plan in plans if plan] for plans in (sort, scan)]
    assert [len(set(pair)) for pair in hashes] == [2, 1]


# -- the read-only check --------------------------------------------------------------------------


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


def test_a_volatile_cast_spoils_the_whole_database(server: EmbeddedPostgres, check: Any) -> None:
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
def tenant(server: EmbeddedPostgres) -> Iterator[None]:
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


# -- the runner: answers --------------------------------------------------------------------------


def test_every_hint_set_gives_the_same_answer(
    runner: StatementRunner, catalog: HintSetCatalog, check: Any
) -> None:
    runs = runner.run(check(GROUPS), catalog.hint_sets, [20.0] * len(catalog))
    assert {run.outcome for run in runs} == {RunOutcome.FINISHED}
    assert all(run.same_answer(runs[0]) for run in runs)
    assert runs[0].rows == 7
    assert all(0 < run.latency_s < 20 for run in runs)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("SELECT * FROM generate_series(1, 9)", "SELECT * FROM generate_series(9, 1, -1)", True),
        ("VALUES (1), (1), (2)", "VALUES (1), (2), (2)", False),
        ("VALUES (1), (1)", "VALUES (2), (2)", False),
        ("VALUES (1), (1)", "VALUES (1)", False),
        ("VALUES (NULL)", "VALUES ('')", False),
        ("VALUES ('a', 'b')", "VALUES (E'a\\tb')", False),
        ("VALUES ('a'), ('b')", "VALUES (E'a\\nb')", False),
        ("VALUES (E'a\\nb')", "VALUES (E'a\\rb')", False),
        ("SELECT 0.1::float8 + 0.2::float8", "SELECT 0.3::float8", True),
        ("SELECT 0.1::float8", "SELECT 0.1000001::float8", False),
        ("SELECT 0.1 + 0.2", "SELECT 0.30", False),
        ("SELECT 1 WHERE false", "SELECT 2 WHERE false", True),
    ],
)  # fmt: skip
def test_answers_are_compared_as_bags_of_rows(
    runner: StatementRunner, left: str, right: str, same: bool
) -> None:
    assert run_one(runner, left).same_answer(run_one(runner, right)) is same


def test_equals_that_a_limit_cuts_do_not_spoil_an_answer(
    runner: StatementRunner, check: Any
) -> None:
    top = "SELECT id, kind FROM trial.parents ORDER BY kind {}, id {} LIMIT 10"
    ties = "SELECT id, kind FROM ({}) AS top ORDER BY kind LIMIT 9"
    one, other = (
        runner.run(check(ties.format(top.format("", way))), [DEFAULT_HINT_SET], [20.0])[0]
        for way in ("", "DESC")
    )
    assert one.rows == 9
    assert one.same_answer(other)
    third = check(ties.format(top.format("DESC", "")))
    assert not one.same_answer(runner.run(third, [DEFAULT_HINT_SET], [20.0])[0])


def test_all_arms_see_one_state_of_the_data(
    server: EmbeddedPostgres, runner: StatementRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trial_session.TrialSession.copy_out

    def write_afterwards(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        with owner(server) as cursor:
            cursor.execute("UPDATE trial.parents SET kind = kind + 1")

    monkeypatch.setattr(trial_session.TrialSession, "copy_out", write_afterwards)
    statement = ReadOnlyVerdict("SELECT id, kind, now() FROM trial.parents")
    first, second = runner.run(statement, [DEFAULT_HINT_SET, NO_HASH], [20.0, 20.0])
    assert first.same_answer(second)
    assert not first.same_answer(runner.run(statement, [DEFAULT_HINT_SET], [20.0])[0])


def test_parameters_and_comments_arrive_as_written(runner: StatementRunner, check: Any) -> None:
    text = runner.fill_in(
        "SELECT id FROM trial.parents WHERE label LIKE %s AND kind < %s -- done",
        ("parent 1%'; DROP TABLE trial.parents; --\\", 5),
    )
    assert run_one(runner, check(text).statement).rows == 0
    text = runner.fill_in("SELECT %s AS \"100%%\", '%%' -- done", ("ü",))
    assert run_one(runner, check(text).statement).rows == 1


def test_an_answer_too_large_is_broken_off(
    url: URL, catalog: HintSetCatalog, server: EmbeddedPostgres
) -> None:
    runner = StatementRunner(url, catalog, max_answer_bytes=100_000)
    for rows in (3_000, 100_000_000):  # at the end, and in the midst of it
        many = ReadOnlyVerdict(f"SELECT generate_series(1, {rows}), repeat('x', 50)")
        runs = runner.run(many, [DEFAULT_HINT_SET, NO_HASH], [60.0, 60.0])
        assert [run.outcome for run in runs] == [RunOutcome.TOO_LARGE] * 2
        assert runs[0].rows is runs[0].checksum is None
        assert not runs[0].same_answer(runs[1])
    assert run_one(runner, "SELECT 1").outcome is RunOutcome.FINISHED
    assert state_of(server, runner)[0] == "idle"
    runner.close()


# -- the runner: what goes wrong ------------------------------------------------------------------


def test_a_run_is_cut_at_its_time_out_and_the_others_go_on(
    runner: StatementRunner, server: EmbeddedPostgres
) -> None:
    runs = runner.run(
        ReadOnlyVerdict("SELECT count(*) FROM generate_series(1, 300000) a"),
        [DEFAULT_HINT_SET, NO_HASH, NO_HASH_NO_LOOP],
        [20.0, 0.001, 20.0],
    )
    assert [run.outcome for run in runs] == [
        RunOutcome.FINISHED,
        RunOutcome.TIMED_OUT,
        RunOutcome.FINISHED,
    ]
    assert runs[1].timed_out
    assert runs[1].latency_s == 0.001
    assert runs[1].checksum is None
    assert runs[2].same_answer(runs[0])
    assert state_of(server, runner)[0] == "idle"


def test_a_time_out_that_hits_the_way_back_to_the_savepoint_costs_no_run(
    runner: StatementRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = trial_session.TrialSession.execute
    late = []

    def execute_late(self: Any, statement: Any, *args: Any, **options: Any) -> Any:
        if str(statement).startswith("ROLLBACK TO") and not late:
            late.append(statement)
            execute(self, "SELECT pg_sleep(5)")  # under the arm's own time-out
        return execute(self, statement, *args, **options)

    monkeypatch.setattr(trial_session.TrialSession, "execute", execute_late)
    runs = runner.run(ReadOnlyVerdict("SELECT 1"), [DEFAULT_HINT_SET] * 2, [0.05] * 2)
    assert [run.outcome for run in runs] == [RunOutcome.FINISHED] * 2
    assert late


def test_what_is_on_trial_does_not_count_as_rolled_back(
    server: EmbeddedPostgres, catalog: HintSetCatalog
) -> None:
    """Telemetry takes rolled back transactions for failures of the application."""
    runner = StatementRunner(server.explorer_dsn(), catalog)

    def rolled_back() -> int:
        with owner(server) as cursor:
            cursor.execute(
                "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"
            )
            return int(cursor.fetchone()[0])

    before = rolled_back()
    for _ in range(5):
        runs = runner.run(
            ReadOnlyVerdict("SELECT count(*) FROM generate_series(1, 300000) a"),
            [DEFAULT_HINT_SET, NO_HASH],
            [20.0, 0.001],
        )
        assert [run.outcome for run in runs] == [RunOutcome.FINISHED, RunOutcome.TIMED_OUT]
        runner.explain(ReadOnlyVerdict("SELECT 1"), [DEFAULT_HINT_SET, NO_HASH])
    pid = runner._session.backend_pid
    runner.close()  # a session that ends publishes what it has counted
    wait_until_gone(server, pid)
    assert rolled_back() == before


def test_planning_too_long_gives_no_plan(runner: StatementRunner, check: Any) -> None:
    joins = " ".join(f"JOIN trial.parents p{i} USING (id)" for i in range(11))
    wide = HintSet("wide", {"join_collapse_limit": "12", "geqo_threshold": "13"})
    many = check(f"SELECT 1 FROM trial.parents p {joins}")
    assert runner.explain(many, [wide], timeout_s=0.02) == [None]
    assert runner.explain(check("SELECT 1"), [DEFAULT_HINT_SET])[0] is not None


def test_errors_are_told_and_the_others_go_on(runner: StatementRunner) -> None:
    runs = runner.run(
        ReadOnlyVerdict("SELECT 1 / (kind - kind) FROM trial.parents"),
        [DEFAULT_HINT_SET, NO_HASH],
        [20.0, 20.0],
    )
    assert [run.outcome for run in runs] == [RunOutcome.FAILED] * 2
    assert "22012" in runs[0].detail
    assert run_one(runner, "SELECT 1").outcome is RunOutcome.FINISHED


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("SELECT trial.liar()", "25006"),
        ("SELECT nextval('trial.numbers')", "25006"),
        ("WITH w AS (DELETE FROM trial.parents RETURNING *) SELECT * FROM w", "0A000|25006"),
        ("SELECT 1) TO STDOUT; DELETE FROM trial.parents; SELECT (1", "42601|42501|25006"),
    ],
)
def test_what_slips_through_the_check_cannot_write(
    server: EmbeddedPostgres, catalog: HintSetCatalog, statement: str, code: str
) -> None:
    runner = StatementRunner(server.dsn(), catalog)  # even as the owner
    outcome: Any
    try:
        outcome = run_one(runner, statement).detail
    except ServerError as error:
        outcome = str(error)
    assert any(part in outcome for part in code.split("|")), outcome
    with owner(server) as cursor:
        cursor.execute("SELECT count(*), (SELECT is_called FROM trial.numbers) FROM trial.parents")
        assert cursor.fetchone() == (2000, False)
    runner.close()


def test_a_lock_is_not_waited_for_long(runner: StatementRunner, server: EmbeddedPostgres) -> None:
    with owner(server) as cursor:
        cursor.execute("BEGIN; LOCK TABLE trial.parents")
        run = run_one(runner, "SELECT count(*) FROM trial.parents", 10.0)
        assert run.outcome is RunOutcome.LOCKED
        assert run.latency_s < 5
        cursor.execute("ROLLBACK")
    assert run_one(runner, "SELECT count(*) FROM trial.parents").outcome is RunOutcome.FINISHED


def test_a_lock_is_no_verdict_of_explain_nor_of_the_check(
    runner: StatementRunner, server: EmbeddedPostgres, check: Any
) -> None:
    verdict = check("SELECT count(*) FROM trial.parents")
    with owner(server) as cursor:
        cursor.execute("BEGIN; LOCK TABLE trial.parents")
        with pytest.raises(ServerError) as waited:
            runner.explain(verdict, [DEFAULT_HINT_SET])
        cursor.execute("ROLLBACK; BEGIN; LOCK TABLE trial.plain_view")
        with pytest.raises(ServerError, match="for a lock") as waited_for_view:
            check("SELECT id FROM trial.plain_view")
        cursor.execute("ROLLBACK")
    assert is_transient(waited.value)
    assert is_transient(waited_for_view.value)
    assert check("SELECT id FROM trial.plain_view").is_read_only


def during(
    server: EmbeddedPostgres, runner: StatementRunner, statement: str, act: Callable[[int], object]
) -> Any:
    """Run a statement that takes long; do something to its session as soon as it runs."""
    pid = runner._session.backend_pid
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(run_one(runner, statement, 20.0))
        except ServerConnectionError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    with owner(server) as cursor:
        deadline_s = time.monotonic() + 15
        while time.monotonic() < deadline_s:
            cursor.execute(
                "SELECT query FROM pg_stat_activity WHERE pid = %s AND state = 'active' "
                "AND query LIKE 'COPY%%'",
                (pid,),
            )
            row = cursor.fetchone()
            if row is not None:
                assert is_tagged(row[0])
                break
        act(pid)
    thread.join()
    return found[0]


LONG = "SELECT count(*) FROM generate_series(1, 1000000000) i"


def test_a_cancelled_run_says_nothing_about_the_plan(
    server: EmbeddedPostgres, runner: StatementRunner
) -> None:
    def cancel(pid: int) -> None:
        with owner(server) as cursor:
            cursor.execute("SELECT pg_cancel_backend(%s)", (pid,))

    run = during(server, runner, LONG, cancel)
    assert run.outcome is RunOutcome.CANCELLED
    assert not run.timed_out
    assert run_one(runner, "SELECT 1").outcome is RunOutcome.FINISHED


def test_a_lost_session_is_told_and_opened_again(
    server: EmbeddedPostgres, runner: StatementRunner
) -> None:
    def terminate(pid: int) -> None:
        with owner(server) as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", (pid,))

    error = during(server, runner, LONG, terminate)
    assert isinstance(error, ServerConnectionError)
    assert "reader-pw" not in str(error)
    terminate(runner._session.backend_pid)
    assert run_one(runner, "SELECT 1").outcome is RunOutcome.FINISHED


def test_a_server_that_falls_silent_is_left(
    server: EmbeddedPostgres, runner: StatementRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_session, "_GRACE_S", 0.3)
    pid = runner._session.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServerConnectionError):
            runner._session.execute("SELECT 1", timeout_s=0.1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert run_one(runner, "SELECT 1").outcome is RunOutcome.FINISHED


def test_a_session_is_opened_anew_from_time_to_time(
    runner: StatementRunner, server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is set for a role or a database counts for new sessions only."""
    before = runner.in_force(["random_page_cost"])
    with owner(server) as cursor:
        cursor.execute("ALTER ROLE autopilot_reader SET random_page_cost = 1.3")
        try:
            assert runner.in_force(["random_page_cost"]) == before == {"random_page_cost": "4"}
            monkeypatch.setattr(trial_session, "SESSION_LASTS_S", 0.0)
            assert runner.in_force(["random_page_cost"]) == {"random_page_cost": "1.3"}
            session = runner._session
            with session.snapshot():
                pid = session.backend_pid
                with session.arm([("work_mem", "64MB")]):
                    assert session.backend_pid == pid
                assert session.execute("SELECT pg_backend_pid()") == [(pid,)]
            assert session.backend_pid != pid
        finally:
            cursor.execute("ALTER ROLE autopilot_reader RESET random_page_cost")


def test_no_setting_outlives_its_arm(
    runner: StatementRunner, catalog: HintSetCatalog, check: Any
) -> None:
    before = settings_of(runner)
    assert before["standard_conforming_strings"] == "on"
    runner.explain(check(GROUPS), catalog.hint_sets)
    runner.run(check(GROUPS), catalog.hint_sets[:3], [20.0] * 3)
    run_one(runner, "SELECT 1 / 0")
    run_one(runner, "SELECT count(*) FROM generate_series(1, 10000000)", 0.001)
    assert settings_of(runner) == before


def test_what_may_not_be_tried_is_refused_before_it_reaches_the_server(
    runner: StatementRunner, check: Any
) -> None:
    with pytest.raises(ValueError, match="random is volatile"):
        runner.run(check("SELECT random()"), [DEFAULT_HINT_SET], [1.0])
    with pytest.raises(ValueError, match="time-out"):
        runner.run(check("SELECT 1"), [DEFAULT_HINT_SET], [0.0])
    with pytest.raises(KnobError, match="transaction_read_only"):
        runner.run(check("SELECT 1"), [HintSet("x", {"transaction_read_only": "off"})], [1.0])
    with pytest.raises(ServerError, match="42P01"):
        runner.explain(ReadOnlyVerdict("SELECT * FROM trial.nowhere"), [DEFAULT_HINT_SET])


def test_the_search_path_is_that_of_the_application(
    url: URL, catalog: HintSetCatalog, check: Any
) -> None:
    runner = StatementRunner(url, catalog, search_path="trial, public")
    assert run_one(runner, check("SELECT count(*) FROM parents").statement).rows == 1
    runner.close()


@pytest.mark.parametrize("search_path", ["a,,b", '"$user", public,'])
def test_a_search_path_that_is_none_is_refused(
    url: URL, catalog: HintSetCatalog, search_path: str
) -> None:
    runner = StatementRunner(url, catalog, search_path=search_path)
    with contextlib.closing(runner), pytest.raises(ServerError) as refused:
        runner.in_force(["work_mem"])
    assert said(refused.value) == "the server refuses it (SQLSTATE 22023)"
    assert not is_transient(refused.value)


def test_sizes_of_nothing_are_values_in_force_too(url: URL, catalog: HintSetCatalog) -> None:
    sizes = ("min_parallel_index_scan_size", "min_parallel_table_scan_size")
    options = " ".join(f"-c {name}=0" for name in sizes)
    runner = StatementRunner(url.update_query_dict({"options": options}), catalog)
    with contextlib.closing(runner):
        assert runner.in_force(sizes) == dict.fromkeys(sizes, "0")


def test_statistics_are_spared_where_we_may(
    server: EmbeddedPostgres, catalog: HintSetCatalog
) -> None:
    runner = StatementRunner(server.dsn(), catalog)
    assert runner._session.execute("SHOW pg_stat_statements.track") == [("none",)]
    runner.close()
