"""What keeps a store of steering sound: reading only, retention, summary, migration."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from backend.domain.modes import Mode
from backend.domain.steering import (
    ClassKey,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from backend.errors import StoreError
from backend.protocols import Store
from backend.telemetry import SqlStore, open_store, opening, retention
from backend.telemetry.connections import make_engine, sqlite_file
from backend.telemetry.connections import store_url as checked
from backend.telemetry.schema import POSTGRESQL_SCHEMA, metadata
from backend.telemetry.summary import summary_text
from tests.contracts import records as full

OTHER_KEY = ClassKey(full.CLASS_KEY.fingerprint, "public")


class TestReadOnly:
    def test_reads_and_refuses_to_write(self, store: Store, store_url: sa.URL) -> None:
        store.save_steered_classes([full.STEERED_CLASS])
        with closing(open_store(store_url, read_only=True)) as reading:
            assert reading.steered_classes() == [full.STEERED_CLASS]
            for write in (
                lambda: reading.save_steered_classes([full.STEERED_CLASS]),
                lambda: reading.add_plan_runs([full.PLAN_RUN]),
                lambda: reading.add_service_timings([full.SERVICE_TIMING]),
                lambda: reading.save_steering_status(full.STEERING_STATUS),
            ):
                with pytest.raises(StoreError, match="reading only"):
                    write()
        assert store.plan_runs() == store.service_timings() == []


class TestRetention:
    NOW = full.NOW + timedelta(days=10)

    def test_old_timings_are_merged_by_class_hint_set_and_arm(self, store: Store) -> None:
        # NOW lies 0.123456 s after a full hour.
        first = full.SERVICE_TIMING
        second = replace(
            first,
            started_at=full.NOW + timedelta(minutes=1),
            ended_at=full.NOW + timedelta(minutes=2),
            executions=3,
            total_s=0.125,
            cancelled=0,
            buckets={149: 1, 7: 2},
        )
        others = [
            replace(second, arm="default"),
            replace(second, hint_set="no_jit"),
            replace(second, key=OTHER_KEY),
            replace(second, ended_at=full.NOW + timedelta(minutes=6)),
        ]
        recent = replace(first, ended_at=self.NOW - timedelta(hours=1))
        store.add_service_timings([first, second, *others, recent, recent])
        assert store.prune(self.NOW, 30, 300) == 1
        timings = store.service_timings()
        merged = next(t for t in timings if t.executions == 15)
        assert replace(merged, id=None) == replace(
            first,
            ended_at=second.ended_at,
            executions=15,
            total_s=5.0,
            cancelled=2,
            failed=2,
            buckets={0: 1, 149: 10, 152: 2, 7: 2},
        )
        rest = [replace(timing, id=None) for timing in timings if timing != merged]
        assert len(rest) == len(others) + 2
        assert all(timing in rest for timing in (*others, recent))
        assert store.prune(self.NOW, 30, 300) == 0
        assert store.service_timings() == timings

    def test_timings_past_retention_go_by_their_end(self, store: Store) -> None:
        edge = self.NOW - timedelta(days=5)
        store.add_service_timings(
            [
                replace(full.SERVICE_TIMING, ended_at=edge - timedelta(seconds=1)),
                replace(full.SERVICE_TIMING, ended_at=edge),
            ]
        )
        assert store.prune(self.NOW, 5, 300) == 1
        assert [timing.ended_at for timing in store.service_timings()] == [edge]

    def test_the_newest_plan_runs_stay_however_old(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = [
            replace(full.PLAN_RUN, latency_s=float(n), at=full.NOW + timedelta(days=n))
            for n in range(6)
        ]
        store.add_plan_runs(runs)
        monkeypatch.setattr(retention, "PLAN_RUNS_KEPT", 6)
        assert store.prune(self.NOW + timedelta(days=1000), 5, 300) == 0
        monkeypatch.setattr(retention, "PLAN_RUNS_KEPT", 2)
        assert store.prune(self.NOW, 30, 300) == 4
        assert [run.latency_s for run in store.plan_runs()] == [4, 5]

    def test_what_stands_for_a_class_stays(self, store: Store) -> None:
        store.save_steered_classes([full.STEERED_CLASS])
        store.save_steering_status(full.STEERING_STATUS)
        assert store.prune(self.NOW + timedelta(days=1000), 5, 300) == 0
        assert store.steered_classes() == [full.STEERED_CLASS]
        assert store.steering_status() == full.STEERING_STATUS


class TestSummary:
    def test_one_line_where_there_are_classes(self, store: Store) -> None:
        assert "Steering" not in summary_text(store)
        keys = [ClassKey(f"{number:016x}", "public") for number in range(4)]
        verified = replace(full.STEERED_CLASS, state=SteeringState.VERIFIED, mode=SteeringMode.AUTO)
        store.save_steered_classes(
            [
                full.STEERED_CLASS,  # Pinned.
                replace(verified, key=keys[0]),
                replace(verified, key=keys[1], mode=SteeringMode.OFF),
                SteeredClassRecord(keys[2], "SELECT $1", SteeringState.WAITING, full.NOW),
            ]
        )
        tail = "query classes are steered now (2 verified, 1 waiting, 1 withdrawn)."
        assert f"\nSteering: 1 of 4 {tail}\n" in summary_text(store)
        store.save_status(replace(full.STATUS, mode=Mode.AUTO))
        assert f"\nSteering: 2 of 4 {tail}\n" in summary_text(store)


class TestMigration:
    def test_a_store_of_the_second_version_gets_what_is_new(self, store_url: sa.URL) -> None:
        with closing(second_version(store_url)) as old:
            old.add_transition(full.TRANSITION)
            old.save_status(full.STATUS)
        with pytest.raises(StoreError, match="has schema 0002, not"):
            open_store(store_url, read_only=True)
        with closing(open_store(store_url)) as store:
            assert [replace(t, id=None) for t in store.transitions()] == [full.TRANSITION]
            assert store.status() == full.STATUS
            store.save_steered_classes([full.STEERED_CLASS])
            store.add_plan_runs([full.PLAN_RUN])
            store.add_service_timings([full.SERVICE_TIMING])
            assert store.steered_classes() == [full.STEERED_CLASS]
            assert len(store.plan_runs()) == len(store.service_timings()) == 1
            with store._reading() as connection:
                context = MigrationContext.configure(connection)
                assert compare_metadata(context, metadata) == []


def second_version(url: sa.URL) -> SqlStore:
    """A store as the second schema made it, at the address of an empty one."""
    engine = make_engine(checked(url))
    path = sqlite_file(engine.url)
    if path is not None:
        path.parent.mkdir()
    else:
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {POSTGRESQL_SCHEMA} CASCADE"))
    with opening._migrating(engine) as connection:
        command.upgrade(opening.alembic_config(connection), "0002")
    return SqlStore(engine)
