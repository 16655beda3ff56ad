"""The first connections to the embedded server: its database and the statistics extension."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg2
from psycopg2 import sql
from sqlalchemy.engine import URL

from backend.db_connector import libpq_arguments
from backend.errors import EmbeddedServerError

_CONNECT_TIMEOUT_S = 10
_STATEMENT_TIMEOUT_S = 120  # CREATE DATABASE copies a template, which may wait for a checkpoint


def ensure_database(address: URL, dbname: str) -> None:
    """Create the database and in it the extension pg_stat_statements, where they are missing.

    Args:
        address: the server, with role and password; its database is not used.
        dbname: the database to create.

    Raises:
        EmbeddedServerError: no connection, or the server refused.
    """
    with setup_cursor(address, "postgres") as cursor:
        cursor.execute("SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", (dbname,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(dbname)))
    with setup_cursor(address, dbname) as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")


@contextlib.contextmanager
def setup_cursor(address: URL, dbname: str) -> Iterator[psycopg2.extensions.cursor]:
    """Yield a cursor that commits each statement; the connection is closed after it.

    Raises:
        EmbeddedServerError: no connection, or the server refused.
    """
    try:
        connection = psycopg2.connect(
            **libpq_arguments(address.set(database=dbname)),
            application_name="autopilot-setup",
            connect_timeout=_CONNECT_TIMEOUT_S,
            options=f"-c statement_timeout={_STATEMENT_TIMEOUT_S * 1000}",
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()
    except psycopg2.Error as error:
        remedy = None
        if "password authentication failed" in str(error):
            remedy = (
                "the password file does not hold the role's password: remove the file "
                "`password` beside `embedded.json` and start again, a new one is set then"
            )
        raise EmbeddedServerError(
            f"the embedded server refuses database {dbname!r}: {str(error).strip()}", remedy=remedy
        ) from error
