"""What the hidden ``run.py process`` does: it runs one process of a run."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

import typer

from backend.config import Settings
from backend.errors import AutopilotError
from backend.run_options import RunOptions

Pages = Callable[[Settings, RunOptions, threading.Event], int]


def run_process(name: str, pages: Pages) -> int:
    """Run the process of this name until it ends, or its supervisor does.

    Args:
        name: dashboard, tuner, watchdog, workload or evolution.
        pages: serves the dashboard until the event is set.

    Returns:
        The exit code.

    Raises:
        ConfigError: it was not started by the supervisor.
        typer.BadParameter: there is no such process.
    """
    options = RunOptions.from_environment()
    settings = options.settings()
    from backend.logs import configure_logging
    from backend.supervisor import stop_event_for_child

    configure_logging(settings, name)
    stop = stop_event_for_child(options.supervisor_pid or os.getppid())
    if name == "dashboard":
        return pages(settings, options, stop)
    from backend.telemetry import open_store

    try:
        if name == "tuner":
            from backend.processes.tuner import tuner

            return tuner(settings, options, stop)
        if name == "watchdog":
            from backend.processes.watchdog import watchdog

            return watchdog(settings, stop, options.heartbeat)
        store = open_store(settings.store_url)
        if name == "workload":
            from backend.processes.workload import workload

            return workload(settings, options, store, stop)
        if name == "evolution":
            from backend.processes.evolution import evolution

            return evolution(settings, options, store, stop)
    except AutopilotError:
        logging.getLogger(name).exception("the process ends")
        raise
    raise typer.BadParameter(f"there is no process named {name!r}")
