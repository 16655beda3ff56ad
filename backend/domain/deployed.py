"""Which measured windows show the deployed configuration, and which another that is tried. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from backend.domain.modes import Arm
from backend.domain.records import TrialRecord, WindowRecord


def deployed_windows(
    windows: Sequence[WindowRecord], trials: Sequence[TrialRecord]
) -> list[WindowRecord]:
    """The windows under the deployed configuration, in their order.

    Args:
        windows: of any arm; one outside a trial shows what is deployed.
        trials: those that the windows belong to; a window of one that is missing counts as a
            probe's or a promotion's, in which the incumbent is deployed.
    """
    arms = {trial.id: trial.kind.deployed_arm for trial in trials}
    return [w for w in windows if w.arm is None or w.arm is arms.get(w.trial_id, Arm.INCUMBENT)]
