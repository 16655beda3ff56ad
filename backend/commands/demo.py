"""The demo on the embedded server: ``run.py setup-database``, and what ``run.py demo`` does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console

from backend.commands.options import (
    ConfigOption,
    DataDirOption,
    ScaleOption,
    SeedOption,
    options_of,
)
from backend.errors import AutopilotError
from backend.run_options import RunOptions


def setup_database(
    scale: ScaleOption = None,
    seed: SeedOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check counts, keys and distributions.")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Create the embedded server and load the demo store; goes on where it was interrupted."""
    settings = options_of(config, data_dir, scale=scale, seed=seed).settings()
    from backend.commands.setup_database import set_up

    if not set_up(settings, Console(), verify=verify):
        raise typer.Exit(1)


def demonstrate(options: RunOptions, start: Callable[[RunOptions], int]) -> int:
    """Set an earlier run aside, run the demo to its end and print its report.

    Args:
        options: of a bounded run; begun from the server's defaults whatever they say.
        start: starts everything and returns with the exit code at the end of the run.

    Returns:
        The exit code.

    Raises:
        AutopilotError: the settings name another server than the embedded one.
    """
    for name in ("DATABASE_URL", "PGHOST", "PGHOSTADDR", "PGSERVICE"):
        os.environ.pop(name, None)
    settings = options.settings()
    if not settings.is_embedded:
        raise AutopilotError(
            f"the demo runs on the embedded server, and database.host is {settings.database.host}",
            remedy="leave database.host empty, or start run.py without demo",
        )
    from backend.commands.fresh_start import set_aside

    set_aside(settings)
    code = start(replace(options, from_defaults=True))
    report = settings.paths.data_dir / "final_report.txt"
    if code == 0 and report.exists():
        typer.echo(report.read_text(encoding="utf-8"))
        typer.echo(f"Reports: {report}, .json and .html")
    return code
