"""What goes from a store and what stays, whatever database it lives in."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from backend.domain.modes import Arm, ChangeState, Phase, TrialKind, TrialState, Verdict
from backend.errors import StoreError
from backend.protocols import Store
from backend.telemetry import retention
from tests.contracts import records as full


class TestRetention:
    NOW = full.NOW + timedelta(days=10)

    def test_old_windows_are_merged_by_bucket(self, store: Store) -> None:
        # NOW lies 0.123456 s after a full hour.
        for minute, index in ((0, 0.5), (1, 1.0), (6, 2.0)):
            store.add_window(full.window(minute, index=index, arm=None))
        recent = full.window(60 * 24 * 9.9)
        store.add_window(recent)
        assert store.prune(self.NOW, 30, 300) == 1
        merged, alone, untouched = store.query_windows()
        assert merged.index == pytest.approx(0.75)
        assert merged.duration_s == 20.0
        assert merged.started_at == full.NOW
        assert merged.ended_at == full.NOW + timedelta(seconds=70)
        assert {q.key: q.calls for q in merged.queries} == {
            "10.5.-77.t": 24,
            "10.5.9223372036854775807.n": 2,
        }
        assert alone.index == 2.0
        assert len(alone.queries) == 2
        assert replace(untouched, id=None, queries=()) == replace(recent, queries=())
        assert store.prune(self.NOW, 30, 300) == 0
        assert store.query_windows() == [merged, alone, untouched]

    def test_phases_and_configurations_are_not_mixed(self, store: Store) -> None:
        store.add_window(full.window(0, phase=Phase.BASELINE))
        store.add_window(full.window(1, config={"jit": True}))
        store.add_window(full.window(2, config={"jit": False}))
        assert store.prune(self.NOW, 30, 300) == 0
        assert len(store.windows()) == 3

    def test_windows_of_what_was_only_tried_are_merged_within_their_trial_and_arm(
        self, store: Store
    ) -> None:
        tried, other, running = (
            store.save_trial(replace(full.TRIAL, verdict=Verdict.REJECT, state=state))
            for state in (TrialState.FINISHED, TrialState.FINISHED, TrialState.MEASURING)
        )
        for trial_id in (tried, other, running):
            for arm in Arm:
                for minute in (0, 1, 2):
                    store.add_window(full.window(minute, trial_id=trial_id, arm=arm))
        assert store.prune(self.NOW, 30, 300) == 8
        for trial_id, windows_an_arm in ((tried, 1), (other, 1), (running, 3)):
            found = Counter(window.arm for window in store.windows(trial_id=trial_id))
            assert found == dict.fromkeys(Arm, windows_an_arm)
        assert store.prune(self.NOW, 30, 300) == 0

    def test_evidence_of_what_was_deployed_or_decided_stays_whole(self, store: Store) -> None:
        deployed, asked_for, compared, tried = (
            store.save_trial(replace(full.TRIAL, kind=kind))
            for kind in (
                TrialKind.PROMOTION, TrialKind.PROMOTION, TrialKind.FINAL, TrialKind.PROMOTION,
            )
        )  # fmt: skip
        store.add_policy_version(replace(full.VERSION, trial_id=deployed))
        store.save_promotion(replace(full.PROMOTION_THAT_WAITS, trial_id=asked_for))
        store.add_changes([replace(full.CHANGE, trial_id=tried)])
        for trial_id in (deployed, asked_for, compared, tried):
            for minute in (0, 1):
                store.add_window(full.window(minute, trial_id=trial_id))
        assert store.prune(self.NOW, 5, 300) == 2
        # The journal tells of what was only tried, so its verdict stays, without its windows.
        assert [trial.id for trial in store.trials()] == [deployed, asked_for, compared, tried]
        of_trials = [window.trial_id for window in store.query_windows()]
        assert sorted(of_trials) == sorted(2 * [deployed, asked_for, compared])
        assert all(window.queries for window in store.query_windows())

    def test_the_newest_changes_stay_and_all_that_were_kept(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "CHANGES_KEPT", 2)
        trial = store.save_trial(full.TRIAL)
        states = [*ChangeState, ChangeState.ROLLED_BACK, ChangeState.ROLLED_BACK]
        changes = [replace(full.CHANGE, state=state, trial_id=trial) for state in states]
        store.add_changes(changes)
        assert store.prune(self.NOW, 30, 300) == 2
        assert [change.state for change in store.changes()] == [
            ChangeState.PENDING, ChangeState.APPLIED, ChangeState.KEPT, ChangeState.CONFLICT,
            ChangeState.LEFT_BEHIND, ChangeState.ROLLED_BACK, ChangeState.ROLLED_BACK,
        ]  # fmt: skip
        assert [found.id for found in store.trials()] == [trial]

    def test_an_old_trial_goes_with_the_last_of_its_changes(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "CHANGES_KEPT", 1)
        old, new = (store.save_trial(full.TRIAL) for _ in range(2))
        for trial_id in (old, new):
            change = replace(full.CHANGE, state=ChangeState.ROLLED_BACK, trial_id=trial_id)
            store.add_changes([change])
        assert store.prune(self.NOW, 5, 300) == 2
        assert [trial.id for trial in store.trials()] == [new]

    def test_what_is_older_than_retention_goes(self, store: Store) -> None:
        store.add_window(full.window(0))
        store.add_client_intervals([full.INTERVAL])
        store.add_learning(full.LEARNING)
        store.add_event(full.EVENT)
        store.add_query_classes([full.QUERY_CLASS, replace(full.QUERY_CLASS, key="1.1.1.t")])
        store.add_window(full.window(60 * 24 * 9.9))
        store.add_changes([full.CHANGE])
        store.submit(full.COMMAND)
        store.add_policy_version(full.VERSION)
        assert store.prune(self.NOW, 5, 300) == 5
        assert len(store.windows()) == 1
        assert store.client_intervals() == []
        assert store.learning() == []
        assert store.events() == []
        assert set(store.query_classes()) == {full.QUERY_CLASS.key}
        # The audit trail stays.
        assert len(store.changes()) == len(store.commands()) == len(store.policy_versions()) == 1

    def test_the_newest_transitions_stay_however_old(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "TRANSITIONS_KEPT", 2)
        times = [full.NOW] * 3 + [self.NOW] * 3
        for number, at in enumerate(times):
            store.add_transition(replace(full.TRANSITION, at=at, objective=number))
        assert store.prune(self.NOW, 5, 300) == 3
        assert [t.objective for t in store.transitions()] == [3, 4, 5]
        monkeypatch.setattr(retention, "TRANSITIONS_KEPT", 1)
        assert store.prune(self.NOW + timedelta(days=10), 5, 300) == 2
        assert [t.objective for t in store.transitions()] == [5]

    def test_what_was_deployed_stays(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retention, "GENOMES_KEPT", 2)
        for number, deployed in enumerate((True, False, True, False, False)):
            store.add_policy_update(
                replace(full.POLICY_UPDATE, deployed=deployed, learnt_from=number)
            )
            store.add_genome(replace(full.GENOME, deployed=deployed, generation=number))
        assert store.prune(self.NOW, 5, 300) == 4
        assert [u.learnt_from for u in store.policy_updates()] == [0, 2]
        assert [g.generation for g in store.genomes()] == [0, 2, 3, 4]

    def test_client_intervals_are_merged_by_class(self, store: Store) -> None:
        later = full.NOW + timedelta(seconds=2)
        second = replace(full.INTERVAL, started_at=later, completed=49, mean_ms=11.5)
        store.add_client_intervals([full.INTERVAL, second, replace(second, class_name="join")])
        assert store.prune(self.NOW, 30, 300) == 1
        (merged,) = store.client_intervals()
        assert merged.completed == 98 + 49
        assert merged.mean_ms == pytest.approx((98 * 5.5 + 49 * 11.5) / 147)
        assert store.prune(self.NOW, 30, 300) == 0

    def test_more_than_one_transaction_of_work(self, store: Store) -> None:
        many = [
            replace(full.INTERVAL, started_at=full.NOW + timedelta(seconds=second))
            for second in range(2500)
        ]
        store.add_client_intervals(many)
        store.prune(self.NOW, 30, 600)
        merged = store.client_intervals()
        assert sum(interval.completed for interval in merged) == 2500 * 98
        assert len(merged) == 5
        assert store.prune(self.NOW, 1, 600) == 5

    @pytest.mark.parametrize(("days", "interval_s"), [(0, 300), (30, 0), (math.nan, 300)])
    def test_bounds(self, store: Store, days: float, interval_s: float) -> None:
        with pytest.raises(StoreError, match="above 0"):
            store.prune(self.NOW, days, interval_s)

    def test_epochs_never_repeat(self, store: Store) -> None:
        for _ in range(3):
            store.acquire_lease("tuner", 0.0)
        store.prune(datetime.now(timezone.utc) + timedelta(days=100), 30, 300)
        assert store.current_epoch() == 3
        assert store.acquire_lease("tuner", 1.0) == 4
