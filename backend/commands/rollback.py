"""``run.py rollback``: by the running tuner where there is one, else by ourselves."""

from __future__ import annotations

from backend.commands.asking import ask_tuner, operator, tuner_is_at_work
from backend.components import build_components
from backend.config import Settings
from backend.domain.clock import SystemClock
from backend.domain.modes import CommandKind
from backend.servers import embedded_server
from backend.telemetry import open_store


def roll_back(settings: Settings, to: int | None) -> str:
    """Go back to policy version ``to`` (default: the one before the present); tells the result.

    Raises:
        ConfigError: there is no such version.
        AdjustmentError: it was refused, or the tuner did not answer in time.
    """
    store = open_store(settings.store_url)
    try:
        if tuner_is_at_work(store):
            payload = {} if to is None else {"version_id": to}
            return ask_tuner(store, CommandKind.ROLL_BACK, payload)
    finally:
        store.close()
    server = embedded_server(settings) if settings.is_embedded else None
    running = server is None or server.is_running()
    try:
        return _do_it(settings, to)
    finally:
        if server is not None and not running:
            server.stop()


def _do_it(settings: Settings, to: int | None) -> str:
    parts = build_components(settings, SystemClock())
    try:
        wanted = parts.deployment.version_to_return_to(to)
        arrival = parts.deployment.go_to(
            wanted, author=operator(), note=f"rolled back to version {wanted.id}"
        )
        return f"rolled back; {arrival.told}"
    finally:
        parts.close()
