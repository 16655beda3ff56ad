"""What of a results file is missing, and doing it, cell by cell, as far as the time allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.harness.command_line import TimeLimit
from benchmarks.harness.server import Say
from benchmarks.live import methods
from benchmarks.live.comparison import arrivals_of, compare
from benchmarks.live.records import Pace, Part, Protocol, Results
from benchmarks.live.server import LiveServer
from benchmarks.live.tuning import BASELINE_WINDOWS, MethodRun

WINDOW_OVERHEAD_S = 3.0
"""Settling and reading back of a window, to tell beforehand how long something takes."""
FRESH_S = 10.0
"""Copying the data."""
COMPARISON = "comparison"


@dataclass(frozen=True)
class Course:
    """Does what is not done yet.

    Args:
        live: the running server.
        protocol: the rules.
        results: what is done, and where it is written.
        problem: what tuners are made for.
        blocks: of each comparison.
        pace: of each comparison.
        limit: nothing is begun that would pass it.
        say: tells people what goes on.
    """

    live: LiveServer
    protocol: Protocol
    results: Results
    problem: methods.Problem
    blocks: int
    pace: Pace
    limit: TimeLimit
    say: Say

    def run(self, names: Sequence[str], seeds: Sequence[int]) -> None:
        """Do the methods' parts and then the comparison of each seed, while there is time."""
        for seed in seeds:
            for step in self._missing(names, seed):
                compared = len(self._parts(names, seed).keys() | set(names))
                if not self.limit.allows(self._expected_s(step, compared)):
                    left = "; ".join(self._remaining(names, seeds))
                    self.say(f"not begun, for it would end too late: {left}")
                    return
                self._do(step, names, seed)

    def _missing(self, names: Sequence[str], seed: int) -> Iterator[str]:
        """The methods of a cell that are not done, then its comparison unless it is up to date."""
        workload = self.live.workload.name
        for name in names:
            if (workload, seed, name) not in self.results.parts:
                yield name
        compared = self.results.comparisons.get((workload, seed))
        parts = self._parts(names, seed)
        if (
            compared is None
            or not parts.keys() >= set(names)
            or not compared.covers(parts, self.blocks, self.pace)
            or compared.arrivals != arrivals_of(seed)
        ):
            yield COMPARISON

    def _parts(self, names: Sequence[str], seed: int) -> dict[str, Part]:
        """All that the file holds of a cell, named now or before: one comparison is of all."""
        known = dict.fromkeys((*names, *methods.NAMES))
        keys = {name: (self.live.workload.name, seed, name) for name in known}
        return {n: self.results.parts[k] for n, k in keys.items() if k in self.results.parts}

    def _remaining(self, names: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
        for seed in seeds:
            if missing := list(self._missing(names, seed)):
                yield f"{self.live.workload.name}, seed {seed}: {', '.join(missing)}"

    def _expected_s(self, step: str, methods_compared: int) -> float:
        """About how long a step takes."""
        if step == methods.DEFAULTS:
            return 0.0
        if step in methods.FIXED:
            return FRESH_S
        window_s = self.protocol.window_s + WINDOW_OVERHEAD_S
        stage_s = FRESH_S + self.protocol.warm_up_s + BASELINE_WINDOWS * window_s
        if step == COMPARISON:
            turn_s = (self.pace.window_s or self.protocol.window_s) + (
                WINDOW_OVERHEAD_S if self.pace.settle_s is None else self.pace.settle_s
            )
            return stage_s + self.blocks * methods_compared * turn_s
        return stage_s + 60.0 * self.protocol.minutes + window_s

    def _do(self, step: str, names: Sequence[str], seed: int) -> None:
        about = f"{self.live.workload.name}, seed {seed}"
        if step == COMPARISON:
            parts = self._parts(names, seed)
            self.say(f"{about}: comparison of {', '.join(parts)}")
            self.results.add_comparison(
                compare(self.live, seed, parts, self.blocks, self.protocol, self.say, self.pace)
            )
            return
        self.say(f"{about}: {step}")
        run = MethodRun(self.live, step, seed, self.protocol, self.results, self.say)
        fixed = step in methods.FIXED
        part = run.fixed() if fixed else run.tuned(methods.make(step, seed, self.problem))
        run.finish(replace(part, agent=methods.agent_digest(step, self.problem)))


def expected_trials(protocol: Protocol) -> int:
    """About how many trials fit into a method's time: two windows each."""
    trial_s = 2 * (protocol.window_s + WINDOW_OVERHEAD_S)
    return max(1, int(protocol.minutes * 60 / trial_s))
