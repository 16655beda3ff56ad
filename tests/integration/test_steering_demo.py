"""The demo shop's statements on trial: each class under each of its arms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from backend.catalog.hint_sets import load_hint_sets
from backend.db_connector import DatabaseConnector
from backend.domain.plans import RunOutcome, distinct_arms
from backend.domain.server import HostFacts
from backend.steering.running.runner import StatementRunner
from backend.steering.statements.read_only import ReadOnlyCheck
from backend.workload.scope import Scope
from backend.workload.shape import StoreShape
from backend.workload.statements import STATEMENTS
from backend.workload.store import DemoStore
from tests.foreign_roles import own_database
from tests.foreign_server import AnyServer, explorer_dsn

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCALE = 0.005
DATABASE = "steering_demo"
HOST = HostFacts(memory_bytes=8 << 30, cpu_count=2.0)


@pytest.fixture(scope="module")
def shop(server: AnyServer) -> Iterator[tuple[StatementRunner, ReadOnlyCheck]]:
    url = explorer_dsn(server, DATABASE)
    with own_database(server, DATABASE), closing(DatabaseConnector(url)) as connector:
        DemoStore(server.dsn(DATABASE), scale=SCALE, seed=7).load()
        with closing(StatementRunner(url, load_hint_sets(server.version, HOST))) as runner:
            yield runner, ReadOnlyCheck(connector)


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_arm_of_a_query_gives_its_answer_and_writes_are_left_alone(
    server: AnyServer, shop: tuple[StatementRunner, ReadOnlyCheck], name: str
) -> None:
    runner, check = shop
    statement = STATEMENTS[name]
    parameters = statement.parameters((0.5, 0.5, 0.5), Scope(StoreShape.at_scale(SCALE)))
    verdict = check.check(runner.fill_in(statement.sql, parameters))
    assert verdict.is_read_only == (statement.kind != "write"), verdict.refusal
    if statement.kind == "write":
        return
    hint_sets = load_hint_sets(server.version, HOST).hint_sets
    plans = runner.explain(verdict, hint_sets, timeout_s=30.0)
    arms = distinct_arms([plan.plan_hash if plan else None for plan in plans])
    assert 1 < len(arms) < len(hint_sets) / 2
    runs = runner.run(verdict, [hint_sets[arm[0]] for arm in arms], [30.0] * len(arms))
    assert {run.outcome for run in runs} == {RunOutcome.FINISHED}
    assert [hint_sets[a[0]].name for a, r in zip(arms, runs, strict=True)
            if not r.same_answer(runs[0])] == []  # fmt: skip
