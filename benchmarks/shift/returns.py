"""Records of what was tried in each phase, and how far a return is from what was known.

A *phase* is a stretch of one workload; a *return* is a phase of a workload that an earlier phase
of the same run had. Pure arithmetic: nothing here knows a server or a tuner.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from backend.domain.knobs import KnobConfig, KnobValue
from benchmarks.results_file import append_line, keep_options, results_in

AFTER = (1, 2, 5)
"""Trials after which a return is looked at."""
TOLERANCE = math.log(1.05)
"""Log ratio up to which a configuration counts as as good as the best known one."""
MOST = math.log(10.0)
"""A log ratio counts as this much at the most: one cliff must not be the whole mean."""
FIRST_ASKED = ("best", "here", "elsewhere", "new")
"""What the first configuration asked on a return was: the best one known, another one tried in
this workload, one tried in other workloads only, or one never tried."""


@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        config: what was tried, as it was told to the tuner.
        asked_in: the state given to ``ask``; empty for what was told without having been asked.
        objective: latency index told, 1 is the default configuration in this workload; the lower
            bound where ``censored``; None where the trial ended without a number.
        state, quality, censored: as told.
        index: noise-free latency index, known on simulated servers only.
    """

    config: Mapping[str, KnobValue]
    asked_in: Sequence[float]
    objective: float | None
    state: Sequence[float] = ()
    quality: float = 1.0
    censored: bool = False
    index: float | None = None

    @property
    def value(self) -> float:
        """What stands for it in comparisons: the noise-free index, else what was told.

        Infinite where there is neither. Of a censored trial it is only a lower bound.
        """
        if self.index is not None:
            return self.index
        return math.inf if self.objective is None else self.objective


@dataclass(frozen=True)
class Phase:
    """One phase of a run.

    Attributes:
        method, seed: which run.
        number: of the phase in the run, from 0.
        workload: its name.
        trials: in order.
        default: the default configuration, measured and told before them on the first visit.
        best_index: noise-free index of the best configuration there is (simulated servers).
        compared: after a return's trials: ln(index of the best of the first k / index of the
            best known before), measured interleaved, by k; where there is no noise-free index.
        reference: per query class its call share and mean time in ms, taken on the first visit.
        standing: the configuration that stood on the server at the end.
    """

    method: str
    seed: int
    number: int
    workload: str
    trials: Sequence[Tried]
    default: Tried | None = None
    best_index: float | None = None
    compared: Mapping[int, float] = field(default_factory=dict)
    reference: Mapping[str, Sequence[float]] | None = None
    standing: Mapping[str, KnobValue] = field(default_factory=dict)

    @property
    def measured(self) -> tuple[Tried, ...]:
        """The trials, on the first visit after the default configuration."""
        return (*([] if self.default is None else [self.default]), *self.trials)

    @classmethod
    def of_fields(cls, raw: dict[str, Any]) -> Phase:
        """The phase behind what JSON made of its fields.

        Raises:
            ValueError: there is none.
        """
        try:
            raw["trials"] = tuple(Tried(**trial) for trial in raw["trials"])
            raw["default"] = None if raw["default"] is None else Tried(**raw["default"])
            raw["compared"] = {int(k): float(v) for k, v in raw["compared"].items()}
            return cls(**raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a phase: {raw!s:.80}") from error


@dataclass(frozen=True)
class Return:
    """How a run did when a workload came back.

    Attributes:
        method, seed, phase, workload: which one.
        log_ratios: ln(value of the best of the first k trials / value of the best configuration
            known before), by k.
        first: one of ``FIRST_ASKED``.
        of_tried: as ``log_ratios[1]``, but against the best configuration that was tried before,
            known to be the best or not: a single noisy measurement may hide it.
        known_gain, first_gain: share of the reachable gain of the best known configuration and
            of the first one asked (0: the default, 1: the best there is); None where the best
            there is is not known.
        again: share of the trials after the first one that tried what the run had tried before.
    """

    method: str
    seed: int
    phase: int
    workload: str
    log_ratios: Mapping[int, float]
    first: str
    of_tried: float
    known_gain: float | None = None
    first_gain: float | None = None
    again: float = 0.0

    def within(self, after: int) -> bool:
        """Whether the best of the first ``after`` trials is as good as the best known."""
        return self.log_ratios[after] <= TOLERANCE


@dataclass(frozen=True)
class Row:
    """One method's line of the table.

    Attributes:
        returns: how many there were.
        excess: geometric mean of the ratio less 1, over all returns, by number of trials.
        spread: standard deviation over the runs of a run's own mean log ratio, by number of
            trials; 0 where there is one run.
        within: share of the returns within 5 %, by number of trials.
        within_tried: share whose first configuration is within 5 % of the best tried before.
        first: how often the first configuration asked was what, in the order of FIRST_ASKED.
        known_gain, first_gain: medians of :class:`Return`'s: one cliff must not be all of it.
        again: mean of :class:`Return`'s.
    """

    method: str
    returns: int
    excess: Mapping[int, float]
    spread: Mapping[int, float]
    within: Mapping[int, float]
    within_tried: float
    first: Sequence[int]
    known_gain: float | None
    first_gain: float | None
    again: float


class Memory:
    """What earlier phases tell about one workload."""

    def __init__(self, phases: Iterable[Phase], workload: str) -> None:
        self._objectives: dict[KnobConfig, list[float]] = {}
        self._values: dict[KnobConfig, float] = {}
        for phase in phases:
            for trial in phase.measured if phase.workload == workload else ():
                config = KnobConfig(trial.config)
                self._objectives.setdefault(config, [])
                if trial.objective is not None and not trial.censored:
                    self._objectives[config].append(trial.objective)
                self._values[config] = min(trial.value, self._values.get(config, math.inf))

    def __contains__(self, config: KnobConfig) -> bool:
        return config in self._values

    @property
    def best_known(self) -> KnobConfig | None:
        """The configuration with the lowest mean of what was measured; None without any."""
        means = {config: fmean(found) for config, found in self._objectives.items() if found}
        return min(means, key=means.__getitem__, default=None)

    @property
    def best_value(self) -> float:
        """The lowest value of all that were tried."""
        return min(self._values.values())

    def value_of(self, config: KnobConfig) -> float:
        """The value of a configuration that was tried."""
        return self._values[config]


def returns_of(run: Sequence[Phase]) -> list[Return]:
    """The returns of one run (one method, one seed)."""
    phases = sorted(run, key=lambda phase: phase.number)
    found = []
    for number, phase in enumerate(phases):
        memory = Memory(phases[:number], phase.workload)
        known = memory.best_known
        if known is not None and phase.trials:
            found.append(_return(phase, phases[:number], memory, known))
    return found


def _return(phase: Phase, earlier: Sequence[Phase], memory: Memory, known: KnobConfig) -> Return:
    best = memory.value_of(known)
    values = [trial.value for trial in phase.trials]
    log_ratios = {k: _log_ratio(min(values[:k]), best) for k in AFTER}
    known_gain = first_gain = None
    if phase.best_index is not None and phase.best_index < 1.0:
        known_gain = (1.0 - best) / (1.0 - phase.best_index)
        first_gain = (1.0 - values[0]) / (1.0 - phase.best_index)
    first = KnobConfig(phase.trials[0].config)
    return Return(
        phase.method,
        phase.seed,
        phase.number,
        phase.workload,
        {**log_ratios, **phase.compared},
        _kind(first, earlier, memory, known),
        _log_ratio(values[0], memory.best_value),
        known_gain,
        first_gain,
        _again(phase, earlier),
    )


def _again(phase: Phase, earlier: Sequence[Phase]) -> float:
    tried = {KnobConfig(trial.config) for before in earlier for trial in before.measured}
    repeated = 0
    for number, trial in enumerate(phase.trials):
        config = KnobConfig(trial.config)
        repeated += number > 0 and config in tried
        tried.add(config)
    return repeated / max(len(phase.trials) - 1, 1)


def _log_ratio(value: float, best: float) -> float:
    return min(math.log(value / best), MOST)


def _kind(config: KnobConfig, earlier: Sequence[Phase], memory: Memory, known: KnobConfig) -> str:
    if config == known:
        return "best"
    if config in memory:
        return "here"
    others = {phase.workload for phase in earlier}
    return "elsewhere" if any(config in Memory(earlier, name) for name in others) else "new"


def row_of(method: str, returns: Sequence[Return]) -> Row:
    """Sum up one method's returns, of any number of runs.

    Raises:
        ValueError: there is none.
    """
    if not returns:
        raise ValueError(f"{method} has no return to sum up")
    seeds = sorted({one.seed for one in returns})

    def spread(after: int) -> float:
        means = [fmean(r.log_ratios[after] for r in returns if r.seed == seed) for seed in seeds]
        return stdev(means) if len(means) > 1 else 0.0

    return Row(
        method,
        len(returns),
        {k: math.expm1(fmean(r.log_ratios[k] for r in returns)) for k in AFTER},
        {k: spread(k) for k in AFTER},
        {k: fmean(r.within(k) for r in returns) for k in AFTER},
        fmean(r.of_tried <= TOLERANCE for r in returns),
        [sum(r.first == kind for r in returns) for kind in FIRST_ASKED],
        _median([r.known_gain for r in returns]),
        _median([r.first_gain for r in returns]),
        fmean(r.again for r in returns),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


class PhaseFile:
    """Phases as JSON lines, appended as they end; a line cut off by a crash is left out.

    Args:
        path: the file; None keeps them in memory only.
        options: what the runs depend on besides method and seed; None: only to be read.

    Raises:
        ConfigError: the file's runs were made with other options.
        ValueError: the file holds something else.
    """

    def __init__(self, path: Path | None, options: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._phases: list[Phase] = []
        if path is not None:
            if options is not None:
                keep_options(path, options)
            self._phases = [Phase.of_fields(fields) for fields in results_in(path)]

    def add(self, phases: Sequence[Phase]) -> None:
        """Keep phases, durable enough to go on from after a crash of this program."""
        self._phases.extend(phases)
        if self._path is not None:
            append_line(self._path, "\n".join(json.dumps(asdict(phase)) for phase in phases))

    def run(self, method: str, seed: int) -> list[Phase]:
        """The phases of one run so far, in order."""
        found = [p for p in self._phases if (p.method, p.seed) == (method, seed)]
        return sorted(found, key=lambda phase: phase.number)
