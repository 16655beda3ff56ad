"""The workloads that the clients offer in turn, each with a latency index of its own.

A reference belongs to one workload: after a shift to statements that it does not know, such as
from transactional by day to analytical by night, nothing can be compared with it. Here a shift
is noticed, a workload seen before is recognised, and a new one gets a baseline of its own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from backend.baseline import Baseline
from backend.config import Level1Section
from backend.domain.knobs import KnobValue
from backend.domain.metrics import MetricsWindow, QueryKey
from backend.domain.records import KnownWorkloadRecord
from backend.protocols import Clock, Store
from backend.sample_filter import IndexChain, Reference, common_share

MOMENT_S = 15.0
"""Which workload is offered is judged by the newest windows that last so long together, ..."""
MOMENT_CALLS = 50
"""... and hold so many statements: a class that matters may rest for one window."""
MOST_RECENT = 60
"""Windows looked back at for such a moment."""
MOST_KNOWN = 8
"""So many workloads are known; then the one that was not seen for the longest time goes."""


@dataclass(frozen=True)
class Workload:
    """A workload with its reference.

    Attributes:
        number: its name, for people.
        chain: the published index; 1 is what stood when this workload was first measured.
        noise: standard deviation of one window's log index.
        config: the entries under which the chain's reference was measured.
        seen_at: when it was last in force.
        standing: the index of what stands on the server now. Where that is ``config``, it is the
            chain's proven factor; else it is measured against the reference, None until it is.
        usual: a window of it under what stands, for the safety monitor.
    """

    number: int
    chain: IndexChain
    noise: float
    config: Mapping[str, KnobValue]
    seen_at: datetime
    standing: float | None = None
    usual: MetricsWindow | None = None

    @property
    def index_standing(self) -> float:
        """The index of what stands; the chain's factor where it is not measured."""
        return self.chain.factor if self.standing is None else self.standing

    def linked(self, log_ratio: float, windows: Sequence[MetricsWindow]) -> IndexChain:
        """The chain after a promotion with that mean log ratio to what stands."""
        return replace(self.chain, factor=self.index_standing).link(log_ratio, windows)

    def under(
        self, entries: Mapping[str, KnobValue], windows: Sequence[MetricsWindow] = ()
    ) -> Workload:
        """The workload where these entries stand; ``windows`` were measured under them."""
        if dict(self.config) == dict(entries):
            return replace(self, standing=self.chain.factor)
        index = self.chain.publish(windows)
        return replace(self, standing=index.value if index is not None else None)


@dataclass(frozen=True)
class Shift:
    """Another workload is in force from now on; ``baseline``: where it was measured for it."""

    workload: Workload
    baseline: Baseline | None


class Workloads:
    """The known workloads, and which of them is offered now.

    Args:
        store: keeps what is known for the next tuner.
        clock: time.
        level1: lengths and bounds of the baseline; ``min_coverage`` is the common share (see
            sample_filter) that a reference must have with the load to be in force.
        first_factor: index at which the chain begins where nothing is known yet.

    Attributes:
        away: the load is not that of the present workload.
    """

    def __init__(
        self, store: Store, clock: Clock, level1: Level1Section, first_factor: float
    ) -> None:
        self._store, self._clock, self._level1 = store, clock, level1
        self._first_factor = first_factor
        restored = [_restored(record) for record in store.known_workloads()]
        self._known = {found.number: found for found in restored if found is not None}
        self._number: int | None = None
        self._next_number = max(self._known, default=0) + 1
        self._recent: deque[MetricsWindow] = deque(maxlen=MOST_RECENT)
        self._gathered = self._empty()
        self._look_first = False
        self.away = False

    def _empty(self) -> Baseline:
        level1 = self._level1
        return Baseline(level1.baseline_s, level1.window_s, level1.sample_filter)

    @property
    def present(self) -> Workload | None:
        """The workload in force, None before the first baseline."""
        return self._known.get(self._number) if self._number is not None else None

    @property
    def in_force(self) -> Workload:
        """The same where there must be one: a trial runs, or may begin."""
        present = self.present
        assert present is not None  # no trial before the first baseline
        return present

    @property
    def known(self) -> Sequence[Workload]:
        """All of them, the last one in force last."""
        return tuple(self._known.values())

    @property
    def ready(self) -> bool:
        """Whether a trial may begin: the load is the present workload's, its index is known."""
        present = self.present
        settled = not (self.away or self._look_first)
        return settled and present is not None and present.standing is not None

    @property
    def progress(self) -> float | None:
        """Share of a baseline that is gathered, in [0, 1]; None where none is needed."""
        return self._gathered.progress if self.away or self.present is None else None

    # -- windows in -------------------------------------------------------------------------

    def observe(
        self, window: MetricsWindow, entries: Mapping[str, KnobValue], *, sound: bool = True
    ) -> Shift | None:
        """Take a window measured outside trials, under these entries.

        Windows without a statement say nothing. Those that are not ``sound`` tell what is
        offered, but belong to no baseline.
        """
        if window.calls == 0:
            return None
        self._recent.append(window)
        moment, lasting = self._moment(), True
        if self.present is not None:
            # A window in which the load only begins to move belongs to no baseline.
            lasting = self.away and not self._fits([window], self.present)
            self.away = not self._fits(moment or self._recent, self.present)
            self._look_first = self._look_first and moment is None
            if not self.away:
                self._gathered = self._empty()
                if moment is not None and self.present.standing is None:
                    self._put(self.present.under(entries, moment))
                return None
            known = self._recognised(moment) if moment is not None else None
            if known is not None and moment is not None:
                return self._enter(known.under(entries, moment), moment)
        if sound and lasting:
            self._gathered.add(window)
        return self._close_baseline(entries) if self._gathered.complete else None

    def saw_in_trial(self, window: MetricsWindow) -> None:
        """Take a window of a trial: after one of another load nothing is tried before a look."""
        if self.present is not None and window.calls > 0:
            self._look_first = not self._fits([window], self.present)

    def forget_recent(self) -> None:
        """What was seen so far no longer tells about the present moment."""
        self._recent.clear()
        self._gathered = self._empty()

    def _moment(self) -> Sequence[MetricsWindow] | None:
        """The newest windows that suffice to tell what is offered, oldest first."""
        found: list[MetricsWindow] = []
        for window in reversed(self._recent):
            found.insert(0, window)
            long_enough = sum(w.duration_s for w in found) >= MOMENT_S
            if long_enough and sum(w.calls for w in found) >= MOMENT_CALLS:
                return found
        return None

    def _fits(self, windows: Sequence[MetricsWindow], workload: Workload) -> bool:
        share = common_share(windows, workload.chain.reference)
        return share >= self._level1.min_coverage

    def _recognised(self, windows: Sequence[MetricsWindow]) -> Workload | None:
        """The known workload that has most in common with the windows, if it is enough."""
        fitting = [workload for workload in self._known.values() if self._fits(windows, workload)]
        return max(fitting, key=lambda w: common_share(windows, w.chain.reference), default=None)

    def _close_baseline(self, entries: Mapping[str, KnobValue]) -> Shift | None:
        baseline, self._gathered = self._gathered, self._empty()
        known, present = self._recognised(baseline.windows), self.present
        if known is not None and present is not None and known.number == present.number:
            self.away = False  # a class that holds much of the time runs too seldom for a moment
            return None
        if known is not None:
            return self._enter(known.under(entries, baseline.windows), baseline.windows)
        reference = baseline.reference()
        if not reference.per_class:
            return None  # no statement comes back: there is nothing to compare
        factor = 1.0 if self._known else self._first_factor
        workload = Workload(
            number=self._next_number,
            chain=IndexChain(reference, factor),
            noise=baseline.noise(),
            config=dict(entries),
            seen_at=self._clock.now(),
            standing=factor,
        )
        self._next_number += 1  # a number that was forgotten is never given again
        return self._enter(workload, baseline.windows, baseline)

    def _enter(
        self,
        workload: Workload,
        windows: Sequence[MetricsWindow],
        baseline: Baseline | None = None,
    ) -> Shift:
        self._put(replace(workload, usual=windows[-1]))
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._gathered, self.away, self._look_first = self._empty(), False, False
        self._save()
        return Shift(self._known[workload.number], baseline)

    # -- what stands on the server has changed ------------------------------------------------

    def promoted(self, chain: IndexChain, entries: Mapping[str, KnobValue]) -> None:
        """A promotion was proven in the present workload, and these entries stand now."""
        if self.present is not None:
            linked = replace(self.present, chain=chain, config=dict(entries))
            self._put(linked.under(entries))
            self.forget_recent()
            self._save()

    def undone(self, before: Workload | None, entries: Mapping[str, KnobValue]) -> None:
        """A promotion was undone: its workload is what it was before, where that is known."""
        if before is not None and before.number in self._known:
            self._known[before.number] = before
        self.changed(entries)
        self._save()

    def changed(self, entries: Mapping[str, KnobValue]) -> None:
        """Other entries stand, unproven in the present workload: its chain goes on as it is."""
        self.forget_recent()
        if self.present is not None:
            self._put(self.present.under(entries))

    def _put(self, workload: Workload) -> None:
        """Make it the present one, and the last one seen."""
        self._known.pop(workload.number, None)
        self._known[workload.number] = replace(workload, seen_at=self._clock.now())
        self._number = workload.number

    def _save(self) -> None:
        self._store.save_known_workloads([_record(workload) for workload in self._known.values()])


def _record(workload: Workload) -> KnownWorkloadRecord:
    return KnownWorkloadRecord(
        number=workload.number,
        seen_at=workload.seen_at,
        factor=workload.chain.factor,
        noise=workload.noise,
        config=dict(workload.config),
        classes={
            str(key): {"share": share, "mean_ms": mean_ms}
            for key, (share, mean_ms) in workload.chain.reference.per_class.items()
        },
    )


def _restored(record: KnownWorkloadRecord) -> Workload | None:
    """The workload again; None where the record is damaged: then it is measured anew."""
    try:
        per_class = {
            QueryKey.parse(key): (found["share"], found["mean_ms"])
            for key, found in record.classes.items()
        }
    except (ValueError, KeyError):
        return None
    reference = Reference(per_class)
    positive = (record.factor, record.noise, reference.exec_time_ms)
    if not all(math.isfinite(number) and number > 0 for number in positive):
        return None
    chain = IndexChain(reference, record.factor)
    return Workload(record.number, chain, record.noise, dict(record.config), record.seen_at)
