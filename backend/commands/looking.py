"""The commands that look at a server and change nothing: advise, doctor, grants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from backend.commands.options import ConfigOption, DataDirOption, DsnOption, settings_of


def advise(
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, max=1440, help="How long to look at it.")
    ] = 5.0,
    out: Annotated[
        Optional[Path],
        typer.Option("--out", help="Folder for advice.json and advice.html; default: the data."),
    ] = None,
    memory_gib: Annotated[
        Optional[float],
        typer.Option("--memory-gib", min=0.1, help="Memory of the server's machine, in GiB."),
    ] = None,
    cores: Annotated[
        Optional[float], typer.Option("--cores", min=0.1, help="Its cores, for this server.")
    ] = None,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Look at a server for a while and tell what might be changed; changes nothing.

    Findings with what was measured, knobs with text to copy, and the statements that take the time.

    Ctrl-C ends it early and tells what was seen until then.

    Example: run.py advise --minutes 10 --dsn postgresql://monitor@db.example/shop --memory-gib 64
    """
    settings = settings_of(config, data_dir, dsn)
    from backend.advice.gathering import StatedMachine
    from backend.commands.advise import observe_and_advise

    observe_and_advise(
        settings, Console(), minutes=minutes, stated=StatedMachine(memory_gib, cores), out=out
    )


def doctor(
    config: ConfigOption = None, dsn: DsnOption = None, data_dir: DataDirOption = None
) -> None:
    """Show what is connected, which privileges we have, and the SQL that grants the rest."""
    settings = settings_of(config, data_dir, dsn)
    from backend.commands.doctor import examine

    examine(settings, Console())


def grants(
    mode: Annotated[str, typer.Option("--mode", help="observe, advise, approve or auto.")] = "auto",
    role: Annotated[
        Optional[str], typer.Option("--role", help="Role of the autopilot; default: database.user.")
    ] = None,
    server_version: Annotated[
        Optional[int],
        typer.Option("--server-version", help="14 to 18; default: the server is asked."),
    ] = None,
    explorer: Annotated[
        bool,
        typer.Option("--explorer", help="Also the role under which statements are tried."),
    ] = False,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Print the SQL that gives a role what a mode needs, and no more; changes nothing itself.

    Example: run.py grants --mode auto --role autopilot --server-version 17 | psql --dbname=shop
    """
    settings = settings_of(config, data_dir, dsn)
    from backend.commands.grants import grant_script

    typer.echo(
        grant_script(
            settings, mode=mode, role=role, server_version=server_version, explorer=explorer
        ),
        nl=False,
    )
