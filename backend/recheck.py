"""Rechecks: what stands is compared again with what it replaced, and undone where it has faded.

When one is due says drift.py. It is a trial like a probation: short returns to the former
configuration. Definitions and the rule: docs/drift.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from backend.config import Settings
from backend.deployment import ALL_VERSIONS, AUTOPILOT, Deployment
from backend.domain.metrics import MetricsWindow
from backend.domain.modes import Arm, Mode, TrialKind, Verdict
from backend.domain.policies import PolicyVersionRecord
from backend.domain.records import EventRecord
from backend.drift import Alarm, DriftLimits, DriftWatch, Noted, merged
from backend.protocols import Clock, Store
from backend.sample_filter import load_profile
from backend.trial_planner import TrialPlanner
from backend.trials import MeasuredWindow, Trial, TrialPlan
from backend.workloads import Workload, Workloads

NOTED = "noted"
"""Kind of the events that say what was measured of what stands; the next tuner reads them."""
SOONER = 24
"""After an inconclusive recheck the next is due in the interval's 24th part, then in twice that."""
QUIET = 10
"""No recheck is due by its time before so many times as long as the last one took has passed."""
LEAST_BLOCKS = 3
_ALL_EVENTS = 100_000

GIVE_WAY = (TrialKind.PROBE, TrialKind.PROMOTION)
"""Trials that are broken off where what stands has become much slower."""
UNCLEAR = "the last recheck was not clear"

MOST_OTHERS_PERCENT = 40.0
"""CPU use of others on the server's machine up to which a slow server has itself to blame."""

Key = tuple[int, int]
"""The version that promoted what stands, and the workload."""


@dataclass(frozen=True)
class _Unclear:
    """Rechecks in a row that were not clear: their blocks, and how long was waited last."""

    log_ratios: tuple[float, ...]
    wait: timedelta


class Rechecks:
    """Watches what the autopilot has deployed, plans rechecks and draws their consequences.

    What a human has set is theirs, and so is what stood before the autopilot came: neither is
    watched.

    Args:
        deployment: what stands, and the only way to change it.
        workloads: which of them is offered, with its index.
        planner: makes the trial's plan.
        store: policy versions, and what earlier tuners noted.
        clock: time.
        settings: of the gate and the safety monitor.
        interval_s: what has stood for so long is due, whatever is seen.
        undone: told after something was undone.
    """

    def __init__(
        self,
        deployment: Deployment,
        workloads: Workloads,
        planner: TrialPlanner,
        store: Store,
        clock: Clock,
        settings: Settings,
        interval_s: float,
        undone: Callable[[str], None],
    ) -> None:
        self._deployment, self._workloads, self._planner = deployment, workloads, planner
        self._store, self._clock, self._undone = store, clock, undone
        self._interval = timedelta(seconds=interval_s)
        level1 = settings.level1
        self._min_improvement = level1.min_improvement
        self._blocks = max(level1.probation_blocks, LEAST_BLOCKS)
        self._watch = DriftWatch(
            DriftLimits(
                level1.min_improvement,
                settings.safety.rollback_threshold,
                level1.window_s,
                level1.min_coverage,
            )
        )
        self._noted = _noted_before(store)
        self._unclear: dict[Key, _Unclear] = {}
        self._seen: int | None = None
        self._origin: PolicyVersionRecord | None = None
        self._former: PolicyVersionRecord | None = None
        self._key: Key | None = None
        self._why = ""
        self._others_percent: float | None = None

    # -- windows in, alarms out -------------------------------------------------------------

    def observe(self, window: MetricsWindow) -> None:
        """Take a sound window of what stands, in the workload in force."""
        self._follow()
        self._others_percent = window.gauges.get("other_cpu_percent")
        noted = self._watch.noted
        self._watch.observe(window, self._workloads.in_force.chain)
        if self._key is not None and noted is not None and noted.gauges is None:
            self._save()

    def saw_in_trial(self, plan: TrialPlan, measured: MeasuredWindow) -> None:
        """Take a window of a trial. A recheck's own count when it is over."""
        stands = measured.arm is plan.deployed and plan.kind is not TrialKind.RECHECK
        if stands and measured.quality.value >= plan.min_quality:
            self.observe(measured.window)

    def come_before(self, running: TrialKind) -> bool:
        """Whether a trial of that kind is to be broken off for a recheck."""
        if running not in GIVE_WAY:
            return False
        alarm = self.alarm
        return alarm is not None and alarm.urgent

    @property
    def alarm(self) -> Alarm | None:
        """Why a recheck is due; None where none is."""
        self._follow()
        return self._watch.alarm(self._clock.now())

    @property
    def returning(self) -> Collection[str]:
        """The knobs that a recheck returns to what they were before."""
        former = self._former
        return self._deployment.changed_since(former.config) if former is not None else ()

    def _follow(self) -> None:
        """Watch what stands now, in the workload that is offered now."""
        version, present = self._deployment.version, self._workloads.present
        if version is None or present is None or present.standing is None:
            self._key = None
            self._watch.stop()
            return
        if version.id != self._seen:
            self._seen = version.id
            self._origin, self._former = self._lineage()
        if self._origin is None or self._former is None or self._origin.id is None:
            self._key = None
            self._watch.stop()
            return
        key = (self._origin.id, present.number)
        if key != self._key:
            self._key = key
            noted = self._noted.get(key) or self._first_note(present)
            self._watch.begin(noted, present.noise)

    def _first_note(self, present: Workload) -> Noted:
        now, index = self._clock.now(), present.index_standing
        if self._proven_in(present):
            return Noted(now, index, now + self._interval)
        why = f"in workload {present.number} it was never compared with what it replaced"
        return Noted(now, index, now, why)

    def _proven_in(self, workload: Workload) -> bool:
        return dict(workload.config) == self._deployment.deviating

    def _lineage(self) -> tuple[PolicyVersionRecord | None, PolicyVersionRecord | None]:
        """The version that promoted the present knobs, and the nearest before it with others.

        Both None where a human has set them, or where they were never promoted.
        """
        setter = self._deployment.versions.knobs_since()
        if setter is None or setter.author != AUTOPILOT:
            return None, None
        versions = {found.id: found for found in self._store.policy_versions(limit=ALL_VERSIONS)}

        def same(other: PolicyVersionRecord) -> bool:
            return dict(other.config) == dict(setter.config)

        # A rollback brings knobs back: they were promoted further up.
        origin: PolicyVersionRecord | None = setter
        while origin is not None and not (same(origin) and origin.trial_id is not None):
            origin = versions.get(origin.parent_id)
        former = origin
        while former is not None and same(former):
            former = versions.get(former.parent_id)
        return origin, former

    # -- the trial --------------------------------------------------------------------------

    def plan(self) -> TrialPlan | None:
        """The recheck that is due; None where none is."""
        alarm, former = self.alarm, self._former
        if alarm is None or former is None:
            return None
        present = self._workloads.in_force
        plan = self._planner.plan(
            TrialKind.RECHECK,
            self._deployment.changed_since(former.config),
            AUTOPILOT,
            present.chain.reference,
            present.noise,
        )
        turned = self._planner.turned_around(plan, former.config, self._blocks)
        self._why = alarm.reason
        self._tell("recheck", f"what stands is looked at again: {alarm.reason}")
        # Where it was proven it has to gain; elsewhere it must only do no harm: it will be back.
        tolerated = -self._min_improvement if self._proven_in(present) else self._min_improvement
        if alarm.reason != UNCLEAR and self._key is not None:
            self._unclear.pop(self._key, None)  # something has changed: those blocks are of then
        unclear = self._unclear.get(self._key) if self._key is not None else None
        return replace(
            turned,
            undone_above=math.log1p(tolerated),
            earlier_log_ratios=unclear.log_ratios if unclear is not None else (),
        )

    def undo_blind(self, hindrances: Sequence[str]) -> bool:
        """Undo what stands without a trial: it is much slower, and nothing may be tried.

        On an overloaded server no trial begins, and what overloads it would stay. Where others take
        the machine, or nobody can tell, it stays: then it is not known to be at fault.

        Args:
            hindrances: why no trial may begin, for people.
        """
        alarm, former, others = self.alarm, self._former, self._others_percent
        may_act = self._deployment.mode in (Mode.APPROVE, Mode.AUTO) and not self._deployment.frozen
        if alarm is None or not alarm.urgent or former is None or not may_act:
            return False
        if others is None or others > MOST_OTHERS_PERCENT:
            return False
        reason = f"{alarm.reason}, and nothing may be tried: {'; '.join(hindrances)}"
        self._deployment.return_to(former, author=AUTOPILOT, reason=f"drift: {reason}")
        self._workloads.undone(None, self._deployment.deviating)
        self._undone(f"what stood was undone without a trial ({reason})")
        return True

    def settle(self, trial: Trial) -> None:
        """Undo what is no better any more; what stands is measured against today from now on."""
        former, present = self._former, self._workloads.present
        if former is None or present is None or self._key is None:
            return
        if trial.verdict is Verdict.REJECT:
            reason = f"drift: {self._why}; {'; '.join(trial.reasons)}"
            self._deployment.return_to(former, author=AUTOPILOT, reason=reason)
            self._workloads.undone(None, self._deployment.deviating)
            self._undone(f"what stood is no better any more than before: undone ({self._why})")
            return
        self._note_again(trial, present, self._key)

    def _note_again(self, trial: Trial, present: Workload, key: Key) -> None:
        windows, now = trial.windows(Arm.CANDIDATE), self._clock.now()
        index = present.chain.publish(windows) if len(windows) > 1 else None
        wait, why = self._interval, Noted.why_due
        unclear = self._unclear.pop(key, _Unclear((), self._interval / SOONER / 2))
        if trial.verdict is Verdict.INCONCLUSIVE:
            wait, why = min(2 * unclear.wait, self._interval), UNCLEAR
            self._unclear[key] = _Unclear((*unclear.log_ratios, *trial.block_log_ratios), wait)
        wait = max(wait, QUIET * (now - trial.created_at))
        former = self._watch.noted
        level = former.index if former is not None else present.index_standing
        noted = Noted(
            at=now,
            index=index.value if index is not None else level,
            due_at=now + wait,
            why_due=why,
            load=load_profile(merged(windows)) if windows else None,
        )
        self._watch.begin(noted, present.noise)

    # -- for the next tuner -----------------------------------------------------------------

    def _save(self) -> None:
        noted, key = self._watch.noted, self._key
        assert noted is not None  # asked before
        assert key is not None
        self._noted[key] = noted
        detail = {
            "version": key[0],
            "workload": key[1],
            "at": noted.at.isoformat(),
            "index": noted.index,
            "due_at": noted.due_at.isoformat() if noted.due_at is not None else None,
            "why_due": noted.why_due,
            "gauges": dict(noted.gauges or {}),
        }
        told = f"watched from index {noted.index:.2f} on, in workload {key[1]}"
        self._tell(NOTED, f"policy version {key[0]} is {told}", detail)

    def _tell(self, kind: str, message: str, detail: Mapping[str, Any] | None = None) -> None:
        event = EventRecord(self._clock.now(), "info", kind, message, detail=detail or {})
        self._store.add_event(event)


def _noted_before(store: Store) -> dict[Key, Noted]:
    """What earlier tuners noted, the newest of each; damaged notes are left out."""
    found: dict[Key, Noted] = {}
    for event in store.events(limit=_ALL_EVENTS):
        if event.kind == NOTED:
            try:
                key, noted = _read(event.detail)
            except (KeyError, TypeError, ValueError):
                continue
            found[key] = noted
    return found


def _read(detail: Mapping[str, Any]) -> tuple[Key, Noted]:
    due = detail["due_at"]
    index = float(detail["index"])
    if not (math.isfinite(index) and index > 0):
        raise ValueError(f"an index is above 0, not {index}")
    noted = Noted(
        at=datetime.fromisoformat(detail["at"]),
        index=index,
        due_at=datetime.fromisoformat(due) if due is not None else None,
        why_due=str(detail["why_due"]),
        gauges={str(name): float(value) for name, value in dict(detail["gauges"]).items()},
    )
    return (int(detail["version"]), int(detail["workload"])), noted
