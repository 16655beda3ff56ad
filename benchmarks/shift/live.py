"""The embedded server with the demo's clients, whose mix is changed at each shift."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from backend.components import Components, build_components
from backend.config import Settings
from backend.deployment import AUTOPILOT
from backend.domain.clock import SystemClock
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.domain.safety import SafetyVerdict
from backend.embedded_postgres import EmbeddedPostgres
from backend.protocols import Clock
from backend.trials import ArmSwitch
from backend.workload.mixes import mix_named
from benchmarks.harness.load import OfferedLoad
from benchmarks.harness.offers import StoreOffer
from benchmarks.harness.server import settings_in, shop_server
from benchmarks.harness.waiting import pass_time, renew

WORKLOADS = ("oltp", "analytical")
WARM_UP_S = 5.0


class LiveSite:
    """A ``measuring.Site``: the product's parts on its embedded server, without its loop.

    Every change is journalled and read back as in the product; the clients are a process of
    their own.

    Args:
        parts: the tuner's parts.
        server: the running embedded server, the demo store loaded.
        seed: of the arrivals.
    """

    def __init__(self, parts: Components, server: EmbeddedPostgres, seed: int) -> None:
        self._parts, self._server, self._seed = parts, server, seed
        self._load: OfferedLoad | None = None
        self.space = parts.space
        self.clock: Clock = SystemClock()
        self.switch: ArmSwitch = parts.deployment

    def offer(self, workload: str) -> None:
        """See ``measuring.Site``; returns when caches had a moment."""
        self.stop_clients()
        settings = self._parts.settings.workload
        offer = StoreOffer(
            mix_named(workload),
            settings.data_scale_factor,
            self._seed,
            clients=settings.max_concurrency,
            statement_timeout_s=settings.statement_timeout,
        )
        self._load = OfferedLoad(self._server.dsn(), offer, partial(renew, self._parts.lease))
        self._load.start()
        pass_time(self.clock, WARM_UP_S, self.keep_alive)

    def stop_clients(self) -> None:
        """End the clients, statements in flight included."""
        load, self._load = self._load, None
        if load is not None:
            load.stop()

    def collect(self) -> MetricsSnapshot:
        """See ``measuring.Site``."""
        return self._parts.collector.collect()

    def deploy(self, config: KnobConfig) -> None:
        """See ``measuring.Site``."""
        deployment = self._parts.deployment
        deployment.refresh()
        values = {n: v for n, v in config.items() if deployment.present[n] != v}
        if values:
            deployment.deploy(values, author=AUTOPILOT, index=1.0, note="benchmark")

    def fit(self, config: KnobConfig) -> KnobConfig:
        """See ``measuring.Site``: the joint memory budget holds here."""
        return self._parts.learner.fit(config)

    def judge_safety(
        self, window: MetricsWindow, baseline: MetricsWindow | None, log_ratio: float | None
    ) -> SafetyVerdict:
        """See ``measuring.Site``."""
        return self._parts.monitor.judge(
            window, baseline=baseline, log_ratio=log_ratio, candidate_active=True
        )

    def keep_alive(self) -> None:
        """Renew the lease, and see that the clients run."""
        renew(self._parts.lease)
        if self._load is not None:
            self._load.counts()

    def index_of(self, workload: str, config: Mapping[str, KnobValue]) -> None:
        """Nobody knows."""

    def best_index(self, workload: str) -> None:
        """Nobody knows."""


def live_settings(data_dir: Path, scale: float) -> Settings:
    """The product's settings for this benchmark."""
    return settings_in(data_dir, {"mode": "auto", "workload": {"data_scale_factor": scale}})


@contextlib.contextmanager
def live_site(settings: Settings, seed: int) -> Iterator[LiveSite]:
    """The running server with the demo store as a site; all is ended in good order."""
    with (
        shop_server(settings, print) as server,
        contextlib.closing(build_components(settings, SystemClock())) as parts,
    ):
        site = LiveSite(parts, server, seed)
        try:
            yield site
        finally:
            site.stop_clients()
