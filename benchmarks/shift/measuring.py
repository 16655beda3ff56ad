"""Measures proposals on a server whose workload shifts, with the product's own trials.

What stands on the server is the incumbent; each proposal is one probe (windows incumbent,
candidate, incumbent) with the safety monitor watching. The objective is chain-linked within each
workload, whose reference is what the default configuration did on the first visit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.data_collector import window_between
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.metrics import MetricsSnapshot, MetricsWindow, QueryKey
from backend.domain.modes import Arm, TrialKind, Verdict
from backend.domain.safety import SafetyVerdict
from backend.errors import AdjustmentError, AutopilotError, MemoryBudgetError, StaleEpochError
from backend.gate import GateSettings
from backend.protocols import AskTellAgent, Clock
from backend.sample_filter import Reference, latency_index
from backend.trials import ArmSwitch, MeasuredWindow, Trial, TrialPlan
from benchmarks.harness.waiting import TICK_S, pass_time
from benchmarks.harness.windows import state_of
from benchmarks.shift.returns import AFTER, Memory, Phase, Tried

FloatArray = NDArray[np.float64]
WINDOW_S, SETTLE_S = 10.0, 2.0
LOOKS = 3
"""Windows observed after a shift, and after each deployment, to know how what stands does."""
FIRST_LOOKS = 6
"""Windows of the default configuration on the first visit: the workload's reference."""
DEPLOYED_BELOW = 0.95
"""A probe is deployed when its objective is below this share of what stands."""
ROLLBACK_THRESHOLD = 0.15
COMPARED_BLOCKS = 2


class Site(Protocol):
    """A server with its clients."""

    space: KnobSpace
    clock: Clock
    switch: ArmSwitch

    def offer(self, workload: str) -> None:
        """Let the clients send this workload, and no other, from now on."""

    def collect(self) -> MetricsSnapshot:
        """All metrics now."""

    def deploy(self, config: KnobConfig) -> None:
        """Let this configuration stand."""

    def fit(self, config: KnobConfig) -> KnobConfig:
        """The configuration as it may be tried.

        Raises:
            MemoryBudgetError: it cannot be.
        """

    def judge_safety(
        self, window: MetricsWindow, baseline: MetricsWindow | None, log_ratio: float | None
    ) -> SafetyVerdict:
        """Judge a window under a candidate."""

    def keep_alive(self) -> None:
        """Called at every tick."""

    def index_of(self, workload: str, config: Mapping[str, KnobValue]) -> float | None:
        """Noise-free latency index, 1 is the default configuration; None on a real server."""

    def best_index(self, workload: str) -> float | None:
        """Noise-free latency index of the best configuration; None on a real server."""


@dataclass(frozen=True)
class _Look:
    """What stands, as seen in a few windows: its state and its index in this workload."""

    state: FloatArray
    index: float


class Bench:
    """Runs phases on a site.

    Args:
        site: the server.
        window_s, settle_s: of the trials.
    """

    def __init__(self, site: Site, window_s: float = WINDOW_S, settle_s: float = SETTLE_S) -> None:
        self.site = site
        self._window_s, self._settle_s = window_s, settle_s
        self._references: dict[str, Reference] = {}
        self._workload = ""
        self._standing = site.space.default_config()
        self._index = 1.0
        self._state: FloatArray | None = None
        self._trials = 0

    def go_on_after(self, phases: Sequence[Phase]) -> None:
        """Take over from an earlier process that recorded these phases of the same run."""
        for phase in phases:
            if phase.reference is not None:
                self._references[phase.workload] = Reference(
                    {QueryKey.parse(k): (v[0], v[1]) for k, v in phase.reference.items()}
                )
        if phases:
            self._stand(KnobConfig(phases[-1].standing))

    # -- a phase ----------------------------------------------------------------------------

    def run_phase(
        self,
        tuner: AskTellAgent,
        earlier: Sequence[Phase],
        about: tuple[str, int, str],
        *,
        sees_state: bool,
        trials: int | None = None,
        seconds: float | None = None,
        compare: bool = False,
    ) -> Phase:
        """Shift to a workload and let the tuner try.

        Args:
            tuner: asked and told.
            earlier: the run's phases before this one.
            about: method, seed and workload.
            sees_state: whether the tuner is given states.
            trials, seconds: ends the phase, whichever comes first; at least one trial is made.
            compare: at the end of a return measure the best of its first 1 and 5 trials against
                the best configuration known before, interleaved.
        """
        method, seed, workload = about
        began_s = self.site.clock.monotonic_s()
        known = Memory(earlier, workload).best_known
        default = self._shift(workload)
        if default is not None:
            _tell(tuner, default, sees_state)
        tried: list[Tried] = []
        while not tried or (
            (trials is None or len(tried) < trials)
            and (seconds is None or self.site.clock.monotonic_s() - began_s < seconds)
        ):
            tried.append(self._ask_and_try(tuner, sees_state))
        reference = self._references[workload]
        return Phase(
            method,
            seed,
            len(earlier),
            workload,
            tuple(tried),
            default=default,
            best_index=self.site.best_index(workload),
            compared=self._compared(tried, known) if compare and known is not None else {},
            reference=(
                {str(key): list(pair) for key, pair in reference.per_class.items()}
                if default is not None
                else None
            ),
            standing=dict(self._standing),
        )

    def _shift(self, workload: str) -> Tried | None:
        """Change the load and look at what stands; on a first visit measure the default."""
        site = self.site
        site.offer(workload)
        self._workload = workload
        if workload in self._references:
            self._take(self._look(LOOKS))
            return None
        default = site.space.default_config()
        self._stand(default)
        windows = self._windows(FIRST_LOOKS)
        self._references[workload] = Reference.from_windows(windows)
        self._take(_Look(state_of(windows[-1]), 1.0))
        state = [float(x) for x in state_of(windows[-1])]
        return Tried(dict(default), (), 1.0, state, index=site.index_of(workload, default))

    def _ask_and_try(self, tuner: AskTellAgent, sees_state: bool) -> Tried:
        asked_in = self._state
        assert asked_in is not None  # every phase begins with a look
        config = tuner.ask(asked_in if sees_state else None)
        tried = self._try(KnobConfig(config), [float(x) for x in asked_in])
        _tell(tuner, tried, sees_state)
        better = tried.objective is not None and tried.objective < DEPLOYED_BELOW * self._index
        if better and not tried.censored:
            self._stand(KnobConfig(tried.config))
            self._take(self._look(LOOKS))
        return tried

    # -- measuring --------------------------------------------------------------------------

    def _try(self, asked: KnobConfig, asked_in: Sequence[float]) -> Tried:
        """One probe of a proposal, told as the product's loop tells it."""
        bound = self._index * (1.0 + ROLLBACK_THRESHOLD)
        try:
            config = self.site.fit(asked)
            trial = self._finished(self._plan(TrialKind.PROBE, config, GateSettings()))
        except StaleEpochError:
            raise  # whoever may not act any more has learnt nothing of the candidate
        except (MemoryBudgetError, AdjustmentError):  # refused, and nothing stands of it
            return Tried(dict(asked), asked_in, bound, asked_in, censored=True)
        index = self.site.index_of(self._workload, config)
        assert self._state is not None
        state = [float(x) for x in self._state]
        log_ratio = trial.effect_log_ratio
        if log_ratio is not None:
            objective = self._index * math.exp(log_ratio)
            return Tried(
                dict(config), asked_in, objective, state, trial.quality or 0.0, index=index
            )
        if trial.verdict is Verdict.REJECT:
            return Tried(dict(config), asked_in, bound, state, censored=True, index=index)
        return Tried(dict(config), asked_in, None, state, index=index)

    def _plan(self, kind: TrialKind, config: KnobConfig, gate: GateSettings) -> TrialPlan:
        values = {n: v for n, v in config.items() if v != self._standing[n]}
        self._trials += 1
        return TrialPlan(
            kind=kind,
            proposer="",
            before={name: self._standing[name] for name in values},
            after=values,
            other_values=values,
            deployed=Arm.INCUMBENT,
            shares=self._references[self._workload],
            gate=gate,
            window_s=self._window_s,
            settle_s=max([self._settle_s, *(self.site.space[n].settle_s for n in values)]),
            seed=self._trials,
        )

    def _finished(self, plan: TrialPlan) -> Trial:
        def on_window(measured: MeasuredWindow) -> None:
            self._state = state_of(measured.window)

        trial = Trial(
            plan,
            collect=self.site.collect,
            switch=self.site.switch,
            clock=self.site.clock,
            on_window=on_window,
            judge_safety=self.site.judge_safety,
        )
        try:
            while not trial.finished:
                trial.tick()
                self._pass(TICK_S)
        except BaseException:
            trial.abort("the benchmark ends")
            raise
        return trial

    def _compared(self, tried: Sequence[Tried], known: KnobConfig) -> dict[int, float]:
        """ln(index of the best of the first k / index of ``known``), measured now, by k."""
        ratios: dict[KnobConfig, float] = {known: 0.0}
        found: dict[int, float] = {}
        former = self._standing
        for k in (AFTER[0], AFTER[-1]):
            trial = min(tried[:k], key=lambda trial: trial.value)
            best = KnobConfig(trial.config)
            if best not in ratios:
                if trial.censored or trial.objective is None:
                    continue  # what was stopped is not put on the server again
                if self._standing != known:
                    self._stand(known)
                blocks = GateSettings(min_blocks=COMPARED_BLOCKS, max_blocks=COMPARED_BLOCKS)
                effect = self._finished(self._plan(TrialKind.FINAL, best, blocks)).effect_log_ratio
                if effect is None:
                    continue
                ratios[best] = effect
            found[k] = ratios[best]
        if self._standing != former:
            self._stand(former)
        return found

    def _take(self, look: _Look) -> None:
        self._state, self._index = look.state, look.index

    def _look(self, count: int) -> _Look:
        windows = self._windows(count)
        index = latency_index(windows, self._references[self._workload])
        if index is None:
            raise AutopilotError(
                f"nothing that {self._workload} did before was seen again",
                remedy="use longer windows, or a load with more statements a second",
            )
        return _Look(state_of(windows[-1]), index.value)

    def _windows(self, count: int) -> list[MetricsWindow]:
        """Windows of what stands; one that could not be formed is measured again, once each."""
        self._pass(self._settle_s)
        windows: list[MetricsWindow] = []
        for _ in range(2 * count):
            first = self.site.collect()
            self._pass(self._window_s)
            window = window_between(first, self.site.collect())
            if window is not None and window.calls > 0:
                windows.append(window)
            if len(windows) == count:
                return windows
        raise AutopilotError(
            f"only {len(windows)} of {count} windows could be measured in {self._workload}",
            remedy="see whether the workload runs and nobody resets the server's statistics",
        )

    def _stand(self, config: KnobConfig) -> None:
        self.site.deploy(config)
        self._standing = config

    def _pass(self, seconds: float) -> None:
        """Let time pass, in ticks on a real clock."""
        clock = self.site.clock
        tick_s = seconds if isinstance(clock, ManualClock) else TICK_S
        pass_time(clock, seconds, self.site.keep_alive, tick_s)


def tell_again(tuner: AskTellAgent, phases: Sequence[Phase], sees_state: bool) -> None:
    """Bring a fresh tuner to where it was: same seed, same asks, same tells."""
    for phase in phases:
        if phase.default is not None:
            _tell(tuner, phase.default, sees_state)
        for tried in phase.trials:
            tuner.ask(_array(tried.asked_in) if sees_state else None)
            _tell(tuner, tried, sees_state)


def _tell(tuner: AskTellAgent, tried: Tried, sees_state: bool) -> None:
    if tried.objective is None:
        return  # inconclusive trials without a block teach nothing
    state = _array(tried.state) if sees_state else None
    tuner.tell(tried.config, tried.objective, state, tried.quality, tried.censored)


def _array(numbers: Sequence[float]) -> FloatArray:
    return np.asarray(numbers, dtype=np.float64)
