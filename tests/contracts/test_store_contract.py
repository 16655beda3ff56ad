"""What every store does, whatever database it lives in: journal, lease, transactions."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from alembic import command

from backend.domain.modes import ChangeState
from backend.errors import StoreError
from backend.protocols import Store
from backend.telemetry import SqlStore, open_store, opening
from backend.telemetry.connections import make_engine, store_url
from tests.contracts import records as full
from tests.contracts.conftest import OpenStore


class TestJournal:
    def test_changes_are_open_until_they_are_kept_or_undone(self, store: Store) -> None:
        first, second = store.add_changes([full.CHANGE, replace(full.CHANGE, knob="jit")])
        assert first == replace(full.CHANGE, id=first.id)
        assert first.id is not None
        assert second.id is not None
        assert first.id < second.id
        assert store.open_changes() == [first, second]
        store.settle_changes([first.id], ChangeState.APPLIED, "read back")
        assert [c.state for c in store.open_changes()] == [ChangeState.APPLIED, ChangeState.PENDING]
        assert store.open_changes()[0].settled_at is None
        store.settle_changes([first.id], ChangeState.KEPT, "promoted")
        store.settle_changes([second.id], ChangeState.ROLLED_BACK)
        assert store.open_changes() == []
        kept, undone = store.changes()
        assert (kept.state, kept.detail) == (ChangeState.KEPT, "promoted")
        assert (undone.state, undone.detail) == (ChangeState.ROLLED_BACK, "by hand")
        assert kept.settled_at is not None
        assert abs(kept.settled_at - datetime.now(timezone.utc)) < timedelta(minutes=5)

    def test_what_stood_before_comes_back_to_the_letter(self, store: Store) -> None:
        odd = replace(
            full.CHANGE,
            before_entry="password='x' ://a:b@c",
            before_value="on",
            after_value=None,
            after_entry=None,
        )
        store.add_changes([odd])
        (read,) = store.open_changes()
        assert replace(read, id=None) == odd

    def test_what_was_left_behind_is_neither_open_nor_forgotten(self, store: Store) -> None:
        first, second = store.add_changes([full.CHANGE, replace(full.CHANGE, knob="jit")])
        assert first.id is not None
        store.settle_changes([first.id], ChangeState.LEFT_BEHIND, "another server answers")
        assert store.open_changes() == [second]
        (left,) = store.changes_left_behind()
        assert (left.id, left.detail) == (first.id, "another server answers")
        store.settle_changes([first.id], ChangeState.APPLIED)
        assert store.changes_left_behind() == []

    @pytest.mark.parametrize("value", [True, False, 0, 1, 1.0, 2.5, "1", "", None])
    def test_knob_values_keep_their_type(self, store: Store, value: object) -> None:
        store.add_changes([replace(full.CHANGE, before_value=value)])  # type: ignore[arg-type]
        (read,) = store.open_changes()
        assert read.before_value == value
        assert type(read.before_value) is type(value)

    def test_settling_nothing_is_allowed(self, store: Store) -> None:
        store.settle_changes([], ChangeState.KEPT)
        assert store.add_changes([]) == []


class TestLease:
    def test_there_is_none_at_first(self, store: Store) -> None:
        assert store.current_epoch() == 0
        assert not store.lease_expired(full.NOW)
        assert isinstance(store, SqlStore)
        assert store.lease() is None

    def test_it_runs_out_unless_renewed(self, store: Store) -> None:
        epoch = store.acquire_lease("tuner", 10.0)
        now = datetime.now(timezone.utc)
        assert epoch == store.current_epoch() == 1
        assert not store.lease_expired(now)
        assert store.lease_expired(now + timedelta(seconds=11))
        assert store.renew_lease(epoch, 60.0)
        assert not store.lease_expired(now + timedelta(seconds=50))

    def test_a_stale_epoch_is_told(self, store: Store, open_again: OpenStore) -> None:
        watchdog = open_again()
        epoch = store.acquire_lease("tuner", 0.0)
        raised = watchdog.acquire_lease("watchdog", 30.0)
        assert raised > epoch
        assert not store.renew_lease(epoch, 1000.0)
        store.release_lease(epoch)
        assert isinstance(watchdog, SqlStore)
        lease = watchdog.lease()
        assert lease is not None
        assert (lease.epoch, lease.holder, lease.released) == (raised, "watchdog", False)
        assert lease.expires_at < datetime.now(timezone.utc) + timedelta(seconds=60)

    def test_a_released_lease_does_not_expire(self, store: Store) -> None:
        epoch = store.acquire_lease("tuner", 0.0)
        later = datetime.now(timezone.utc) + timedelta(seconds=1)
        assert store.lease_expired(later)
        store.release_lease(epoch)
        assert not store.lease_expired(later)
        assert not store.renew_lease(epoch, 10.0)
        assert store.acquire_lease("tuner", 10.0) == epoch + 1


class TestTransactions:
    def test_all_or_nothing(self, store: Store, open_again: OpenStore) -> None:
        other = open_again()

        def fail_halfway() -> None:
            with store.transaction():
                store.add_event(full.EVENT)
                store.add_window(full.window())
                assert len(store.events()) == 1
                assert other.events() == []
                raise InterruptedError

        with pytest.raises(InterruptedError):
            fail_halfway()
        assert store.events() == []
        assert store.query_windows() == []
        with store.transaction():
            store.add_event(full.EVENT)
            with store.transaction():
                store.add_event(full.EVENT)
        assert len(other.events()) == 2

    def test_other_threads_have_their_own(self, store: Store) -> None:
        with store.transaction():
            store.add_event(full.EVENT)
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(store.events).result(10) == []

    def test_closing_twice_is_harmless(self, store: Store) -> None:
        store.close()
        store.close()


class TestReadOnly:
    def test_reads_and_refuses_to_write(self, store: Store, store_url: sa.URL) -> None:
        store.add_event(full.EVENT)
        reading = open_store(store_url, read_only=True)
        try:
            assert len(reading.events()) == 1
            with pytest.raises(StoreError, match="reading only"):
                reading.add_event(full.EVENT)
        finally:
            reading.close()
        assert len(store.events()) == 1


@pytest.mark.integration
def test_a_postgresql_store_of_before_policies_gets_what_is_new(
    postgresql_template: sa.Engine,
) -> None:
    with postgresql_template.connect() as connection:
        connection.execute(sa.text("DROP DATABASE IF EXISTS older WITH (FORCE)"))
        connection.execute(sa.text("CREATE DATABASE older"))
    url = postgresql_template.url.set(database="older")
    engine = make_engine(store_url(url))
    with opening._migrating(engine) as connection:
        command.upgrade(opening.alembic_config(connection), "0003")
        connection.execute(
            sa.text(
                "INSERT INTO policy_versions (created_at, author, config, index, note, active) "
                "VALUES (now(), 'server', '{\"work_mem\": 8192}', 1.0, 'found', true)"
            )
        )
    engine.dispose()
    with contextlib.closing(open_store(url)) as store:
        (old,) = store.policy_versions()
        assert (old.config, old.steering, old.weights) == ({"work_mem": 8192}, (), {})
        store.add_policy_version(full.VERSION)
        assert [version.active for version in store.policy_versions()] == [False, True]
        assert store.add_genome(full.GENOME) == store.add_policy_update(full.POLICY_UPDATE) == 1
