"""``run.py plan``: experiment plans of mode ``approve``; ``run.py promotion``: what was proven."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from backend.commands.options import ConfigOption, DataDirOption, settings_of

plan = typer.Typer(
    help="Experiment plans: what may be tried in mode approve without asking again.",
    no_args_is_help=True,
)
promotion = typer.Typer(
    help="Promotions of mode approve: what was proven, and waits for your word.",
    no_args_is_help=True,
)

PlanArgument = Annotated[
    Optional[int],
    typer.Argument(help="Its id; default: the one that waits, or is in force.", metavar="[ID]"),
]
TrialArgument = Annotated[
    Optional[int],
    typer.Argument(help="Its trial; default: the one that waits.", metavar="[TRIAL]", min=1),
]


@plan.command()
def draft(
    file: Annotated[
        Optional[Path],
        typer.Argument(help="A plan in YAML; default: the tuner drafts one.", metavar="FILE"),
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Let a plan wait for approval, in place of the one that waits.

    The tuner at work checks every knob and range against its server.

    \b
    python run.py plan draft
    python run.py plan draft nights.yaml
    """
    from backend.commands import plan_actions

    typer.echo(plan_actions.draft(settings_of(config, data_dir), file))


@plan.command("list")
def list_plans(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Show the newest plans: state, trials begun, expiry, by whom, why over."""
    from backend.commands import plan_actions

    plan_actions.print_plans(settings_of(config, data_dir))


@plan.command("show")
def show_plan(
    plan_id: PlanArgument = None,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="As a file that plan draft takes, to be edited.")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show a plan: knobs with their ranges, hours, trials, expiry."""
    from backend.commands import plan_actions

    plan_actions.print_plan(settings_of(config, data_dir), plan_id, as_yaml=as_yaml)


@plan.command("approve")
def approve_plan(
    plan_id: PlanArgument = None, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """Approve the plan that waits: trials inside it run without a further word.

    Works whether or not the tuner runs.
    """
    from backend.commands import plan_actions

    typer.echo(plan_actions.approve_plan(settings_of(config, data_dir), plan_id))


@plan.command("decline")
def decline_plan(
    plan_id: PlanArgument = None, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """Decline the plan that waits, or withdraw the approval of the one in force."""
    from backend.commands import plan_actions

    typer.echo(plan_actions.decline_plan(settings_of(config, data_dir), plan_id))


@promotion.command("show")
def show_promotion(
    trial: TrialArgument = None, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """Show what waits, with its evidence: effect, interval, windows, by class, knobs."""
    from backend.commands import plan_actions

    plan_actions.print_promotion(settings_of(config, data_dir), trial)


@promotion.command("approve")
def approve_promotion(
    trial: TrialArgument = None, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """Deploy what was proven, as soon as the load is the one that it was proven under."""
    from backend.commands import plan_actions

    typer.echo(plan_actions.approve_promotion(settings_of(config, data_dir), trial))


@promotion.command("decline")
def decline_promotion(
    trial: TrialArgument = None, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """Do not deploy it."""
    from backend.commands import plan_actions

    typer.echo(plan_actions.decline_promotion(settings_of(config, data_dir), trial))
