"""The workloads to choose from: their data, loaded once into a template, and their offered load.

Each method starts from a copy of the template, so none meets rows that another one has written.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from dataclasses import dataclass, replace

from backend.embedded.binaries import icu_environment
from backend.embedded.database import ensure_database
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import WorkloadError
from backend.workload.connection import connect
from backend.workload.mixes import MIXES, mix_named
from backend.workload.shape import DEMO_SCALE
from backend.workload.store import DemoStore
from benchmarks.harness.offers import Offer, PgbenchOffer, StoreOffer
from benchmarks.harness.server import Say

FIXED_PHASE = 1e-3
"""Simulated seconds a real second: the time of day, and with it volume and mix, stands still."""
PGBENCH_SCRIPTS = {"pgbench": ("tpcb-like", 150.0), "pgbench-select": ("select-only", 1500.0)}
"""Workload to pgbench's own script and its usual rate, transactions a second."""
NAMES = ("mixed", "analytical", "oltp", *PGBENCH_SCRIPTS)
PGBENCH_SCALE = 20.0
"""2 million accounts, about 300 MB; more branches than clients, so rows are seldom waited for."""
DATA_SEED = 0
"""Of the demo store's rows; the seeds of the benchmark are those of arrivals and tuners."""


def description(name: str) -> str:
    """What a workload is, and who offers it."""
    if name in PGBENCH_SCRIPTS:
        script, _ = PGBENCH_SCRIPTS[name]
        return f"pgbench's own script {script}, by the server's own pgbench at a fixed rate"
    return "the demo store's statements, by our open-loop clients"


@dataclass(frozen=True)
class LiveWorkload:
    """A workload at a size and a rate.

    Args:
        name: one of :data:`NAMES`.
        scale: of the demo store (1.0: about 10 million rows) or of pgbench.
        rate_per_s: statements a second, for pgbench transactions.
        clients: connections at the most.
        statement_timeout_s: after which the server cancels a client's statement.
        repeat_s: after which the store's statements come again; None: ever new ones. pgbench draws
            its own, so it has None.
    """

    name: str
    scale: float
    rate_per_s: float
    clients: int
    statement_timeout_s: float
    repeat_s: float | None = None

    @classmethod
    def named(
        cls,
        name: str,
        *,
        scale: float | None = None,
        rate_per_s: float | None = None,
        clients: int = 8,
        statement_timeout_s: float = 10.0,
        repeat_s: float | None = None,
    ) -> LiveWorkload:
        """The workload with its usual size and rate where none is given.

        Raises:
            WorkloadError: an unknown name, or pgbench at a scale that is no whole number.
        """
        if name not in NAMES:
            raise WorkloadError(
                f"there is no workload {name!r}", remedy=f"choose one of {', '.join(NAMES)}"
            )
        if name in PGBENCH_SCRIPTS:
            size, rate, repeat_s = PGBENCH_SCALE, PGBENCH_SCRIPTS[name][1], None
            if scale is not None and (scale < 1 or scale != int(scale)):
                raise WorkloadError(f"pgbench's scale {scale:g} is no whole number from 1 on")
        else:
            size, rate = DEMO_SCALE, MIXES[name].default_rate_per_s
        return cls(name, scale or size, rate_per_s or rate, clients, statement_timeout_s, repeat_s)

    def repeating(self, repeat_s: float) -> LiveWorkload:
        """The same with its statements coming again after another time, if they do."""
        return self if self.repeat_s is None else replace(self, repeat_s=repeat_s)

    @property
    def template(self) -> str:
        """The database that holds the data as loaded."""
        return "live_pgbench" if self.name in PGBENCH_SCRIPTS else "live_shop"

    def load(self, server: EmbeddedPostgres, say: Say) -> None:
        """Make the template, unless it is there at this scale."""
        ensure_database(server.dsn(), self.template)
        if self.name in PGBENCH_SCRIPTS:
            self._load_pgbench(server, say)
            return
        store = DemoStore(server.dsn(self.template), scale=self.scale, seed=DATA_SEED)
        if store.is_loaded():
            return
        say(f"loading the demo store at scale {self.scale:g}")
        store.drop()
        store.load()

    def _load_pgbench(self, server: EmbeddedPostgres, say: Say) -> None:
        url = server.dsn(self.template)
        with closing(connect(url, application_name="knob_live")) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT to_regclass('public.live_loaded') IS NOT NULL")
            if cursor.fetchone()[0]:
                cursor.execute("SELECT scale FROM public.live_loaded")
                if cursor.fetchone()[0] == int(self.scale):
                    return
            cursor.execute("DROP TABLE IF EXISTS public.live_loaded")
            say(f"loading pgbench's tables at scale {self.scale:g}")
            self._initialise_pgbench(server)
            # Comes last: with it, the load was complete.
            cursor.execute(
                "CREATE TABLE public.live_loaded AS SELECT %s AS scale", (int(self.scale),)
            )

    def _initialise_pgbench(self, server: EmbeddedPostgres) -> None:
        url = server.dsn(self.template)
        command = [
            str(server.bin_dir / "pgbench"), "--initialize", "--quiet", f"--scale={self.scale:g}",
            f"--host={url.host}", f"--port={url.port}", f"--username={url.username}",
            str(url.database),
        ]  # fmt: skip
        done = subprocess.run(
            command,
            env={**os.environ, **icu_environment(server.bin_dir), "PGPASSWORD": server.password},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise WorkloadError(f"pgbench could not load its tables: {done.stderr.strip()}")

    def offer(self, server: EmbeddedPostgres, seed: int) -> Offer:
        """What the clients send; the seed fixes arrivals and parameters."""
        if self.name in PGBENCH_SCRIPTS:
            return PgbenchOffer(
                script=PGBENCH_SCRIPTS[self.name][0],
                rate_per_s=self.rate_per_s,
                seed=seed,
                clients=self.clients,
                statement_timeout_s=self.statement_timeout_s,
                program=str(server.bin_dir / "pgbench"),
                environment=icu_environment(server.bin_dir),
            )
        return StoreOffer(
            mix_named(self.name),
            self.scale,
            seed,
            rate_per_s=self.rate_per_s,
            time_scale=FIXED_PHASE,
            clients=self.clients,
            statement_timeout_s=self.statement_timeout_s,
            repeat_s=self.repeat_s,
        )
