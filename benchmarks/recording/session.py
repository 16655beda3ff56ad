"""One training workload on the embedded server: its clients, its windows, its recordings."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from backend.components import Components, build_components
from backend.config import Settings
from backend.domain.clock import SystemClock
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.metrics import MetricsWindow
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import AdjustmentError, MemoryBudgetError
from backend.expert_rules import expert_proposals
from backend.sample_filter import (
    Reference,
    latency_index,
    load_profile,
    paired_log_ratio,
    sample_quality,
)
from benchmarks.harness.load import OfferedLoad
from benchmarks.harness.offers import StoreOffer
from benchmarks.harness.server import Say, settings_in, shop_server
from benchmarks.harness.waiting import pass_time, renew
from benchmarks.harness.windows import Meter, state_of
from benchmarks.recording.designs import Design
from benchmarks.recording.workloads import TrainingWorkload

WINDOW_S, SETTLE_S = 10.0, 2.0
WARM_UP_S = 10.0
BASELINE_WINDOWS = 3
MIN_QUALITY = 0.3
"""An incumbent window of lower quality is measured again: a slow candidate leaves a queue."""
RATE_LIMITS_PER_S = (1.0, 400.0)
"""Statements offered a second: enough for the index, no more than one process sends on time."""
STRADDLE_S = 40.0
"""How long to wait for statements that began before a switch: longer than their time-out."""


def session_settings(store: Path, data_dir: Path, scale: float, policies: Path) -> Settings:
    """The product's settings: a server for each scale, an agent that starts from nothing."""
    return settings_in(
        data_dir / f"scale-{scale:g}",
        {
            "mode": "auto",
            "paths": {"policies_dir": str(policies), "telemetry_db": str(store)},
            "workload": {"data_scale_factor": scale, "seed": 0},
            "level0": {"knob": {"pretrained": False}},
        },
    )


def record(
    workload: TrainingWorkload,
    store: Path,
    data_dir: Path,
    *,
    configurations: int,
    seed: list[int],
    time_left: Callable[[], bool],
    tell: Say,
) -> int:
    """Measure configurations under a workload into the store; how many it came to.

    Args:
        workload: offered from here.
        store: the SQLite file that is written to.
        data_dir: the servers' folder.
        configurations: how many to measure, the defaults apart.
        seed: of the design and the arrivals.
        time_left: asked before each configuration.
        tell: told of each measurement.
    """
    with TemporaryDirectory(prefix="recording-") as policies:
        settings = session_settings(store, data_dir, workload.scale, Path(policies))
        with (
            shop_server(settings, tell) as server,
            contextlib.closing(build_components(settings, SystemClock())) as parts,
        ):
            session = Session(workload, parts, server, seed)
            with session.clients():
                return session.run(configurations, time_left, tell)


@dataclass(frozen=True)
class _Incumbent:
    """A window of the defaults and the state it shows."""

    window: MetricsWindow
    state: NDArray[np.float64]
    quality: float


class Session:
    """Clients, windows and what the agent is told; see :func:`record`."""

    def __init__(
        self,
        workload: TrainingWorkload,
        parts: Components,
        server: EmbeddedPostgres,
        seed: list[int],
    ) -> None:
        self._workload, self._parts, self._server, self._seed = workload, parts, server, seed
        self._clock = SystemClock()
        self._keep_alive = partial(renew, parts.lease)
        self._rest = partial(pass_time, self._clock, keep_alive=self._keep_alive)
        self._meter: Meter | None = None
        self._space = parts.space
        self._reference = Reference({})
        parts.learner.workload = workload.name
        parts.learner.load(parts.deployment.present)

    # -- clients ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def clients(self) -> Iterator[None]:
        """Offer the workload, at a rate that keeps the machine as busy as it asks for."""
        cores = self._parts.info.host.cpu_count
        rate = _limited(self._workload.busy * cores * 1000 / self._workload.guessed_ms())
        with self._offered(rate):
            window = self._window()
        taken = window.exec_time_ms / (window.duration_s * cores * 1000)
        # One correction: what one measurement says of rare and heavy statements is rough.
        correction = min(max(self._workload.busy / max(taken, 1e-3), 0.2), 5.0)
        with self._offered(_limited(rate * correction)):
            yield

    @contextlib.contextmanager
    def _offered(self, rate_per_s: float) -> Iterator[None]:
        """Offer it at this rate; yields when the caches had a moment."""
        mix = self._workload.mix(rate_per_s)
        offer = StoreOffer(mix, self._workload.scale, seed=self._seed[-1])
        with OfferedLoad(self._server.dsn(), offer, self._keep_alive) as load:
            self._rest(WARM_UP_S)
            self._meter = Meter(
                self._parts.collector,
                load,
                self._clock,
                WINDOW_S,
                longest_wait_s=STRADDLE_S,
                rest=self._rest,
            )
            yield

    # -- measuring ----------------------------------------------------------------------------

    def run(self, configurations: int, time_left: Callable[[], bool], tell: Say) -> int:
        """Measure the defaults, then configurations against them."""
        defaults = self._present()
        windows = [self._window() for _ in range(BASELINE_WINDOWS)]
        self._reference = Reference.from_windows(windows)
        incumbent = self._incumbent(None)
        self._parts.learner.tell(
            defaults, 1.0, incumbent.state, incumbent.quality, incumbent.window
        )
        tell(
            f"{self._workload.name}: {load_profile(incumbent.window).calls_per_s:.0f}/s, "
            f"{incumbent.window.mean_ms or 0:.1f} ms on average at the defaults"
        )
        measured = {defaults}
        count = 0
        for kind, given in Design(self._space, self._rules(), self._seed):
            if count >= configurations or not time_left():
                return count
            config = self._candidate(given, incumbent)
            if config is None or config in measured:
                continue
            measured.add(config)
            incumbent, text = self._try(config, incumbent)
            tell(f"{kind}: {text}")
            count += 1
        return count

    def _present(self) -> KnobConfig:
        present = self._parts.deployment.present
        return KnobConfig({name: present[name] for name in self._space.names})

    def _rules(self) -> dict[str, KnobValue]:
        """What all expert rules together change in the defaults."""
        present = self._present()
        proposals = expert_proposals(self._space, self._parts.info.host, present)
        if not proposals:
            return {}
        return {n: v for n, v in proposals[0].config.items() if v != present[n]}

    def _candidate(self, given: KnobConfig | None, incumbent: _Incumbent) -> KnobConfig | None:
        """The configuration as it may be tried; None where it may not."""
        learner, present = self._parts.learner, self._parts.deployment.present
        wanted = given if given is not None else learner.ask(incumbent.state, present)
        try:
            fitting = learner.fit(present.replace(wanted))
        except MemoryBudgetError:
            return None
        return KnobConfig({name: fitting[name] for name in self._space.names})

    def _try(self, config: KnobConfig, before: _Incumbent) -> tuple[_Incumbent, str]:
        """Measure a configuration between two windows of the defaults; tell the agent."""
        parts, present = self._parts, self._present()
        values = {name: value for name, value in config.items() if value != present[name]}
        try:
            batch = parts.deployment.enter(values, None)
        except AdjustmentError as error:
            return before, f"not applied: {error.message}"
        try:
            candidate = self._window(max(self._space[name].settle_s for name in values))
        finally:
            parts.deployment.leave(batch, "the window is over")
        after = self._incumbent(before.window)
        ratio = paired_log_ratio([candidate], [before.window, after.window], self._reference)
        if ratio is None:
            # Nothing came back often enough: worse than this, nobody knows by how much.
            bound = 1.0 + parts.settings.safety.rollback_threshold
            parts.learner.tell(config, bound, after.state, 1.0, None, censored=True)
            return after, "nothing to compare: censored"
        own = self._quality(candidate, before.window)
        quality = fmean([own, before.quality, after.quality])
        index = math.exp(ratio[0])
        parts.learner.tell(config, index, after.state, quality, candidate)
        return after, f"index {index:.3f}, quality {quality:.2f}, {len(values)} knobs"

    def _incumbent(self, before: MetricsWindow | None) -> _Incumbent:
        """A window of the defaults; up to three are measured until one can be compared."""
        for _ in range(3):
            window = self._window()
            quality = self._quality(window, before)
            if quality >= MIN_QUALITY:
                break
            before = window
        return _Incumbent(window, state_of(window), quality)

    def _quality(self, window: MetricsWindow, paired: MetricsWindow | None) -> float:
        index = latency_index([window], self._reference)
        return sample_quality(
            window,
            coverage=index.coverage if index else 0.0,
            paired=load_profile(paired) if paired is not None else None,
        ).value

    def _window(self, settle_s: float = 0.0) -> MetricsWindow:
        """A window of what stands now, once nothing from before runs any more."""
        assert self._meter is not None  # clients() is open
        return self._meter.measure(max(SETTLE_S, settle_s)).window


def _limited(rate_per_s: float) -> float:
    low, high = RATE_LIMITS_PER_S
    return min(max(rate_per_s, low), high)
