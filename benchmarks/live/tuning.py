"""One method's time on the server: ask, try, tell, until its wall clock has run out.

Windows of the defaults and of candidates take turns. A candidate's objective is its latency index
against the windows of the defaults just before and just after it, with the call shares of the
run's baseline: the pairing of the product's probes, each window of the defaults serving two of
them. A drift of the machine or of the data falls out of it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from backend.domain.knobs import KnobConfig, KnobValue
from backend.errors import AutopilotError, KnobError, MemoryBudgetError, WorkloadError
from backend.protocols import AskTellAgent
from backend.sample_filter import Reference
from benchmarks.harness.load import OfferedLoad
from benchmarks.harness.offers import LoadCounts
from benchmarks.harness.server import Say
from benchmarks.harness.windows import Measured, Meter, ratio_to
from benchmarks.live import methods
from benchmarks.live.arithmetic import is_harmful, regret_so_far
from benchmarks.live.outcomes import (
    CENSORED_FROM,
    Outcome,
    Tried,
    as_whole,
    best_measured,
    judge,
    lowest_measured,
    next_to_confirm,
)
from benchmarks.live.pgtune import advice
from benchmarks.live.records import AS_TRIALS, Evaluation, Pace, Part, Protocol, Results
from benchmarks.live.server import LiveServer

BASELINE_WINDOWS = 3
RESTART_SETTLE_S = 10.0
"""After a restart caches are cold; as in the product."""
CONFIRM_SHARE = 0.2
"""Ours spends this share of its time on measuring again what came out best."""
CONFIRMED = 6
"""So many configurations are measured again."""
MAX_REFUSED = 50
"""Proposals in a row that cannot be tried at all; then the tuner is given up."""


@dataclass(frozen=True)
class Fitted:
    """A proposal as it may be tried: complete, inside the memory budget."""

    config: KnobConfig
    clamped: bool


class Stage:
    """The running load on fresh data, its baseline, and the means to try configurations.

    ``overrun`` says that the defaults cannot serve what is offered: arrivals pile up under them
    too, so nothing waits for a pile to be worked off.

    Args:
        live: the server, fresh.
        load: the clients.
        protocol: the rules.
        settle_s: not measured after a switch; None: what the product would wait.
    """

    def __init__(
        self,
        live: LiveServer,
        load: OfferedLoad,
        protocol: Protocol,
        settle_s: float | None = None,
    ) -> None:
        self.live, self._load, self._settle_s = live, load, settle_s
        self._meter = Meter(live.collector(), load, live.clock, protocol.window_s)
        first = [self._meter.measure(protocol.warm_up_s, work_off=True)]
        first += [self._meter.measure(0.0, work_off=True) for _ in range(BASELINE_WINDOWS - 1)]
        self.shares = Reference.from_windows([m.window for m in first])
        self.defaults = first[-1]
        if not self.shares.per_class:
            raise WorkloadError(
                "no statement ran often enough in the baseline",
                remedy="a longer --window or a higher --rate",
            )
        self.overrun = all(m.backlog for m in first)

    def counts(self) -> LoadCounts:
        """What the clients have counted so far."""
        return self._load.counts()

    def measure(self, changes: Mapping[str, KnobValue]) -> Measured:
        """Switch to a configuration and take a window, earlier piles worked off first.

        Raises:
            ServerError, AdjustmentError: it could not be measured.
        """
        return self._meter.measure(self._switch(changes), work_off=not self.overrun)

    def try_out(self, config: KnobConfig) -> Outcome:
        """Measure a configuration between two windows of the defaults."""
        live, before = self.live, self.defaults
        counts = self._load.counts()
        candidate, crash = None, ""
        try:
            settle_s = self._switch(changes_of(live, config))
            candidate = self._meter.measure(settle_s, work_off=False)
        except WorkloadError:
            raise
        except AutopilotError as error:
            crash = error.message
            live.recover()
        self.defaults = after = self.measure({})
        # Those that began under the candidate have ended, one way or the other, by now.
        timeouts = after.before.timeouts - counts.timeouts
        outcome = judge(candidate, [before, after], self.shares, timeouts, crash)
        moved = ratio_to(after, [before], self.shares)
        return replace(outcome, drift=moved[0] if moved else None)

    def _switch(self, changes: Mapping[str, KnobValue]) -> float:
        """Apply; how long to settle. The way back takes as long as the way there."""
        live = self.live
        settle_s = self._settle_s
        if settle_s is None:
            settle_s = live.settle_s({**live.entries, **changes})
        return max(settle_s, RESTART_SETTLE_S) if live.apply(changes) else settle_s


def changes_of(live: LiveServer, config: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    """What a configuration changes in the defaults."""
    return {n: v for n, v in config.items() if v != live.standing.get(n)}


def fit(live: LiveServer, proposal: Mapping[str, KnobValue]) -> Fitted:
    """Complete a proposal and shrink it into the memory budget, alike for every method.

    Raises:
        KnobError: an unknown knob, a value out of bounds, or too much memory even when shrunk.
    """
    wanted = live.defaults.replace(live.space.validate(proposal))
    clamped = live.budget.clamp(wanted)
    live.budget.check(clamped)
    return Fitted(clamped, clamped != wanted)


@contextmanager
def stage(
    live: LiveServer, seed: int, protocol: Protocol, pace: Pace = AS_TRIALS
) -> Iterator[Stage]:
    """Fresh data, defaults, the seed's load, and a baseline; the load ends with it."""
    live.fresh()
    workload = live.workload
    if pace.window_s is not None:
        protocol = replace(protocol, window_s=pace.window_s)
        workload = workload.repeating(pace.window_s)
    offer = workload.offer(live.server, seed)
    with OfferedLoad(live.server.dsn(), offer) as load:
        yield Stage(live, load, protocol, pace.settle_s)


class MethodRun:
    """A method's part of a cell.

    Args:
        live: the server.
        name: the method.
        seed: of arrivals and tuner.
        protocol: the rules.
        results: where trials are written.
        say: tells people what goes on.
    """

    def __init__(
        self,
        live: LiveServer,
        name: str,
        seed: int,
        protocol: Protocol,
        results: Results,
        say: Say,
    ) -> None:
        self._live, self._name, self._seed = live, name, seed
        self._protocol, self._results, self._say = protocol, results, say
        self._run = uuid.uuid4().hex
        self._evaluations: list[Evaluation] = []
        self._tried: list[tuple[KnobConfig, Outcome]] = []
        self._refused = self._clamped = 0
        self._overrun = False
        live.forget()

    def fixed(self) -> Part:
        """A method that knows its configuration beforehand."""
        live = self._live
        if self._name == methods.DEFAULTS:
            return self._part({}, None, {})
        live.fresh()
        found = advice(
            live.workload.name,
            live.host,
            live.catalog,
            allow_restart=self._protocol.allow_restart,
            offered_choices=live.choices(),
        )
        known = {n: v for n, v in found.values.items() if n in live.standing}
        shrunk = live.budget.clamp(known)
        self._clamped = int(shrunk != known)
        return self._part(changes_of(live, shrunk), None, found.omitted)

    def tuned(self, tuner: AskTellAgent) -> Part:
        """A tuner's wall clock, from the end of the baseline on."""
        live = self._live
        with stage(live, self._seed, self._protocol) as running:
            self._overrun = running.overrun
            if running.overrun:
                self._say("the defaults are overrun by this load: a lower --rate says more")
            tuner.tell(live.defaults, 1.0, running.defaults.state, 1.0, False)
            began_s = time.monotonic()
            budget_s = self._protocol.minutes * 60
            confirms = methods.is_ours(self._name)
            search_s = budget_s * (1 - CONFIRM_SHARE) if confirms else budget_s
            self._search(tuner, running, began_s, began_s + search_s)
            found = (
                self._confirm(running, began_s, began_s + budget_s)
                if confirms
                else as_whole(self._tried)
            )
        final, objective = best_measured(found, live.defaults)
        return self._part(changes_of(live, final), objective, {})

    def _search(self, tuner: AskTellAgent, running: Stage, began_s: float, end_s: float) -> None:
        """Ask, try, tell; what cannot end in time is not begun."""
        live = self._live
        refused_in_a_row = 0
        while self._is_time(end_s):
            if refused_in_a_row >= MAX_REFUSED:
                self._say(f"{self._name}: {MAX_REFUSED} refused proposals in a row: given up")
                break
            state = running.defaults.state
            asked_s = time.monotonic()
            proposal = tuner.ask(state)
            ask_s = time.monotonic() - asked_s
            try:
                fitted = fit(live, proposal)
            except KnobError as error:
                self._refused += 1
                refused_in_a_row += 1
                if isinstance(error, MemoryBudgetError):
                    tuner.tell(proposal, CENSORED_FROM, state, 1.0, True)
                continue
            refused_in_a_row = 0
            outcome = running.try_out(fitted.config)
            told_s = time.monotonic()
            tuner.tell(fitted.config, outcome.objective, state, outcome.quality, outcome.censored)
            tell_s = time.monotonic() - told_s
            self._tried.append((fitted.config, outcome))
            self._clamped += fitted.clamped
            self._record(fitted, outcome, time.monotonic() - began_s, ask_s, tell_s)

    def _confirm(self, running: Stage, began_s: float, end_s: float) -> Tried:
        """Measure the best again while there is time: the product's promotion in small.

        The lowest of many noisy measurements is lucky more often than good, so only the new ones
        are answered; those that there were, where there is nothing or no time to measure again.
        """
        found: list[tuple[KnobConfig, Outcome]] = []
        best = lowest_measured(self._tried, self._live.defaults, CONFIRMED)
        while best and self._is_time(end_s):
            config = next_to_confirm(best, found)
            outcome = running.try_out(config)
            found.append((config, outcome))
            self._record(
                Fitted(config, False), outcome, time.monotonic() - began_s, 0.0, 0.0, again=True
            )
        return found or self._tried

    def _is_time(self, end_s: float) -> bool:
        """Whether a trial may be begun: two windows at least."""
        return time.monotonic() + 2 * self._protocol.window_s < end_s

    def _record(
        self,
        fitted: Fitted,
        outcome: Outcome,
        at_s: float,
        ask_s: float,
        tell_s: float,
        again: bool = False,
    ) -> None:
        objectives = [e.objective for e in self._evaluations] + [outcome.objective]
        evaluation = Evaluation(
            number=len(objectives),
            at_s=at_s,
            objective=outcome.objective,
            effect=outcome.objective - 1,
            regret=regret_so_far(objectives)[-1],
            harmful=is_harmful(outcome.objective),
            censored=outcome.censored,
            clamped=fitted.clamped,
            quality=outcome.quality,
            coverage=outcome.coverage,
            drift=outcome.drift,
            ask_s=ask_s,
            tell_s=tell_s,
            changes=changes_of(self._live, fitted.config),
            reason=outcome.reason,
            again=again,
        )
        self._evaluations.append(evaluation)
        self._results.add_evaluation(self._run, evaluation)
        bound = ">= " if outcome.censored else ""
        self._say(
            f"{self._name} {evaluation.number} at {at_s:.0f} s: index {bound}"
            f"{outcome.objective:.3f}, best {min(1.0, outcome.objective - evaluation.regret):.3f}"
            + (f" ({outcome.reason})" if outcome.reason else "")
        )

    def _part(
        self,
        final: Mapping[str, KnobValue],
        objective: float | None,
        omitted: Mapping[str, str],
    ) -> Part:
        live = self._live
        return Part(
            workload=live.workload.name,
            seed=self._seed,
            method=self._name,
            finished_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            protocol=self._protocol,
            evaluations=tuple(self._evaluations),
            final=dict(final),
            final_objective=objective,
            clamped=self._clamped,
            refused=self._refused,
            violations=list(live.violations),
            durability=list(live.durability),
            omitted=dict(omitted),
            overrun=self._overrun,
        )

    def finish(self, part: Part) -> None:
        """Write the line that makes the part count."""
        self._results.add_part(self._run, part)
