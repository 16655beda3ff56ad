"""The command line. Without a command: start everything and serve http://localhost:8050.

This is the one file that knows both the backend and the dashboard. What a command does is in
``backend/commands/``; nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from backend.commands.arguments import check_words
from backend.commands.control import freeze, report, rollback, unfreeze
from backend.commands.demo import demonstrate, setup_database
from backend.commands.learning import evolve, train
from backend.commands.looking import advise, doctor, grants
from backend.commands.options import (
    ConfigOption,
    DataDirOption,
    DsnOption,
    FastOption,
    ModeOption,
    PortOption,
    QueriesOption,
    ScaleOption,
    SeedOption,
    WorkloadOption,
    options_of,
)
from backend.commands.plan import plan, promotion
from backend.commands.policy import app as policy
from backend.commands.process import run_process
from backend.commands.start import refuse_misplaced, supervise
from backend.commands.steering import app as steering
from backend.config import Settings
from backend.errors import AutopilotError
from backend.printable import printable
from backend.run_options import RunOptions
from backend.settings.dashboard import DashboardSettings

errors = Console(stderr=True)
app = typer.Typer(
    help="A self-hosted autopilot for PostgreSQL. Without a command it starts everything: the "
    "embedded PostgreSQL with a demo workload (or your server, with --dsn, in observe mode), the "
    "tuner, the watchdog and the pages on http://localhost:8050. Ctrl-C ends it.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def everything(
    context: typer.Context,
    config: ConfigOption = None,
    dsn: DsnOption = None,
    data_dir: DataDirOption = None,
    mode: ModeOption = None,
    port: PortOption = None,
    workload: WorkloadOption = None,
    scale: ScaleOption = None,
    queries: QueriesOption = None,
    seed: SeedOption = None,
    fast_mode: FastOption = False,
) -> None:
    """Start everything and run until Ctrl-C."""
    if context.invoked_subcommand is not None:
        refuse_misplaced(context)
        return
    options = options_of(
        config, data_dir, dsn, fast_mode=fast_mode, mode=mode, port=port, workload=workload,
        scale=scale, queries=queries, seed=seed,
    )  # fmt: skip
    raise typer.Exit(_start(options))


@app.command()
def demo(
    duration: Annotated[
        float, typer.Option("--duration", min=0.1, help="Simulated days to run.")
    ] = 1.0,
    queries: QueriesOption = None,
    workload: WorkloadOption = None,
    fast_mode: FastOption = False,
    scale: ScaleOption = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    port: PortOption = None,
) -> None:
    """Tune the embedded server from its defaults, then compare and write the final report.

    Ends by itself with an interleaved comparison of the final against the initial configuration
    in final_report.txt, .json and .html. An earlier run's store and checkpoints are set aside.
    """
    options = options_of(
        config, data_dir, duration_days=duration, fast_mode=fast_mode, queries=queries,
        workload=workload, scale=scale, seed=seed, port=port,
    )  # fmt: skip
    raise typer.Exit(demonstrate(options, _start))


def password() -> None:
    """Ask for a password, unseen, and print the hash that stands for it in dashboard.users."""
    from dashboard.auth.accounts import hash_password

    chosen = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    typer.echo(hash_password(chosen))


@app.command(hidden=True)
def process(name: str) -> None:
    """Run one process of a run that the supervisor started."""
    raise typer.Exit(run_process(name, _pages))


# In the order of --help.
for command in (
    evolve, setup_database, report, train, rollback, advise, freeze, unfreeze, doctor, grants,
    password,
):  # fmt: skip
    app.command()(command)
app.add_typer(steering, name="steering")
app.add_typer(policy, name="policy")
app.add_typer(plan, name="plan")
app.add_typer(promotion, name="promotion")


def _start(options: RunOptions) -> int:
    return supervise(options, Path(__file__), _check_pages)


def _check_pages(settings: DashboardSettings) -> None:
    """Says now, and not in a child's log, what is missing."""
    from dashboard.auth.accounts import Accounts

    Accounts(settings)


def _pages(settings: Settings, options: RunOptions, stop: threading.Event) -> int:
    """Serve the pages until the run ends."""
    from backend.telemetry import open_store
    from dashboard.app import create_app, serve
    from dashboard.services import QualityFloors

    store = open_store(settings.store_url)
    floors = QualityFloors(
        training=settings.level0.knob.quality_floor, trial=settings.level1.min_quality
    )
    level1 = settings.level1
    update_s = level1.update_interval / options.time_scale if level1.enabled else None
    pages = settings.dashboard
    dash_app = create_app(store, store, pages, floors, update_s, store.add_event)
    server = threading.Thread(
        target=serve,
        args=(dash_app, pages.host, pages.port, pages.trusted_proxy),
        name="pages",
        daemon=True,
    )
    server.start()
    while not stop.wait(0.5):
        if not server.is_alive():
            return 1
    return 0


def main() -> None:
    """Entry point: known errors become one clear message and exit code 1."""
    try:
        check_words(sys.argv[1:])
        app()
    except AutopilotError as error:
        errors.print(f"Error: {_shown(error.message)}", style="red", markup=False)
        if error.remedy:
            errors.print(f"Remedy: {_shown(error.remedy)}", markup=False)
        sys.exit(1)


def _shown(text: str) -> str:
    """An error's text for the terminal; a server's name for something may be in it."""
    return printable(text, keep="\n")


if __name__ == "__main__":
    main()
