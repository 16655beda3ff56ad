"""Mode ``approve``: what may be tried, and what was proven and waits for an operator's word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from backend.domain.hours import Hours
from backend.domain.knobs import Knob, KnobSpace, KnobValue
from backend.errors import KnobBoundsError


class PlanState(str, Enum):
    """The life of an experiment plan.

    DRAFT: waits for approval. APPROVED: trials inside it run. DECLINED: an operator said no.
    OVER: expired, used up, replaced by another one, or it does not fit the server any more.
    """

    DRAFT = "draft"
    APPROVED = "approved"
    DECLINED = "declined"
    OVER = "over"


class PromotionState(str, Enum):
    """The life of a promotion that was proven in mode ``approve``.

    WAITING: for an operator. APPROVED: deployed as soon as the load is the one that it was proven
    under. VOID: what it was proven against does not stand any more, or it could not be deployed.
    """

    WAITING = "waiting"
    APPROVED = "approved"
    DEPLOYED = "deployed"
    DECLINED = "declined"
    VOID = "void"


@dataclass(frozen=True)
class KnobRange:
    """The values of one knob that may be tried, in its native unit.

    Args:
        name: of the knob.
        low, high: inclusive, of a numeric knob.
        choices: of any other one.
        unit: of the knob when the plan was made; one of another unit is another knob.
    """

    name: str
    low: float | None = None
    high: float | None = None
    choices: tuple[KnobValue, ...] = ()
    unit: str | None = None

    def holds(self, value: KnobValue) -> bool:
        """Whether the value lies inside."""
        if self.low is None or self.high is None:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        number = not isinstance(value, (bool, str))
        return number and self.low <= float(value) <= self.high

    def nearest(self, value: KnobValue, present: KnobValue) -> KnobValue:
        """The value inside that is nearest to this one; what stands where there is no nearest."""
        if self.low is None or self.high is None:
            return value if self.holds(value) else present
        return type(value)(min(max(float(value), self.low), self.high))

    def misfit(self, knob: Knob) -> str:
        """Why it does not fit a knob as it is now; "" where it does."""
        if knob.unit != self.unit:
            return (
                f"{self.name} is in {knob.unit or 'no unit'}, the plan's in {self.unit or 'none'}"
            )
        numeric = knob.kind in ("integer", "real")
        if numeric != (self.low is not None and self.high is not None):
            return f"{self.name} is {knob.kind}, the plan's is not"
        try:
            for end in (self.low, self.high) if numeric else self.choices:
                knob.validate(end)
        except KnobBoundsError as error:
            return error.message
        return ""


@dataclass(frozen=True)
class ExperimentPlanRecord:
    """What may be tried without asking again, once it is approved.

    Args:
        created_at: when it was made; ``author``: by whom.
        server_id: of the server that it was made for (``ServerInfo.server_id``).
        knobs: those that may be tried; all others stay as they are.
        hours: when trials may run (see ``hours``); empty: whenever the settings let them.
        trials: so many probes and promotions; ``begun``: so many of them already.
        expires_at: it is over then.
        reason: why it is over, for people.
        decided_at, decided_by: of its approval or refusal.
    """

    created_at: datetime
    author: str
    server_id: str
    knobs: tuple[KnobRange, ...]
    trials: int
    expires_at: datetime
    hours: tuple[str, ...] = ()
    note: str = ""
    id: int | None = None
    state: PlanState = PlanState.DRAFT
    begun: int = 0
    decided_at: datetime | None = None
    decided_by: str = ""
    reason: str = ""

    @property
    def open_hours(self) -> Hours:
        """Its hours, ready to be asked."""
        return Hours.parse(self.hours)

    @property
    def ranges(self) -> Mapping[str, KnobRange]:
        """Its knobs by name."""
        return {knob.name: knob for knob in self.knobs}

    def why_over(self, now: datetime, server_id: str, space: KnobSpace) -> str:
        """Why nothing more may be tried under it; "" while something may."""
        if now >= self.expires_at:
            return f"it expired at {self.expires_at:%Y-%m-%d %H:%M} UTC"
        if self.begun >= self.trials:
            return f"its {self.trials} trials are used up"
        return self.misfit(server_id, space)

    def misfit(self, server_id: str, space: KnobSpace) -> str:
        """Why it does not fit this server, or the knobs that may be tried here; "" if it does."""
        if server_id != self.server_id:
            return "it was made for another server"
        gone = [knob.name for knob in self.knobs if knob.name not in space]
        if gone:
            return f"{', '.join(gone)} may not be tried here"
        return next(filter(None, (knob.misfit(space[knob.name]) for knob in self.knobs)), "")

    def refusal(self, values: Mapping[str, KnobValue]) -> str:
        """Why these values of knobs may not be tried under it; "" where they may."""
        ranges = self.ranges
        for name, value in values.items():
            if name not in ranges:
                return f"{name} is not in experiment plan {self.id}"
            if not ranges[name].holds(value):
                return f"{name} = {value} is outside its range in experiment plan {self.id}"
        return ""


@dataclass(frozen=True)
class PromotionRecord:
    """A promotion that was proven, and waits for an operator before it is deployed.

    Args:
        trial_id: of the trial with the evidence.
        version_id: the policy version that it was proven against.
        workload: number of the workload that it was proven under.
        reason: why it is void, or what came of it, for people.
    """

    trial_id: int
    version_id: int
    workload: int
    created_at: datetime
    state: PromotionState = PromotionState.WAITING
    decided_at: datetime | None = None
    decided_by: str = ""
    reason: str = ""
    id: int | None = None
