"""Random search: uniform in the encoded space (logarithmic where the knob says so)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from benchmarks.tuners.peer import Peer, State


class RandomSearch(Peer):
    """Draws every knob independently and learns nothing."""

    def __init__(
        self, space: KnobSpace, seed: int, priors: Sequence[Mapping[str, KnobValue]] = ()
    ) -> None:
        super().__init__(space, priors)
        self._rng = np.random.default_rng(seed)

    def propose(self, state: State | None) -> KnobConfig:
        """A uniform draw."""
        return self.space.decode(self._rng.uniform(-1.0, 1.0, self.space.width))

    def learn(self, config: KnobConfig, objective: float, state: State | None) -> None:
        """Nothing to learn."""
