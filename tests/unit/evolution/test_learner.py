"""The evolution itself, with a formula in place of learning: what is kept, chosen, deployed."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from zlib import crc32

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from backend import meta_learner
from backend.evolution import fitness
from backend.evolution.archive import standing_genome
from backend.evolution.genome import Genome, bounds_of
from backend.evolution.learning_run import LearningRun
from backend.evolution.outcome import EvolutionSettings, Outcome
from backend.evolution.problems import Curriculum, Problem, curriculum
from backend.gate import trial_alpha
from backend.meta_learner import HELD_OUT_SEED, MetaLearner
from backend.telemetry import SqlStore

DEFAULT = Genome.of()
PROBLEMS: Curriculum = curriculum(None)
OnTrial = Callable[[], None]
Learn = Callable[[Problem, Genome, int, int, OnTrial], LearningRun]


def faster_with_optimism(
    problem: Problem, genome: Genome, seed: int, windows: int, on_trial: OnTrial
) -> LearningRun:
    """Best at an optimism of 0.5, far from today's 1.5; the luck is the seed's alone."""
    regret = 0.2 + 0.3 * abs(genome.values["optimism"] - 0.5)
    luck = 0.02 * float(np.random.default_rng(seed).standard_normal())
    return LearningRun(
        problem.name, seed, 40.0 * (regret + luck), regret + luck, 0.1, 0.2, 15, True, 1.0, 1000.0
    )


def all_alike(
    problem: Problem, genome: Genome, seed: int, windows: int, on_trial: OnTrial
) -> LearningRun:
    """No gene matters: what differs is luck, the same in every process (hash() is not)."""
    luck = np.random.default_rng([seed, crc32(f"{problem.name} {genome}".encode())]).random()
    return LearningRun(problem.name, seed, 10 + 20 * luck, 0.4 + luck / 9, 0, 0.2, 9, True, 1, 1)


@pytest.fixture
def study(tmp_path) -> Iterator[str]:
    """A study that does not wait for the disk: Optuna commits each gene by itself."""

    def hurry(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hurry)
    yield f"sqlite:///{tmp_path / 'study.db'}"
    event.remove(Engine, "connect", hurry)


@pytest.fixture
def make(study: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch):
    def make(
        learn: Learn = faster_with_optimism, seed: int = 0, earlier: tuple[Genome, ...] = ()
    ) -> MetaLearner:
        monkeypatch.setattr(fitness, "learn", learn)
        return MetaLearner(
            curriculum=PROBLEMS,
            incumbent=DEFAULT,
            earlier=earlier,
            settings=EvolutionSettings(
                population=6, mutation=0.1, crossover=0.7, bounds=bounds_of({}, DEFAULT), seed=seed
            ),
            storage=study,
            store=store,
        )

    return make


def evolve(learner: MetaLearner, individuals: int) -> None:
    learner.begin()
    while learner.individuals < individuals:
        learner.step()


def test_what_is_better_is_found_and_deployed(make, store: SqlStore) -> None:
    learner = make()
    evolve(learner, 24)
    best, par = learner.best(), learner.par()
    assert best.regret < par.regret - 0.1
    outcome = learner.conclude(runs=500)
    assert outcome.deployed
    assert abs(outcome.winner.values["optimism"] - 0.5) < 0.5
    assert outcome.comparison.trials.high < 0
    assert standing_genome(store, {}, DEFAULT) == outcome.winner
    assert "Deployed" in outcome.summary()[-1]


def test_a_deployment_and_what_is_told_of_it_are_stored_together(make, store: SqlStore) -> None:
    learner = make()
    evolve(learner, 24)
    told: list[bool] = []

    def die(outcome: Outcome) -> None:
        told.append(outcome.deployed)
        raise KeyboardInterrupt

    learner.on_outcome = die
    with pytest.raises(KeyboardInterrupt):
        learner.conclude(runs=500)
    assert told == [True]
    assert standing_genome(store, {}, DEFAULT) == DEFAULT
    assert not any(record.comparison for record in store.genomes())


@pytest.mark.parametrize("seed", range(3))
def test_what_is_only_lucky_is_not_deployed(make, store: SqlStore, seed: int) -> None:
    learner = make(all_alike, seed)
    evolve(learner, 12)
    outcome = learner.conclude(runs=500)
    assert not outcome.deployed
    assert outcome.winner == DEFAULT
    assert standing_genome(store, {}, DEFAULT) == DEFAULT
    assert "Not deployed" in outcome.summary()[-1]


def test_without_time_to_judge_nothing_is_deployed(make) -> None:
    learner = make()
    evolve(learner, 20)
    outcome = learner.conclude(runs=8)
    assert not outcome.deployed
    assert outcome.challenger is not None
    assert "there was time for" in outcome.reason


def test_an_evolution_that_measured_nothing_says_so(make) -> None:
    learner = make()
    learner.begin()
    assert "no time to measure the one that stands" in learner.conclude(runs=500).reason


def test_a_second_comparison_has_other_luck_and_is_stricter(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    counted: list[int] = []

    def alpha_of(nth: int, alpha: float, total: float) -> float:
        counted.append(nth)
        return trial_alpha(nth, alpha, total)

    monkeypatch.setattr(meta_learner, "trial_alpha", alpha_of)

    def learn(
        problem: Problem, genome: Genome, seed: int, windows: int, on_trial: OnTrial
    ) -> LearningRun:
        if seed >= HELD_OUT_SEED:
            seeds.append(seed)
        return faster_with_optimism(problem, genome, seed, windows, on_trial)

    learner = make(learn)
    evolve(learner, 12)
    learner.conclude(runs=100)
    used = set(seeds)
    seeds.clear()
    learner.conclude(runs=100)
    assert used
    assert not used & set(seeds)
    assert counted == [1, 2]


def test_children_inherit_from_the_first_generation(make, store: SqlStore) -> None:
    learner = make(all_alike)
    evolve(learner, 12)
    first, second = store.genomes()[:6], store.genomes()[6:]
    known = {name: {record.genes[name] for record in first} for name in first[0].genes}
    inherited = [
        sum(record.genes[name] in known[name] for name in known) / len(known) for record in second
    ]
    assert min(inherited) > 0.6


def test_every_individual_is_recorded_the_default_first(make, store: SqlStore) -> None:
    evolve(make(), 8)
    records = store.genomes()
    assert len(records) == 8
    assert records[0].origin == "default"
    assert records[0].genes == DEFAULT.values
    assert {"regret", "spread", "harmful", "cpu_s", "trials_to_95", "memory_bytes"} == set(
        records[0].fitness
    )
    assert len({record.study for record in records}) == 1


def test_an_evolution_goes_on_where_it_ended(make) -> None:
    learner = make()
    evolve(learner, 8)
    again = make()
    again.begin()
    assert again.individuals == 8
    assert again.best() == learner.best()
    again.step()
    assert make().individuals in (8, 9)  # one more, unless it was hopeless


def test_what_was_interrupted_is_lost_and_all_else_kept(make) -> None:
    learner = make()
    evolve(learner, 3)
    learner.on_run = interrupt = _Interrupt()
    with pytest.raises(KeyboardInterrupt):
        learner.step()
    assert interrupt.calls == 1
    assert make().individuals == 3


class _Interrupt:
    calls = 0

    def __call__(self) -> None:
        self.calls += 1
        raise KeyboardInterrupt


def test_an_incumbent_that_a_kill_interrupted_is_measured_after_all(make) -> None:
    learner = make()
    learner.begin()
    learner._study.ask(learner._distributions)  # taken up by a process that was then killed
    again = make()
    evolve(again, 6)
    assert again.par() is not None


def test_a_hopeless_genome_is_given_up_after_its_first_seed(make) -> None:
    seen: list[tuple[float, int]] = []

    def learn(
        problem: Problem, genome: Genome, seed: int, windows: int, on_trial: OnTrial
    ) -> LearningRun:
        seen.append((genome.values["optimism"], seed))
        return faster_with_optimism(problem, genome, seed, windows, on_trial)

    hopeless = Genome({**DEFAULT.values, "optimism": 2.9})
    evolve(make(learn, earlier=(hopeless,)), 6)
    assert len({seed for optimism, seed in seen if optimism == 2.9}) == 1
    assert len({seed for optimism, seed in seen if optimism == DEFAULT.values["optimism"]}) > 1


def test_the_archive_is_in_the_first_generation(make, store: SqlStore) -> None:
    known = Genome({**DEFAULT.values, "optimism": 0.5})
    learner = make()
    learner.earlier = (known,)
    evolve(learner, 6)
    origins = {record.origin: record for record in store.genomes()}
    assert origins["archive"].genes["optimism"] == 0.5
    assert math.isclose(origins["archive"].fitness["regret"], 0.2, abs_tol=0.05)
