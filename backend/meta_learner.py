"""Level 2: the evolution of the learners' own hyper-parameters.

NSGA-II (Deb et al. 2002, https://doi.org/10.1109/4235.996017), as Optuna has it: a generation's
parents are the best fronts of the last parents and their children (elitism), two at a time win a
tournament and are crossed, genes mutate. Its three objectives are speed (regret), stability
(spread over seeds, harmful proposals) and resources (processor time). Nothing is estimated by a
formula: every individual really learns, with the knob agent and the gate that tune servers, on
targets fitted to what was recorded (:mod:`backend.evolution.problems`).

All genomes learn under the same luck (common random numbers), and one that is far behind the
incumbent after the first seed is given up. The best of the front are measured again with seeds
that did not select them; the best of those is compared with the incumbent on workloads and seeds
that the evolution never saw, paired, once. It is deployed only where the gate's interval proves it
faster; otherwise the incumbent stays. docs/meta-learning.md defines every number.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from backend.domain.policies import GenomeRecord
from backend.evolution.archive import MOST
from backend.evolution.fitness import ALPHA, OBJECTIVES, Comparison, Fitness, runs_of
from backend.evolution.genome import BY_NAME, Genome
from backend.evolution.learning_run import WINDOWS, LearningRun
from backend.evolution.outcome import EvolutionSettings, Outcome
from backend.evolution.problems import Curriculum
from backend.gate import trial_alpha
from backend.protocols import Store

TRAINING_SEEDS = (1, 2)
"""Of the runs that select."""
RECHECK_SEEDS = (11, 12)
"""Of the runs that choose among the best."""
HELD_OUT_SEED = 101
"""The first of a comparison, which takes as many as the time allows."""
STUDY_ALPHA = 0.05
"""Bound on the chance that a study ever deploys what is no better, however often it goes on."""
FINALISTS = 3
LEAST_PAIRS, MOST_PAIRS = 10, 60
"""Of the comparison."""
RUNS_A_PAIR = 5
"""A judging run is more than twice as long as one in training, and there are two to a pair."""
JUDGING_RUNS = round(1.5 * RUNS_A_PAIR * LEAST_PAIRS)
"""Time for so many learning runs suffices to choose a challenger and to judge it: a third of it
is for the choice."""
HOPELESS = 1.15
"""A genome whose regret is so many times the incumbent's after the first seed is given up."""
FIRST_MUTATION = 0.2
"""Chance that a gene of the first generation's mutants is drawn anew."""
COSTLY = 3.0
"""So is one whose runs take so many times the incumbent's processor time."""
JUDGED_WINDOWS = 300
"""Of a run that judges: more than in training, so that most of them reach 95 % of the gain."""
FITNESS, ORIGIN = "fitness", "origin"


@dataclass
class MetaLearner:
    """Evolves genomes; several processes may share a study.

    Args:
        curriculum: what genomes learn on.
        incumbent: the genome that stands.
        earlier: genomes of the archive, the rest of the first generation.
        settings: of the evolution.
        storage: URL of the study, a database of Optuna's.
        store: takes a record of every individual.
        on_run: told after every learning run; may raise to end the evolution.
        on_trial: the same before every trial of a learning run.
        on_outcome: told what came of it, in one transaction of the store with the deployment.
    """

    curriculum: Curriculum
    incumbent: Genome
    earlier: Sequence[Genome]
    settings: EvolutionSettings
    storage: str
    store: Store
    on_run: Callable[[], None] = lambda: None
    on_trial: Callable[[], None] = lambda: None
    on_outcome: Callable[[Outcome], None] = lambda outcome: None
    _began_s: float = field(default_factory=time.process_time)

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Fitness can be compared within one curriculum, children inherit within the same bounds.
        about = repr((self.curriculum.digest, self.incumbent.values, dict(self.settings.bounds)))
        self.name = f"genomes-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
        self._study = self._open()
        self._distributions = {
            name: _distribution(name, *bounds) for name, bounds in self.settings.bounds.items()
        }
        self._par: tuple[float, float] | None = None

    def _open(self) -> optuna.Study:
        # What a resumed study would draw again from the same seed has been drawn already.
        storage = optuna.storages.RDBStorage(
            self.storage,
            engine_kwargs=(
                {"connect_args": {"timeout": 60}} if self.storage.startswith("sqlite") else {}
            ),
        )
        study = optuna.create_study(
            storage=storage,
            study_name=self.name,
            directions=["minimize"] * len(OBJECTIVES),
            load_if_exists=True,
        )
        s = self.settings
        study.sampler = optuna.samplers.NSGAIISampler(
            population_size=s.population,
            mutation_prob=s.mutation,
            crossover_prob=s.crossover,
            seed=s.seed + 1000 * len(study.get_trials(deepcopy=False)),
        )
        return study

    # -- evolution --------------------------------------------------------------------------

    def begin(self) -> None:
        """Queue what the first generation begins with: the incumbent and the archive.

        Once, by one process; what a killed run had taken up and not finished is queued again.
        """
        queued: list[Mapping[str, float]] = []
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state in (TrialState.COMPLETE, TrialState.WAITING):
                queued.append(trial.system_attrs.get("fixed_params") or trial.params)
        known = [(self.incumbent, "default"), *((genome, "archive") for genome in self.earlier)]
        for genome, origin in known:
            genes = self._genes_within(genome)
            if genes not in queued:
                self._study.enqueue_trial(genes, user_attrs={ORIGIN: origin})
                queued.append(genes)

    def _queue_a_mutant(self) -> None:
        """Fill the first generation with mutants of the incumbent.

        NSGA-II would draw it anywhere, where most genomes are hopeless.
        """
        trials = self._study.get_trials(deepcopy=False)
        if any(trial.state is TrialState.WAITING for trial in trials):
            return
        rng = np.random.default_rng([self.settings.seed, len(trials)])
        self._study.enqueue_trial(self._genes_within(self._mutant(rng)))

    def step(self) -> Fitness | None:
        """Measure one individual; None where it was given up.

        What ``on_run`` raises ends the step: the individual is lost, all others are kept.
        """
        if self.individuals < self.settings.population:
            self._queue_a_mutant()
        trial = self._study.ask(self._distributions)
        # One that was queued draws nothing, and belongs to no generation until it is asked.
        _ = trial.relative_params
        genome = self._genome(trial.params)
        try:
            fitness = self._fitness(genome)
        except BaseException:
            self._study.tell(trial, state=TrialState.FAIL)
            raise
        if fitness is None:
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        trial.set_user_attr(FITNESS, fitness.as_numbers())
        # The record first: a kill between the two loses an individual of the study, no result.
        self._record(genome, fitness, self._origin(trial), {}, "measured")
        self._study.tell(trial, list(fitness.objectives))
        return fitness

    def _fitness(self, genome: Genome) -> Fitness | None:
        """Let a genome learn; None as soon as it is hopeless or too costly."""
        training, runs = self.curriculum.training, []
        par = self._par_of_incumbent() if genome != self.incumbent else None
        for run in runs_of(genome, training, TRAINING_SEEDS, on_trial=self.on_trial):
            runs.append(run)
            self.on_run()
            if par is not None and len(runs) == len(training):
                first = Fitness.of(runs)
                if first.regret > HOPELESS * par[0] or first.cpu_s > COSTLY * par[1]:
                    return None
        if genome == self.incumbent:
            first = Fitness.of(runs[: len(training)])
            self._study.set_user_attr("par", [first.regret, first.cpu_s])
        return Fitness.of(runs)

    def _par_of_incumbent(self) -> tuple[float, float] | None:
        """Its regret and processor time after the first seed, once some process measured it."""
        if self._par is None and (known := self._study.user_attrs.get("par")):
            self._par = (float(known[0]), float(known[1]))
        return self._par

    # -- the winner -------------------------------------------------------------------------

    def conclude(self, runs: int) -> Outcome:
        """Choose a challenger, judge it on what was held out, deploy it where it is better.

        Args:
            runs: learning runs that there is time for, recheck included.

        What ``on_run`` raises passes through: then nothing was deployed.
        """
        training = self.curriculum.training
        finalists = self._finalists()
        most = max(1, (runs // 3) // (len(training) * len(RECHECK_SEEDS)))
        challenger = self._recheck(finalists[:most])
        if challenger is None:
            unknown = "there was no time to measure the one that stands"
            known = "no genome of the front beats the one that stands"
            return self._outcome(None, unknown if self.par() is None else known)
        checked = min(most, len(finalists))
        spent = checked * len(training) * len(RECHECK_SEEDS) if checked > 1 else 0
        pairs = min((runs - spent) // RUNS_A_PAIR, MOST_PAIRS)
        if pairs < LEAST_PAIRS:
            return self._outcome(
                None,
                f"there was time for {max(pairs, 0)} comparisons, {LEAST_PAIRS} are needed",
                challenger,
            )
        comparison = self._compare(challenger, math.ceil(pairs / len(self.curriculum.held_out)))
        reason = "; ".join(comparison.objections) or (
            f"trials to 95 % of the gain {comparison.trials} on {comparison.pairs} pairs of runs"
        )
        return self._outcome((challenger, comparison), reason)

    def _finalists(self) -> list[Genome]:
        """The fastest of the front that are no less stable and no dearer than the incumbent."""
        par = self._measured(self.incumbent)
        if par is None:
            return []
        found = []
        for trial in self._study.best_trials:
            fitness = Fitness(**trial.user_attrs[FITNESS])
            genome = self._genome(trial.params)
            if (
                genome != self.incumbent
                and fitness.regret < par.regret
                and fitness.instability <= par.instability + 0.05
                and fitness.cpu_s <= 1.5 * par.cpu_s
            ):
                found.append((fitness.regret, genome))
        ranked = [genome for _, genome in sorted(found, key=lambda pair: pair[0])]
        return list(dict.fromkeys(ranked))[:FINALISTS]

    def _measured(self, genome: Genome) -> Fitness | None:
        for trial in self._finished():
            if self._genome(trial.params) == genome:
                return Fitness(**trial.user_attrs[FITNESS])
        return None

    def _recheck(self, finalists: Sequence[Genome]) -> Genome | None:
        """The best with seeds that did not select it: the luckiest of many is not the best."""
        if len(finalists) < 2:
            return finalists[0] if finalists else None
        regrets = [
            Fitness.of(self._runs(genome, RECHECK_SEEDS, held_out=False)).regret
            for genome in finalists
        ]
        return finalists[regrets.index(min(regrets))]

    def _compare(self, challenger: Genome, seeds: int) -> Comparison:
        """One more comparison of this study: with luck that no earlier one saw, and stricter."""
        records = self.store.genomes(study=self.name, limit=MOST)
        nth = 1 + sum(bool(record.comparison) for record in records)
        first = HELD_OUT_SEED + MOST_PAIRS * (nth - 1)
        new, old = (
            self._runs(genome, range(first, first + seeds), held_out=True)
            for genome in (challenger, self.incumbent)
        )
        return Comparison.of(new, old, trial_alpha(nth, ALPHA, STUDY_ALPHA))

    def _runs(self, genome: Genome, seeds: Sequence[int], *, held_out: bool) -> list[LearningRun]:
        problems = self.curriculum.held_out if held_out else self.curriculum.training
        runs = []
        windows = JUDGED_WINDOWS if held_out else WINDOWS
        for run in runs_of(genome, problems, seeds, windows, self.on_trial):
            runs.append(run)
            self.on_run()
        return runs

    def _outcome(
        self,
        judged: tuple[Genome, Comparison] | None,
        reason: str,
        challenger: Genome | None = None,
    ) -> Outcome:
        deployed = judged is not None and judged[1].wins
        outcome = Outcome(
            winner=judged[0] if judged is not None and deployed else self.incumbent,
            challenger=judged[0] if judged is not None else challenger,
            deployed=deployed,
            reason=reason,
            comparison=judged[1] if judged is not None else None,
            individuals=len(self._finished()),
            generations=self.generations,
            cpu_s=time.process_time() - self._began_s,
        )
        fitness = None if judged is None else self._measured(judged[0])
        with self.store.transaction():
            if judged is not None:
                numbers = judged[1].as_numbers()
                self._record(judged[0], fitness, "evolved", numbers, reason, deployed=deployed)
            self.on_outcome(outcome)
        return outcome

    # -- what is known ----------------------------------------------------------------------

    def best(self) -> Fitness | None:
        """The fitness of the fastest individual so far."""
        known = [Fitness(**trial.user_attrs[FITNESS]) for trial in self._finished()]
        return min(known, key=lambda fitness: fitness.regret, default=None)

    def par(self) -> Fitness | None:
        """The fitness of the incumbent, once it was measured."""
        return self._measured(self.incumbent)

    @property
    def individuals(self) -> int:
        """Finished ones of the study, by all processes."""
        return len(self._finished())

    @property
    def generations(self) -> int:
        """How many generations of the study are full."""
        return self.individuals // self.settings.population

    def _finished(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def _origin(self, trial: optuna.Trial) -> str:
        return str(trial.user_attrs.get(ORIGIN, "evolved"))

    def _mutant(self, rng: np.random.Generator) -> Genome:
        """The incumbent with some genes drawn anew inside their bounds."""
        drawn = {}
        for name, (low, high) in self.settings.bounds.items():
            share = rng.random()
            if rng.random() < FIRST_MUTATION:
                spread_over_decades = BY_NAME[name].kind.startswith("log")
                value = (
                    low * (high / low) ** share
                    if spread_over_decades
                    else low + share * (high - low)
                )
                drawn[name] = float(round(value)) if BY_NAME[name].whole else value
        return self._genome(drawn)

    def _genes_within(self, genome: Genome) -> dict[str, float]:
        """The varied genes, drawn inside the bounds."""
        return {
            name: type(dist.low)(min(max(genome.values[name], dist.low), dist.high))
            for name, dist in self._distributions.items()
            if isinstance(dist, (FloatDistribution, IntDistribution))
        }

    def _genome(self, varied: Mapping[str, float]) -> Genome:
        """The incumbent with these genes."""
        return Genome({**self.incumbent.values, **{n: float(v) for n, v in varied.items()}})

    def _record(
        self,
        genome: Genome,
        fitness: Fitness | None,
        origin: str,
        comparison: Mapping[str, float],
        reason: str,
        *,
        deployed: bool = False,
    ) -> None:
        self.store.add_genome(
            GenomeRecord(
                at=datetime.now(timezone.utc),
                study=self.name,
                generation=self.generations,
                origin=origin,
                genes=genome.values,
                fitness=fitness.as_numbers() if fitness is not None else {},
                profile=self.curriculum.profile,
                comparison=comparison,
                deployed=deployed,
                reason=reason,
            )
        )


def _distribution(name: str, low: float, high: float) -> BaseDistribution:
    kind = BY_NAME[name].kind
    if BY_NAME[name].whole:
        return IntDistribution(round(low), round(high), log=kind == "log integer")
    return FloatDistribution(low, high, log=kind == "log")
