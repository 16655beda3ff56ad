"""How to evolve, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.evolution.fitness import Comparison
from backend.evolution.genome import Genome


@dataclass(frozen=True)
class EvolutionSettings:
    """How to evolve; see section ``level2`` of the settings.

    Args:
        population: individuals a generation.
        mutation, crossover: chances that a gene mutates, and that two parents are crossed.
        bounds: lowest and highest value by gene.
        seed: of the evolution; what happens also depends on how many individuals there are.
    """

    population: int
    mutation: float
    crossover: float
    bounds: Mapping[str, tuple[float, float]]
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of an evolution.

    Args:
        winner: the genome that stands now.
        challenger: the best one that was found; None where none beats the one that stood.
        deployed: whether it is another one than before.
        reason: for people.
        comparison: None where there was no challenger, or no time to judge it.
        individuals, generations: in the study.
        cpu_s: processor time of this process's share.
    """

    winner: Genome
    challenger: Genome | None
    deployed: bool
    reason: str
    comparison: Comparison | None
    individuals: int
    generations: int
    cpu_s: float

    def summary(self) -> list[str]:
        """The result in plain lines."""
        lines = [
            f"{self.individuals} genomes in {self.generations} generations, "
            f"{self.cpu_s / 60:.1f} minutes of processor time in this process"
        ]
        if self.comparison is not None:
            lines.append(
                f"The best against the one that stands, on {self.comparison.pairs} pairs of runs "
                f"that the evolution never saw: trials to 95 % of the gain "
                f"{self.comparison.trials}, missing gain {self.comparison.regret:+.1%}, "
                f"harmful proposals {self.comparison.harmful:+.1%}"
            )
        lines.append(
            "Deployed: taken up before the next trial; run.py evolve --back undoes that"
            if self.deployed
            else f"Not deployed: {self.reason}"
        )
        return lines
