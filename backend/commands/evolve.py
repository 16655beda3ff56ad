"""What ``run.py evolve`` does: Level 2, from a store's measurements to a genome."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from sqlalchemy.engine import URL

from backend.config import Settings
from backend.errors import AutopilotError
from backend.evolution import process
from backend.evolution.archive import go_back
from backend.evolution.course import Course, Progress
from backend.evolution.preparation import prepared, study_file
from backend.evolution.present import default_genome, present_profile
from backend.evolution.problems import Curriculum
from backend.settings.address import parse_url
from backend.telemetry import open_store

ENDED_EARLY = "Ended early: finished genomes are kept, and the same command goes on"


def evolve(
    settings: Settings,
    console: Console,
    *,
    minutes: float,
    stores: Sequence[str] = (),
    cores: int = 1,
    study: str | None = None,
) -> None:
    """Evolve, and tell what came of it.

    Args:
        settings: sections level0 to level2 and paths.
        console: for progress and result.
        minutes: how long, judging included.
        stores: where to learn from, files or URLs; none: the configured store.
        cores: processes.
        study: file or URL of the study; None: in the data folder. Several machines may share one.

    Raises:
        AutopilotError: a store cannot be read, or a bound makes no sense.
    """
    process.be_nice()
    task = prepared(settings, list(map(_url, stores)), None if study is None else _study(study))
    _tell_problems(task.curriculum, console)
    bar = Bar(
        BarColumn(30), TextColumn("{task.percentage:3.0f} % of the time"), TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False), console=console, transient=True,
    )  # fmt: skip
    with closing(open_store(settings.store_url)) as store:
        with bar:
            shown = bar.add_task("beginning", total=1.0)

            def on_progress(progress: Progress) -> None:
                bar.update(shown, completed=progress.share, description=progress.text)

            course = Course(store, 60.0 * minutes, on_progress=on_progress)
            try:
                outcome = process.evolve(task, course, store, cores)
            except KeyboardInterrupt:
                course.end(ENDED_EARLY, level="")
                outcome = None
        told = outcome.summary() if outcome is not None else [f"{course.record.reason}."]
        for line in told:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def back(settings: Settings, console: Console) -> None:
    """Bring back the genome that stood before the present one, for the present workload."""
    with closing(open_store(settings.store_url)) as store:
        stands = go_back(
            store, present_profile(store), default_genome(settings), datetime.now(timezone.utc)
        )
    console.print(
        "No evolved genome stands: there is nothing to go back from."
        if stands is None
        else f"Done, {stands.reason}. The tuner takes it up before its next trial."
    )


def _tell_problems(problems: Curriculum, console: Console) -> None:
    if not problems.profile:
        console.print("Too little is recorded yet: genomes learn on response models alone.")
    names = ", ".join(problem.name for problem in problems.training)
    others = ", ".join(problem.name for problem in problems.held_out)
    console.print(f"Genomes learn on: {names}", markup=False, soft_wrap=True)
    console.print(f"The winner is judged on: {others}", markup=False, soft_wrap=True)


def _url(text: str) -> URL:
    if "://" in text:
        return parse_url(text, "--store")
    if not Path(text).exists():
        raise AutopilotError(f"there is no store at {text}", remedy="name another with --store")
    return URL.create("sqlite", database=text)


def _study(text: str) -> URL:
    return parse_url(text, "--study") if "://" in text else study_file(Path(text))
