"""What ``run.py plan``, ``promotion``, ``freeze`` and ``unfreeze`` do.

Where a tuner is at work it carries the decision out; without one the store is told, and the next
tuner goes by that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import typer

from backend.approval import Approval
from backend.commands.asking import (
    ask_tuner,
    open_for_reading,
    operator,
    require_store,
    tuner_is_at_work,
)
from backend.commands.plan_text import plan_lines, plan_row, promotion_lines
from backend.config import Settings
from backend.domain.clock import SystemClock
from backend.domain.experiment_plans import ExperimentPlanRecord, PromotionRecord
from backend.domain.modes import CommandKind
from backend.errors import AutopilotError, ConfigError
from backend.experiment_plan import ExperimentPlans
from backend.experiment_plan_file import as_yaml as yaml_of
from backend.experiment_plan_file import read_file
from backend.freeze import throw
from backend.printable import printable
from backend.protocols import TelemetryReader
from backend.telemetry import SqlStore, open_store

# -- experiment plans -------------------------------------------------------------------------


def draft(settings: Settings, file: Path | None) -> str:
    """Have the tuner at work take a plan from a file, or draft its own; tells the result.

    Raises:
        ConfigError: the file is no plan, or no tuner is at work.
        AdjustmentError: the tuner refuses it, with the reason.
    """
    payload = {} if file is None else {"document": read_file(file)}

    def nobody(_store: SqlStore) -> str:
        raise ConfigError(
            "no tuner is at work, which would check the plan against its server",
            remedy="start it in mode approve: python run.py --mode approve",
        )

    return _asked(settings, CommandKind.DRAFT_PLAN, payload, nobody)


def approve_plan(settings: Settings, plan_id: int | None) -> str:
    """Approve the plan that waits; tells the result.

    Raises:
        ConfigError, AdjustmentError: it does not wait, expired, or does not fit.
    """
    number = _one_plan(settings, plan_id).id

    def act(store: SqlStore) -> str:
        plan = ExperimentPlans(store, SystemClock()).approve(number or 0, operator())
        return f"experiment plan {plan.id} is approved for {plan.trials} trials"

    return _asked(settings, CommandKind.APPROVE_PLAN, {"plan_id": number}, act)


def decline_plan(settings: Settings, plan_id: int | None) -> str:
    """Decline a plan, or withdraw its approval; tells the result.

    Raises:
        ConfigError, AdjustmentError: it is over.
    """
    number = _one_plan(settings, plan_id).id

    def act(store: SqlStore) -> str:
        plan = ExperimentPlans(store, SystemClock()).decline(number or 0, operator())
        return f"experiment plan {plan.id} is declined: nothing is tried under it"

    return _asked(settings, CommandKind.DECLINE_PLAN, {"plan_id": number}, act)


def print_plans(settings: Settings) -> None:
    """Print the newest plans, the newest last."""
    with closing(open_for_reading(settings)) as store:
        plans = store.experiment_plans()
    for plan in plans:
        typer.echo(printable(plan_row(plan)))
    if not plans:
        typer.echo("There is no experiment plan yet: python run.py plan draft makes one.")


def print_plan(settings: Settings, plan_id: int | None, *, as_yaml: bool) -> None:
    """Print all of a plan.

    Raises:
        ConfigError: there is none.
    """
    plan = _one_plan(settings, plan_id)
    if as_yaml:
        typer.echo(yaml_of(plan), nl=False)
        return
    for line in plan_lines(plan):
        typer.echo(printable(line))


def _one_plan(settings: Settings, plan_id: int | None) -> ExperimentPlanRecord:
    with closing(open_for_reading(settings)) as store:
        if plan_id is None:
            plans = ExperimentPlans(store, SystemClock())
            found = plans.waiting or plans.approved
        else:
            found = next((p for p in store.experiment_plans(limit=10_000) if p.id == plan_id), None)
    if found is None:
        which = "waits or is in force" if plan_id is None else f"has the id {plan_id}"
        raise ConfigError(
            f"no experiment plan {which}", remedy="python run.py plan list shows them"
        )
    return found


# -- promotions -------------------------------------------------------------------------------


def print_promotion(settings: Settings, trial_id: int | None) -> None:
    """Print a promotion that waits or waited, with its evidence.

    Raises:
        ConfigError: there is none.
    """
    with closing(open_for_reading(settings)) as store:
        promotion = _one_promotion(store, trial_id)
        trial = store.trial(promotion.trial_id)
        units = {status.name: status.unit for status in store.knob_statuses()}
        texts = {key: found.text for key, found in store.query_classes().items()}
        windows = store.windows(trial_id=promotion.trial_id)
    for line in promotion_lines(promotion, trial, windows, units, texts):
        typer.echo(printable(line))


def approve_promotion(settings: Settings, trial_id: int | None) -> str:
    """Let a promotion be deployed; tells the result.

    Raises:
        ConfigError, AdjustmentError: it does not wait.
    """
    return _decide(settings, trial_id, CommandKind.APPROVE, Approval.grant, "is approved")


def decline_promotion(settings: Settings, trial_id: int | None) -> str:
    """Never deploy a promotion; tells the result.

    Raises:
        ConfigError, AdjustmentError: it does not wait.
    """
    return _decide(settings, trial_id, CommandKind.DECLINE, Approval.decline, "is declined")


def _decide(
    settings: Settings,
    trial_id: int | None,
    kind: CommandKind,
    decide: Callable[[Approval, int, str], bool],
    told: str,
) -> str:
    with closing(open_for_reading(settings)) as store:
        number = _one_promotion(store, trial_id).trial_id

    def act(store: SqlStore) -> str:
        if not decide(Approval(store, SystemClock()), number, operator()):
            raise ConfigError(f"no promotion of trial {number} waits for approval")
        return f"the promotion of trial {number} {told}; the next tuner goes by that"

    return _asked(settings, kind, {"trial_id": number}, act)


def _one_promotion(store: TelemetryReader, trial_id: int | None) -> PromotionRecord:
    found = [
        p for p in store.promotions(limit=10_000) if trial_id is None or p.trial_id == trial_id
    ]
    if not found:
        which = "waits" if trial_id is None else f"belongs to trial {trial_id}"
        raise ConfigError(
            f"no promotion {which}", remedy="they wait in mode approve, once something was proven"
        )
    return found[-1]


# -- the freeze switch ------------------------------------------------------------------------


def freeze(settings: Settings, frozen: bool, reason: str) -> str:
    """Throw the freeze switch, whether or not a tuner runs; tells the result.

    The store is told first: a tuner that hangs cannot keep the switch from being thrown.

    Raises:
        AdjustmentError: the tuner at work did not say that it goes by it.
        AutopilotError: there is no store: another folder is meant.
    """
    kind = CommandKind.FREEZE if frozen else CommandKind.UNFREEZE
    require_store(settings)
    with closing(open_store(settings.store_url)) as store:
        told = throw(store, SystemClock(), frozen, operator(), reason)
        if not tuner_is_at_work(store):
            return f"{told}; no tuner is at work, the next one goes by it"
        payload = {"reason": reason} if frozen and reason else {}
        try:
            return ask_tuner(store, kind, payload)
        except AutopilotError as error:
            raise type(error)(
                f"the switch is thrown, but the tuner has not confirmed it: {error.message}",
                remedy=error.remedy,
            ) from None


# -- inside -----------------------------------------------------------------------------------


def _asked(
    settings: Settings,
    kind: CommandKind,
    payload: Mapping[str, Any],
    act: Callable[[SqlStore], str],
) -> str:
    """Have the tuner at work carry out a command; without one, act on the store."""
    with closing(open_store(settings.store_url)) as store:
        return ask_tuner(store, kind, payload) if tuner_is_at_work(store) else act(store)
