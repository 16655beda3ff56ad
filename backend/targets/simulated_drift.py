"""How a simulated server may drift; see ``SimulatedDatabase.drift``."""

from __future__ import annotations

import numpy as np

from backend.domain.knobs import KnobConfig
from backend.targets.simulated_model import FloatArray, ResponseModel


class TurnedModel(ResponseModel):
    """A response in which what gained costs: the former one, upside down around the default.

    The default configuration answers as before. ``log_factors`` keep no more to 0 at the best one.

    Args:
        former: the response before.
        strength: log factor of a change over the default now, in those of before, negated: 1 makes
            a gain of 30 % a loss of 43 %, 0 leaves every change without effect.
    """

    def __init__(self, former: ResponseModel, strength: float = 1.0) -> None:
        super().__init__(former.space, former.classes, gain=0.0, cores=former.cores)
        self._former, self._strength = former, strength

    def _log_factors(self, config: KnobConfig) -> FloatArray:
        usual = self._former.log_factors(self.space.default_config())
        changed = self._former.log_factors(config) - usual
        return np.asarray(usual - self._strength * changed, dtype=np.float64)
