"""Statements on trial, for the tests of what runs them on real servers."""

from __future__ import annotations

from backend.domain.plans import DEFAULT_HINT_SET, HintSet, PlanRun
from backend.steering.running.runner import StatementRunner
from backend.steering.statements.read_only import ReadOnlyVerdict
from tests.foreign_server import AnyServer
from tests.integration.steering_servers import owner

GROUPS = (
    "SELECT p.kind, count(*), sum(c.weight) FROM trial.parents p "
    "JOIN trial.children c ON c.parent = p.id WHERE p.id < 1500 GROUP BY p.kind ORDER BY 2"
)
NO_HASH = HintSet("no_hashjoin", {"enable_hashjoin": "off"})


def run_one(runner: StatementRunner, statement: str, timeout_s: float = 20.0) -> PlanRun:
    return runner.run(ReadOnlyVerdict(statement), [DEFAULT_HINT_SET], [timeout_s])[0]


def state_of(server: AnyServer, runner: StatementRunner) -> tuple[str, str]:
    with owner(server) as cursor:
        cursor.execute(
            "SELECT state, query FROM pg_stat_activity WHERE pid = %s",
            (runner._session.backend_pid,),
        )
        state, query = cursor.fetchone()
        return state, query
