"""What Level 1 and Level 2 bring into the tuning loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.domain.knobs import KnobConfig, KnobValue
from backend.gate import GateSettings
from backend.vetting import Vetting

Policy = Callable[[NDArray[np.float64], Mapping[str, KnobValue]], KnobConfig | None]
"""What a knob policy would have in this state, in place of what stands; None: nothing."""


def no_policy(state: NDArray[np.float64], present: Mapping[str, KnobValue]) -> None:
    """The policy where Level 1 has deployed none."""


def as_set(gate: GateSettings) -> GateSettings:
    """The gate's thresholds where Level 2 has deployed none."""
    return gate


@dataclass(frozen=True)
class Guidance:
    """See the module's text.

    Args:
        policy: the knob policy that Level 1 has deployed.
        vetting: tries candidates in the sandbox first; None: nowhere.
        gate: the thresholds of Level 2's genome, within its safe bounds.
        follow: called between two trials: takes up the genome for the workload that is offered.
    """

    policy: Policy = no_policy
    vetting: Vetting | None = None
    gate: Callable[[GateSettings], GateSettings] = as_set
    follow: Callable[[], None] = lambda: None
