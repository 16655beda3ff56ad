"""A session of its own in which statements are tried: read-only, tagged, never for long.

It differs from :class:`backend.db_connector.DatabaseConnector`: it holds a transaction while arms
are compared, and it reads answers with COPY, which psycopg2 offers on synchronous connections only.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg2
import psycopg2.extensions as pgext
from psycopg2 import errors as pgerrors
from psycopg2 import extras, sql
from sqlalchemy.engine import URL

from backend.db_connector import Statement, libpq_arguments, tagged
from backend.errors import ServerConnectionError, ServerError
from backend.printable import printable

EXPLORER_APPLICATION = "autopilot_explorer"

SESSION_LASTS_S = 300.0
"""Then another one is opened: settings of a role or a database count for new sessions only."""
_CONTROL_TIMEOUT_MS = 5_000
_GRACE_S = 5.0
_SAVEPOINT = "autopilot_arm"


class TrialSession:
    """One connection, opened when first used, again after it was lost, and every five minutes.

    Args:
        url: ``postgresql://user:password@host:port/database``; best a role of its own that may
            only read.
        search_path: what unqualified names mean in the statements, as their application sets it.
        connect_timeout_s: the deadline for opening the connection.
    """

    def __init__(
        self, url: URL, *, search_path: str = '"$user", public', connect_timeout_s: int = 5
    ) -> None:
        self._url = url
        self._search_path = search_path
        self._connect_timeout_s = connect_timeout_s
        self._connection: pgext.connection | None = None
        self._ready_s = math.inf  # when the connection was

    @property
    def backend_pid(self) -> int:
        """Process id of the server's process behind the session; opens it if need be."""
        return int(self._connected().get_backend_pid())

    def close(self) -> None:
        """End the session. Idempotent; the next use opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def abandon(self) -> None:
        """End the session in the midst of an answer, and what the server still does for it."""
        self.cancel()
        self.close()

    def cancel(self) -> None:
        """Ask the server to end the statement that it runs for this session, from any thread."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(psycopg2.Error):
                connection.cancel()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Open a transaction that writes nothing and sees one state of the data; then end it.

        Raises:
            ServerConnectionError: the server cannot be reached.
        """
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        try:
            self.execute(begin)
        except ServerConnectionError:  # lost since it was last used, by a restart perhaps
            self.execute(begin)
        try:
            yield
        finally:
            try:
                if self._connection is not None:
                    # There is nothing to keep or to undo, and telemetry takes a rollback for a
                    # failure of the application; a transaction that failed ends with one anyway.
                    self.execute("COMMIT")
            except BaseException:
                self.close()
                raise

    @contextlib.contextmanager
    def arm(self, settings: Sequence[tuple[str, str]]) -> Iterator[None]:
        """Set planner settings inside a :meth:`snapshot`, and take them back at the end.

        Later settings win over earlier ones of the same name.
        """
        texts = [f"SAVEPOINT {_SAVEPOINT}"]
        assignment = sql.SQL("SET LOCAL {} = {}")
        for name, value in settings:
            composed = assignment.format(sql.Identifier(name), sql.Literal(value))
            texts.append(composed.as_string(self._connected()))
        self.execute("; ".join(map(tagged, texts)), is_tagged=True)
        try:
            yield
        finally:
            if self._connection is not None:
                self._leave_arm()

    def _leave_arm(self) -> None:
        back = f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}"
        try:
            self.execute(back)
        except pgerrors.QueryCanceled:
            # A short time-out of the arm's own hit this statement, and is undone by that.
            self.execute(back)

    def execute(
        self,
        statement: Statement,
        parameters: Any = None,
        *,
        timeout_s: float = _CONTROL_TIMEOUT_MS / 1000,
        is_tagged: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Run a statement of ours and return its rows, if any.

        Raises:
            ServerConnectionError: the connection was lost, or no answer came in time.
            psycopg2.Error: the server refused it.
        """
        connection = self._connected()
        with self._deadline(connection, timeout_s), connection.cursor() as cursor:
            text = statement if isinstance(statement, str) else statement.as_string(cursor)
            cursor.execute(text if is_tagged else tagged(text), parameters)
            return [] if cursor.description is None else cursor.fetchall()

    def copy_out(self, query: str, sink: Any, *, timeout_s: float) -> None:
        """Run a query and write its rows into ``sink`` as they come, in COPY's text format.

        The server plans and runs the query as it would by itself, parallel workers included, which
        it does not for a cursor; unlike a plain fetch, the client needs not hold the answer.
        https://www.postgresql.org/docs/current/sql-copy.html

        Raises:
            ServerConnectionError: the connection was lost, or no answer came in time.
            psycopg2.Error: the server refused the query or broke it off.
        """
        connection = self._connected()
        with self._deadline(connection, timeout_s), connection.cursor() as cursor:
            # The line feed ends a comment at the end of the query.
            cursor.copy_expert(tagged(f"COPY ({query}\n) TO STDOUT"), sink)

    def fill_in(self, statement: str, parameters: Any) -> str:
        """Return a statement with its parameters as literals, as psycopg2 would send it."""
        connection = self._connected()
        with connection.cursor() as cursor:
            return cursor.mogrify(statement, parameters).decode()

    # -- inside -------------------------------------------------------------------------------

    def _connected(self) -> pgext.connection:
        if self._connection is not None and not self._connection.closed:
            is_old = time.monotonic() - self._ready_s >= SESSION_LASTS_S
            status = self._connection.info.transaction_status
            if not is_old or status != pgext.TRANSACTION_STATUS_IDLE:
                return self._connection
            self.close()
        arguments = libpq_arguments(self._url)
        arguments.update(
            application_name=EXPLORER_APPLICATION,
            connect_timeout=self._connect_timeout_s,
            keepalives=1,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
        try:
            connection: pgext.connection = psycopg2.connect(**arguments)
        except psycopg2.Error as error:
            raise self._lost(error, "cannot connect to") from None
        self._connection, self._ready_s = connection, math.inf
        try:
            self._prepare(connection)
        except BaseException:
            self.close()
            raise
        self._ready_s = time.monotonic()
        return connection

    def _prepare(self, connection: pgext.connection) -> None:
        connection.autocommit = True
        # The parser that judged the statement reads it as UTF-8 with standard strings.
        connection.set_client_encoding("UTF8")
        extras.register_default_json(connection, loads=str)  # plans are parsed within bounds
        for name, value in {
            "standard_conforming_strings": "on",
            "search_path": self._search_path,
            "statement_timeout": str(_CONTROL_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": "60000",
            # Sums of floating-point numbers depend on their order in the last digits.
            "extra_float_digits": "-3",
        }.items():
            self.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
        # Where we may: our statements stay out of the statistics that telemetry reads.
        with contextlib.suppress(pgerrors.InsufficientPrivilege):
            self.execute("SET pg_stat_statements.track = 'none'")

    @contextlib.contextmanager
    def _deadline(self, connection: pgext.connection, timeout_s: float) -> Iterator[None]:
        """Cut the connection when a server says nothing at all, and translate its loss.

        The server's own time-outs come first; this is for one that hangs or is gone silently.
        """
        expired = threading.Event()

        def cut() -> None:
            expired.set()
            with contextlib.suppress(OSError):
                descriptor.shutdown(socket.SHUT_RDWR)

        with socket.socket(fileno=os.dup(connection.fileno())) as descriptor:
            timer = threading.Timer(timeout_s + _GRACE_S, cut)
            timer.daemon = True
            timer.start()
            try:
                yield
            except psycopg2.Error as error:
                if connection.closed or expired.is_set():
                    self.close()
                    raise self._lost(error, "lost the connection to") from None
                raise
            finally:
                timer.cancel()

    def _lost(self, error: psycopg2.Error, what: str) -> ServerConnectionError:
        message = " ".join(printable(str(error)).split())
        if self._url.password:
            message = message.replace(str(self._url.password), "***")
        return ServerConnectionError(
            f"{what} {self._url.host}:{self._url.port}/{self._url.database}: {message}",
            remedy="check address, user and password, and that the server is up",
        )


def refusal(error: psycopg2.Error) -> ServerError:
    """What a server's refusal is among our errors."""
    message = " ".join(printable(error.diag.message_primary or str(error)).split())
    return ServerError(f"the server refused a statement on trial: {message:.200} ({error.pgcode})")
