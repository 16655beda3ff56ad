"""Which server answers, and that all connections of one target end on the same one.

After a fail-over the same address leads to another server. ALTER SYSTEM is not replicated, so its
entries are others: nothing that was begun on the former one may be ended there.
"""

from __future__ import annotations

from backend.db_connector import DatabaseConnector
from backend.domain.server import ServerIdentity
from backend.errors import OtherServerError, ServerConnectionError, ServerError

STANDBY = "standby"

_SYSTEM = "SELECT system_identifier::text AS id FROM pg_control_system()"
# The timeline in pg_control is the last checkpoint's: after a promotion it is old for a while.
_WHO = """
SELECT pg_is_in_recovery() AS standby,
       CASE WHEN NOT pg_is_in_recovery()
            THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS timeline,
       host(inet_server_addr()) || ':' || inet_server_port() AS place
"""


def system_identifier(connector: DatabaseConnector) -> str | None:
    """What initdb gave the cluster, and its copies keep; None where a service hides it."""
    try:
        return str(connector.fetch(_SYSTEM, reconnect=False)[0]["id"])
    except ServerConnectionError:
        raise
    except ServerError:
        return None


def identity_of(connector: DatabaseConnector) -> ServerIdentity:
    """The server behind the open connection; of one that does not tell only the place.

    Raises:
        ServerConnectionError: the server cannot be reached.
    """
    try:
        row = connector.fetch(_WHO, reconnect=False)[0]
    except ServerConnectionError:
        raise
    except ServerError:  # services that replicate in another way have no such positions
        return ServerIdentity("", connector.address)
    number = STANDBY if row["standby"] else str(int(row["timeline"], 16))
    system = system_identifier(connector) or "hidden"
    return ServerIdentity(f"{system}/{number}", row["place"] or connector.address)


class SameServer:
    """Lets the connections of a target end on one server only: that of the first one.

    Args:
        connectors: asked to check each connection that they open.
    """

    def __init__(self, *connectors: DatabaseConnector) -> None:
        self._first: ServerIdentity | None = None
        for connector in connectors:
            connector.on_connect = self.check

    def check(self, connector: DatabaseConnector) -> None:
        """Remember the server, or compare it with the one remembered.

        Raises:
            OtherServerError: it is another one.
            ServerConnectionError: it cannot be asked.
        """
        found = identity_of(connector)
        if self._first is None:
            self._first = found
        elif self._first.is_not(found.timeline):
            what = "a stand-by" if found.timeline.endswith(STANDBY) else "another server"
            raise OtherServerError(
                f"{connector.address} leads to {what} now: {found}, before {self._first}",
                remedy="nothing is done there before everything about it was read anew",
            )
