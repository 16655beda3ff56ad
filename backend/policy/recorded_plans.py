"""What a plan policy learns from and is judged on: the plan agent's experience, as arrays.

The agent's checkpoint holds what no table of the store does: the default plan of every statement
as numbers, and which hint sets lead to the plans that were run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.agent.checkpoint import damaged, read_checkpoint
from backend.catalog.hint_sets import HintSetCatalog
from backend.domain.plans import DEFAULT_HINT_SET, HintSet
from backend.plan_agent.replay import PlanReplay
from backend.plan_agent.states import QueryRecord, ToggleSet
from backend.plan_agent.toggles import ToggleSpace
from backend.policy.recorded_trials import FOLDS, FloatArray, IntArray
from backend.query_optimizer import CHECKPOINT_FILE, checkpoint_fingerprint

MIN_CLASSES = 2
"""An arm was measured in so many query classes at least."""
MAX_ARMS = 40
UNKNOWN = -1
"""A hint set that is no arm."""


@dataclass(frozen=True, eq=False)
class RecordedPlans:
    """Statements, one a row, with what hint sets (arms) brought them; arm 0 is the default plan.

    Args:
        arms: hint sets that were run, most often first after the default.
        features: of the default plans, shape ``(n, features)``.
        classes: number of the query class, from 0 in the order of telling.
        gains: ``ln(default latency / latency)``, shape ``(n, arms)``; NaN where not measured.
        bounds: where a gain is only an upper bound (the run was timed out).
        spoken_for: the one arm that stands for each measured plan of a statement.
        first: the arm that was run first.
        runs: plans that were run in all.
    """

    arms: tuple[HintSet, ...]
    features: FloatArray
    classes: IntArray
    gains: FloatArray
    bounds: NDArray[np.bool_]
    spoken_for: NDArray[np.bool_]
    first: IntArray
    runs: int

    def __len__(self) -> int:
        return len(self.classes)

    def folds(self) -> IntArray:
        """Which fold holds each row out: whole query classes, in blocks of time."""
        return np.asarray(self.classes * FOLDS // (int(self.classes.max(initial=0)) + 1))

    def outcome(self, chosen: IntArray, *, pessimistic: bool) -> FloatArray:
        """What an arm for each row brought, NaN where nobody knows.

        Args:
            chosen: arms, shape ``(n,)``; :data:`UNKNOWN` for a hint set that is none of them.
            pessimistic: whether a bound counts as the worst that was measured of the statement,
                where that is lower.
        """
        rows = np.arange(len(self))
        gains, bounds = self.gains[rows, chosen], self.bounds[rows, chosen]
        if pessimistic:
            worst = np.nanmin(self.gains, axis=1)
            gains = np.where(bounds, np.minimum(gains, worst), gains)
        return np.asarray(np.where(chosen == UNKNOWN, np.nan, gains))

    def numbers(self, hint_sets: Sequence[HintSet]) -> IntArray:
        """The arms that these hint sets are."""
        known = {frozenset(arm.settings.items()): number for number, arm in enumerate(self.arms)}
        return np.array([known.get(frozenset(one.settings.items()), UNKNOWN) for one in hint_sets])

    def without_policy(self) -> IntArray:
        """What came first without a policy: what was run first, or the default plan.

        Whichever did better on the whole: what loses against the default plan is no progress.
        """
        worked = self.outcome(self.first, pessimistic=False).mean() > 0.0
        return self.first if worked else np.zeros_like(self.first)


def read_plans(folder: Path, catalog: HintSetCatalog) -> RecordedPlans | None:
    """The experience in the plan agent's checkpoint; None where there is none of this catalogue.

    Args:
        folder: of the checkpoint.
        catalog: the hint sets of the server.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    about, arrays = read_checkpoint(path)
    try:
        if about["fingerprint"] != checkpoint_fingerprint(catalog):
            return None
        replay = PlanReplay(int(about["settings"]["buffer_size"]))
        replay.restore(about["replay"], np.asarray(arrays["replay"], np.float64))
        toggles = ToggleSpace(catalog, int(about["settings"]["max_toggles"]))
        return recorded_plans(replay, toggles)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise damaged(path, error) from error


def recorded_plans(replay: PlanReplay, toggles: ToggleSpace) -> RecordedPlans | None:
    """The arrays of a replay; None where no arm was measured in :data:`MIN_CLASSES` classes."""
    told = [(name, record) for (name, _), record in replay.records.items() if record.outcomes]
    popular = _popular(told)
    if not popular:
        return None
    ways: list[ToggleSet] = [frozenset(), *popular]
    names = list(dict.fromkeys(name for name, _ in told))
    gains = np.full((len(told), len(ways)), np.nan)
    bounds, spoken = np.zeros(gains.shape, np.bool_), np.zeros(gains.shape, np.bool_)
    first = np.zeros(len(told), dtype=np.int64)
    for row, (_, record) in enumerate(told):
        heard: dict[str, int] = {}
        for arm, way in enumerate(ways):
            step = record.steps.get(way)
            if step is None:
                continue
            if step.plan_hash == record.default_hash:
                gains[row, arm] = 0.0
            elif (outcome := record.outcomes.get(step.plan_hash)) is not None:
                gains[row, arm], bounds[row, arm] = outcome.gain, outcome.censored
            else:
                continue
            spoken[row, heard.setdefault(step.plan_hash, arm)] = True
        first[row] = heard.get(next(iter(record.outcomes)), 0)
    return RecordedPlans(
        arms=(DEFAULT_HINT_SET, *(toggles.hint_set(way) for way in popular)),
        features=np.array([record.steps[frozenset()].features for _, record in told]),
        classes=np.array([names.index(name) for name, _ in told]),
        gains=gains,
        bounds=bounds,
        spoken_for=spoken,
        first=first,
        runs=sum(len(record.outcomes) for _, record in told),
    )


def _popular(told: Sequence[tuple[str, QueryRecord]]) -> list[ToggleSet]:
    """The ways that led to a plan that was run, in the most query classes first."""
    classes: Counter[ToggleSet] = Counter()
    for way, _ in {
        (on, name)
        for name, record in told
        for on, step in record.steps.items()
        if on and step.plan_hash in record.outcomes
    }:
        classes[way] += 1
    ordered = sorted(classes, key=lambda way: (-classes[way], len(way), sorted(way)))
    return [way for way in ordered if classes[way] >= MIN_CLASSES][:MAX_ARMS]
