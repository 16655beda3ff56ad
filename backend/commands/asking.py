"""What several commands of run.py do with the store: open it for reading, and ask the tuner."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from backend.config import Settings
from backend.domain.modes import CommandKind, CommandState
from backend.domain.records import CommandRecord
from backend.errors import AdjustmentError, AutopilotError
from backend.lease import why_ownerless
from backend.printable import printable
from backend.telemetry import SqlStore, open_store

ANSWER_TIMEOUT_S = 30.0


def open_for_reading(settings: Settings) -> SqlStore:
    """The store, which may be one that this user cannot write.

    Raises:
        AutopilotError: there is none yet.
    """
    require_store(settings)
    return open_store(settings.store_url, read_only=True)


def require_store(settings: Settings) -> None:
    """Refuse where no autopilot has run: a command must not make a store that nobody looks into.

    Raises:
        AutopilotError: there is none yet.
    """
    database = settings.store_url.database
    if settings.store_url.get_backend_name() == "sqlite" and not Path(str(database)).exists():
        raise AutopilotError(
            f"there is no store at {database} yet",
            remedy="give --data-dir or --config as for the autopilot that is meant, or start one: "
            "run python run.py",
        )


def tuner_is_at_work(store: SqlStore) -> bool:
    """Whether a tuner lives that could carry out a command."""
    lease = store.lease()
    return lease is not None and why_ownerless(lease, _now()) is None


def ask_tuner(store: SqlStore, kind: CommandKind, payload: Mapping[str, Any]) -> str:
    """Queue a command and wait for the tuner's answer.

    Raises:
        AdjustmentError: it was refused, or the tuner did not answer in time.
    """
    command_id = store.submit(
        CommandRecord(kind=kind, payload=payload, actor=operator(), created_at=_now())
    )
    command: CommandRecord | None = None
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    while time.monotonic() < deadline_s:
        command = store.command(command_id)
        if command is not None and command.state is CommandState.DONE:
            return printable(command.result, keep="\n")
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


def operator() -> str:
    """Who gives the command, for the audit trail."""
    try:
        return f"{pwd.getpwuid(os.getuid()).pw_name}@command-line"
    except KeyError:
        return f"uid {os.getuid()}@command-line"


def _now() -> datetime:
    return datetime.now(timezone.utc)
