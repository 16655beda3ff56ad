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
from backend.errors import AutopilotError, ConfigError
from backend.protocols import Clock
from backend.servers import embedded_server
from backend.trials import ArmSwitch
from backend.workload.mixes import mix_named
from benchmarks.harness.load import OfferedLoad
from benchmarks.harness.offers import StoreOffer
from benchmarks.harness.server import fresh_copy, settings_in, shop_server
from benchmarks.harness.waiting import pass_time, renew

WORKLOADS = ("oltp", "analytical")
WARM_UP_S = 5.0
RUN_DATABASE = "shift_run"
"""The copy of the demo store that a run works on."""
MARK = "workload_shift"
"""A file that tells this benchmark's data folders from the product's own."""


class LiveSite:
    """A ``measuring.Site``: the product's parts on its embedded server, without its loop.

    Every change is journalled and read back as in the product; the clients are a process of
    their own.

    Args:
        parts: the tuner's parts.
        server: the running embedded server, with the run's copy of the demo store as database.
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
    """The product's settings for this benchmark.

    Raises:
        ConfigError: the folder is one of the product's own.
    """
    if (data_dir / "telemetry.db").exists() and not (data_dir / MARK).exists():
        raise ConfigError(
            f"{data_dir} is the product's own: its server's settings would be changed",
            remedy="choose a folder for the benchmark alone: --data-dir",
        )
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / MARK).touch()
    return settings_in(data_dir, {"mode": "auto", "workload": {"data_scale_factor": scale}})


@contextlib.contextmanager
def live_site(settings: Settings, seed: int, *, fresh: bool = True) -> Iterator[LiveSite]:
    """The running server with a copy of the demo store as a site; all is ended in good order.

    Args:
        settings: of :func:`live_settings`.
        seed: of the arrivals.
        fresh: the copy is made anew, as loaded; else the one of an earlier process is used.
    """
    database = settings.database.model_copy(update={"dbname": RUN_DATABASE})
    own = settings.model_copy(update={"database": database})
    with shop_server(settings, print) as server:
        if fresh:
            fresh_copy(server, server.dbname, RUN_DATABASE)
        with contextlib.closing(build_components(own, SystemClock())) as parts:
            site = LiveSite(parts, embedded_server(own), seed)
            try:
                yield site
            finally:
                site.stop_clients()
                with contextlib.suppress(AutopilotError):
                    site.deploy(site.space.default_config())
