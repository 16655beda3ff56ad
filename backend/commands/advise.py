"""``run.py advise``: looks at a server for a while, then tells what might be changed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import TypedDict

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from backend.advice.advice import Advice, advise
from backend.advice.facts import Facts
from backend.advice.gathering import StatedMachine, Visit
from backend.advice.pages import to_html, to_text
from backend.commands.asking import open_for_reading, tuner_is_at_work
from backend.config import Settings
from backend.domain.records import TrialRecord
from backend.domain.steering import SteeredClassRecord
from backend.embedded.files import write_atomically
from backend.errors import AutopilotError, StoreError

NAME = "advice"
_MOST_TRIALS = 1000
_TUNER_AT_WORK = (
    "The autopilot is at work on this server: what was in force may be a candidate of its own."
)


def observe_and_advise(
    settings: Settings,
    console: Console,
    *,
    minutes: float,
    stated: StatedMachine,
    out: Path | None = None,
) -> None:
    """Observe the server of the settings, print the advice, write advice.json and advice.html.

    The first Ctrl-C ends the watching, and what was seen is told; the second ends everything.

    Args:
        settings: which server; its store is read for what trials have shown there.
        console: for progress and text.
        minutes: how long.
        stated: what the user says of the server's machine.
        out: the folder to write to; None: the data folder.

    Raises:
        ServerConnectionError: the server cannot be reached.
        StoreError: the files cannot be written.
        AutopilotError: nothing was seen.
    """
    bar = Progress(
        BarColumn(30), TextColumn("{task.percentage:3.0f} % of the time"), TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False), console=console, transient=True,
    )  # fmt: skip
    with _ended_by_signal() as stop, Visit(settings, stated) as visit, bar:
        shown = bar.add_task("connecting", total=1.0)

        def on_progress(text: str, share: float) -> None:
            bar.update(shown, completed=share, description=text)

        facts = visit.observe(minutes, on_progress, stop)
    advice = advise(facts, datetime.now(timezone.utc), **_recorded(settings, facts))
    console.print(to_text(advice), markup=False, highlight=False, soft_wrap=True, end="")
    written = _write(advice, out if out is not None else settings.paths.data_dir)
    console.print(f"\nAll ways to make each change: {' and '.join(map(str, written))}",
                  markup=False, highlight=False, soft_wrap=True)  # fmt: skip


@contextmanager
def _ended_by_signal() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second interrupts as usual."""
    stop = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


class _Recorded(TypedDict, total=False):
    """What the store knows of a server."""

    trials: Sequence[TrialRecord]
    classes: Sequence[SteeredClassRecord]
    remarks: Sequence[str]


def _recorded(settings: Settings, facts: Facts) -> _Recorded:
    """What the store knows of this server; it need not be there, nor be readable."""
    try:
        store = open_for_reading(settings)
    except StoreError as error:
        return {"remarks": [f"What was tried before: the store is left out. {error.message}"]}
    except AutopilotError:  # there is none yet
        return {}
    with closing(store):
        status = store.status()
        if status is None or status.server != facts.info.address:
            return {"classes": store.steered_classes()}
        at_work = tuner_is_at_work(store)
        return {
            "trials": store.trials(limit=_MOST_TRIALS),
            "classes": store.steered_classes(),
            "remarks": [_TUNER_AT_WORK] if at_work else [],
        }


def _write(advice: Advice, folder: Path) -> list[Path]:
    contents = {"json": advice.as_json(), "html": to_html(advice)}
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for end, text in contents.items():
            path = folder / f"{NAME}.{end}"
            write_atomically(path, text)
            written.append(path)
    except OSError as error:
        raise StoreError(
            f"the advice could not be written to {folder}: {error.strerror}",
            remedy="make the folder writable for this user, or name another with --out",
        ) from error
    return written
