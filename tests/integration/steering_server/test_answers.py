"""The runner's answers on real servers: compared as bags of rows, in one snapshot."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.engine import URL

from backend.catalog.hint_sets import HintSetCatalog
from backend.domain.plans import DEFAULT_HINT_SET, RunOutcome
from backend.steering.running import trial_session
from backend.steering.running.runner import StatementRunner
from backend.steering.statements.read_only import ReadOnlyVerdict
from tests.foreign_server import AnyServer
from tests.integration.steering_servers import owner
from tests.integration.trial_statements import GROUPS, NO_HASH, run_one, state_of

pytestmark = pytest.mark.integration


def test_every_hint_set_gives_the_same_answer(
    runner: StatementRunner, catalog: HintSetCatalog, check: Any
) -> None:
    runs = runner.run(check(GROUPS), catalog.hint_sets, [20.0] * len(catalog))
    assert {run.outcome for run in runs} == {RunOutcome.FINISHED}
    assert all(run.same_answer(runs[0]) for run in runs)
    assert runs[0].rows == 7
    assert all(run.latency_s > 0 for run in runs)


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
    server: AnyServer, runner: StatementRunner, monkeypatch: pytest.MonkeyPatch
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
    url: URL, catalog: HintSetCatalog, server: AnyServer
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
