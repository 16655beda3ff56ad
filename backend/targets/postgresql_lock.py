"""The one-tuner lock: at most one tuner acts on a server."""

from __future__ import annotations

from backend.db_connector import DatabaseConnector
from backend.errors import ServerConnectionError

# "autopilt" in ASCII: a key that nobody else is likely to have chosen.
TUNER_LOCK_KEY = int.from_bytes(b"autopilt", "big")


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

    @property
    def session_pid(self) -> int | None:
        """Process id of the session that holds the lock; None while we do not hold it."""
        return self._pid

    def hold(self) -> bool:
        """Take the lock, or verify that our session still holds it; False: another tuner has it.

        Raises:
            ServerConnectionError: the server cannot be reached.
        """
        if self._pid is not None and self._connector.is_connected:
            try:
                # Our session answers, so it lives, so it holds the lock.
                self._connector.fetch("SELECT 1", reconnect=False)
                return True
            except ServerConnectionError:
                pass
        self._pid = None
        rows = self._connector.fetch(
            "SELECT pg_try_advisory_lock(%s) AS held, pg_backend_pid() AS pid", (TUNER_LOCK_KEY,)
        )
        if rows[0]["held"]:
            self._pid = rows[0]["pid"]
            return True
        self._connector.close()
        return False

    def release(self) -> None:
        """Give the lock back by ending its session. Idempotent."""
        self._pid = None
        self._connector.close()
