"""What an evolution is given: problems from what was recorded, what stands, and the archive."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import optuna
from sqlalchemy.engine import URL

from backend.config import Settings
from backend.errors import AutopilotError
from backend.evolution.archive import MOST, standing_genome, starting_genomes
from backend.evolution.genome import bounds_of
from backend.evolution.outcome import EvolutionSettings
from backend.evolution.present import default_genome
from backend.evolution.problems import Curriculum, curriculum
from backend.evolution.process import Task
from backend.telemetry import open_store
from backend.training_data import Recorded, training_data

STUDIES_KEPT = 20
"""In ``evolution.db``: of the latest evolutions, so that one that was killed finds its own. Their
individuals are in the store for longer."""


def prepared(
    settings: Settings,
    stores: Sequence[URL] = (),
    storage: URL | None = None,
    until: datetime | None = None,
) -> Task:
    """Read the stores and fit the problems.

    Args:
        settings: sections level0 to level2 and paths.
        stores: where to learn from; none: the configured store.
        storage: of the study; None: ``evolution.db`` in the data folder, which is made.
        until: what was recorded later is left out, so that one that was killed finds its problems,
            and so its study, again; None: everything.

    Raises:
        AutopilotError: a store cannot be read, nothing is recorded in those that were named, or a
            bound makes no sense.
    """
    problems = _problems(settings, stores, until)
    with closing(open_store(settings.store_url)) as store:
        default = default_genome(settings)
        known = [r for r in store.genomes(limit=MOST) if until is None or r.at <= until]
        incumbent = standing_genome(store, problems.profile, default)
    level2 = settings.level2
    return Task(
        curriculum=problems,
        incumbent=incumbent,
        earlier=(
            default,
            *starting_genomes(known, problems.profile, level2.population_size - 1),
        ),
        settings=EvolutionSettings(
            population=level2.population_size,
            mutation=level2.mutation_rate,
            crossover=level2.crossover_rate,
            bounds=bounds_of(level2.bounds, incumbent),
            seed=settings.workload.seed,
        ),
        storage=(storage or _own_studies(settings)).render_as_string(hide_password=False),
        store=settings.store_url,
    )  # fmt: skip


def _own_studies(settings: Settings) -> URL:
    found = study_file(settings.paths.data_dir / "evolution.db")
    forget_old_studies(found)
    return found


def forget_old_studies(storage: URL) -> None:
    """Keep the newest studies of a database, so that a later evolution takes their place."""
    opened = optuna.storages.RDBStorage(storage.render_as_string(hide_password=False))
    try:
        for name in optuna.get_all_study_names(opened)[:-STUDIES_KEPT]:
            optuna.delete_study(study_name=name, storage=opened)
    finally:
        opened.engine.dispose()


def study_file(path: Path) -> URL:
    """A study in a file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return URL.create("sqlite", database=str(path))


def _problems(settings: Settings, stores: Sequence[URL], until: datetime | None) -> Curriculum:
    """What is recorded as problems; response models alone where nothing is."""
    found = [_read(url, until) for url in stores or [settings.store_url]]
    if any(part.transitions for part in found):
        return curriculum(training_data(found, quality_floor=0.0))
    if stores:
        named = ", ".join(url.render_as_string() for url in stores)
        raise AutopilotError(
            f"no transitions are recorded in {named}",
            remedy="let the tuner measure for a while, or name another store with --store",
        )
    return curriculum(None)


def _read(url: URL, until: datetime | None) -> Recorded:
    with closing(open_store(url)) as store:
        recorded = Recorded.read(store, store.address)
    if until is None:
        return recorded
    kept = tuple(step for step in recorded.transitions if step.at <= until)
    return replace(recorded, transitions=kept)
