"""Misestimates on the demo shop: what is found is real, and the proposed statistics lower it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timezone

import pytest

from backend.catalog.hint_sets import load_hint_sets
from backend.db_connector import DatabaseConnector
from backend.domain.plans import DEFAULT_HINT_SET
from backend.domain.server import HostFacts
from backend.domain.steering import ClassKey, SteeredClassRecord, SteeringState
from backend.steering.export.misestimate_report import ClassFindings, misestimate_report
from backend.steering.export.misestimates import Misestimate, misestimates
from backend.steering.plans.plan_tree import PlanNode, read_plan
from backend.steering.running.runner import StatementRunner
from backend.steering.statements.read_only import ReadOnlyCheck, ReadOnlyVerdict
from backend.workload.scope import Scope
from backend.workload.shape import StoreShape
from backend.workload.statements import STATEMENTS
from backend.workload.store import DemoStore
from tests.foreign_roles import own_database
from tests.foreign_server import AnyServer, explorer_dsn

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCALE = 0.02
SHOP, SCRATCH = "misestimates_shop", "misestimates_scratch"
HOST = HostFacts(memory_bytes=8 << 30, cpu_count=2.0)
NOW = datetime(2026, 1, 5, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def shop(server: AnyServer) -> Iterator[AnyServer]:
    with own_database(server, SHOP):
        DemoStore(server.dsn(SHOP), scale=SCALE, seed=7).load()
        yield server


@pytest.fixture
def scratch(shop: AnyServer) -> Iterator[AnyServer]:
    """A copy of the shop's database, for statistics to be created in."""
    with own_database(shop, SCRATCH, copy_of=SHOP):
        yield shop


@contextlib.contextmanager
def analyzer(server: AnyServer) -> Iterator[Callable[[str], str]]:
    """Runs statements in the scratch database as the role that may only read."""
    catalog = load_hint_sets(server.version, HOST)
    with (
        closing(StatementRunner(explorer_dsn(server, SCRATCH), catalog)) as runner,
        closing(DatabaseConnector(explorer_dsn(server, SCRATCH))) as connector,
    ):

        def analyze(statement: str) -> str:
            verdict = ReadOnlyCheck(connector).check(statement)
            assert verdict.is_read_only, verdict.refusal
            plan = runner.analyze(verdict, DEFAULT_HINT_SET, timeout_s=60.0)
            assert plan is not None
            return plan

        yield analyze


def of_the_demo(server: AnyServer, name: str) -> str:
    statement = STATEMENTS[name]
    parameters = statement.parameters((0.5, 0.5, 0.5), Scope(StoreShape.at_scale(SCALE)))
    catalog = load_hint_sets(server.version, HOST)
    with closing(StatementRunner(explorer_dsn(server, SCRATCH), catalog)) as runner:
        return runner.fill_in(statement.sql, parameters)


def execute(server: AnyServer, statements: tuple[str, ...]) -> None:
    with closing(DatabaseConnector(server.dsn(SCRATCH))) as owner:
        for statement in statements:
            owner.execute(statement)


def factor(plan: str, is_step: Callable[[PlanNode], bool]) -> float:
    """Between estimated and actual rows of the one such step."""
    (node,) = (node for node in read_plan(plan).nodes if is_step(node))
    estimated, actual = max(node.rows, 1.0), max(node.number("Actual Rows"), 1.0)
    return max(estimated / actual, actual / estimated)


def groups(node: PlanNode) -> bool:
    return node.node_type == "Aggregate"


@pytest.mark.parametrize("name", ["daily_revenue", "segment_revenue"])
def test_a_grouping_by_an_expression_of_the_demo(scratch: AnyServer, name: str) -> None:
    statement = of_the_demo(scratch, name)
    with analyzer(scratch) as analyze:
        before = analyze(statement)
        (found,) = misestimates(before)
        assert found.factor == factor(before, groups) > 50
        assert "shop.orders.placed_at" in found.looks_at
        assert found.actual_rows < 100 < found.estimated_rows
        execute(scratch, found.advice.sql)
        after = analyze(statement)
        assert factor(after, groups) < found.factor / 3
        execute(scratch, found.advice.undo)
        execute(scratch, ("ANALYZE shop.orders",))
        assert factor(analyze(statement), groups) > found.factor / 2


def busy_place(server: AnyServer) -> tuple[str, int]:
    """The city with the most customers, and its region."""
    with closing(DatabaseConnector(server.dsn(SCRATCH))) as owner:
        (row,) = owner.fetch(
            "SELECT city, region_id FROM shop.customers GROUP BY city, region_id "
            "ORDER BY count(*) DESC LIMIT 1"
        )
    return row["city"], row["region_id"]


def test_columns_that_go_together(scratch: AnyServer) -> None:
    """A city lies in one region; the planner multiplies their shares."""
    execute(
        scratch,
        (
            "CREATE TABLE shop.visits AS SELECT city, region_id, 'Land ' || region_id AS land "
            "FROM shop.customers, generate_series(1, 5)",
            "ANALYZE shop.visits",
        ),
    )
    city, region = busy_place(scratch)
    statement = (
        f"SELECT count(*) FROM shop.visits v WHERE v.city = '{city}' AND v.region_id = {region} "
        f"AND v.land = 'Land {region}' GROUP BY v.city"
    )

    def scans(node: PlanNode) -> bool:
        return node.text("Relation Name") == "visits"

    with analyzer(scratch) as analyze:
        before = analyze(statement)
        (found,) = misestimates(before)
        assert found.factor == factor(before, scans)
        assert found.step.endswith("on shop.visits")
        assert set(found.looks_at) == {f"shop.visits.{c}" for c in ("city", "region_id", "land")}
        execute(scratch, found.advice.sql)
        assert factor(analyze(statement), scans) < 2
        execute(scratch, found.advice.undo)


def test_the_report_holds_no_constant_of_the_statement(scratch: AnyServer) -> None:
    city, _ = busy_place(scratch)
    statement = (
        "SELECT substr(o.shipping_address, 3, 4), count(*) FROM shop.orders o "
        f"JOIN shop.customers c USING (customer_id) WHERE c.city <> '{city}' AND o.total > 0.8125 "
        "AND lower(o.status) <> 'secret status' GROUP BY 1"
    )
    with analyzer(scratch) as analyze:
        found = misestimates(analyze(statement))
    record = SteeredClassRecord(
        ClassKey("0" * 16, "public"), "SELECT $1", SteeringState.WAITING, NOW
    )
    text = misestimate_report([ClassFindings(record, found)], NOW)
    assert found
    for constant in (city, "0.8125", "secret status"):
        assert constant not in text


def test_a_time_out_is_no_plan(scratch: AnyServer) -> None:
    catalog = load_hint_sets(scratch.version, HOST)
    with closing(StatementRunner(explorer_dsn(scratch, SCRATCH), catalog)) as runner:
        slow = ReadOnlyVerdict("SELECT count(*) FROM shop.orders a, shop.orders b, shop.orders c")
        assert runner.analyze(slow, DEFAULT_HINT_SET, timeout_s=0.05) is None


def test_every_finding_of_the_demo_says_what_to_do(scratch: AnyServer) -> None:
    found: dict[str, tuple[Misestimate, ...]] = {}
    with analyzer(scratch) as analyze:
        for name, statement in STATEMENTS.items():
            if statement.kind != "write":
                found[name] = misestimates(analyze(of_the_demo(scratch, name)))
    assert {name for name, some in found.items() if some} >= {"daily_revenue", "segment_revenue"}
    for one in (one for some in found.values() for one in some):
        assert one.factor >= 10
        assert one.advice.text
        execute(scratch, one.advice.sql)
