"""The embedded server with the demo's clients, whose mix is changed at each shift."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from backend.components import Components, build_components
from backend.config import PathSettings, Settings, load_settings
from backend.deployment import AUTOPILOT
from backend.domain.clock import SystemClock
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.domain.safety import SafetyVerdict
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import AutopilotError, StaleEpochError
from backend.servers import demo_store, embedded_server

REPOSITORY = Path(__file__).resolve().parents[2]
WORKLOADS = ("oltp", "analytical")
URL_VARIABLE = "SHIFT_WORKLOAD_URL"
STOP_TIMEOUT_S = 30.0
WARM_UP_S = 5.0


class LiveSite:
    """A ``measuring.Site``: the product's parts on its embedded server, without its loop.

    Every change is journalled and read back as in the product; the demo's workload runs in a
    process of its own.

    Args:
        parts: the tuner's parts.
        server: the running embedded server, the demo store loaded.
        log_path: the workload's output goes there.
        seed: of the arrivals.
    """

    def __init__(
        self, parts: Components, server: EmbeddedPostgres, log_path: Path, seed: int
    ) -> None:
        self._parts, self._server, self._log_path, self._seed = parts, server, log_path, seed
        self._clients: subprocess.Popen[bytes] | None = None
        self.space = parts.space
        self.clock = SystemClock()
        self.switch = parts.deployment

    def offer(self, workload: str) -> None:
        """See ``measuring.Site``."""
        self.stop_clients()
        settings = self._parts.settings.workload
        url = self._server.dsn().render_as_string(hide_password=False)
        with self._log_path.open("ab") as log:
            self._clients = subprocess.Popen(
                [sys.executable, "-m", "backend.workload", "--url-env", URL_VARIABLE,
                 "--mix", workload, "--scale", str(settings.data_scale_factor),
                 "--max-concurrency", str(settings.max_concurrency), "--seed", str(self._seed)],
                cwd=REPOSITORY,
                env={**os.environ, URL_VARIABLE: url},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._wait_for_statements()

    def _wait_for_statements(self) -> None:
        """Until the new clients' first statements have ended, and caches had a moment."""
        before = self.collect()
        while _calls(self.collect()) <= _calls(before):
            self.keep_alive()
            time.sleep(0.25)
        end_s = self.clock.monotonic_s() + WARM_UP_S
        while self.clock.monotonic_s() < end_s:
            self.keep_alive()
            time.sleep(0.25)

    def stop_clients(self) -> None:
        """End the workload, statements in flight included."""
        clients, self._clients = self._clients, None
        if clients is None:
            return
        clients.terminate()
        deadline_s = self.clock.monotonic_s() + STOP_TIMEOUT_S
        while clients.poll() is None:
            if self.clock.monotonic_s() > deadline_s:
                clients.kill()
            self._parts.lease.renew()
            time.sleep(0.1)

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
        if not self._parts.lease.renew():
            raise StaleEpochError("another tuner acts on this data folder")
        if self._clients is not None and self._clients.poll() is not None:
            raise AutopilotError(f"the workload ended by itself; see {self._log_path}")

    def index_of(self, workload: str, config: Mapping[str, KnobValue]) -> None:
        """Nobody knows."""

    def best_index(self, workload: str) -> None:
        """Nobody knows."""


def _calls(snapshot: MetricsSnapshot) -> int:
    return sum(query.calls for query in snapshot.queries.values())


def live_settings(data_dir: Path, scale: float) -> Settings:
    """The product's settings for this benchmark."""
    path = data_dir / "workload_shift.yaml"  # no other settings file counts
    sections = {"mode": "auto", "workload": {"data_scale_factor": scale}}
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return load_settings(path, overrides={"paths": PathSettings.under(data_dir)}, environ={})


@contextlib.contextmanager
def live_site(settings: Settings, seed: int) -> Iterator[LiveSite]:
    """Start the embedded server, load the demo store, yield the site; end all in good order."""
    server = embedded_server(settings)
    server.ensure_started()
    try:
        store = demo_store(settings, server)
        if not store.is_loaded():
            store.load()
        parts = build_components(settings, SystemClock())
        try:
            site = LiveSite(parts, server, settings.paths.data_dir / "workload.log", seed)
            try:
                yield site
            finally:
                site.stop_clients()
        finally:
            parts.close()
    finally:
        server.stop()
