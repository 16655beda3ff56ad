"""The server, the target and the demo store of given settings."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL

from backend.config import Settings
from backend.db_connector import TUNER_APPLICATION, DatabaseConnector
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError
from backend.targets.postgresql import PostgresTarget
from backend.workload.store import DemoStore

GREETING_APPLICATION = "autopilot_start"


def embedded_server(settings: Settings) -> EmbeddedPostgres:
    """The embedded server of these settings, not started."""
    return EmbeddedPostgres(
        Path(settings.paths.data_dir),
        user=settings.database.user,
        dbname=settings.database.dbname,
    )


def demo_store(settings: Settings, server: EmbeddedPostgres) -> DemoStore:
    """The demo store of these settings on the embedded server."""
    return DemoStore(
        server.dsn(),
        scale=settings.workload.data_scale_factor,
        seed=settings.workload.seed,
    )


def postgres_target(
    settings: Settings, application_name: str = TUNER_APPLICATION
) -> PostgresTarget:
    """The PostgreSQL server of these settings; only the embedded one may be restarted."""
    if settings.is_embedded:
        server = embedded_server(settings)
        server.ensure_started()

        def restart() -> None:
            try:
                server.restart()
            except EmbeddedServerError:
                # It comes back with the last good configuration; the caller still learns that
                # this one does not start.
                server.start_or_recover()
                raise

        return PostgresTarget(
            _connector(settings, server.dsn(), application_name), restarter=restart
        )
    return PostgresTarget(_connector(settings, settings.foreign_url(), application_name))


def greet(settings: Settings) -> list[str]:
    """What a foreign server is, and how far the tuner may go there; for the start, a line each.

    Raises:
        ServerConnectionError: it, or the database of the one-tuner lock, cannot be reached.
        UnsupportedServerError: it is older than version 14.
    """
    with closing(postgres_target(settings, GREETING_APPLICATION)) as target:
        info = target.describe()
        target.hold_tuner_lock()  # whoever has it now; the tuner asks again
    wanted = settings.effective_mode
    mode = info.mode_for(wanted)
    lines = [f"{info.version_text} at {info.address}, mode {mode.value}"]
    if mode is not wanted:
        lines.append(f"Mode {wanted.value} is not possible: {info.why_not_further}")
        lines.append("run.py doctor looks at each item, run.py grants prints the SQL.")
    return lines


def _connector(settings: Settings, url: URL, application_name: str) -> DatabaseConnector:
    return DatabaseConnector(
        url,
        application_name=application_name,
        connect_timeout_s=settings.database.connection_timeout,
    )
