"""Connections of the demo store and the workload (plain psycopg2, autocommit)."""

from __future__ import annotations

from typing import Any

import psycopg2
from sqlalchemy.engine import URL

from backend.errors import ServerConnectionError

CONNECT_TIMEOUT_S = 10


def connect(url: URL, *, application_name: str, statement_timeout_s: float | None = None) -> Any:
    """Open an autocommit connection that carries ``application_name``.

    Raises:
        ServerConnectionError: the server cannot be reached or refuses; the password is not named.
    """
    arguments: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
        **url.query,
        "application_name": application_name,
        "connect_timeout": CONNECT_TIMEOUT_S,
    }
    if statement_timeout_s is not None:
        arguments["options"] = f"-c statement_timeout={round(statement_timeout_s * 1000)}"
    try:
        connection = psycopg2.connect(
            **{key: value for key, value in arguments.items() if value is not None}
        )
    except psycopg2.OperationalError as error:
        raise ServerConnectionError(
            f"no connection to {url.host}:{url.port}/{url.database}: {str(error).strip()}",
            remedy="check that the server runs and that host, port, role and password are right",
        ) from error
    connection.autocommit = True
    return connection
