"""Connections to the database server: tagged statements, hard time-outs, errors that say why.

Everything we send carries the comment :data:`STATEMENT_TAG`, so that pg_stat_statements and
pg_stat_activity show which statements are ours and the collector can leave them out. The tag
stands *behind the first keyword*: PostgreSQL 18 cuts a leading comment off before it stores the
text, and no version touches a comment inside a statement.

The connection is an asynchronous one of libpq that we drive with poll(2): the server's
``statement_timeout`` cannot help where the network or the whole server has gone silent, so every
wait here has a deadline of its own.
https://www.postgresql.org/docs/current/libpq-async.html
"""

from __future__ import annotations

import re
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Union

import psycopg2
import psycopg2.extensions as pgext
from psycopg2 import errors as pgerrors
from psycopg2 import sql
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.engine import URL

from backend.connection_remedies import GENERAL, connection_remedy
from backend.errors import (
    ConfigError,
    PrivilegeError,
    RefusedValueError,
    ServerConnectionError,
    ServerError,
    UnsupportedServerError,
)
from backend.printable import printable

STATEMENT_TAG = "/* autopilot */"
TUNER_APPLICATION = "autopilot_tuner"
WATCHDOG_APPLICATION = "autopilot_watchdog"
EXPLORER_ROLE = "autopilot_explorer"
"""The role that the embedded server has for statements on trial; telemetry leaves it out."""
OLDEST_VERSION = 14
NEWEST_VERSION = 18

Statement = Union[str, sql.Composable]
Parameters = Union[Sequence[Any], Mapping[str, Any], None]

# What the client waits longer than the server's own statement_timeout before it gives up.
_GRACE_S = 2.0
_FIRST_KEYWORD = re.compile(r"\s*(?:\(\s*)*[A-Za-z]+")
_INVALID_VALUE = "22023"
_SERVER_SHUTS_DOWN = ("57P01", "57P02", "57P03", "57P04", "57P05")


def tagged(statement: str) -> str:
    """Put our tag behind the statement's first keyword.

    Raises:
        ValueError: the statement does not begin with a keyword (a comment, say).
    """
    match = _FIRST_KEYWORD.match(statement)
    if match is None:
        raise ValueError(f"a statement must begin with a keyword: {statement[:60]!r}")
    return f"{match.group()} {STATEMENT_TAG}{statement[match.end() :]}"


def is_tagged(statement: str) -> bool:
    """Whether the text of a statement shows it to be ours."""
    return STATEMENT_TAG in statement


def quoted_identifier(name: str) -> str:
    """A name quoted for SQL that is shown to people; what we run goes through psycopg2.sql."""
    return '"' + name.replace('"', '""') + '"'


def libpq_arguments(url: URL) -> dict[str, Any]:
    """A URL as arguments of ``psycopg2.connect``.

    Where it names a host, that is the one: libpq would let PGHOSTADDR or a service's ``hostaddr``
    lead elsewhere, and a setting would be changed on a server that nobody named.
    """
    dialect = PGDialect_psycopg2()  # type: ignore[no-untyped-call]
    _, arguments = dialect.create_connect_args(url)  # type: ignore[no-untyped-call]
    if arguments.get("host"):
        arguments.setdefault("hostaddr", "")
    return dict(arguments)


class DatabaseConnector:
    """One connection to one database, opened when first used and again after it was lost.

    Safe to share between threads: statements run one after the other. Statements run in
    autocommit; there is never a transaction of ours left open.

    Args:
        url: ``postgresql://user:password@host:port/database``; libpq's own parameters
            (``sslmode`` and so on) may stand in its query.
        application_name: what pg_stat_activity shows for our session.
        connect_timeout_s: the deadline for opening a connection.
        statement_timeout_ms: the server's limit for one statement; the client waits two seconds
            longer, then drops the connection.
        lock_timeout_ms: the longest wait for a lock, so that we never queue behind the
            application, nor it behind us.
        search_path: what unqualified names mean. The default keeps objects that somebody made in
            ``public`` from posing as the server's own.
        session_settings: more settings of our session. Never give one that is read back as a
            knob: it would show the session's value.

    Raises:
        ConfigError: the URL is not one of PostgreSQL.
    """

    def __init__(
        self,
        url: URL,
        *,
        application_name: str = TUNER_APPLICATION,
        connect_timeout_s: float = 5,
        statement_timeout_ms: int = 5000,
        lock_timeout_ms: int = 500,
        search_path: str = "pg_catalog",
        session_settings: Mapping[str, str] | None = None,
    ) -> None:
        if url.get_backend_name() != "postgresql":
            raise ConfigError(
                f"{url.get_backend_name()!r} is not a PostgreSQL URL",
                remedy="use postgresql://user:password@host:port/database",
            )
        self.url = url
        self.application_name = application_name
        self._connect_timeout_s = connect_timeout_s
        self._statement_timeout_ms = statement_timeout_ms
        self._lock_timeout_ms = lock_timeout_ms
        self._search_path = search_path
        self._session_settings = dict(session_settings or {})
        self.on_connect: Callable[[DatabaseConnector], None] | None = None
        """Looks at each new connection before it is used; what it raises closes it again."""
        self._connection: pgext.connection | None = None
        self._guard = threading.RLock()

    def sibling(self, **session_settings: str) -> DatabaseConnector:
        """A second connection like this one, with more settings of its session."""
        return self._like_this(self.url, {**self._session_settings, **session_settings})

    def in_database(self, name: str) -> DatabaseConnector:
        """A connection like this one to another database of the same server."""
        return self._like_this(self.url.set(database=name), self._session_settings)

    def _like_this(self, url: URL, session_settings: Mapping[str, str]) -> DatabaseConnector:
        return DatabaseConnector(
            url,
            application_name=self.application_name,
            connect_timeout_s=self._connect_timeout_s,
            statement_timeout_ms=self._statement_timeout_ms,
            lock_timeout_ms=self._lock_timeout_ms,
            search_path=self._search_path,
            session_settings=session_settings,
        )

    def __repr__(self) -> str:
        """Show the address, never the password."""
        return f"DatabaseConnector({self.address!r}, application_name={self.application_name!r})"

    # -- what it is connected to --------------------------------------------------------------

    @property
    def address(self) -> str:
        """``host:port/database`` for people; no user, no password."""
        host = self.url.host or self.url.query.get("host") or "local socket"
        return f"{host}:{self.url.port or 5432}/{self.url.database or ''}"

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open, as far as we know without asking the server."""
        return self._connection is not None and not self._connection.closed

    @property
    def server_version(self) -> int:
        """The server's version as ``server_version_num`` gives it, 170010 for 17.10."""
        with self._guard:
            return int(self._connected().server_version)

    @property
    def backend_pid(self) -> int:
        """Process id of the server's process behind our connection; opens it if need be."""
        with self._guard:
            return int(self._connected().get_backend_pid())

    # -- statements ---------------------------------------------------------------------------

    def fetch(
        self, statement: Statement, params: Parameters = None, *, reconnect: bool = True
    ) -> list[dict[str, Any]]:
        """Run a reading statement and return its rows as dicts.

        A connection that was lost since the last statement is opened again once, because reading
        twice does no harm; ``reconnect=False`` forbids that.

        Raises:
            ServerConnectionError: no connection, or no answer in time.
            PrivilegeError: our role may not read this.
            ServerError: the server refused the statement.
        """
        names, rows = self._run(statement, params, reconnect=reconnect)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def fetch_tuples(
        self, statement: Statement, params: Parameters = None
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Like :meth:`fetch`, as column names and rows: cheaper where there are many rows."""
        return self._run(statement, params, reconnect=True)

    def execute(self, statement: Statement, params: Parameters = None) -> None:
        """Run a statement that changes something. It is sent once, never repeated.

        Raises:
            ServerConnectionError: no connection, or no answer in time: the statement may or may
                not have taken effect.
            PrivilegeError: our role may not do this.
            ServerError: the server refused the statement.
        """
        self._run(statement, params, reconnect=False)

    def close(self) -> None:
        """Close the connection. Idempotent; the next statement opens a new one."""
        with self._guard:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    # -- inside -------------------------------------------------------------------------------

    def _run(
        self, statement: Statement, params: Parameters, *, reconnect: bool
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        with self._guard:
            had_connection = self.is_connected
            try:
                return self._run_once(statement, params)
            except ServerConnectionError:
                if not (reconnect and had_connection):
                    raise
                return self._run_once(statement, params)

    def _run_once(
        self, statement: Statement, params: Parameters
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        connection = self._connected()
        with self._translated(connection):
            cursor = connection.cursor()
            text = statement if isinstance(statement, str) else statement.as_string(cursor)
            cursor.execute(tagged(text), params)
            self._wait(connection, self._statement_timeout_ms / 1000 + _GRACE_S)
            if cursor.description is None:
                return (), []
            return tuple(column.name for column in cursor.description), cursor.fetchall()

    def _connected(self) -> pgext.connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        self._connection = None
        with self._translated(None):
            connection: pgext.connection = psycopg2.connect(async_=1, **self._connect_arguments())
            try:
                self._wait(connection, self._connect_timeout_s)
            except BaseException:
                connection.close()
                raise
        if connection.server_version < OLDEST_VERSION * 10000:
            connection.close()
            raise self._too_old(str(connection.server_version // 10000))
        self._connection = connection
        if self.on_connect is not None:
            try:
                self.on_connect(self)
            except BaseException:
                self._drop(connection)
                raise
        return connection

    def _connect_arguments(self) -> dict[str, Any]:
        arguments = libpq_arguments(self.url)
        settings = {
            "statement_timeout": self._statement_timeout_ms,
            "lock_timeout": self._lock_timeout_ms,
            "idle_in_transaction_session_timeout": 60_000,
            # The session that holds the tuner lock is idle most of the time.
            "idle_session_timeout": 0,
            "search_path": self._search_path,
            "TimeZone": "UTC",
            **self._session_settings,
        }
        ours = " ".join(f"-c {name}={_option(value)}" for name, value in settings.items())
        arguments["options"] = f"{arguments.get('options', '')} {ours}".strip()
        arguments["application_name"] = self.application_name
        # A peer that vanished is noticed even between statements.
        arguments.update(
            keepalives=1, keepalives_idle=10, keepalives_interval=5, keepalives_count=3
        )
        arguments["tcp_user_timeout"] = 15_000
        return arguments

    def _wait(self, connection: pgext.connection, timeout_s: float) -> None:
        try:
            self._poll_until_done(connection, timeout_s)
        except psycopg2.Error:
            raise  # the server's answer: the connection is as good as it was
        except BaseException:
            # Interrupted half-way (a signal, our deadline): an answer may still be under way.
            self._drop(connection)
            raise

    def _poll_until_done(self, connection: pgext.connection, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        poller = select.poll()
        while (state := connection.poll()) != pgext.POLL_OK:
            left_s = deadline_s - time.monotonic()
            events = select.POLLIN if state == pgext.POLL_READ else select.POLLOUT
            descriptor = connection.fileno()
            poller.register(descriptor, events)
            ready = poller.poll(left_s * 1000) if left_s > 0 else []
            # While connecting, libpq may close one socket and go on with another.
            poller.unregister(descriptor)
            if not ready:
                raise ServerConnectionError(
                    f"{self.address} gave no answer within {timeout_s:g} s",
                    remedy="check that the server is up and the network between is open",
                )

    def _drop(self, connection: pgext.connection | None) -> None:
        if connection is not None:
            connection.close()
        if self._connection is connection:
            self._connection = None

    @contextmanager
    def _translated(self, connection: pgext.connection | None) -> Iterator[None]:
        """Turn psycopg2's errors into ours, without the password."""
        try:
            yield
        except psycopg2.Error as error:
            self._raise_translated(error, connection)

    def _raise_translated(
        self, error: psycopg2.Error, connection: pgext.connection | None
    ) -> NoReturn:
        code = error.pgcode or ""
        told = (error.diag.message_primary or str(error)).strip().splitlines()
        text = printable("; ".join(" ".join(line.split()) for line in told))
        message = self._without_password(text) or type(error).__name__
        lost = connection is None or connection.closed or code in _SERVER_SHUTS_DOWN
        if lost:
            self._drop(connection)
            if "idle_session_timeout" in message:  # this setting came with version 14
                raise self._too_old("before 14") from None
            verb = "cannot connect to" if connection is None else "lost the connection to"
            raise ServerConnectionError(
                f"{verb} {self.address}: {message}",
                remedy=connection_remedy(message) if connection is None else GENERAL,
            ) from None
        if isinstance(error, pgerrors.InsufficientPrivilege):
            raise PrivilegeError(
                f"role {self.url.username!r} may not do this on {self.address}: {message}",
                remedy="run the doctor command: it lists the missing privileges and their SQL",
            ) from None
        if isinstance(error, pgerrors.QueryCanceled):
            raise ServerError(
                f"a statement on {self.address} was cancelled: {message} "
                f"(statement_timeout {self._statement_timeout_ms} ms, SQLSTATE {code})"
            ) from None
        if isinstance(error, pgerrors.LockNotAvailable):
            raise ServerError(
                f"a statement on {self.address} waited {self._lock_timeout_ms} ms for a lock "
                f"(SQLSTATE {code})"
            ) from None
        state = f" (SQLSTATE {code})" if code else ""
        kind = RefusedValueError if code == _INVALID_VALUE else ServerError
        raise kind(f"{self.address} refused a statement: {message}{state}") from None

    def _too_old(self, version: str) -> UnsupportedServerError:
        return UnsupportedServerError(
            f"PostgreSQL {version} at {self.address} is too old: versions {OLDEST_VERSION} to "
            f"{NEWEST_VERSION} are supported",
            remedy=f"upgrade the server to PostgreSQL {OLDEST_VERSION} or newer",
        )

    def _without_password(self, text: str) -> str:
        password = self.url.password
        return text.replace(str(password), "***") if password else text


def _option(value: object) -> str:
    """Escape a value for libpq's ``options`` parameter."""
    return str(value).replace("\\", "\\\\").replace(" ", "\\ ")
