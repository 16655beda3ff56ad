"""Everything that is served, run side by side on statements that nobody has seen.

A block has fresh statements of a class. Each statement runs once to fill the caches; then it runs
under every configuration's hint set in an order by lot, again and again where it is short. Where
two configurations serve a class the same hint set, one measurement is both's. The default plan
takes part twice: what the second one shows is noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy import stats

from backend.domain.plans import DEFAULT_HINT_SET
from benchmarks.harness.ratio import Ratio
from benchmarks.live_steering.bench import Bench, repeats_for, typical_s

STATEMENTS_A_BLOCK = 2
ROUNDS = 2
TIMEOUT_FACTOR = 20.0
TIMEOUT_SLACK_S = 1.0
DEFAULT, AGAIN, OPTIMUM = "default", "default again", "optimum"
CONFIDENCE = 0.95

Blocks = Mapping[str, Sequence[Mapping[str, float]]]
"""Class → for each block the seconds under each configuration."""


def compare_block(bench: Bench, name: str, block: int, served: Mapping[str, str]) -> dict[str, Any]:
    """Measure a block of a class.

    Args:
        bench: the server.
        name: the class.
        block: its number.
        served: configuration → name of the hint set that it serves the class; without the default.

    Returns:
        ``seconds`` of each configuration over the block's statements, those that were ``stopped``
        by a time-out, and those that gave an ``other`` answer than the default plan.
    """
    rng = np.random.default_rng([bench.seed, block])
    distinct = sorted({*served.values()} - {DEFAULT_HINT_SET.name})
    hint_sets = [DEFAULT_HINT_SET, DEFAULT_HINT_SET, *map(bench.hint_set, distinct)]
    place = {hint_set: 2 + number for number, hint_set in enumerate(distinct)}
    place[DEFAULT_HINT_SET.name] = 0
    of = {DEFAULT: 0, AGAIN: 1, **{one: place[hint_set] for one, hint_set in served.items()}}
    seconds = dict.fromkeys(of, 0.0)
    stopped: set[str] = set()
    other: set[str] = set()
    for number in range(STATEMENTS_A_BLOCK):
        verdict = bench.verdict(name, "fresh", block * STATEMENTS_A_BLOCK + number)
        default_s = bench.default_s(verdict)
        runs = bench.measured(
            verdict,
            hint_sets,
            TIMEOUT_FACTOR * default_s + TIMEOUT_SLACK_S,
            max(ROUNDS, repeats_for(default_s)),
            rng,
        )
        for configuration, index in of.items():
            typical, is_bound = typical_s(runs[index])
            seconds[configuration] += typical
            if is_bound:
                stopped.add(configuration)
            elif not runs[index][0].same_answer(runs[0][0]):
                other.add(configuration)
    return {"seconds": seconds, "stopped": sorted(stopped), "other": sorted(other)}


@dataclass(frozen=True)
class ClassRatio:
    """A configuration over the default plan in one class.

    ``low`` and ``high`` are one-sided bounds that hold for all classes together; ``value`` is the
    geometric mean over the blocks. Where the default plan is served, all three are 1.
    """

    name: str
    hint_set: str
    default_s: float
    value: float
    low: float
    high: float


def class_ratios(blocks: Blocks, configuration: str, served: Mapping[str, str]) -> list[ClassRatio]:
    """One entry a class, the dearest first.

    The bounds are those of Student's t, each at a level of 0.05 over the number of classes that
    are steered (Bonferroni): all of them hold at 95 %.

    Args:
        blocks: what was measured.
        configuration: its name.
        served: class → hint set that it serves.
    """
    steered = sum(served[name] != DEFAULT_HINT_SET.name for name in blocks)
    made = []
    for name, of_class in blocks.items():
        default_s = fmean(block[DEFAULT] for block in of_class) / STATEMENTS_A_BLOCK
        value = low = high = 1.0
        if served[name] != DEFAULT_HINT_SET.name:
            logs = [math.log(block[configuration] / block[DEFAULT]) for block in of_class]
            value, half = math.exp(fmean(logs)), math.inf
            if len(logs) > 1:
                level = 1.0 - (1.0 - CONFIDENCE) / steered
                half = float(stats.t.ppf(level, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
            low, high = value * math.exp(-half), value * math.exp(half)
        made.append(ClassRatio(name, served[name], default_s, value, low, high))
    return sorted(made, key=lambda ratio: -ratio.default_s)


@dataclass(frozen=True)
class Total:
    """All classes together, each executed equally often.

    Args:
        seconds: mean time of one execution of each class.
        ratio: to the default plan's, with its 95 % interval over the blocks.
        reached: share of what the optimum saves; None where that is nothing.
    """

    configuration: str
    seconds: float
    ratio: Ratio
    reached: float | None


def total_of(blocks: Blocks, configuration: str) -> Total:
    """Add the classes up."""
    count = min(len(of_class) for of_class in blocks.values())

    def seconds(one: str, block: int) -> float:
        return sum(of_class[block][one] for of_class in blocks.values()) / STATEMENTS_A_BLOCK

    def mean_s(one: str) -> float:
        return fmean(seconds(one, block) for block in range(count))

    logs = [math.log(seconds(configuration, b) / seconds(DEFAULT, b)) for b in range(count)]
    reachable_s = mean_s(DEFAULT) - mean_s(OPTIMUM)
    saved_s = mean_s(DEFAULT) - mean_s(configuration)
    reached = saved_s / reachable_s if reachable_s > 0.0 else None
    return Total(configuration, mean_s(configuration), Ratio.of(configuration, logs), reached)
