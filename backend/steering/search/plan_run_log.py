"""The runs of statements on trial on their way into the store, and back after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from backend.domain.plans import DEFAULT_HINT_SET, HintSet, PlanRun, RunOutcome
from backend.domain.steering import ClassKey, PlanRunRecord, RunPurpose
from backend.protocols import Clock
from backend.steering.search.class_search import Arm, ClassSearch

_BATCH = 20
_LONGEST_WAIT_S = 5.0


class RunStore(Protocol):
    """The part of the store that keeps runs."""

    def add_plan_runs(self, runs: Sequence[PlanRunRecord]) -> None:
        """Append."""

    def plan_runs(
        self, *, fingerprint: str | None = None, limit: int = 10_000
    ) -> Sequence[PlanRunRecord]:
        """The newest ones, oldest first."""


class PlanRunLog:
    """Stores runs in small batches, and tells what was measured before a restart.

    Args:
        store: keeps them.
        clock: time.
    """

    def __init__(self, store: RunStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._batch: list[PlanRunRecord] = []
        self._stored_at_s = clock.monotonic_s()

    def add(
        self,
        search: ClassSearch,
        arm: Arm | None,
        run: PlanRun,
        *,
        outcome: RunOutcome | None = None,
    ) -> None:
        """Take a run made to find a better plan.

        Args:
            search: of its class.
            arm: what ran; None for the default plan.
            run: what came of it.
            outcome: what it counts as, where that is not what it was: FAILED where a run finished
                with another answer, so that nobody takes its latency for good.
        """
        self._add(
            search.key,
            search.statement,
            DEFAULT_HINT_SET if arm is None else arm.hint_set,
            search.default_hash if arm is None else arm.plan_hash,
            RunPurpose.PROBE,
            outcome or run.outcome,
            run.latency_s,
            search.default_s,
        )

    def add_verification(
        self, key: ClassKey, statement: str, hint_set: HintSet, plan_hash: str, run: PlanRun
    ) -> None:
        """Take a run of a verification; ``statement`` is its digest."""
        self._add(
            key,
            statement,
            hint_set,
            plan_hash,
            RunPurpose.VERIFICATION,
            run.outcome,
            run.latency_s,
            None,
        )

    def add_refutation(self, search: ClassSearch, arm: Arm) -> None:
        """Take that a verification came to its end, and not to a proof; a run that failed says so.

        Args:
            search: of the class.
            arm: what was verified.
        """
        failed = PlanRun(RunOutcome.FAILED, 0.0)
        self.add_verification(search.key, search.statement, arm.hint_set, arm.plan_hash, failed)

    def store_due(self) -> bool:
        """Store what waits, where it is much or has waited long; whether anything was stored."""
        waited_s = self._clock.monotonic_s() - self._stored_at_s
        return (len(self._batch) >= _BATCH or waited_s >= _LONGEST_WAIT_S) and self.store_all()

    def store_all(self) -> bool:
        """Store what waits; whether there was anything.

        Raises:
            StoreError: the store refused; everything still waits.
        """
        self._stored_at_s = self._clock.monotonic_s()
        if not self._batch:
            return False
        self._store.add_plan_runs(self._batch)
        self._batch = []
        return True

    def statements(self, key: ClassKey, since: datetime) -> tuple[str, ...]:
        """Digests of the class's statements that ran, the last one first."""
        newest_first = reversed(self._probes(key, since))
        return tuple(dict.fromkeys(record.statement for record in newest_first))

    def last_default_plan(self, key: ClassKey) -> tuple[str, str] | None:
        """Digest of the statement whose default plan ran last, and that plan's hash."""
        for record in reversed(self._store.plan_runs(fingerprint=key.fingerprint)):
            is_default = record.hint_set == DEFAULT_HINT_SET.name
            if record.key == key and record.purpose is RunPurpose.PROBE and is_default:
                return record.statement, record.plan_hash
        return None

    def restore(self, search: ClassSearch, since: datetime) -> None:
        """Tell a search what its statement's runs showed, where its default plan is still the same.

        A run of the default plan that warms up begins it all anew: what was before it counts no
        more, as it did not count then.

        Args:
            search: its plans are known.
            since: older runs count no more.
        """
        default_s: list[float] = []
        arms: list[tuple[Arm, PlanRun]] = []
        refuted: dict[str, Arm] = {}
        for record in self._runs(search.key, since):
            if record.statement != search.statement:
                continue
            is_probe, arm = record.purpose is RunPurpose.PROBE, search.arms.get(record.plan_hash)
            if record.hint_set == DEFAULT_HINT_SET.name:
                warmed_up = record.default_latency_s is not None
                other_plan = record.plan_hash != search.default_hash  # other data, statistics
                if is_probe and (other_plan or not warmed_up):
                    default_s, arms, refuted = [], [], {}
                elif record.outcome is RunOutcome.FINISHED and warmed_up:
                    default_s.append(record.latency_s)
            elif arm is not None and is_probe:
                arms.append((arm, PlanRun(record.outcome, record.latency_s)))
            elif arm is not None and record.outcome is RunOutcome.FAILED:
                refuted[record.plan_hash] = arm
        if not default_s:
            return
        search.restore_default(default_s)
        for arm, run in arms:
            arm.note(run)
        for arm in refuted.values():
            search.refuted(arm, f"{arm.hint_set.name} was not proven before")

    def _probes(self, key: ClassKey, since: datetime) -> list[PlanRunRecord]:
        return [run for run in self._runs(key, since) if run.purpose is RunPurpose.PROBE]

    def _runs(self, key: ClassKey, since: datetime) -> list[PlanRunRecord]:
        self.store_all()
        runs = self._store.plan_runs(fingerprint=key.fingerprint)
        return [run for run in runs if run.key == key and run.at >= since]

    def _add(
        self,
        key: ClassKey,
        statement: str,
        hint_set: HintSet,
        plan_hash: str,
        purpose: RunPurpose,
        outcome: RunOutcome,
        latency_s: float,
        default_s: float | None,
    ) -> None:
        self._batch.append(
            PlanRunRecord(
                at=self._clock.now(),
                key=key,
                statement=statement,
                hint_set=hint_set.name,
                settings=dict(hint_set.settings),
                plan_hash=plan_hash,
                purpose=purpose,
                outcome=outcome,
                latency_s=latency_s,
                default_latency_s=default_s,
            )
        )
