"""What ``run.py evolve`` does: Level 2, from a store's measurements to a genome."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from sqlalchemy.engine import URL

from backend.config import Settings
from backend.config_address import parse_url
from backend.errors import AutopilotError
from backend.evolution.archive import MOST, go_back, standing_genome, starting_genomes
from backend.evolution.genome import Genome, bounds_of
from backend.evolution.present import default_genome, present_profile
from backend.evolution.problems import Curriculum, curriculum
from backend.offline_training import Recorded, training_data
from backend.telemetry import SqlStore, open_store


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
    problems = _problems(settings, stores, console)
    store = open_store(settings.store_url)
    try:
        default = default_genome(settings)
        incumbent = standing_genome(store, problems.profile, default)
        earlier = starting_genomes(
            store.genomes(limit=MOST), problems.profile, settings.level2.population_size - 1
        )
    finally:
        store.close()
    _tell_problems(problems, console)
    _run(settings, console, problems, incumbent, (default, *earlier), minutes, cores, study)


def back(settings: Settings, console: Console) -> None:
    """Bring back the genome that stood before the present one, for the present workload."""
    store = open_store(settings.store_url)
    try:
        stands = go_back(
            store, present_profile(store), default_genome(settings), datetime.now(timezone.utc)
        )
    finally:
        store.close()
    console.print(
        "No evolved genome stands: there is nothing to go back from."
        if stands is None
        else f"Done, {stands.reason}. The tuner takes it up at its next start."
    )


def _run(
    settings: Settings,
    console: Console,
    problems: Curriculum,
    incumbent: Genome,
    earlier: tuple[Genome, ...],
    minutes: float,
    cores: int,
    study: str | None,
) -> None:
    # TensorFlow and Optuna take seconds: what is wrong with the settings was said before.
    from backend.evolution.outcome import EvolutionSettings
    from backend.evolution.process import Progress, Task, TimeIsUpError
    from backend.evolution.process import evolve as run

    level2 = settings.level2
    task = Task(
        curriculum=problems,
        incumbent=incumbent,
        earlier=earlier,
        settings=EvolutionSettings(
            population=level2.population_size,
            mutation=level2.mutation_rate,
            crossover=level2.crossover_rate,
            bounds=bounds_of(level2.bounds, incumbent),
            seed=settings.workload.seed,
        ),
        storage=_study_url(settings, study).render_as_string(hide_password=False),
        store=settings.store_url,
    )
    bar = Bar(
        BarColumn(30), TextColumn("{task.percentage:3.0f} % of the time"), TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False), console=console, transient=True,
    )  # fmt: skip
    try:
        with bar:
            shown = bar.add_task("beginning", total=1.0)

            def on_progress(progress: Progress) -> None:
                bar.update(shown, completed=progress.share, description=progress.text)

            outcome = run(task, minutes, cores, on_progress)
    except KeyboardInterrupt:
        console.print("Ended early: finished genomes are kept, and the same command goes on.")
        return
    except TimeIsUpError:
        console.print("Not deployed: the machine is too busy to judge the winner in time.")
        return
    for line in outcome.summary():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _problems(settings: Settings, stores: Sequence[str], console: Console) -> Curriculum:
    """What is recorded as problems; response models alone where nothing is."""
    found = [_read(url) for url in (map(_url, stores) if stores else [settings.store_url])]
    if not any(part.transitions for part in found):
        if stores:
            raise AutopilotError(
                f"no transitions are recorded in {', '.join(stores)}",
                remedy="let the tuner measure for a while, or name another store with --store",
            )
        console.print("Nothing is recorded yet: genomes learn on response models alone.")
        return curriculum(None)
    return curriculum(training_data(found, quality_floor=0.0))


def _tell_problems(problems: Curriculum, console: Console) -> None:
    names = ", ".join(problem.name for problem in problems.training)
    others = ", ".join(problem.name for problem in problems.held_out)
    console.print(f"Genomes learn on: {names}", markup=False, soft_wrap=True)
    console.print(f"The winner is judged on: {others}", markup=False, soft_wrap=True)


def _read(url: URL) -> Recorded:
    store: SqlStore = open_store(url)
    try:
        return Recorded.read(store, store.address)
    finally:
        store.close()


def _url(text: str) -> URL:
    if "://" in text:
        return parse_url(text, "--store")
    if not Path(text).exists():
        raise AutopilotError(f"there is no store at {text}", remedy="name another with --store")
    return URL.create("sqlite", database=text)


def _study_url(settings: Settings, study: str | None) -> URL:
    """Where the study lies; the folder is made."""
    if study is not None and "://" in study:
        return parse_url(study, "--study")
    path = Path(study) if study is not None else settings.paths.data_dir / "evolution.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    return URL.create("sqlite", database=str(path))
