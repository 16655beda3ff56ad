"""What a question to the knob agent costs: ``python -m benchmarks.knob_agent_cost``.

A made-up space of knobs of all kinds and a linear objective. Reported is the processor time of one
ask and one tell (with its learning) after so many samples, on one core.
"""

from __future__ import annotations

import time
from statistics import fmean, median
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from backend.domain.knobs import Knob, KnobSpace
from backend.rl_agent import KnobAgent

MEASURED = 20
"""Asks and tells that are timed, up to the number of samples and as many beyond it."""


def knob_of_a_kind(number: int) -> Knob:
    """The knob of this number: a switch, a choice, a size, a share and a small count in turn."""
    name = f"knob_{number}"
    return (
        Knob(name, "boolean", default=False),
        Knob(name, "categorical", choices=("a", "b", "c"), default="a"),
        Knob(name, "integer", 1, 10**6, "log", default=100),
        Knob(name, "real", 0.0, 1.0, default=0.5),
        Knob(name, "integer", 0, 20, default=3),
    )[number % 5]


def times_s(knobs: int, samples: int, seed: int) -> list[tuple[float, float]]:
    """Seconds of (ask, tell) around so many samples, the newest last."""
    space = KnobSpace([knob_of_a_kind(number) for number in range(knobs)])
    agent = KnobAgent(space, seed=seed)
    weights = np.random.default_rng(seed).normal(size=space.width)
    taken = []
    for _ in track(range(samples + MEASURED // 2), f"{samples} samples of {knobs} knobs"):
        began_s = time.process_time()
        config = agent.ask()
        asked_s = time.process_time() - began_s
        objective = float(weights @ space.encode(config))
        began_s = time.process_time()
        agent.tell(config, objective)
        taken.append((asked_s, time.process_time() - began_s))
    return taken[-MEASURED:]


def main(
    knobs: Annotated[int, typer.Option(help="Knobs of the space.", min=1)] = 100,
    samples: Annotated[int, typer.Option(help="Samples told before.", min=MEASURED)] = 200,
    seeds: Annotated[int, typer.Option(help="Runs.", min=1)] = 3,
) -> None:
    """Print the processor time of an ask and a tell."""
    table = Table(title=f"{knobs} knobs, {samples} samples, {MEASURED} asks and tells a run (ms)")
    for column in ("seed", "ask, mean", "tell, mean", "together: mean", "median", "longest"):
        table.add_column(column, justify="right")
    for seed in range(seeds):
        taken = np.array(times_s(knobs, samples, seed)) * 1000
        both = taken.sum(axis=1)
        figures = (*taken.mean(axis=0), fmean(both), median(both), max(both))
        table.add_row(str(seed), *(f"{figure:.0f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
