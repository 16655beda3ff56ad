"""The searches of many classes as the rows of one offline explorer.

Its columns are the catalogue's hint sets, and one more: the hint set that each class was advised to
try first, where there is one. The explorer is made anew when classes come or go, and told what is
known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.domain.plans import ExplainedPlan, PlanRun, RunOutcome
from backend.steering.explorer import OfflineExplorer, Probe
from backend.steering.search.class_search import Arm, ClassSearch

FloatArray = NDArray[np.float64]
_LEAST_TIMEOUT_S = 0.002
"""The server counts milliseconds."""


@dataclass(frozen=True)
class ArmProbe:
    """A run to be made: this class's plan, stopped after so many seconds."""

    search: ClassSearch
    arm: Arm
    timeout_s: float


class ProbeBoard:
    """Which plan of which class is tried next.

    Args:
        max_timeout_s: no run takes longer.
        seed: the same seed and outcomes give the same probes.
    """

    def __init__(self, max_timeout_s: float, seed: int) -> None:
        self._max_timeout_s, self._seed = max_timeout_s, seed
        self._searches: tuple[ClassSearch, ...] = ()
        self._open_arms: list[int] = []
        self._explorer: OfflineExplorer | None = None
        self._columns: list[dict[str, int]] = []
        self._asked: Probe | None = None

    def ask(self, searches: Sequence[ClassSearch]) -> ArmProbe | None:
        """The probe that promises most over all classes; None when none is worth its cost.

        Args:
            searches: those that can be tried now, their default plans measured.
        """
        open_arms = [sum(self._is_open(arm) for arm in s.arms.values()) for s in searches]
        if tuple(searches) != self._searches or open_arms != self._open_arms:
            # What was closed may have been the fastest that the explorer knows.
            self._rebuild(tuple(searches), open_arms)
        self._asked = None if self._explorer is None else self._explorer.ask()
        if self._asked is None:
            return None
        search = self._searches[self._asked.query]
        plan = _plans(search)[self._asked.hint_set]
        assert plan is not None, "a hint set without a plan is never open"
        timeout_s = max(self._asked.timeout_s, _LEAST_TIMEOUT_S)
        return ArmProbe(search, search.arms[plan.plan_hash], min(timeout_s, self._max_timeout_s))

    def tell(self, search: ClassSearch, arm: Arm, run: PlanRun) -> None:
        """Learn of a run that finished or timed out."""
        if self._explorer is None or search not in self._searches:
            return
        row = self._searches.index(search)
        column = self._columns[row].get(arm.plan_hash)
        if column is None:
            return
        asked, probe = self._asked, Probe(row, column, run.latency_s)
        is_asked = asked is not None and (asked.query, asked.hint_set) == (row, column)
        if (
            asked is not None
            and is_asked
            and not (run.timed_out and run.latency_s < asked.timeout_s)
        ):
            probe = asked
        self._explorer.tell(
            probe, None if run.timed_out else run.latency_s, timed_out=run.timed_out
        )

    def _is_open(self, arm: Arm) -> bool:
        return not arm.closed and arm.bound_s < self._max_timeout_s

    def _rebuild(self, searches: tuple[ClassSearch, ...], open_arms: list[int]) -> None:
        self._searches, self._open_arms = searches, open_arms
        self._explorer, self._asked = None, None
        self._columns = []
        if not searches:
            return
        plan_ids = [self._plan_ids(search) for search in searches]
        features = np.stack([_features(search) for search in searches])
        # Numbers that no hint set changes say nothing, and cost the model time.
        differ = (np.nan_to_num(features - features[:, :1]) != 0.0).any(axis=(0, 1))
        self._explorer = OfflineExplorer(
            [search.default_s or 0.0 for search in searches],
            len(plan_ids[0]),
            self._seed,
            plan_ids=plan_ids,
            plan_features=features[:, :, differ],
        )
        for search in searches:
            for arm in search.arms.values():
                if arm.latency_s is not None:
                    self.tell(search, arm, PlanRun(RunOutcome.FINISHED, arm.latency_s))
                elif arm.bound_s:
                    self.tell(search, arm, PlanRun(RunOutcome.TIMED_OUT, arm.bound_s))

    def _plan_ids(self, search: ClassSearch) -> list[int]:
        """Number the plans of a row; what is not to be tried counts as the default plan, 0.

        Also notes the first column of each plan.
        """
        numbers: dict[str, int] = {}
        columns: dict[str, int] = {}
        plan_ids = []
        for column, plan in enumerate(_plans(search)):
            arm = None if plan is None else search.arms.get(plan.plan_hash)
            if arm is None or not self._is_open(arm):
                plan_ids.append(0)
                continue
            columns.setdefault(arm.plan_hash, column)
            plan_ids.append(numbers.setdefault(arm.plan_hash, len(numbers) + 1))
        self._columns.append(columns)
        return plan_ids


def _plans(search: ClassSearch) -> list[ExplainedPlan | None]:
    return [*search.plans, search.extra]


def _features(search: ClassSearch) -> FloatArray:
    """The numbers of a row's plans, shape ``(hint sets + 1, features)``; NaN where unknown."""
    plans = _plans(search)
    width = max(len(plan.features.values) for plan in plans if plan is not None)
    unknown = np.full(width, np.nan)
    return np.stack([unknown if plan is None else plan.features.values for plan in plans])
