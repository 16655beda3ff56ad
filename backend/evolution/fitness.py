"""The fitness of a genome: what its learning runs came to, and its comparison with another one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from backend.evolution.genome import Genome
from backend.evolution.learning_run import WINDOWS, LearningRun, learn
from backend.evolution.problems import Problem
from backend.gate import Interval, t_interval

OBJECTIVES = ("regret", "instability", "cpu_s")
"""What NSGA-II minimises: speed, stability, resources."""
HARMFUL_MARGIN = 0.05
"""By how much the share of harmful proposals may grow with a genome that is faster."""
ALPHA = 0.025
"""Chance that a side of the comparison's interval misses."""


@dataclass(frozen=True)
class Fitness:
    """Means over learning runs; see :class:`LearningRun`.

    Args:
        spread: standard deviation of the regret over the seeds of a problem, averaged.
        memory_bytes: the most of any run.
    """

    trials_to_95: float
    regret: float
    spread: float
    harmful: float
    cpu_s: float
    memory_bytes: float

    @classmethod
    def of(cls, runs: Sequence[LearningRun]) -> Fitness:
        """The fitness that these runs show.

        Raises:
            ValueError: there are none.
        """
        if not runs:
            raise ValueError("a fitness needs at least one run")
        by_problem: dict[str, list[float]] = {}
        for run in runs:
            by_problem.setdefault(run.problem, []).append(run.regret)
        spreads = [stdev(values) for values in by_problem.values() if len(values) > 1]
        return cls(
            trials_to_95=fmean(run.trials_to_95 for run in runs),
            regret=fmean(run.regret for run in runs),
            spread=fmean(spreads) if spreads else 0.0,
            harmful=fmean(run.harmful for run in runs),
            cpu_s=fmean(run.cpu_s for run in runs),
            memory_bytes=max(run.memory_bytes for run in runs),
        )

    @property
    def instability(self) -> float:
        """Spread over seeds and share of harmful proposals together."""
        return self.spread + self.harmful

    @property
    def objectives(self) -> tuple[float, ...]:
        """The numbers of :data:`OBJECTIVES`."""
        return tuple(float(getattr(self, name)) for name in OBJECTIVES)

    def as_numbers(self) -> dict[str, float]:
        """As it is recorded."""
        return dict(vars(self))


def runs_of(
    genome: Genome,
    problems: Sequence[Problem],
    seeds: Iterable[int],
    windows: int = WINDOWS,
    on_trial: Callable[[], None] = lambda: None,
) -> Iterator[LearningRun]:
    """Every problem with the first seed, then with the next: a part of them is balanced."""
    for seed in seeds:
        for problem in problems:
            yield learn(problem, genome, seed, windows, on_trial)


@dataclass(frozen=True)
class Comparison:
    """A challenger against the incumbent, paired by problem and seed.

    Args:
        trials: relative change of the trials to 95 % of the gain (-0.2: a fifth fewer).
        regret: mean change of the regret.
        harmful: change of the share of harmful proposals.
        pairs: how many.
    """

    trials: Interval
    regret: float
    harmful: float
    pairs: int

    @classmethod
    def of(
        cls,
        challenger: Sequence[LearningRun],
        incumbent: Sequence[LearningRun],
        alpha: float = ALPHA,
    ) -> Comparison:
        """Compare the runs that both have of the same problem and seed.

        Args:
            challenger, incumbent: their runs.
            alpha: chance that a side of the interval misses.

        Raises:
            ValueError: there are fewer than two such pairs.
        """
        stands = {(run.problem, run.seed): run for run in incumbent}
        pairs = [
            (run, stands[run.problem, run.seed])
            for run in challenger
            if (run.problem, run.seed) in stands
        ]
        # Half a trial is added: what a first probe reaches takes no whole one.
        ratios = [
            math.log((new.trials_to_95 + 0.5) / (old.trials_to_95 + 0.5)) for new, old in pairs
        ]
        return cls(
            trials=t_interval(ratios, alpha),
            regret=fmean(new.regret - old.regret for new, old in pairs),
            harmful=fmean(new.harmful - old.harmful for new, old in pairs),
            pairs=len(pairs),
        )

    @property
    def wins(self) -> bool:
        """Whether the challenger may be deployed."""
        return not self.objections

    @property
    def objections(self) -> tuple[str, ...]:
        """What speaks against deploying it, for people."""
        found = []
        if not self.trials.high < 0:
            found.append(
                f"its trials to 95 % of the gain change by {self.trials}, and the interval must "
                "stay below 0"
            )
        if not self.regret <= 0:
            found.append(f"it misses {self.regret:.1%} more of the gain on average")
        if not self.harmful <= HARMFUL_MARGIN:
            found.append(
                f"harmful proposals grow by {self.harmful:.1%} of all, above {HARMFUL_MARGIN:.0%}"
            )
        return tuple(found)

    def as_numbers(self) -> Mapping[str, float]:
        """As it is recorded: ``gain`` is the share of the trials that is saved."""
        return {
            "gain": -self.trials.effect,
            "low": -self.trials.high,
            "high": -self.trials.low,
            "regret": self.regret,
            "harmful": self.harmful,
            "pairs": float(self.pairs),
        }
