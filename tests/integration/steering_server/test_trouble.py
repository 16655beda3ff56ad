"""The runner on real servers when statements fail, hang, lock or lose their session."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.engine import URL

from backend.catalog.hint_sets import HintSetCatalog
from backend.db_connector import is_tagged
from backend.domain.plans import DEFAULT_HINT_SET, HintSet, RunOutcome
from backend.errors import KnobError, ServerConnectionError, ServerError
from backend.steering.refusals import is_transient, said
from backend.steering.running import trial_session
from backend.steering.running.runner import StatementRunner
from backend.steering.statements.read_only import ReadOnlyVerdict
from tests.foreign_server import AnyServer, explorer_dsn
from tests.integration.steering_servers import owner
from tests.integration.trial_statements import GROUPS, NO_HASH, run_one, state_of
from tests.waiting import eventually

pytestmark = pytest.mark.integration
NO_HASH_NO_LOOP = HintSet("loops", {"enable_hashjoin": "off", "enable_nestloop": "off"})


def settings_of(runner: StatementRunner) -> dict[str, str]:
    rows = runner._session.execute("SELECT name, setting FROM pg_settings")
    return dict(rows)


def wait_until_gone(server: AnyServer, pid: int) -> None:
    with owner(server) as cursor:

        def gone() -> bool:
            cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,))
            return cursor.fetchone() is None

        eventually(gone, f"session {pid} has ended")


def test_a_run_is_cut_at_its_time_out_and_the_others_go_on(
    runner: StatementRunner, server: AnyServer
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
    runs = runner.run(ReadOnlyVerdict("SELECT 1"), [DEFAULT_HINT_SET] * 2, [0.3] * 2)
    assert [run.outcome for run in runs] == [RunOutcome.FINISHED] * 2
    assert late


def test_what_is_on_trial_does_not_count_as_rolled_back(
    server: AnyServer, catalog: HintSetCatalog
) -> None:
    """Telemetry takes rolled back transactions for failures of the application."""
    runner = StatementRunner(explorer_dsn(server), catalog)

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
    server: AnyServer, catalog: HintSetCatalog, statement: str, code: str
) -> None:
    def state() -> Any:
        with owner(server) as cursor:
            cursor.execute(
                "SELECT count(*), (SELECT (last_value, is_called)::text FROM trial.numbers) "
                "FROM trial.parents"
            )
            return cursor.fetchone()

    runner = StatementRunner(server.dsn(), catalog)  # even as the owner
    before = state()
    outcome: Any
    try:
        outcome = run_one(runner, statement).detail
    except ServerError as error:
        outcome = str(error)
    assert any(part in outcome for part in code.split("|")), outcome
    assert state() == before
    runner.close()


def test_a_lock_is_not_waited_for_long(runner: StatementRunner, server: AnyServer) -> None:
    with owner(server) as cursor:
        cursor.execute("BEGIN; LOCK TABLE trial.parents")
        # Its own time-out of a second has not passed.
        run = run_one(runner, "SELECT count(*) FROM trial.parents", 1.0)
        assert run.outcome is RunOutcome.LOCKED
        cursor.execute("ROLLBACK")
    assert run_one(runner, "SELECT count(*) FROM trial.parents").outcome is RunOutcome.FINISHED


def test_a_lock_is_no_verdict_of_explain_nor_of_the_check(
    runner: StatementRunner, server: AnyServer, check: Any
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
    server: AnyServer, runner: StatementRunner, statement: str, act: Callable[[int], object]
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

        def running() -> str | None:
            cursor.execute(
                "SELECT query FROM pg_stat_activity WHERE pid = %s AND state = 'active' "
                "AND query LIKE 'COPY%%'",
                (pid,),
            )
            row = cursor.fetchone()
            return row and str(row[0])

        assert is_tagged(eventually(running, "the statement runs"))
        act(pid)
    thread.join()
    return found[0]


LONG = "SELECT count(*) FROM generate_series(1, 1000000000) i"


def test_a_cancelled_run_says_nothing_about_the_plan(
    server: AnyServer, runner: StatementRunner
) -> None:
    def cancel(pid: int) -> None:
        with owner(server) as cursor:
            cursor.execute("SELECT pg_cancel_backend(%s)", (pid,))

    run = during(server, runner, LONG, cancel)
    assert run.outcome is RunOutcome.CANCELLED
    assert not run.timed_out
    assert run_one(runner, "SELECT 1").outcome is RunOutcome.FINISHED


def test_a_lost_session_is_told_and_opened_again(
    server: AnyServer, runner: StatementRunner
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
    server: AnyServer, runner: StatementRunner, monkeypatch: pytest.MonkeyPatch
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
    runner: StatementRunner, server: AnyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is set for a role or a database counts for new sessions only."""
    before = runner.in_force(["random_page_cost"])
    role = explorer_dsn(server).username
    with owner(server) as cursor:
        cursor.execute(f"ALTER ROLE {role} SET random_page_cost = 1.3")
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
            cursor.execute(f"ALTER ROLE {role} RESET random_page_cost")


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


def test_statistics_are_spared_where_we_may(server: AnyServer, catalog: HintSetCatalog) -> None:
    runner = StatementRunner(explorer_dsn(server), catalog)
    assert runner._session.execute("SHOW pg_stat_statements.track") == [("none",)]
    runner.close()
