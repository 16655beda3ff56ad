"""What every store keeps of operators' decisions, whatever database it lives in."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from alembic import command

from backend.domain.experiment_plans import PlanState, PromotionState
from backend.errors import StoreError
from backend.protocols import Store
from backend.telemetry import open_store, opening
from backend.telemetry.connections import make_engine, store_url
from tests.contracts import records as full
from tests.contracts.conftest import OpenStore


def test_an_empty_store_answers(store: Store) -> None:
    assert store.experiment_plans() == []
    assert store.promotions() == []
    assert store.freeze() is None


def test_a_plan_comes_back_whole_in_another_process(store: Store, open_again: OpenStore) -> None:
    number = store.save_experiment_plan(full.EXPERIMENT_PLAN)
    (read,) = open_again().experiment_plans()
    assert read == replace(full.EXPERIMENT_PLAN, id=number)
    assert read.ranges["jit"].holds(True)
    assert not read.ranges["jit"].holds(1)


def test_a_plan_goes_on(store: Store) -> None:
    draft = replace(full.EXPERIMENT_PLAN, state=PlanState.DRAFT, decided_at=None)
    number = store.save_experiment_plan(draft)
    later = replace(draft, id=number, state=PlanState.OVER, begun=40, reason="used up")
    assert store.save_experiment_plan(later) == number
    assert store.experiment_plans() == [later]


def test_the_newest_plans_are_told_oldest_first(store: Store) -> None:
    for trials in (1, 2, 3):
        store.save_experiment_plan(replace(full.EXPERIMENT_PLAN, trials=trials))
    assert [plan.trials for plan in store.experiment_plans(limit=2)] == [2, 3]


def test_a_promotion_goes_on(store: Store, open_again: OpenStore) -> None:
    waiting = replace(full.PROMOTION_THAT_WAITS, state=PromotionState.WAITING, decided_at=None)
    number = store.save_promotion(waiting)
    store.save_promotion(replace(full.PROMOTION_THAT_WAITS, id=number))
    assert open_again().promotions() == [replace(full.PROMOTION_THAT_WAITS, id=number)]


def test_what_is_not_there_is_not_updated(store: Store) -> None:
    with pytest.raises(StoreError, match="no row 7 of experiment_plans"):
        store.save_experiment_plan(replace(full.EXPERIMENT_PLAN, id=7))
    with pytest.raises(StoreError, match="no row 7 of promotions"):
        store.save_promotion(replace(full.PROMOTION_THAT_WAITS, id=7))


def test_secrets_in_words_of_people_are_hidden(store: Store) -> None:
    secret = "postgresql://app:hunter2@host/shop"
    store.save_experiment_plan(replace(full.EXPERIMENT_PLAN, note=secret, reason=secret))
    store.save_freeze(replace(full.FREEZE, reason=secret))
    assert "hunter2" not in f"{store.experiment_plans()} {store.freeze()}"


def test_the_freeze_switch_stays_as_it_was_thrown_last(store: Store, open_again: OpenStore) -> None:
    store.save_freeze(full.FREEZE)
    assert open_again().freeze() == full.FREEZE
    lifted = replace(full.FREEZE, frozen=False, at=full.NOW + timedelta(hours=1), reason="")
    open_again().save_freeze(lifted)
    assert store.freeze() == lifted


def test_a_trial_says_which_plan_it_belongs_to(store: Store) -> None:
    number = store.save_trial(full.TRIAL)
    trial = store.trial(number)
    assert trial is not None
    assert trial.experiment_plan_id == full.TRIAL.experiment_plan_id == 4


def test_a_store_of_before_experiment_plans_keeps_its_trials(store_url: sa.URL) -> None:
    older = _older(store_url)
    with contextlib.closing(open_store(older)) as store:
        (trial,) = store.trials()
        assert (trial.proposer, trial.experiment_plan_id) == ("knob agent", None)
        assert store.save_experiment_plan(full.EXPERIMENT_PLAN) == 1


def _older(url: sa.URL) -> sa.URL:
    """The address of a store with the tables of revision 0004, and a trial in it."""
    if url.get_backend_name() == "sqlite":
        older = url.set(database=f"{url.database}.older")
    else:
        older = url.set(database=f"{url.database}_older")
        server = sa.create_engine(
            url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
        )
        with server.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {older.database}"))
    if older.get_backend_name() == "sqlite":
        opening._prepare_file(opening.Path(str(older.database)), "", create=True)
    engine = make_engine(store_url(older))
    with opening._migrating(engine) as connection:
        command.upgrade(opening.alembic_config(connection), "0004")
        connection.execute(
            sa.text(
                "INSERT INTO trials (kind, state, proposer, created_at, before, after, reasons, "
                "blocks, max_blocks, block_log_ratios, needs_restart, class_effects) VALUES "
                "('probe', 'finished', 'knob agent', '2026-03-01 12:00:00', '{}', '{}', '[]', "
                "0, 1, '[]', false, '{}')"
            )
        )
    engine.dispose()
    return older
