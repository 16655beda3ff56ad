"""The options that several commands of run.py share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

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
