"""What every store keeps of telemetry: windows, trials, classes, transitions, to the last field."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from backend.domain.modes import (
    ChangeState,
    CommandKind,
    CommandState,
    Phase,
    TrialKind,
    TrialState,
)
from backend.domain.policies import PolicyVersionRecord
from backend.domain.records import (
    ClientIntervalRecord,
    CommandRecord,
    EventRecord,
    KnobSpaceRecord,
    LearningRecord,
    StatusRecord,
    TransitionRecord,
    TrialRecord,
    WindowRecord,
)
from backend.errors import StoreError
from backend.protocols import Store
from tests.contracts import records as full


class TestTelemetry:
    def test_an_empty_store_answers(self, store: Store) -> None:
        assert store.status() is None
        assert store.query_classes() == {}
        assert store.trial(1) is None
        assert store.command(1) is None
        assert store.evolution() is None
        for empty in (
            store.windows(),
            store.query_windows(),
            store.client_intervals(),
            store.trials(),
            store.changes(),
            store.policy_versions(),
            store.policy_updates(),
            store.genomes(),
            store.events(),
            store.learning(),
            store.transitions(),
            store.knob_statuses(),
            store.known_workloads(),
            store.commands(),
        ):
            assert empty == []

    def test_every_field_survives(self, store: Store) -> None:
        trial_id = store.save_trial(full.TRIAL)
        window = full.window(trial_id=trial_id)
        window_id = store.add_window(window)
        store.add_client_intervals([full.INTERVAL])
        store.add_query_classes([full.QUERY_CLASS])
        version_id = store.add_policy_version(full.VERSION)
        update_id = store.add_policy_update(full.POLICY_UPDATE)
        genome_id = store.add_genome(full.GENOME)
        store.save_evolution(full.EVOLUTION)
        event_id = store.add_event(full.EVENT)
        store.add_learning(full.LEARNING)
        store.add_knob_space(full.KNOB_SPACE)
        transition_id = store.add_transition(full.TRANSITION)
        store.save_knob_statuses([full.KNOB, replace(full.KNOB, name="jit", value=True)])
        store.save_status(full.STATUS)
        store.save_known_workloads([full.KNOWN_WORKLOAD, replace(full.KNOWN_WORKLOAD, number=4)])

        assert store.trial(trial_id) == replace(full.TRIAL, id=trial_id)
        assert store.trials() == [store.trial(trial_id)]
        assert store.windows() == [replace(window, id=window_id, queries=())]
        (with_queries,) = store.query_windows()
        assert set(with_queries.queries) == set(window.queries)
        assert store.client_intervals() == [full.INTERVAL]
        assert store.query_classes() == {full.QUERY_CLASS.key: full.QUERY_CLASS}
        assert store.policy_versions() == [replace(full.VERSION, id=version_id)]
        assert store.policy_updates() == [replace(full.POLICY_UPDATE, id=update_id)]
        assert store.genomes() == [replace(full.GENOME, id=genome_id)]
        store.add_genome(replace(full.GENOME, deployed=False))
        assert store.genomes(deployed=True) == [replace(full.GENOME, id=genome_id)]
        assert store.evolution() == full.EVOLUTION
        assert store.events() == [replace(full.EVENT, id=event_id)]
        assert store.learning() == [full.LEARNING]
        assert store.transitions() == [replace(full.TRANSITION, id=transition_id)]
        assert store.knob_spaces()[full.KNOB_SPACE.fingerprint].space() == full.SPACE
        assert store.knob_statuses() == [full.KNOB, replace(full.KNOB, name="jit", value=True)]
        assert store.status() == full.STATUS
        assert store.known_workloads() == [
            full.KNOWN_WORKLOAD,
            replace(full.KNOWN_WORKLOAD, number=4),
        ]

    def test_defaults_survive(self, store: Store) -> None:
        trial = TrialRecord(
            TrialKind.PROBE, TrialState.APPLYING, "knob agent", full.NOW, {}, {"jit": True}
        )
        trial_id = store.save_trial(trial)
        window = WindowRecord(full.NOW, full.NOW, 0.0, Phase.BASELINE, {})
        store.add_window(window)
        interval = ClientIntervalRecord(full.NOW, full.NOW, "*", 0, 0, 0, 0)
        store.add_client_intervals([interval])
        store.add_learning(LearningRecord(full.NOW, "knob", 1))
        transition = TransitionRecord(full.NOW, "r", "w", "s", "l", (), {}, 1.0)
        store.add_transition(transition)
        status = StatusRecord(full.NOW, full.STATUS.mode, Phase.STARTING)
        store.save_status(status)
        assert store.trial(trial_id) == replace(trial, id=trial_id)
        assert replace(store.windows()[0], id=None) == window
        assert store.client_intervals() == [interval]
        assert store.learning() == [LearningRecord(full.NOW, "knob", 1)]
        assert replace(store.transitions()[0], id=None) == transition
        assert store.status() == status

    def test_times_come_back_aware_and_in_utc(self, store: Store) -> None:
        east = timezone(timedelta(hours=5, minutes=30))
        store.add_event(replace(full.EVENT, at=full.NOW.astimezone(east)))
        (event,) = store.events()
        assert event.at == full.NOW
        assert event.at.utcoffset() == timedelta(0)

    def test_a_naive_time_is_refused(self, store: Store) -> None:
        with pytest.raises(StoreError, match="no time zone"):
            store.add_event(replace(full.EVENT, at=full.NOW.replace(tzinfo=None)))
        assert store.events() == []

    def test_numbers_that_are_not_finite_do_no_harm(self, store: Store) -> None:
        nan, inf = math.nan, math.inf
        trial_id = store.save_trial(
            replace(
                full.TRIAL,
                effect=nan,
                ci_low=-inf,
                block_log_ratios=(nan, -0.1),
                class_effects={"k": {"effect": inf}},
            )
        )
        store.add_window(
            full.window(index=nan, calls_per_s=nan, rates={"a": nan, "b": -inf, "c": 1.0})
        )
        store.add_event(replace(full.EVENT, detail={"ratio": nan, "deep": [inf]}))
        trial = store.trial(trial_id)
        assert trial is not None
        assert trial.effect is None
        assert trial.ci_low is None
        assert math.isnan(trial.block_log_ratios[0])
        assert trial.class_effects["k"]["effect"] == inf
        (window,) = store.windows()
        assert window.index is None
        assert math.isnan(window.calls_per_s)
        assert math.isnan(window.rates["a"])
        assert (window.rates["b"], window.rates["c"]) == (-inf, 1.0)
        assert store.events()[0].detail == {"ratio": "NaN", "deep": ["Infinity"]}

    def test_hostile_text_is_only_text(self, store: Store) -> None:
        text = "'; DROP TABLE events; -- \x00 \ud800 <script> ☃ %s :x {y}"
        store.add_event(replace(full.EVENT, message=text))
        (event,) = store.events()
        assert event.message == text.replace("\x00", "").replace("\ud800", "?")

    def test_no_secret_is_kept(self, store: Store) -> None:
        leak = "could not connect to postgresql://app:hunter2@db/shop with password=hunter2"
        store.add_event(
            replace(full.EVENT, message=leak, detail={"password": "hunter2", "deep": [leak]})
        )
        command_id = store.submit(
            CommandRecord(CommandKind.SET_MODE, {"note": leak}, leak, full.NOW)
        )
        store.finish(command_id, CommandState.REFUSED, leak)
        (change,) = store.add_changes([full.CHANGE])
        assert change.id is not None
        store.settle_changes([change.id], ChangeState.FAILED, leak)
        store.save_trial(replace(full.TRIAL, reasons=(leak,)))
        store.add_policy_version(replace(full.VERSION, note=leak))
        store.add_query_classes([replace(full.QUERY_CLASS, text="ALTER ROLE a PASSWORD 'hunter2'")])
        store.save_status(replace(full.STATUS, fault=leak, limits={"x": leak}))
        everything = repr(
            (
                store.events(),
                store.commands(),
                store.changes(),
                store.trials(),
                store.policy_versions(),
                store.query_classes(),
                store.status(),
            )
        )
        assert "hunter2" not in everything
        assert "could not connect to postgresql://app:***@db/shop" in everything

    def test_windows_newest_first_chosen_oldest_first_given(self, store: Store) -> None:
        for minute in (3, 1, 0, 2):
            store.add_window(full.window(minute, trial_id=minute % 2))
        minutes = [(w.started_at - full.NOW) / timedelta(minutes=1) for w in store.windows()]
        assert minutes == [0, 1, 2, 3]
        assert store.windows(limit=2) == store.windows()[2:]
        assert store.windows(since=full.NOW + timedelta(minutes=2)) == store.windows()[2:]
        assert [w.trial_id for w in store.windows(trial_id=1)] == [1, 1]
        assert [len(w.queries) for w in store.query_windows(limit=3)] == [2, 2, 2]
        assert [len(w.queries) for w in store.windows()] == [0] * 4

    def test_client_intervals_by_class(self, store: Store) -> None:
        store.add_client_intervals([full.INTERVAL, replace(full.INTERVAL, class_name="join")])
        store.add_client_intervals([])
        assert [i.class_name for i in store.client_intervals()] == ["*"]
        assert [i.class_name for i in store.client_intervals(class_name="join")] == ["join"]
        assert len(store.client_intervals(class_name=None)) == 2
        later = full.NOW + timedelta(seconds=1)
        assert store.client_intervals(class_name=None, since=later) == []

    def test_query_classes_stay_as_first_seen(self, store: Store) -> None:
        store.add_query_classes([full.QUERY_CLASS])
        again = replace(full.QUERY_CLASS, text="other", first_seen_at=full.NOW + timedelta(days=1))
        store.add_query_classes([again, replace(again, key="1.1.1.t")])
        assert store.query_classes()[full.QUERY_CLASS.key] == full.QUERY_CLASS
        assert set(store.query_classes()) == {full.QUERY_CLASS.key, "1.1.1.t"}

    def test_a_trial_is_updated_in_place(self, store: Store) -> None:
        running = replace(full.TRIAL, state=TrialState.MEASURING, verdict=None, finished_at=None)
        trial_id = store.save_trial(running)
        assert store.save_trial(replace(full.TRIAL, id=trial_id)) == trial_id
        assert store.trials() == [replace(full.TRIAL, id=trial_id)]
        with pytest.raises(StoreError, match="no trial 999"):
            store.save_trial(replace(full.TRIAL, id=999))

    def test_one_policy_version_is_active(self, store: Store) -> None:
        root = store.add_policy_version(full.VERSION)
        child = store.add_policy_version(replace(full.VERSION, parent_id=root, active=False))
        assert [(v.id, v.parent_id, v.active) for v in store.policy_versions()] == [
            (root, None, False),
            (child, root, True),
        ]

    def test_a_version_serves_nothing_unless_it_says_so(self, store: Store) -> None:
        bare = PolicyVersionRecord(full.NOW, "server", {})
        version_id = store.add_policy_version(bare)
        assert store.policy_versions() == [replace(bare, id=version_id)]

    def test_versions_keep_apart_what_each_of_them_serves(self, store: Store) -> None:
        pinned, other = full.VERSION.steering
        for steering in ((), (pinned,), (other, pinned), (other,)):
            store.add_policy_version(replace(full.VERSION, steering=steering))
        served = [version.steering for version in store.policy_versions()]
        assert served == [(), (pinned,), (other, pinned), (other,)]
        assert [version.steering for version in store.policy_versions(limit=1)] == [(other,)]

    def test_a_served_statement_keeps_no_secret(self, store: Store) -> None:
        hint = replace(full.VERSION.steering[0], text="ALTER ROLE a PASSWORD 'hunter2'")
        store.add_policy_version(replace(full.VERSION, steering=(hint,)))
        assert "hunter2" not in repr(store.policy_versions())

    def test_an_update_that_could_not_be_judged(self, store: Store) -> None:
        unknown = replace(full.POLICY_UPDATE, gain=None, gain_low=None, gain_high=math.nan)
        store.add_policy_update(unknown)
        store.add_policy_update(full.POLICY_UPDATE)
        first, _second = store.policy_updates()
        assert (first.gain, first.gain_low, first.gain_high) == (None, None, None)
        assert [u.gain for u in store.policy_updates(limit=1)] == [0.08]

    def test_genomes_by_study(self, store: Store) -> None:
        for generation, study in enumerate(("a", "b", "a", "a")):
            store.add_genome(replace(full.GENOME, study=study, generation=generation))
        assert [g.generation for g in store.genomes()] == [0, 1, 2, 3]
        assert [g.generation for g in store.genomes(study="a")] == [0, 2, 3]
        assert [g.generation for g in store.genomes(study="a", limit=2)] == [2, 3]

    def test_events_by_level(self, store: Store) -> None:
        for level in ("info", "error", "info"):
            store.add_event(EventRecord(full.NOW, level, "test", level))
        assert [e.level for e in store.events(level="info")] == ["info", "info"]
        assert [e.level for e in store.events(limit=2)] == ["error", "info"]

    def test_learning_by_agent(self, store: Store) -> None:
        for step in range(3):
            store.add_learning(replace(full.LEARNING, step=step))
        store.add_learning(replace(full.LEARNING, agent="plan"))
        assert [r.step for r in store.learning(limit=2)] == [1, 2]
        assert len(store.learning(agent="plan")) == 1

    def test_the_present_is_replaced(self, store: Store) -> None:
        for progress in (0.1, 0.9):
            store.save_status(replace(full.STATUS, progress=progress))
        store.save_knob_statuses([full.KNOB])
        store.save_knob_statuses([replace(full.KNOB, value=1)])
        status = store.status()
        assert status is not None
        assert status.progress == 0.9
        assert [knob.value for knob in store.knob_statuses()] == [1]


class TestTransitions:
    def test_they_are_read_by_workload_and_the_newest_of_them(self, store: Store) -> None:
        for number, workload in enumerate(("mixed", "oltp", "mixed", "mixed")):
            store.add_transition(replace(full.TRANSITION, workload=workload, objective=number))
        assert [t.objective for t in store.transitions()] == [0, 1, 2, 3]
        assert [t.objective for t in store.transitions(workload="mixed")] == [0, 2, 3]
        assert [t.objective for t in store.transitions(workload="mixed", limit=2)] == [2, 3]

    def test_an_objective_without_a_bound_is_nan(self, store: Store) -> None:
        terms = {"latency": -math.inf, "memory": -0.1}
        store.add_transition(replace(full.TRANSITION, objective=math.inf, reward_terms=terms))
        (read,) = store.transitions()
        assert math.isnan(read.objective)
        assert read.reward_terms == terms

    def test_a_knob_space_is_written_once(self, store: Store) -> None:
        store.add_knob_space(full.KNOB_SPACE)
        store.add_knob_space(replace(full.KNOB_SPACE, shape="another"))
        other = KnobSpaceRecord.of(full.SPACE.subset(["jit"]))
        store.add_knob_space(other)
        spaces = store.knob_spaces()
        assert set(spaces) == {full.SPACE.fingerprint, other.fingerprint}
        assert spaces[full.SPACE.fingerprint].shape == full.SPACE.shape_fingerprint
