"""What ``run.py steering explore`` does: a search for better plans without a tuner."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from backend.commands.asking import tuner_is_at_work
from backend.config import Settings
from backend.domain.clock import SystemClock
from backend.domain.server import ServerInfo
from backend.domain.steering import SteeringState
from backend.errors import LockNotAvailableError, SteeringError
from backend.servers import embedded_server, postgres_target
from backend.steering.places import SteeringPlaces
from backend.steering.register import SteeringRegister
from backend.steering.statements.intake import StatementIntake
from backend.steering_parts import Explorer, build_explorer, home_of
from backend.telemetry import open_store


def explore(settings: Settings, paths: Sequence[Path], minutes: float, console: Console) -> None:
    """Explore statements until nothing is worth trying or the time is up; nothing is served.

    Args:
        settings: which server, which store.
        paths: files of SQL, or folders of them, beside those of ``steering.statements``.
        minutes: how long, at the most.
        console: for progress and summary.

    Raises:
        SteeringError: a path cannot be read, no statement was found, the embedded server does
            not run, or what is kept was proven on another server.
        LockNotAvailableError: a tuner acts on this server or with this store.
        ServerConnectionError, PrivilegeError, StoreError: with the remedy.
    """
    if settings.is_embedded and not embedded_server(settings).is_running():
        raise SteeringError(
            "the embedded server does not run, and statements are tried there",
            remedy="start python run.py, which explores by itself, or name your server with --dsn",
        )
    clock, steering = SystemClock(), settings.steering
    steering = steering.model_copy(update={"statements": (*steering.statements, *paths)})
    settings = settings.model_copy(update={"steering": steering})
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_store(settings.store_url)))
        if tuner_is_at_work(store):
            raise LockNotAvailableError(
                "a tuner is at work with this store, and explores by itself",
                remedy="name the files in steering.statements and start it again",
            )
        target = stack.enter_context(closing(postgres_target(settings)))
        info: ServerInfo = target.describe()
        if not target.hold_tuner_lock():
            raise LockNotAvailableError(
                f"a tuner acts on {info.address}", remedy="stop it first; it explores by itself"
            )
        register = SteeringRegister(store, clock, home_of(settings, info))
        if others := len(register.proven_elsewhere()):
            raise SteeringError(
                f"{others} query classes kept here have plans that were proven on another server "
                f"than {info.address}, and a search on this one would judge them anew",
                remedy="name another folder with --data-dir; to give up what was proven there, "
                "start python run.py on this server with this folder",
            )
        explorer = build_explorer(settings, info, store, register, clock)
        stack.callback(explorer.close)
        places = SteeringPlaces(settings.paths.steering_dir)
        intake = StatementIntake(
            steering, places, explorer.book, register, store, clock, settings.database.dbname
        )
        intake.read_files()
        intake.take()
        if not register.classes():
            raise SteeringError(
                "no statement was found that could be explored",
                remedy="name files that hold SELECT statements, one or more",
            )
        _search(explorer, 60.0 * minutes, console)
        explorer.learner.learn()
        console.print(_summary(register))


def _search(explorer: Explorer, seconds: float, console: Console) -> None:
    """Step by step, with a bar; Ctrl-C ends it, and what was found stands."""
    bar = Progress(
        BarColumn(30), TextColumn("{task.percentage:3.0f} % of the time"), TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False), console=console, transient=True,
    )  # fmt: skip
    began_s = time.monotonic()
    with bar:
        task = bar.add_task("beginning", total=seconds)
        try:
            while (passed_s := time.monotonic() - began_s) < seconds:
                if not explorer.exploration.step():
                    break
                bar.update(task, completed=passed_s, description=explorer.exploration.activity)
        except KeyboardInterrupt:
            console.print("Ended early; what was found so far stands.")


def _summary(register: SteeringRegister) -> str:
    classes = register.classes()
    proven = [record for record in classes if record.state is SteeringState.VERIFIED]
    refused = sum(record.state is SteeringState.REFUSED for record in classes)
    told = f"{len(proven)} of {len(classes)} query classes have a plan that was proven faster"
    if refused:
        told += f"; {refused} may not be tried (python run.py steering list says why)"
    if proven:
        told += (
            ".\nNothing is steered by this command: use python run.py steering export, or start "
            "the autopilot, with the plug-in in your application"
        )
    return f"{told}."
