"""``run.py rollback``: by the running tuner where there is one, else by ourselves."""

from __future__ import annotations

import os
import pwd
import time
from datetime import datetime, timezone

from backend.components import build_components
from backend.config import Settings
from backend.domain.clock import SystemClock
from backend.domain.modes import CommandKind, CommandState
from backend.domain.records import CommandRecord
from backend.errors import AdjustmentError
from backend.lease import why_ownerless
from backend.servers import embedded_server
from backend.telemetry import SqlStore, open_store

ANSWER_TIMEOUT_S = 30.0


def roll_back(settings: Settings, to: int | None) -> str:
    """Go back to policy version ``to`` (default: the one before the present); tells the result.

    Raises:
        ConfigError: there is no such version.
        AdjustmentError: it was refused, or the tuner did not answer in time.
    """
    store = open_store(settings.store_url)
    try:
        lease = store.lease()
        if lease is not None and why_ownerless(lease, _now()) is None:
            return _ask_tuner(store, to)
    finally:
        store.close()
    server = embedded_server(settings) if settings.is_embedded else None
    running = server is None or server.is_running()
    try:
        return _do_it(settings, to)
    finally:
        if server is not None and not running:
            server.stop()


def _ask_tuner(store: SqlStore, to: int | None) -> str:
    command_id = store.submit(
        CommandRecord(
            kind=CommandKind.ROLL_BACK,
            payload={} if to is None else {"version_id": to},
            actor=operator(),
            created_at=_now(),
        )
    )
    command: CommandRecord | None = None
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    while time.monotonic() < deadline_s:
        command = store.command(command_id)
        if command is not None and command.state is CommandState.DONE:
            return command.result
        if command is not None and command.state is CommandState.REFUSED:
            raise AdjustmentError(command.result)
        time.sleep(0.2)
    if command is not None and command.state is CommandState.QUEUED:
        # Left in the queue it would surprise the next tuner.
        store.finish(command_id, CommandState.REFUSED, "withdrawn: no tuner took it in time")
    raise AdjustmentError(
        f"the tuner did not answer within {ANSWER_TIMEOUT_S:.0f} s",
        remedy="see errors.log in the logs folder; stop the tuner and call this again",
    )


def _do_it(settings: Settings, to: int | None) -> str:
    parts = build_components(settings, SystemClock())
    try:
        version = parts.deployment.return_to(
            parts.deployment.version_to_return_to(to),
            author=operator(),
            reason="rolled back from the command line",
        )
        return f"rolled back; now policy version {version.id}"
    finally:
        parts.close()


def _now() -> datetime:
    return datetime.now(timezone.utc)


def operator() -> str:
    """Who gives the command, for the audit trail."""
    try:
        return f"{pwd.getpwuid(os.getuid()).pw_name}@command-line"
    except KeyError:
        return f"uid {os.getuid()}@command-line"
