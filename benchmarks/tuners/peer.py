"""What all peers share: the first configurations, checked tells, optional packages."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue
from backend.errors import AutopilotError

State = NDArray[np.float64]


class MissingPeerError(AutopilotError):
    """A peer's package is not installed."""


def required(module: str) -> Any:
    """Import an optional package.

    Raises:
        MissingPeerError: it is not installed; the message names the remedy.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPeerError(
            f"this tuner needs the package {module.partition('.')[0]} ({error})",
            remedy="pip install -r requirements-bench.txt",
        ) from error


class Peer(ABC):
    """A tuner to compare with: the default configuration, the priors, then its own proposals.

    A subclass says what it proposes and what it learns; every configuration that it learns from
    is complete and validated, and every objective is a finite number (censored ones too: the
    peers know nothing of bounds, they get the capped number).
    """

    def __init__(self, space: KnobSpace, priors: Sequence[Mapping[str, KnobValue]] = ()) -> None:
        self.space = space
        self.defaults = space.default_config()
        first = [self.defaults.replace(space.validate(prior)) for prior in ({}, *priors)]
        self._queue = list(dict.fromkeys(first))

    def ask(self, state: State | None = None) -> KnobConfig:
        """The configuration to try next, every knob named, values native."""
        return self._queue.pop(0) if self._queue else self.propose(state)

    def tell(
        self,
        config: Mapping[str, KnobValue],
        objective: float,
        state: State | None = None,
        quality: float = 1.0,
        censored: bool = False,
    ) -> None:
        """Learn from a measurement; ``config`` need not have been asked.

        Raises:
            ValueError: the objective is not finite; UnknownKnobError, KnobBoundsError.
        """
        objective = float(objective)
        if not math.isfinite(objective):
            raise ValueError(
                f"objective = {objective} must be finite: peers take the capped number"
            )
        known = self.defaults.replace(self.space.validate(config))
        if known in self._queue:
            self._queue.remove(known)
        self.learn(known, objective, state)

    @abstractmethod
    def propose(self, state: State | None) -> KnobConfig:
        """The method's own next configuration."""

    @abstractmethod
    def learn(self, config: KnobConfig, objective: float, state: State | None) -> None:
        """Take a measurement into account."""


@dataclass(frozen=True)
class Interval:
    """A numeric knob as the peers' samplers want it: logarithms need bounds above 0.

    ``low`` and ``high`` are in the sampler's units, the native ones plus ``shift``.
    """

    knob: Knob
    low: float
    high: float
    shift: float
    log: bool

    @classmethod
    def of(cls, knob: Knob) -> Interval:
        """The interval of an integer or real knob; the shift is the one of the knob's encoding."""
        low, high = knob.bounds
        log = knob.scale == "log"
        shift = 0.0
        if log and low <= 0.0:
            shift = 1.0 if knob.kind == "integer" else high * 1e-4
        if knob.kind == "integer":
            return cls(knob, math.ceil(low) + int(shift), math.floor(high) + int(shift), shift, log)
        return cls(knob, low + shift, high + shift, shift, log)

    def to_sampler(self, value: KnobValue) -> float | int:
        """A native value in the sampler's units; special values become the nearest bound."""
        number = min(max(float(value) + self.shift, self.low), self.high)
        return int(number) if self.knob.kind == "integer" else number

    def to_native(self, value: float | int) -> KnobValue:
        """What the sampler chose, in native units; reals with the digits that a server shows."""
        low, high = self.knob.bounds
        if self.knob.kind == "integer":
            return self.knob.validate(int(value) - int(self.shift))
        return self.knob.validate(min(max(float(f"{value - self.shift:.6g}"), low), high))
