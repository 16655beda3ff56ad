"""A target, a lease and an adjuster on a real server, for the tests of knob changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from backend.catalog import KnobCatalog, load_catalog
from backend.components import as_built
from backend.db_connector import DatabaseConnector
from backend.domain.clock import SystemClock
from backend.domain.modes import ChangeState
from backend.domain.server import HostFacts
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError
from backend.parameter_adjuster import ParameterAdjuster
from backend.targets.postgresql import PostgresTarget
from backend.telemetry import SqlStore
from tests.foreign_server import AnyServer, tuner_dsn

HOST = HostFacts(memory_bytes=8 << 30, cpu_count=4.0, free_disk_bytes=100 << 30)


def restarter(server: AnyServer) -> Callable[[], None]:
    def restart() -> None:
        try:
            server.restart()
        except EmbeddedServerError:
            assert isinstance(server, EmbeddedPostgres)
            server.start_or_recover()
            raise

    return restart


class Tuner:
    """A target, a lease and an adjuster on it."""

    def __init__(self, server: AnyServer, store: SqlStore, host: HostFacts = HOST) -> None:
        self.target = PostgresTarget(
            DatabaseConnector(tuner_dsn(server)), restarter=restarter(server)
        )
        catalog = load_catalog(self.target.describe().version, host)
        self.catalog: KnobCatalog = as_built(catalog, self.target.read_knobs(catalog.names))
        self.store = store
        self.epoch = store.acquire_lease("test", 600)
        self.adjuster = ParameterAdjuster(self.target, store, self.catalog, SystemClock())

    def apply(self, **after: Any) -> str:
        return self.adjuster.apply(
            after, actor="test", epoch=self.epoch, allow_restart=True
        ).batch_id

    def roll_back(self, batch_id: str) -> None:
        result = self.adjuster.roll_back(batch_id, epoch=self.epoch, reason="test")
        assert result.clean
        assert result.conflicts == ()

    def states(self) -> set[ChangeState]:
        return {row.state for row in self.store.changes()}


def auto_conf(server: AnyServer) -> dict[str, str]:
    """The entries of postgresql.auto.conf, from the file itself."""
    text = (server.cluster_dir / "postgresql.auto.conf").read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+) = '(.*)'$", text, re.MULTILINE))
