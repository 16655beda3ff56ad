"""A/A promotions on the embedded server: the candidate differs in a knob that cannot matter.

``geqo_effort`` is how hard the genetic search for plans tries. That search begins at
``geqo_threshold`` = 12 joined tables; the demo's statements join far fewer, so no plan and no time
can depend on it. Writing, reloading and reading back are those of a real candidate.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from backend.baseline import Baseline
from backend.components import Components, build_components
from backend.config import Settings
from backend.data_collector import window_between
from backend.domain.clock import SystemClock
from backend.domain.modes import TrialKind, Verdict
from backend.run_options import FAST_MODE_FACTOR
from backend.sample_filter import sample_quality
from backend.trial_planner import TrialPlanner
from backend.trials import MeasuredWindow, Trial
from backend.workload.mixes import mix_named
from benchmarks.filter_experiment.single_trials import safety_judge
from benchmarks.harness.load import OfferedLoad
from benchmarks.harness.offers import StoreOffer
from benchmarks.harness.server import Say, settings_in, shop_server
from benchmarks.harness.waiting import TICK_S, pass_time, renew
from benchmarks.results_file import append_line, results_in

COSMETIC_KNOB, COSMETIC_VALUE = "geqo_effort", 6
WARM_UP_S = 30.0


@dataclass(frozen=True)
class LiveTrial:
    """What one trial came to. ``windows`` were measured, ``void`` of them repeated."""

    number: int
    verdict: str
    reasons: tuple[str, ...]
    effect: float | None
    ci_low: float | None
    ci_high: float | None
    block_log_ratios: tuple[float, ...]
    windows: int
    void: int
    seconds: float

    @property
    def is_false_promotion(self) -> bool:
        """Whether the gate took what is the same for better."""
        return self.verdict == Verdict.ACCEPT.value


def live_settings(data_dir: Path, scale: float, filtered: bool) -> Settings:
    """The product's defaults on the embedded server."""
    return settings_in(
        data_dir,
        {
            "mode": "auto",
            "level1": {"sample_filter": filtered},
            "workload": {"name": "mixed", "data_scale_factor": scale},
        },
    )


@contextlib.contextmanager
def server_at_work(settings: Settings, say: Say) -> Iterator[OfferedLoad]:
    """The embedded server with the demo's swinging workload (its day in 864 s); then stopped."""
    workload = settings.workload
    offer = StoreOffer(
        mix_named(workload.name),
        workload.data_scale_factor,
        workload.seed,
        time_scale=FAST_MODE_FACTOR,
        clients=workload.max_concurrency,
        statement_timeout_s=workload.statement_timeout,
    )
    with shop_server(settings, say) as server, OfferedLoad(server.dsn(), offer) as load:
        pass_time(SystemClock(), WARM_UP_S, load.counts)
        yield load


class LiveTrials:
    """Runs A/A promotions with the product's parts.

    Args:
        settings: of the run.
        load: the clients at work.
        min_blocks: blocks before the first look; None: as the settings say.
        max_blocks: most blocks of a trial; None: as the settings say.
    """

    def __init__(
        self,
        settings: Settings,
        load: OfferedLoad,
        min_blocks: int | None = None,
        max_blocks: int | None = None,
    ) -> None:
        self._settings, self._load, self._clock = settings, load, SystemClock()
        level1 = settings.level1
        self._min_blocks = min_blocks or level1.min_blocks
        self._max_blocks = max_blocks or level1.max_blocks
        self._judge = safety_judge(settings)

    def run(self, numbers: list[int], done: Callable[[LiveTrial], None]) -> None:
        """One trial a number; ``done`` is told of each."""
        if not numbers:
            return
        with contextlib.closing(build_components(self._settings, self._clock)) as parts:
            planner = TrialPlanner(
                self._settings, parts.space, parts.deployment, parts.store, self._clock
            )
            baseline = self._measure_baseline(parts)
            for number in numbers:
                done(self._run_one(number, parts, planner, baseline))

    def _measure_baseline(self, parts: Components) -> Baseline:
        level1 = self._settings.level1
        baseline = Baseline(level1.baseline_s, level1.window_s, level1.sample_filter)
        last = parts.collector.collect()
        while not baseline.complete:
            self._pass(parts, self._settings.telemetry.collection_interval)
            now = parts.collector.collect()
            window = window_between(last, now)
            last = now
            if window is None or window.calls == 0:
                continue
            good = sample_quality(window, coverage=1.0).value >= level1.min_quality
            if good or not level1.sample_filter:
                baseline.add(window)
        return baseline

    def _run_one(
        self, number: int, parts: Components, planner: TrialPlanner, baseline: Baseline
    ) -> LiveTrial:
        level1 = self._settings.level1
        plan = planner.plan(
            TrialKind.PROMOTION,
            {COSMETIC_KNOB: COSMETIC_VALUE},
            "A/A experiment",
            baseline.reference(),
            baseline.noise(),
        )
        gate = replace(
            plan.gate,
            # The allowance of a day's first promotion, for all of them.
            alpha=min(level1.alpha, level1.daily_alpha / 2),
            min_blocks=self._min_blocks,
            max_blocks=self._max_blocks,
        )
        measured: list[MeasuredWindow] = []
        trial = Trial(
            replace(plan, gate=gate, seed=number),
            collect=parts.collector.collect,
            switch=parts.deployment,
            clock=self._clock,
            on_window=measured.append,
            judge_safety=self._judge,
        )
        began_s = self._clock.monotonic_s()
        try:
            while not trial.finished:
                trial.tick()
                self._pass(parts, TICK_S)
        finally:
            trial.abort("the experiment was stopped")
        record = trial.record()
        kept = sum(m.quality.value >= plan.min_quality for m in measured)
        return LiveTrial(
            number=number,
            verdict=record.verdict.value if record.verdict else "",
            reasons=tuple(record.reasons),
            effect=record.effect,
            ci_low=record.ci_low,
            ci_high=record.ci_high,
            block_log_ratios=tuple(record.block_log_ratios),
            windows=len(measured),
            void=len(measured) - kept,
            seconds=self._clock.monotonic_s() - began_s,
        )

    def _pass(self, parts: Components, seconds: float) -> None:
        """Let time pass; the lease is kept meanwhile, and the clients are at work."""
        self._load.counts()
        pass_time(self._clock, seconds, partial(renew, parts.lease))


def read_trials(path: Path | None) -> list[LiveTrial]:
    """The trials of an earlier, interrupted run."""
    found = []
    for values in results_in(path) if path is not None else ():
        values["reasons"] = tuple(values["reasons"])
        values["block_log_ratios"] = tuple(values["block_log_ratios"])
        found.append(LiveTrial(**values))
    return found


def append_trial(path: Path | None, trial: LiveTrial) -> None:
    """Keep a trial's result."""
    if path is not None:
        append_line(path, json.dumps(asdict(trial)))
