"""A/A promotions on the embedded server: the candidate differs in a knob that cannot matter.

``geqo_effort`` is how hard the genetic search for plans tries. That search begins at
``geqo_threshold`` = 12 joined tables; the demo's statements join far fewer, so no plan and no time
can depend on it. Writing, reloading and reading back are those of a real candidate.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from backend.baseline import Baseline
from backend.components import Components, build_components
from backend.config import PathSettings, Settings, load_settings
from backend.data_collector import window_between
from backend.domain.clock import SystemClock
from backend.domain.modes import TrialKind, Verdict
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import StaleEpochError, WorkloadError
from backend.sample_filter import sample_quality
from backend.servers import demo_store, embedded_server
from backend.trial_planner import TrialPlanner
from backend.trials import MeasuredWindow, Trial
from benchmarks.filter_experiment.single_trials import safety_judge

COSMETIC_KNOB, COSMETIC_VALUE = "geqo_effort", 6
REPOSITORY = Path(__file__).resolve().parents[2]
URL_VARIABLE = "SAMPLE_FILTER_DATABASE_URL"
TICK_S, LEASE_S = 0.25, 1.0
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
    return load_settings(
        overrides={
            "mode": "auto",
            "paths": PathSettings.under(data_dir),
            "level1": {"sample_filter": filtered},
            "workload": {"name": "mixed", "data_scale_factor": scale},
        },
        environ={},
    )


@contextlib.contextmanager
def server_at_work(settings: Settings) -> Iterator[EmbeddedPostgres]:
    """The embedded server with the demo's swinging workload (its day in 864 s); then stopped."""
    server = embedded_server(settings)
    clients: subprocess.Popen[bytes] | None = None
    try:
        server.ensure_started()
        demo = demo_store(settings, server)
        if not demo.is_loaded():
            demo.load()
        workload = settings.workload
        clients = subprocess.Popen(
            [sys.executable, "-m", "backend.workload", "--url-env", URL_VARIABLE, "--fast-mode",
             "--mix", workload.name, "--scale", str(workload.data_scale_factor),
             "--seed", str(workload.seed), "--max-concurrency", str(workload.max_concurrency)],
            cwd=REPOSITORY,
            env={**os.environ, URL_VARIABLE: server.dsn().render_as_string(hide_password=False)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            clients.wait(WARM_UP_S)
            raise WorkloadError(f"the workload ended at once, exit code {clients.returncode}")
        except subprocess.TimeoutExpired:
            yield server  # still at work
    finally:
        if clients is not None:
            clients.terminate()
            clients.wait(30)
        server.stop()


class LiveTrials:
    """Runs A/A promotions with the product's parts.

    Args:
        settings: of the run.
        min_blocks: blocks before the first look; None: as the settings say.
        max_blocks: most blocks of a trial; None: as the settings say.
    """

    def __init__(
        self, settings: Settings, min_blocks: int | None = None, max_blocks: int | None = None
    ) -> None:
        self._settings, self._clock = settings, SystemClock()
        level1 = settings.level1
        self._min_blocks = min_blocks or level1.min_blocks
        self._max_blocks = max_blocks or level1.max_blocks
        self._judge = safety_judge(settings)
        self._renew_at_s = 0.0

    def run(self, numbers: list[int], done: Callable[[LiveTrial], None]) -> None:
        """One trial a number; ``done`` is told of each."""
        if not numbers:
            return
        parts = build_components(self._settings, self._clock)
        try:
            planner = TrialPlanner(
                self._settings, parts.space, parts.deployment, parts.store, self._clock
            )
            baseline = self._measure_baseline(parts)
            for number in numbers:
                done(self._run_one(number, parts, planner, baseline))
        finally:
            parts.close()

    def _measure_baseline(self, parts: Components) -> Baseline:
        level1 = self._settings.level1
        baseline = Baseline(level1.baseline_s, level1.window_s, level1.sample_filter)
        last = parts.collector.collect()
        while not baseline.complete:
            self._wait(parts, self._settings.telemetry.collection_interval)
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
                self._wait(parts, TICK_S)
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

    def _wait(self, parts: Components, seconds: float) -> None:
        """Let time pass; the lease is kept meanwhile."""
        end_s = time.monotonic() + seconds
        while True:
            if time.monotonic() >= self._renew_at_s:
                if not parts.lease.renew():
                    raise StaleEpochError("another tuner has taken over this server")
                self._renew_at_s = time.monotonic() + LEASE_S
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(left_s, LEASE_S))


def read_trials(path: Path | None) -> list[LiveTrial]:
    """The trials of an earlier, interrupted run."""
    if path is None or not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        values["reasons"] = tuple(values["reasons"])
        values["block_log_ratios"] = tuple(values["block_log_ratios"])
        found.append(LiveTrial(**values))
    return found


def append_trial(path: Path | None, trial: LiveTrial) -> None:
    """Keep a trial's result."""
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(trial)) + "\n")
