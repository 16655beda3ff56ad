"""The store: the one thing that ties the processes together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from backend.printable import printable
from backend.telemetry.commands import CommandTables
from backend.telemetry.connections import BUSY_TIMEOUT_S, make_engine, store_url
from backend.telemetry.control import ControlTables
from backend.telemetry.journal import JournalTables
from backend.telemetry.opening import make_ready
from backend.telemetry.policies import PolicyTables
from backend.telemetry.retention import RetentionTables
from backend.telemetry.steering import SteeringTables
from backend.telemetry.summary import summary_text

if TYPE_CHECKING:
    from rich.console import Console


class SqlStore(
    JournalTables, SteeringTables, PolicyTables, ControlTables, CommandTables, RetentionTables
):
    """Implements ``backend.protocols.Store`` on SQLite or PostgreSQL. Use :func:`open_store`.

    Every method raises StoreError where the database fails. Threads and processes may share a
    store; a method returns when its write is durable, or, inside :meth:`transaction`, when that
    ends.
    """

    def print_summary(self, console: Console | None = None) -> None:
        """Print what the store holds, in plain words."""
        from rich.console import Console

        text = printable(summary_text(self), keep="\n")
        (console or Console()).print(text, markup=False, highlight=False, soft_wrap=True)


def open_store(
    url: str | sa.URL, *, read_only: bool = False, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> SqlStore:
    """Open a store, creating or migrating it first (not when ``read_only``).

    Args:
        url: ``sqlite:////absolute/path.db`` (its folder is created) or
            ``postgresql://user:password@host:port/database``, where the tables live in the
            schema ``autopilot``.
        read_only: refuse every write; the store must exist.
        busy_timeout_s: how long a writer waits for its turn in a SQLite file.

    Raises:
        StoreError: the address is no good, the database is out of reach or damaged, or the
            store comes from a newer version. A SQLite file is copied before it is migrated.
    """
    engine = make_engine(store_url(url), read_only=read_only, busy_timeout_s=busy_timeout_s)
    try:
        make_ready(engine, read_only=read_only)
    except BaseException:
        engine.dispose()
        raise
    return SqlStore(engine, read_only=read_only)
