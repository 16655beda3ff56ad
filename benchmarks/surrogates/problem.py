"""What a tuner plays against: a surrogate, with knobs held fixed or masked, and its score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from backend.domain.knobs import Knob, KnobSpace, KnobValue
from backend.errors import ConfigError
from benchmarks.surrogates.forest import Surrogate
from benchmarks.surrogates.recording import FloatArray, Recording, default_features, feature

Goal = Literal["min", "max"]
WORSE_SHARE = 0.10
"""An evaluation this much worse than the default configuration counts as harm."""


class Problem:
    """A surrogate as an objective, lower is better (``-value`` where the goal is ``max``).

    Args:
        recording, surrogate: the measurements and the forest fitted to them.
        goal: whether the recorded target is better low or high.
        fix: values of knobs that are left out of the space and held.
        mask_seed: names become x0, x1, ..., choices c0, c1, ..., both in a shuffled order; None
            leaves them.

    Attributes:
        space: what the tuner sees. Its default configuration is the file's first row.
        default_objective: the surrogate's value there: score 0.
        best_objective: the surrogate's best value over the recorded rows (those with the fixed
            values): score 1. A tuner can do better than that.
    """

    def __init__(
        self,
        recording: Recording,
        surrogate: Surrogate,
        goal: Goal,
        *,
        fix: Mapping[str, str] | None = None,
        mask_seed: int | None = None,
    ) -> None:
        self._forest = surrogate.forest
        self._sign = 1.0 if goal == "min" else -1.0
        full = recording.space
        self._base = default_features(full, full.default_config())
        kept = np.ones(len(recording.targets), dtype=bool)
        fixed = {name: full[name].validate(text) for name, text in (fix or {}).items()}
        for name, value in fixed.items():
            column = full.names.index(name)
            self._base[column] = feature(full[name], value)
            kept &= np.isclose(recording.features[:, column], self._base[column])
        if not kept.any():
            raise ConfigError(
                f"{recording.name} has no row with {fixed}", remedy="fix another value"
            )
        free = [knob for knob in full if knob.name not in fixed]
        if not free:
            raise ConfigError(f"{recording.name}: every knob is fixed, there is nothing to tune")
        knobs = [(knob, knob, {}) for knob in free]
        if mask_seed is not None:
            knobs = _masked(free, mask_seed)
        self.space = KnobSpace([seen for seen, _, _ in knobs])
        self._columns = [
            (seen, true, choices, full.names.index(true.name)) for seen, true, choices in knobs
        ]
        self.default_objective = self(self.space.default_config())
        self.best_objective = float((self._sign * surrogate.fitted[kept]).min())
        if not self.best_objective < self.default_objective:
            raise ConfigError(
                f"{recording.name}: the surrogate knows no row better than the first",
                remedy="check the goal (min or max)",
            )

    def __call__(self, config: Mapping[str, KnobValue]) -> float:
        """The surrogate's objective of a configuration of :attr:`space`; lower is better."""
        row = self._base.copy()
        for seen, true, choices, column in self._columns:
            value = config[seen.name]
            row[column] = feature(true, choices[str(value)] if choices else value)
        return self._sign * float(self._forest.predict(row[None])[0])

    def in_file_units(self, objective: float) -> float:
        """An objective as the file has it."""
        return self._sign * objective


def _masked(knobs: list[Knob], seed: int) -> list[tuple[Knob, Knob, dict[str, str]]]:
    """Nameless copies in a shuffled order: ``(seen, true, true choice by seen choice)``."""
    rng = np.random.default_rng(seed)
    masked = []
    for position, index in enumerate(rng.permutation(len(knobs))):
        true = knobs[int(index)]
        shuffled = [true.choices[int(i)] for i in rng.permutation(len(true.choices))]
        choices = {f"c{i}": choice for i, choice in enumerate(shuffled)}
        default = true.default
        if choices:
            default = next(seen for seen, choice in choices.items() if choice == default)
        seen = Knob(
            f"x{position}", true.kind, true.low, true.high, true.scale,
            default=default, choices=tuple(choices),
        )  # fmt: skip
        masked.append((seen, true, choices))
    return masked


class Score:
    """What one run is worth.

    Args:
        objectives: of all evaluations, in order, lower is better.
        default, best: the objectives of score 0 and score 1.
        measured: by these the best evaluation is told: under noise what the tuner was told; None
            for the objectives themselves.
    """

    def __init__(
        self,
        objectives: FloatArray,
        default: float,
        best: float,
        measured: FloatArray | None = None,
    ) -> None:
        self._shares = (default - objectives) / (default - best)
        self._measured = objectives if measured is None else measured
        self._worse = int((objectives > default + WORSE_SHARE * abs(default)).sum())

    def share_at(self, evaluations: int) -> float:
        """Share of the recorded best gain reached by the best of the first evaluations.

        The best as far as it can be told: what a run would leave behind. Its share is exact.
        """
        return float(self._shares[int(np.argmin(self._measured[:evaluations]))])

    @property
    def worse(self) -> int:
        """Evaluations more than 10 % worse than the default configuration."""
        return self._worse

    @property
    def regret(self) -> float:
        """Cumulative regret: sum over the evaluations of 1 minus their own share of the gain."""
        return float((1.0 - self._shares).sum())
