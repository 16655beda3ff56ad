"""``run.py steering``: what is known of single queries, and what can be taken elsewhere."""

from __future__ import annotations

import enum
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from backend.commands.options import ConfigOption, DataDirOption, DsnOption, options_of
from backend.config import Settings
from backend.domain.steering import SteeringMode
from backend.errors import SteeringError
from backend.steering.export.hint_plan import HintTable

app = typer.Typer(
    help="Better plans for single queries: what was found, and how to use it elsewhere.",
    no_args_is_help=True,
)


class ExportFormat(str, enum.Enum):
    """What proven hint sets are written as."""

    COMMENTS = "comments"
    HINT_TABLE = "hint-table"
    ALTER_ROLE = "alter-role"


ClassOption = Annotated[
    Optional[list[str]],
    typer.Option(
        "--class",
        metavar="FINGERPRINT",
        help="Only this class; the first characters of its fingerprint do. May be repeated.",
    ),
]
OutputOption = Annotated[
    Optional[Path], typer.Option("--output", "-o", help="File to write to; default: the terminal.")
]


@app.command("list")
def list_classes(
    classes: ClassOption = None, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """Show the known query classes: what was found for each, and whether it is steered now."""
    from backend.commands import steering_actions

    steering_actions.print_classes(_settings(config, data_dir), classes or ())


@app.command()
def export(
    format_: Annotated[
        ExportFormat, typer.Option("--format", help="What to write; see above.")
    ] = ExportFormat.COMMENTS,
    classes: ClassOption = None,
    hint_plan: Annotated[
        Optional[HintTable],
        typer.Option(
            "--pg-hint-plan",
            help="For hint-table: up to 1.6, or from 1.7 on. Default: what goes with the server.",
        ),
    ] = None,
    role: Annotated[
        Optional[str], typer.Option("--role", help="For alter-role: whose sessions.")
    ] = None,
    database: Annotated[
        Optional[str], typer.Option("--database", help="For alter-role: in which database.")
    ] = None,
    output: OutputOption = None,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Write the proven hint sets as SQL, for those who do without the plug-in.

    Nothing is run or changed. Each text says what it rests on and how it is taken back.

    \b
    comments    hint comments for pg_hint_plan, one for each class
    hint-table  rows for pg_hint_plan's table hint_plan.hints
    alter-role  ALTER ROLE ... SET, if one hint set suits every class that was explored

    \b
    python run.py steering export
    python run.py steering export --format hint-table -o hints.sql
    python run.py steering export --format alter-role --role shop_app
    """
    from backend.commands import steering_actions as actions

    settings = _settings(config, data_dir, dsn)
    if format_ is ExportFormat.COMMENTS:
        text = actions.comments(settings, classes or ())
    elif format_ is ExportFormat.HINT_TABLE:
        text = actions.table_rows(settings, classes or (), hint_plan)
    else:
        if classes:
            raise SteeringError(
                "a role's settings act on all its statements, so all classes are looked at",
                remedy="leave --class away",
            )
        text = actions.settings_of_role(settings, role, database)
    _write(text, output)


@app.command()
def report(
    classes: ClassOption = None,
    output: OutputOption = None,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Tell what the planner was wrong about, and which statistics would tell it.

    For those who would rather mend the cause. The default plan of each class with a better hint
    set is run once on the server, read-only and with a time-out; a class without one is looked at
    where it is named. The report holds no constant of a statement.

    \b
    python run.py steering report
    python run.py steering report --class 1f0c9a -o statistics.sql
    """
    from backend.commands import steering_actions

    settings = _settings(config, data_dir, dsn)
    _write(steering_actions.misestimates(settings, classes or ()), output)


@app.command()
def explore(
    paths: Annotated[
        list[Path], typer.Argument(help="Files of SQL, or folders of them.", metavar="FILES...")
    ],
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, help="How long to search, at the most.")
    ] = 10.0,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Search better plans for the queries in files, once, without starting the autopilot.

    Only statements that are shown to only read are run, in READ ONLY transactions with a time-out.
    Nothing is changed and nothing is steered; what is proven shows in list and can be exported.

    \b
    python run.py steering explore reports/ --dsn postgresql://reader@db.example/shop
    python run.py steering explore slow.sql --minutes 30
    """
    from backend.commands.steering_explore import explore as search

    search(_settings(config, data_dir, dsn), paths, minutes, Console())


@app.command("set")
def set_mode(
    fingerprint: Annotated[
        str, typer.Argument(help="Of the class; its first characters do.", metavar="FINGERPRINT")
    ],
    mode: Annotated[SteeringMode, typer.Argument(help="What to do with it.")],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Decide for one class: steered while the evidence stands (auto), always (pin), never (off).

    The tuner carries it out. Where none runs it is noted, and holds from its next start on.

    \b
    python run.py steering set 1f0c9a pin
    python run.py steering set 1f0c9a auto
    """
    from backend.commands import steering_actions

    typer.echo(steering_actions.set_mode(_settings(config, data_dir), fingerprint, mode))


def _settings(config: str | None, data_dir: Path | None, dsn: str | None = None) -> Settings:
    options = options_of(config, data_dir, dsn)
    if dsn:  # where statements run is what the command line names, whatever the file says
        options = replace(options, overrides={**options.overrides, "steering": {"dsn": None}})
    return options.settings()


def _write(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SteeringError(
            f"{output} could not be written: {error.strerror}", remedy="name another file"
        ) from error
    typer.echo(f"Written to {output}")
