"""Operators' commands that say what the autopilot may do: plans, promotions, the freeze switch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backend.components import Components
from backend.domain.experiment_plans import ExperimentPlanRecord
from backend.domain.knobs import KnobValue
from backend.domain.modes import CommandKind, Mode
from backend.domain.records import CommandRecord
from backend.errors import ConfigError
from backend.experiment_plan_draft import draft
from backend.experiment_plan_file import plan_of
from backend.freeze import throw
from backend.permission import check_restart_hours
from backend.protocols import Clock
from backend.tuning_loop import TuningLoop

Handler = Callable[[CommandRecord], str]


class ControlCommands:
    """Carries them out; see ``operator_commands``.

    Args:
        parts, loop, clock: the tuner's.
    """

    def __init__(self, parts: Components, loop: TuningLoop, clock: Clock) -> None:
        self._parts, self._loop, self._clock = parts, loop, clock
        self._plans, self._approval = loop.permission.plans, loop.permission.approval

    @property
    def handlers(self) -> Mapping[CommandKind, Handler]:
        """What carries out which kind."""
        return {
            CommandKind.FREEZE: lambda command: self._freeze(command, True),
            CommandKind.UNFREEZE: lambda command: self._freeze(command, False),
            CommandKind.APPROVE: self._approve,
            CommandKind.DECLINE: self._decline,
            CommandKind.DRAFT_PLAN: self._draft_plan,
            CommandKind.APPROVE_PLAN: self._approve_plan,
            CommandKind.DECLINE_PLAN: self._decline_plan,
        }

    def _freeze(self, command: CommandRecord, frozen: bool) -> str:
        reason = str(command.payload.get("reason") or "")
        told = throw(self._parts.store, self._clock, frozen, command.actor, reason)
        # First the switch: a candidate that cannot be taken off yet must not keep it open.
        self._parts.deployment.frozen = frozen
        if frozen:
            self._loop.interrupt(f"frozen by {command.actor}")
        return told

    def follow_freeze(self) -> None:
        """Do as the freeze switch says, which others may throw in the store."""
        switch, deployment = self._parts.store.freeze(), self._parts.deployment
        if switch is None or switch.frozen == deployment.frozen:
            return
        deployment.frozen = switch.frozen
        if switch.frozen:
            self._loop.interrupt(f"frozen by {switch.actor}")

    def check_restart(self, values: Mapping[str, KnobValue]) -> None:
        """See :func:`check_restarts`."""
        check_restarts(self._parts, values, self._clock)

    # -- promotions ---------------------------------------------------------------------------

    def _approve(self, command: CommandRecord) -> str:
        trial_id = _number(command, "trial_id")
        if not self._approval.grant(trial_id, command.actor):
            raise ConfigError(f"no promotion of trial {trial_id} waits for approval")
        return f"{self._approval.told}{self._where_it_counts}"

    def _decline(self, command: CommandRecord) -> str:
        trial_id = _number(command, "trial_id")
        if not self._approval.decline(trial_id, command.actor):
            raise ConfigError(f"no promotion of trial {trial_id} waits for approval")
        return f"the promotion of trial {trial_id} is declined"

    # -- experiment plans ---------------------------------------------------------------------

    def _draft_plan(self, command: CommandRecord) -> str:
        parts, document = self._parts, command.payload.get("document")
        if document is None:
            wanted = draft_of(parts, self._clock)
        else:
            wanted = plan_of(
                document,
                parts.catalog,
                parts.space,
                server_id=parts.info.server_id,
                author=command.actor,
                now=self._clock.now(),
            )
        plan = self._plans.propose(wanted)
        return f"experiment plan {plan.id} waits for approval"

    def _approve_plan(self, command: CommandRecord) -> str:
        parts, plan_id = self._parts, _number(command, "plan_id")
        waiting = self._plans.waiting
        if waiting is not None and waiting.id == plan_id:
            misfit = waiting.misfit(parts.info.server_id, parts.space)
            if misfit:
                self._plans.end(waiting, misfit)
                raise ConfigError(f"experiment plan {plan_id} does not fit: {misfit}")
        plan = self._plans.approve(plan_id, command.actor)
        self._end_experiment(f"{command.actor} approved another experiment plan")
        told = f"experiment plan {plan.id} is approved for {plan.trials} trials"
        return f"{told}{self._where_it_counts}"

    def _decline_plan(self, command: CommandRecord) -> str:
        plan = self._plans.decline(_number(command, "plan_id"), command.actor)
        self._end_experiment(f"{command.actor} declined experiment plan {plan.id}")
        return f"experiment plan {plan.id} is declined: nothing is tried under it"

    def _end_experiment(self, reason: str) -> None:
        """End the trial that runs where it was begun under a plan."""
        trial = self._loop.trial
        if trial is not None and trial.plan.experiment_plan_id is not None:
            self._loop.interrupt(reason)

    @property
    def _where_it_counts(self) -> str:
        mode = self._parts.deployment.mode
        return "" if mode is Mode.APPROVE else f"; it counts in mode approve, this is {mode.value}"


def check_restarts(parts: Components, values: Mapping[str, KnobValue], clock: Clock) -> None:
    """Refuse what an operator wants changed where it needs a restart outside its hours.

    Raises:
        ConfigError: with the moment at which they begin.
    """
    knobs = [parts.catalog.knob(name).knob for name in values]
    check_restart_hours(parts.settings.schedule.restart_hours, knobs, clock.now())


def draft_of(parts: Components, clock: Clock) -> ExperimentPlanRecord:
    """The tuner's own experiment plan for its server."""
    return draft(
        parts.space,
        parts.info.host,
        parts.deployment.present,
        server_id=parts.info.server_id,
        now=clock.now(),
        hours=parts.settings.schedule.trials,
    )


def _number(command: CommandRecord, key: str) -> int:
    number = command.payload.get(key)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ConfigError(f"{key} = {number!r:.40} is no whole number")
    return number
