"""What ``run.py`` without a command does: it starts all processes of a run and supervises them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from backend.config import Settings
from backend.errors import AutopilotError
from backend.printable import printable
from backend.run_options import RunOptions
from backend.settings.dashboard import DashboardSettings


def refuse_misplaced(context: typer.Context) -> None:
    """Options before a command would silently not apply to it."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name
        and getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(
            f"{', '.join(given)} must stand behind the command: "
            f"run.py {context.invoked_subcommand} {given[0]} ..."
        )


def supervise(
    options: RunOptions, program: Path, check_pages: Callable[[DashboardSettings], object]
) -> int:
    """Start everything and run until the run's end or Ctrl-C.

    Args:
        options: what the run was asked to do.
        program: the file that runs one process of it: ``<program> process <name>``.
        check_pages: raises what is missing for the pages, before anything is started.

    Returns:
        The exit code.

    Raises:
        AutopilotError: the settings, the store or the port of the pages are no use.
    """
    settings = options.settings()
    from backend.evolution.schedule import EvolutionSchedule
    from backend.logs import configure_logging
    from backend.supervisor import EVOLUTION, READY, Supervisor
    from backend.telemetry import open_store

    configure_logging(settings, "supervisor")
    console = Console()
    names = ["watchdog", "tuner"]
    if settings.is_embedded:
        names.insert(1, "workload")
    else:
        from backend.servers import greet

        for line in greet(settings):
            console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
    if settings.dashboard.enabled:
        check_pages(settings.dashboard)
        names.insert(0, "dashboard")
        console.print(f"Pages: http://{settings.dashboard.host}:{settings.dashboard.port}")
    if settings.level2.enabled:
        names.append(EVOLUTION)
    commands = {name: [sys.executable, str(program), "process", name] for name in names}
    if settings.dashboard.enabled:
        _check_port_is_free(settings)
    store = open_store(settings.store_url)
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
        console=console, transient=True,
    )  # fmt: skip
    try:
        with bar:
            task = bar.add_task("starting", total=1.0)

            def on_progress(text: str, share: float) -> None:
                bar.update(task, description=text, completed=share)
                if text == READY:
                    bar.stop()
                    console.print("Running. Ctrl-C ends it.")

            schedule = EvolutionSchedule(settings, store, time_scale=options.time_scale)
            supervisor = Supervisor(settings, options, store, commands, on_progress, schedule.due)
            return supervisor.run()
    except KeyboardInterrupt:
        return 0
    finally:
        store.close()


def _check_port_is_free(settings: Settings) -> None:
    host, port = settings.dashboard.host, settings.dashboard.port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AutopilotError(
                f"the pages cannot be served on {host}:{port}: {error.strerror}",
                remedy="stop what listens there, or choose another port with --port",
            ) from None
