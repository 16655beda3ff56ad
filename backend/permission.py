"""What may be tried now: the hours, the day's limits and, in mode ``approve``, the experiment plan.

Asked where candidates are made and again before a trial begins; nothing else lets a trial begin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

from backend.approval import Approval
from backend.config import Settings
from backend.daily_limits import DailyLimits
from backend.deployment import Deployment
from backend.domain.experiment_plans import ExperimentPlanRecord
from backend.domain.hours import Hours, are_open, next_change
from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue
from backend.domain.modes import Mode, TrialKind, Verdict
from backend.domain.records import EventRecord, HoursRecord
from backend.errors import ConfigError
from backend.experiment_plan import ExperimentPlans
from backend.protocols import Clock, Store

LEAVE = timedelta(seconds=30)
"""So long before its hours are over a trial is ended, so that what is deployed stands by then."""
LEAVE_BY_RESTART = timedelta(minutes=5)
"""The same, where the server has to be restarted for it."""

Tried = frozenset[tuple[str, KnobValue]]


def check_restart_hours(hours: Hours, knobs: Iterable[Knob], now: datetime) -> None:
    """Refuse what an operator wants changed where it needs a restart outside the hours of them.

    Raises:
        ConfigError: with the moment at which they begin.
    """
    names = [knob.name for knob in knobs if knob.context == "restart"]
    if names and not hours.is_open(now):
        opens = next_change((hours,), now)
        when = f"at {opens:%Y-%m-%d %H:%M} UTC" if opens is not None else "not soon"
        raise ConfigError(
            f"{', '.join(names)} needs a restart, outside the hours of restarts",
            remedy=f"they begin {when}; setting schedule.restarts names them",
        )


class Permission:
    """See the module's text.

    Args:
        settings: hours, limits.
        space: the knobs that may be tried at all.
        deployment: the mode, and what stands.
        store: experiment plans and promotions that wait.
        clock: time.
        server_id: of the server.
    """

    def __init__(
        self,
        settings: Settings,
        space: KnobSpace,
        deployment: Deployment,
        store: Store,
        clock: Clock,
        server_id: str,
    ) -> None:
        self._schedule, self._space = settings.schedule, space
        self._trial_hours = settings.schedule.trial_hours
        self._restart_hours = settings.schedule.restart_hours
        self._deployment, self._store, self._clock = deployment, store, clock
        self._server_id = server_id
        self.limits = DailyLimits(settings.safety, store, clock)
        self.plans = ExperimentPlans(store, clock)
        self.approval = Approval(store, clock)
        self._plan: ExperimentPlanRecord | None = None
        self._running: ExperimentPlanRecord | None = None
        self._tried: tuple[tuple[int | None, int], set[Tried]] = ((None, 0), set())

    # -- before anything is thought of ------------------------------------------------------

    @property
    def closed(self) -> str:
        """Why no trial of any kind may begin now; "" where one may."""
        return self._shut((self._trial_hours,), "the hours of trials")

    @property
    def why_no_return(self) -> str:
        """Why no probation, recheck or comparison may begin now; "" where one may."""
        closed = self.closed
        if closed or self.may_restart:
            return closed
        deviating = self._deployment.deviating
        if not any(knob.context == "restart" and knob.name in deviating for knob in self._space):
            return ""
        return self._shut((self._restart_hours,), "the hours of restarts")

    def why_no_experiment(self) -> str:
        """Why nothing new may be tried now; "" where something may. Ends a plan that is over."""
        self._plan = None
        hindrance = self.closed or self.limits.hindrance
        if self._deployment.mode is not Mode.APPROVE:
            return hindrance
        waits = self.approval.told
        self._plan = plan = self._plan_in_force()
        if waits or hindrance:
            return waits or hindrance
        if plan is not None:
            return self._shut((plan.open_hours,), f"the hours of experiment plan {plan.id}")
        draft = self.plans.waiting
        if draft is None:
            return "no experiment plan is approved"
        if self._clock.now() >= draft.expires_at:
            self.plans.end(draft, "it expired before it was approved")
        return f"experiment plan {draft.id} waits for approval"

    def _plan_in_force(self) -> ExperimentPlanRecord | None:
        plan = self.plans.approved
        if plan is None:
            return None
        why = plan.why_over(self._clock.now(), self._server_id, self._space)
        if not why:
            return plan
        self.plans.end(plan, why)
        self._tell(f"experiment plan {plan.id} is over: {why}")
        return None

    # -- where candidates are made ----------------------------------------------------------

    def bounded(self, wanted: Mapping[str, KnobValue]) -> KnobConfig:
        """The configuration moved to where it may be tried; what may not change stays."""
        present = self._deployment.present
        plan = self._plan if self._deployment.mode is Mode.APPROVE else None
        held = {k.name for k in self._space if k.context == "restart" and not self.may_restart}
        # A role's or a database's own setting wins over our entry: nothing could be measured.
        held |= {n for n, r in self._deployment.readings.items() if r.override is not None}
        ranges = plan.ranges if plan is not None else {}
        values: dict[str, KnobValue] = {}
        for name, value in wanted.items():
            stands = present.get(name)
            if stands is None or value == stands:
                values[name] = value
            elif name in held or (plan is not None and name not in ranges):
                values[name] = stands
            else:
                values[name] = ranges[name].nearest(value, stands) if plan else value
        return KnobConfig(values)

    def admits(self, values: Mapping[str, KnobValue]) -> bool:
        """Whether these changes may be a new candidate; under a plan each is one once."""
        plan = self._plan
        if plan is None:
            return True
        asked = (plan.id, plan.begun)
        if self._tried[0] != asked:
            self._tried = (
                asked,
                {
                    frozenset(trial.after.items())
                    for trial in self._store.trials(limit=plan.begun + 1000)
                    if trial.experiment_plan_id == plan.id
                    and trial.kind is TrialKind.PROBE
                    and trial.verdict is not Verdict.ABORTED
                },
            )
        return not plan.refusal(values) and frozenset(values.items()) not in self._tried[1]

    # -- before a trial begins, and while it runs -------------------------------------------

    def has_time(self, kind: TrialKind, least_s: float, *, needs_restart: bool) -> bool:
        """Whether a trial that takes so long at least would end in its hours."""
        plan = self._plan if kind.is_experiment else None
        end = self._ends_at(self._hours(plan, needs_restart))
        leave = LEAVE_BY_RESTART if needs_restart else LEAVE
        return end is None or self._clock.now() + timedelta(seconds=least_s) + leave <= end

    def begin(self, kind: TrialKind, values: Mapping[str, KnobValue], *, restarts: bool) -> str:
        """Count a trial that begins now, or tell why it may not; "" where it does.

        Inside a transaction that the trial is written in too.
        """
        if not kind.is_experiment:
            self._running = None
            return self.why_no_return
        why, plan = self.why_no_experiment(), self._plan
        if not why and restarts and not self.may_restart:
            why = self._shut((self._restart_hours,), "the hours of restarts")
        if not why and self._deployment.mode is Mode.APPROVE and plan is not None:
            why = plan.refusal(values)
        if why:
            return why
        if plan is not None:
            self.plans.count(plan)
        self.limits.began(kind)
        self._running = plan
        return ""

    @property
    def experiment_plan_id(self) -> int | None:
        """Of the plan that the trial which began last runs under."""
        return self._running.id if self._running is not None else None

    def why_end(self, *, needs_restart: bool) -> str:
        """Why the trial that runs has to end now; "" where it may run on."""
        now, plan = self._clock.now(), self._running
        if plan is not None and now >= plan.expires_at:
            return f"experiment plan {plan.id} expired"
        hours = self._hours(plan, needs_restart)
        end = self._ends_at(hours)
        leave = LEAVE_BY_RESTART if needs_restart else LEAVE
        if not are_open(hours, now) or (end is not None and now + leave >= end):
            return "its hours are over"
        return ""

    @property
    def may_restart(self) -> bool:
        """Whether the server may be restarted now, where it may be at all."""
        return self._restart_hours.is_open(self._clock.now())

    # -- for people -------------------------------------------------------------------------

    @property
    def trial_hours(self) -> HoursRecord:
        """The hours of trials as they stand now."""
        return self._record(self._schedule.trials, self._trial_hours)

    @property
    def restart_hours(self) -> HoursRecord:
        """The hours of restarts as they stand now."""
        return self._record(self._schedule.restarts, self._restart_hours)

    # -- inside -----------------------------------------------------------------------------

    def _hours(self, plan: ExperimentPlanRecord | None, needs_restart: bool) -> tuple[Hours, ...]:
        hours = [self._trial_hours]
        if plan is not None:
            hours.append(plan.open_hours)
        if needs_restart:
            hours.append(self._restart_hours)
        return tuple(hours)

    def _ends_at(self, hours: tuple[Hours, ...]) -> datetime | None:
        now = self._clock.now()
        return next_change(hours, now) if are_open(hours, now) else now

    def _shut(self, hours: Collection[Hours], name: str) -> str:
        together, now = tuple(hours), self._clock.now()
        if are_open(together, now):
            return ""
        opens = next_change(together, now)
        when = f"they begin at {opens:%Y-%m-%d %H:%M} UTC" if opens else "they do not come soon"
        return f"outside {name}: {when}"

    def _record(self, texts: tuple[str, ...], hours: Hours) -> HoursRecord:
        now = self._clock.now()
        return HoursRecord(texts, hours.is_open(now), next_change((hours,), now))

    def _tell(self, message: str) -> None:
        self._store.add_event(EventRecord(self._clock.now(), "info", "experiment_plan", message))
