"""Hint sets on real servers: any role may set them, and they lead to other plans."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import URL

from backend.catalog.hint_sets import HintSetCatalog
from backend.domain.plans import DEFAULT_HINT_SET, distinct_arms
from backend.steering.running.runner import StatementRunner
from tests.integration.trial_statements import GROUPS, NO_HASH

pytestmark = pytest.mark.integration


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
