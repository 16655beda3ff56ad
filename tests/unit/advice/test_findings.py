"""Each finding on numbers that call for it, and on numbers that do not."""

from __future__ import annotations

from typing import Any

import pytest

from backend.advice.finding import Direction, Finding, Severity
from backend.advice.findings import findings
from tests.unit.advice.made_facts import UNKNOWN, facts, query, table

GIB = 1024.0**3


def found(**given: Any) -> dict[str, Finding]:
    return {finding.key: finding for finding in findings(facts(**given))}


def test_a_quiet_healthy_server_gives_none() -> None:
    assert found(tables=(table(),)) == {}


SICK: dict[str, dict[str, Any]] = {
    "dear-random-pages": {
        "values": {"random_page_cost": 40.0}, "totals": {"blocks_hit": 80_000},
    },
    "planner-methods-off": {"values": {"enable_nestloop": False}},
    "cache-misses": {"totals": {"blocks_hit": 80_000, "blocks_read": 20_000}},
    "temporary-files": {"totals": {"temp_files": 3, "temp_bytes": 200e6}},
    "requested-checkpoints": {"totals": {"checkpoints_requested": 2, "wal_bytes": 3 * GIB}},
    "full-page-images": {"totals": {"wal_bytes": 100e6, "wal_full_page_images": 10_000}},
    "wal-buffers-full": {"totals": {"wal_buffers_full": 60}},
    "slow-wal-syncs": {"totals": {"wal_syncs": 100, "wal_sync_time_ms": 2000}},
    "background-writer": {"totals": {"maxwritten_clean": 4}},
    "dead-rows": {"tables": (table(dead_rows=400_000),)},
    "stale-statistics": {"tables": (table(modified_rows=300_000),)},
    "busy-autovacuum": {"means": {"autovacuum_workers": 3.0}},
    "wraparound": {"last": {"xid_age": 6e8}},
    "long-transactions": {"peaks": {"longest_transaction_s": 3600}},
    "replication": {"last": {"slots_retained_bytes": 4 * GIB}},
    "checksum-failures": {"ever": {"checksum_failures": 1}},
    "settings-not-in-force": {"reading": {"pending_restart": True}},
    "memory-overcommitted": {"values": {"work_mem": 2_000_000}},
    "connections": {"peaks": {"connections_total": 85}, "last": {"connections_max": 100}},
    "short-sessions": {"totals": {"sessions": 600}},
    "idle-in-transaction": {"means": {"connections_idle_in_transaction": 3}},
    "locks": {"totals": {"deadlocks": 1}},
    "rollbacks": {"totals": {"xact_commit": 900, "xact_rollback": 100}},
    "heaviest-statement": {"queries": query()},
    "machine": {"means": {"host_cpu_percent": 97}},
    "disk": {"last": {"host_disk_free_bytes": 0.5 * GIB}},
}  # fmt: skip


@pytest.mark.parametrize("key", sorted(SICK))
def test_each_finding_is_found_alone_with_its_evidence(key: str) -> None:
    told = found(**SICK[key])
    assert set(told) == {key}
    assert all(told[key].evidence)
    assert told[key].meaning
    assert told[key].manual.startswith("https://www.postgresql.org/docs/")


HEALTHY: dict[str, dict[str, Any]] = {
    "the server's own page costs": {"totals": {"blocks_hit": 80_000}},
    "both page costs are raised": {
        "values": {"random_page_cost": 8.0, "seq_page_cost": 2.0}, "totals": {"blocks_hit": 80_000},
    },
    "dear random pages, not cached": {
        "values": {"random_page_cost": 40.0}, "totals": {"blocks_hit": 97_000, "blocks_read": 3000},
    },
    "a little WAL of full pages": {"totals": {"wal_bytes": 10e6, "wal_full_page_images": 1200}},
    "few blocks are read": {"totals": {"blocks_hit": 10, "blocks_read": 20}},
    "most blocks are cached": {"totals": {"blocks_hit": 990_000, "blocks_read": 10_000}},
    "one requested checkpoint": {"totals": {"checkpoints_requested": 1}},
    "timed checkpoints": {"ever": {"checkpoints_requested": 2, "checkpoints_timed": 98}},
    "a small table is dead": {"tables": (table(live_rows=10, dead_rows=900),)},
    "a few dead rows": {"tables": (table(dead_rows=50_000),)},
    "a tiny table was never analysed": {"tables": (table(live_rows=20, analyzed_at=None),)},
    "fast syncs": {"totals": {"wal_syncs": 100, "wal_sync_time_ms": 50}},
    "half of the connections": {
        "peaks": {"connections_total": 50}, "last": {"connections_max": 100},
    },
    "few transactions": {"totals": {"xact_commit": 5, "xact_rollback": 5}},
    "four equal statements": {
        "queries": {**query(1), **query(2), **query(3), **query(4)},
    },
    "room on the disk": {"last": {"host_disk_free_bytes": 50 * GIB}},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(HEALTHY))
def test_nothing_is_made_of_little(name: str) -> None:
    assert found(**HEALTHY[name]) == {}


def test_the_most_severe_comes_first() -> None:
    told = findings(
        facts(
            queries=query(),
            ever={"checksum_failures": 1},
            totals={"temp_files": 3, "temp_bytes": 200e6},
        )
    )
    assert [one.severity for one in told] == [Severity.CRITICAL, Severity.WARNING, Severity.NOTE]


def test_blocks_that_came_from_the_systems_cache_are_a_note() -> None:
    totals = {"blocks_hit": 80_000, "blocks_read": 20_000, "read_time_ms": 200.0}
    assert found(totals=totals)["cache-misses"].severity is Severity.NOTE
    assert found(totals={**totals, "read_time_ms": 20_000})["cache-misses"].severity is (
        Severity.WARNING
    )


def test_a_habit_of_requested_checkpoints_shows_without_one_in_the_window() -> None:
    told = found(ever={"checkpoints_requested": 60, "checkpoints_timed": 40})
    assert told["requested-checkpoints"].severity is Severity.NOTE
    assert "60.0 %" in " ".join(told["requested-checkpoints"].evidence)


def test_a_table_that_was_never_analysed_calls_for_analyze_and_no_knob() -> None:
    told = found(tables=(table(analyzed_at=None),))["stale-statistics"]
    assert told.calls_for == {}
    assert told.statements == ('ANALYZE "public"."orders";',)
    stale = found(tables=(table(modified_rows=300_000),))["stale-statistics"]
    assert stale.calls_for == {"autovacuum_analyze_scale_factor": Direction.LOWER}


def test_dead_rows_name_their_tables_safely() -> None:
    told = found(tables=(table(dead_rows=400_000, name='a"; DROP TABLE b;\n--'),))["dead-rows"]
    statement = told.statements[0]
    assert statement == 'VACUUM (ANALYZE) "public".U&"a""; DROP TABLE b;\\+00000a--";'


def test_unknown_memory_is_not_held_against_anybody() -> None:
    assert "memory-overcommitted" not in found(values={"work_mem": 2_000_000}, host=UNKNOWN)


def test_connections_at_the_limit_are_critical() -> None:
    told = found(peaks={"connections_total": 97}, last={"connections_max": 100})
    assert told["connections"].severity is Severity.CRITICAL
