"""The clients of the workload: one engine of SQLAlchemy, as an application has it, steered or not.

Each worker keeps one connection of it, in autocommit mode.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import psycopg2
from psycopg2 import errorcodes
from sqlalchemy import create_engine
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from backend.errors import ServerConnectionError
from backend.steering.client import steering_of
from backend.steering.places import FOLDER_MODE, SteeringPlaces
from backend.workload.connection import connect

# The entry point of an installed package, which a source tree does not have.
plugins.register("query_steering", "backend.steering.client", "QuerySteeringPlugin")


class Client:
    """One connection; used by one thread, cancelled by any."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session: Any = connection.connection.driver_connection

    def execute(self, sql: str, parameters: tuple[Any, ...]) -> str:
        """Send a statement and take its rows: ``completed``, ``timeout`` (cancelled) or ``error``.

        Args:
            sql: with a ``%s`` for each parameter.
            parameters: their values.
        """
        try:
            result = self._connection.exec_driver_sql(sql, parameters)
            if result.returns_rows:
                result.all()
        except DBAPIError as error:
            code = getattr(error.orig, "pgcode", None)
            return "timeout" if code == errorcodes.QUERY_CANCELED else "error"
        return "completed"

    @property
    def is_usable(self) -> bool:
        """Whether the connection was not lost, as far as its last statement showed."""
        return not (self._connection.invalidated or self._session.closed)

    def cancel(self) -> None:
        """Cancel the statement in flight, if any.

        Raises:
            psycopg2.Error: the server does not take the request.
        """
        self._session.cancel()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class ClientPool:
    """Opens the workload's connections, looks after them and ends them.

    Args:
        url: the database.
        application_name: how the connections are named.
        statement_timeout_s: set on each connection; the server cancels what takes longer.
        steering: the folder that the clients share with the autopilot, made where it is missing;
            None: without the plug-in.
        default_share: share of a steered class's executions that keeps running the default plan,
            in [0, 1].
    """

    def __init__(
        self,
        url: URL,
        *,
        application_name: str,
        statement_timeout_s: float,
        steering: SteeringPlaces | None,
        default_share: float,
    ) -> None:
        self._url = url
        self._engine = create_engine(
            url.set(drivername="postgresql+psycopg2"),
            creator=lambda: connect(
                url, application_name=application_name, statement_timeout_s=statement_timeout_s
            ),
            isolation_level="AUTOCOMMIT",
            poolclass=NullPool,
            pool_reset_on_return=None,
            use_native_hstore=False,  # it would ask the server with each new connection
            hide_parameters=True,
            **({} if steering is None else _plug_in(steering, default_share)),
        )
        self._lock = threading.Lock()
        self._clients: set[Client] = set()

    def connect(self) -> Client:
        """Open a connection.

        Raises:
            ServerConnectionError: the server cannot be reached or refuses.
            sqlalchemy.exc.DBAPIError: the address can never work.
        """
        try:
            client = Client(self._engine.connect())
        except OperationalError as error:  # lost while SQLAlchemy asked its first questions
            raise ServerConnectionError(
                f"lost the connection to {self._url.host}:{self._url.port}/{self._url.database}"
            ) from error
        with self._lock:
            self._clients.add(client)
        return client

    def disconnect(self, client: Client) -> None:
        """End one of the connections."""
        with self._lock:
            self._clients.discard(client)
        client.close()

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return len(self._clients)

    def cancel_all(self) -> None:
        """Cancel every statement in flight, as far as the server takes the requests."""
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            with contextlib.suppress(psycopg2.Error):
                client.cancel()

    def report(self) -> None:
        """Hand out at once what the plug-in has noted."""
        if (steering := steering_of(self._engine)) is not None:
            steering.report()


def _plug_in(places: SteeringPlaces, default_share: float) -> dict[str, Any]:
    """What makes an engine steered, as arguments of ``create_engine``."""
    places.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    return {
        "plugins": ["query_steering"],
        "query_steering_table": places.table,
        "query_steering_report": places.timings,
        "query_steering_samples": places.spooled_samples,
        "query_steering_default_share": default_share,
    }
