"""``run.py policy``: the versions of what is deployed, and going to one of them."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from backend.commands.options import ConfigOption, DataDirOption, DsnOption, settings_of

app = typer.Typer(
    help="Versions of what is deployed: knobs, hint sets of single queries, learned weights.",
    no_args_is_help=True,
)

VersionArgument = Annotated[
    int, typer.Argument(help="Its id; list shows them.", metavar="ID", min=1)
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON, for other programs.")]


@app.command("list")
def list_versions(
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many of the newest.")] = 50,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show the versions: when, by whom, what changed against the parent, index, which is active."""
    from backend.commands import policy_actions

    policy_actions.print_versions(settings_of(config, data_dir), limit, as_json=as_json)


@app.command()
def show(
    version: Annotated[
        Optional[int],
        typer.Argument(help="Its id; default: the active one.", metavar="[ID]", min=1),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show all of a version: knobs, hint sets and weights, with the evidence behind them."""
    from backend.commands import policy_actions

    policy_actions.print_version(settings_of(config, data_dir), version, as_json=as_json)


@app.command()
def diff(
    first: Annotated[int, typer.Argument(help="A version's id.", metavar="A", min=1)],
    second: Annotated[int, typer.Argument(help="Another's.", metavar="B", min=1)],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show what is different in version B: knobs with their units, hint sets, weights."""
    from backend.commands import policy_actions

    policy_actions.print_difference(settings_of(config, data_dir), first, second, as_json=as_json)


@app.command()
def deploy(
    version: VersionArgument,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Deploy a version, earlier or later: its knobs, hint sets and weights, as a new version.

    A change by hand like any other: memory budget and freeze switch count. A hint set is served
    only where its proof still counts for this server, database and planner settings; the others
    are named, and are to be proven anew.

    \b
    python run.py policy deploy 7
    """
    from backend.commands import policy_actions

    typer.echo(policy_actions.deploy(settings_of(config, data_dir, dsn), version))


@app.command()
def rollback(
    version: Annotated[
        Optional[int],
        typer.Argument(help="Its id; default: the one before the present.", metavar="[ID]", min=1),
    ] = None,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Go back to a version; needs nobody's approval, and works while frozen.

    \b
    python run.py policy rollback
    python run.py policy rollback 3
    """
    from backend.commands import policy_actions

    typer.echo(policy_actions.roll_back(settings_of(config, data_dir, dsn), version))
