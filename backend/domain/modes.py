"""Modes, phases and verdicts: small closed vocabularies, stored by their value."""

from __future__ import annotations

from enum import Enum


class Mode(str, Enum):
    """How far the tuner may go by itself."""

    OBSERVE = "observe"
    ADVISE = "advise"
    APPROVE = "approve"
    AUTO = "auto"


class Phase(str, Enum):
    """Where a run stands."""

    STARTING = "starting"
    BASELINE = "baseline"
    LEARNING = "learning"
    OPTIMISED = "optimised"
    FINAL_COMPARISON = "final comparison"
    FINISHED = "finished"


class Arm(str, Enum):
    """The two sides of a trial."""

    INCUMBENT = "incumbent"
    CANDIDATE = "candidate"

    @property
    def other(self) -> Arm:
        """The other one."""
        return Arm.CANDIDATE if self is Arm.INCUMBENT else Arm.INCUMBENT


class TrialKind(str, Enum):
    """Probe: cheap and noisy. Promotion: strict. The others use the promotion's machinery."""

    PROBE = "probe"
    PROMOTION = "promotion"
    PROBATION = "probation"
    RECHECK = "recheck"
    FINAL = "final"

    @property
    def deployed_arm(self) -> Arm:
        """The arm that is deployed meanwhile.

        The others than probe and promotion test what stands against what stood before.
        """
        turned = self in (TrialKind.PROBATION, TrialKind.RECHECK, TrialKind.FINAL)
        return Arm.CANDIDATE if turned else Arm.INCUMBENT

    @property
    def is_experiment(self) -> bool:
        """Whether it tries something new. The others only return to what stood before."""
        return self in (TrialKind.PROBE, TrialKind.PROMOTION)


LEVEL_1 = "policy (Level 1)"
"""Who proposed a trial of what the knob policy would have, and who deployed that policy."""


class TrialState(str, Enum):
    """The states of the trial machine, in order."""

    APPLYING = "applying"
    SETTLING = "settling"
    MEASURING = "measuring"
    FINISHED = "finished"


class Verdict(str, Enum):
    """What a trial ended with."""

    ACCEPT = "accept"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"
    ABORTED = "aborted"


class SafetyAction(str, Enum):
    """What the safety monitor asks for."""

    ALLOW = "allow"
    BLOCK = "block"
    ROLLBACK = "rollback"


class ChangeState(str, Enum):
    """The life of a journalled knob change.

    PENDING: written to the journal, perhaps on the server. APPLIED: read back. KEPT: part of the
    deployed policy version. ROLLED_BACK: what stood before stands again. CONFLICT: a human
    changed the knob meanwhile, the human's value stays. FAILED: it never took effect.
    LEFT_BEHIND: another server took over; it is undone when the one it was made on is back.
    """

    PENDING = "pending"
    APPLIED = "applied"
    KEPT = "kept"
    ROLLED_BACK = "rolled back"
    CONFLICT = "conflict"
    FAILED = "failed"
    LEFT_BEHIND = "left behind"


class CommandKind(str, Enum):
    """What an operator may ask for."""

    SET_KNOBS = "set_knobs"
    ROLL_BACK = "roll_back"
    DEPLOY_VERSION = "deploy_version"
    PAUSE = "pause"
    RESUME = "resume"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    SET_MODE = "set_mode"
    APPROVE = "approve"
    DECLINE = "decline"
    DRAFT_PLAN = "draft_plan"
    APPROVE_PLAN = "approve_plan"
    DECLINE_PLAN = "decline_plan"
    STEER = "steer"


class CommandState(str, Enum):
    """The life of an operator's command."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
