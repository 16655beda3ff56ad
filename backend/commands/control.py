"""The short commands that work whether or not a tuner does: report, rollback, freeze, unfreeze."""

from __future__ import annotations

from typing import Annotated, Optional

import typer
from rich.console import Console

from backend.commands.options import ConfigOption, DataDirOption, DsnOption, settings_of


def report(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Print what the store tells: trials, deployments, index, events."""
    settings = settings_of(config, data_dir)
    from backend.commands.asking import open_for_reading

    store = open_for_reading(settings)
    try:
        store.print_summary(Console())
    finally:
        store.close()


def rollback(
    to: Annotated[
        Optional[int], typer.Option("--to", help="Policy version; default: the one before.")
    ] = None,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Go back to an earlier policy version, whether or not the tuner is running.

    The short way of run.py policy rollback.
    """
    settings = settings_of(config, data_dir, dsn)
    from backend.commands.policy_actions import roll_back

    Console().print(roll_back(settings, to), markup=False)


def freeze(
    reason: Annotated[
        str, typer.Option("--reason", help="Why, for the others; shown on every page.")
    ] = "",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Freeze the configuration: nothing is changed but by a rollback, until you unfreeze.

    Works whether or not the tuner runs, and outlives restarts. A running trial is undone.
    """
    from backend.commands.plan_actions import freeze as throw

    typer.echo(throw(settings_of(config, data_dir), True, reason))


def unfreeze(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Let the autopilot change the server again, as far as its mode goes."""
    from backend.commands.plan_actions import freeze as throw

    typer.echo(throw(settings_of(config, data_dir), False, ""))
