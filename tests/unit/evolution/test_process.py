"""The process of an evolution and its command, with a formula in place of learning."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine

from backend.commands import evolve as command
from backend.config import Settings, load_settings
from backend.domain.clock import ManualClock
from backend.domain.policies import GenomeRecord
from backend.errors import AutopilotError, ConfigError
from backend.evolution import course, fitness, process
from backend.evolution.course import Course, Progress
from backend.evolution.genome import Genome, bounds_of
from backend.evolution.learning_run import LearningRun
from backend.evolution.outcome import EvolutionSettings, Outcome
from backend.evolution.preparation import prepared
from backend.evolution.problems import Problem, curriculum
from backend.evolution.process import Task
from backend.meta_learner import MetaLearner
from backend.policy.recorded_trials import RecordedTrials
from backend.telemetry import open_store
from tests.recorded_tuning import recorded, store_transitions, workload

DEFAULT = Genome.of()


TICK_S = 0.01
"""Of the clock that moves when it is looked at."""


def formula(
    problem: Problem, genome: Genome, seed: int, windows: int, on_trial: Callable[[], None]
) -> LearningRun:
    on_trial()
    regret = 0.2 + 0.3 * abs(genome.values["optimism"] - 0.5)
    luck = 0.02 * float(np.random.default_rng(seed).standard_normal())
    return LearningRun(problem.name, seed, 40 * (regret + luck), regret + luck, 0, 0, 9, True, 1, 1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No learning, no waiting for the disk, time by the look, and the tests' own priority stays."""
    looks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: TICK_S * next(looks))
    monkeypatch.setattr(course, "time", clock)

    def hurry(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    monkeypatch.setattr(fitness, "learn", formula)
    monkeypatch.setattr(process, "be_nice", lambda: None)
    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    store = URL.create("sqlite", database=str(tmp_path / "telemetry.db"))
    open_store(store).close()
    return Task(
        curriculum=curriculum(None),
        incumbent=DEFAULT,
        earlier=(),
        settings=EvolutionSettings(4, 0.1, 0.7, bounds_of({}, DEFAULT)),
        storage=f"sqlite:///{tmp_path / 'study.db'}",
        store=store,
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, overrides={"paths": Settings().paths.under(tmp_path)}, environ={})


def evolved(
    task: Task, minutes: float, on_progress: Callable[[Progress], None] = lambda progress: None
) -> Outcome | None:
    """One evolution, and what came of it."""
    with closing(open_store(task.store)) as store:
        own = Course(store, 60 * minutes, on_progress=on_progress)
        return process.evolve(task, own, store)


def test_an_evolution_ends_when_its_time_is_up(task: Task) -> None:
    told: list[Progress] = []
    outcome = evolved(task, 0.03, told.append)
    assert outcome.individuals >= 1
    assert [p.share for p in told] == sorted(p.share for p in told)
    assert told[-1].share <= 1.0
    assert f"{outcome.individuals} genomes" in outcome.summary()[0]


def test_the_next_evolution_goes_on(task: Task) -> None:
    first = evolved(task, 0.02)
    second = evolved(task, 0.02)
    assert second.individuals >= first.individuals


def test_control_c_passes_through_and_finished_ones_are_kept(task: Task) -> None:
    def stop(progress: Progress) -> None:
        if progress.text.startswith("evolving: 2 genomes"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evolved(task, 10, stop)
    store = open_store(task.store)
    assert len(store.genomes()) == 2
    store.close()


def told_by(settings: Settings, **options: object) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        command.evolve(settings, console, **{"minutes": 0.03, **options})  # type: ignore[arg-type]
    return captured.get()


def test_the_command_tells_what_it_learns_on_and_what_came_of_it(settings: Settings) -> None:
    open_store(settings.store_url).close()
    text = told_by(settings)
    assert "Too little is recorded yet" in text
    assert "Genomes learn on: model" in text
    assert "genomes in" in text
    assert (settings.paths.data_dir / "evolution.db").exists()


def test_a_store_that_is_not_there_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(AutopilotError, match="there is no store"):
        told_by(settings, stores=[str(tmp_path / "nothing.db")])
    open_store(settings.store_url).close()
    with pytest.raises(AutopilotError, match="no transitions"):
        told_by(settings, stores=[str(settings.store_url.database)])


def test_a_bound_that_makes_no_sense_is_refused(settings: Settings) -> None:
    open_store(settings.store_url).close()
    level2 = settings.level2.model_copy(update={"bounds": {"speed": (0.0, 1.0)}})
    with pytest.raises(ConfigError, match="speed is no gene"):
        told_by(settings.model_copy(update={"level2": level2}))


def test_back_tells_whether_there_was_anything(settings: Settings) -> None:
    store = open_store(settings.store_url)
    console = Console(width=200)
    with console.capture() as nothing:
        command.back(settings, console)
    store.add_genome(
        GenomeRecord(
            at=datetime.now(timezone.utc), study="s", generation=1, origin="evolved",
            genes={**DEFAULT.values, "gamma": 0.3}, fitness={}, profile={}, comparison={},
            deployed=True,
        )
    )  # fmt: skip
    with console.capture() as done:
        command.back(settings, console)
    assert "nothing to go back from" in nothing.get()
    assert "Done, back from the genome" in done.get()
    assert store.genomes()[-1].genes == DEFAULT.values
    store.close()


def test_a_machine_too_busy_to_judge_deploys_nothing(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(learner: MetaLearner, runs: int) -> None:
        while True:  # a comparison that takes and takes
            learner.on_run()

    monkeypatch.setattr(MetaLearner, "conclude", judge)
    assert evolved(task, 0.01) is None
    store = open_store(task.store)
    assert store.evolution().reason == process.TOO_BUSY
    assert not any(record.deployed for record in store.genomes())
    store.close()


def test_one_that_goes_on_has_the_problems_that_it_began_with(settings: Settings) -> None:
    began_at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    with closing(open_store(settings.store_url)) as store:
        store_transitions(store, ManualClock(began_at - timedelta(hours=1)), some_trials(1))
        first = prepared(settings, until=began_at)
        store_transitions(store, ManualClock(began_at + timedelta(hours=1)), some_trials(2))
    again, later = prepared(settings, until=began_at), prepared(settings)
    assert again.curriculum.digest == first.curriculum.digest
    assert later.curriculum.digest != first.curriculum.digest
    assert [problem.name for problem in first.curriculum.training] == ["demo 0", "model 100"]


def some_trials(seed: int) -> RecordedTrials:
    return recorded([workload(seed)], 20, seed)
