"""The one-tuner lock: at most one tuner acts on a server."""

from __future__ import annotations

from backend.db_connector import DatabaseConnector
from backend.errors import OtherServerError, ServerConnectionError

# "autopilt" in ASCII: a key that nobody else is likely to have chosen.
TUNER_LOCK_KEY = int.from_bytes(b"autopilt", "big")
_STANDBY = "SELECT pg_is_in_recovery() AS standby"
_TRY = """
SELECT pg_try_advisory_lock(%s) AS held, pg_backend_pid() AS pid, pg_is_in_recovery() AS standby
"""


class TunerLock:
    """A session-level advisory lock on a connection of its own, in one database for all.

    The lock lives as long as the session: when the tuner dies, the server frees it by itself.
    The connection must be a direct one, since a pooler would hand the session to somebody else.
    https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS

    Args:
        connector: to database ``postgres`` of the server (advisory locks hold per database), for
            the lock alone.
    """

    def __init__(self, connector: DatabaseConnector) -> None:
        self._connector = connector
        self._pid: int | None = None
        self._on_standby = False

    @property
    def session_pid(self) -> int | None:
        """Process id of the session that holds the lock; None while we do not hold it."""
        return self._pid

    def hold(self) -> bool:
        """Take the lock, or verify that our session still holds it; False: another tuner has it.

        Raises:
            OtherServerError: the stand-by that we are connected to has become a primary.
            ServerConnectionError: the server cannot be reached.
        """
        if self._pid is not None and self._connector.is_connected:
            try:
                # Our session answers, so it lives, so it holds the lock.
                row = self._connector.fetch(_STANDBY, reconnect=False)[0]
            except ServerConnectionError:
                pass
            else:
                self._same_role(row["standby"])
                return True
        self._pid = None
        row = self._connector.fetch(_TRY, (TUNER_LOCK_KEY,))[0]
        if row["held"]:
            self._pid, self._on_standby = row["pid"], row["standby"]
            return True
        self._connector.close()
        return False

    def _same_role(self, on_standby: bool) -> None:
        """A stand-by that is promoted keeps its sessions; nobody would be told otherwise."""
        if on_standby != self._on_standby:
            raise OtherServerError(
                f"the stand-by at {self._connector.address} has become a primary",
                remedy="everything about it is read anew",
            )

    def release(self) -> None:
        """Give the lock back by ending its session. Idempotent."""
        self._pid = None
        self._connector.close()
