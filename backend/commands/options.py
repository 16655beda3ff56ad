"""The options that several commands of run.py share, and the settings that they come to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from backend.config import PathSettings, Settings
from backend.errors import ConfigError
from backend.run_options import RunOptions

ConfigOption = Annotated[
    Optional[str], typer.Option("--config", help="Settings file; default: config.yaml if present.")
]
DsnOption = Annotated[
    Optional[str],
    typer.Option(
        "--dsn",
        help="URL of your own server, postgresql://user@host:5432/dbname; starts in observe mode. "
        "DATABASE_URL does the same and keeps a password out of the process list.",
    ),
]
DataDirOption = Annotated[
    Optional[Path], typer.Option("--data-dir", help="Folder for everything written (data).")
]
ModeOption = Annotated[
    Optional[str], typer.Option("--mode", help="observe, advise, approve or auto.")
]
PortOption = Annotated[Optional[int], typer.Option("--port", help="Port of the pages (8050).")]
WorkloadOption = Annotated[
    Optional[str],
    typer.Option("--workload", help="Demo workload: mixed, oltp, analytical or simple."),
]
ScaleOption = Annotated[
    Optional[float],
    typer.Option("--scale", help="Size of the demo store; 1.0 is about 10 million rows."),
]
QueriesOption = Annotated[
    Optional[int], typer.Option("--queries", help="Statements per simulated hour.")
]
SeedOption = Annotated[Optional[int], typer.Option("--seed", help="Seed of data and workload.")]
FastOption = Annotated[
    bool,
    typer.Option("--fast-mode", help="The workload's day passes 100 times as fast (864 s a day)."),
]

_PLACES = {
    "mode": ("mode",),
    "port": ("dashboard", "port"),
    "workload": ("workload", "name"),
    "scale": ("workload", "data_scale_factor"),
    "queries": ("workload", "queries_per_hour"),
    "seed": ("workload", "seed"),
}
"""Where an option's value belongs among the settings."""


def options_of(
    config: str | None,
    data_dir: Path | None,
    dsn: str | None = None,
    *,
    duration_days: float | None = None,
    fast_mode: bool = False,
    **given: Any,
) -> RunOptions:
    """The command line as the options of a run.

    Args:
        config, data_dir, dsn: what the options of these names say; None where they were not given.
        duration_days: simulated days, None for a run without an end.
        fast_mode: the workload's day passes 100 times as fast.
        given: mode, port, workload, scale, queries and seed; None where not given.

    Raises:
        ConfigError: ``dsn`` is empty: no other server may take the place of the one that was meant.
    """
    if dsn is not None:
        if not dsn.strip():
            raise ConfigError(
                "--dsn is empty: which server is meant?",
                remedy="look at the variable that it comes from, or leave --dsn out for the "
                "embedded server",
            )
        os.environ["DATABASE_URL"] = dsn  # it may hold a password, which a run's options must not
    overrides: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        *sections, field = _PLACES[name]
        section = overrides
        for part in sections:
            section = section.setdefault(part, {})
        section[field] = value
    if data_dir is not None:
        overrides["paths"] = PathSettings.under(data_dir)
    return RunOptions(config, overrides, duration_days, fast_mode)


def settings_of(config: str | None, data_dir: Path | None, dsn: str | None = None) -> Settings:
    """The settings of a command that is given no more than these.

    Raises:
        ConfigError: they are refused.
    """
    return options_of(config, data_dir, dsn).settings()
