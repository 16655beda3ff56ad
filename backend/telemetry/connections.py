"""Connections to the store: one engine, short transactions, one writer at a time.

SQLite runs in write-ahead mode with ``synchronous=FULL`` (what was committed survives a power
loss), a busy time-out, and ``BEGIN IMMEDIATE`` for writers, so that several processes take turns
instead of failing when a read turns into a write.
https://www.sqlite.org/wal.html, https://www.sqlite.org/lang_transaction.html
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from backend.errors import StoreError
from backend.telemetry.codec import dump_json, load_json
from backend.telemetry.schema import POSTGRESQL_SCHEMA

BUSY_TIMEOUT_S = 5.0
"""How long a writer waits for its turn."""

WRITER = "store_writer"
"""The execution option that makes a transaction a writer from its start."""


def store_url(url: str | sa.URL) -> sa.URL:
    """Check and complete the store's address.

    Raises:
        StoreError: not an address, or of a database that the store does not support.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise StoreError(
            f"the store's address {_without_secret(str(url))!r} is not a URL",
            remedy="write sqlite:////absolute/path.db or postgresql://user@host:port/database",
        ) from None
    backend = parsed.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg2")
    if backend != "sqlite":
        raise StoreError(
            f"the store cannot live in {backend!r}",
            remedy="use a sqlite:/// or postgresql:// address",
        )
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError(
            "the store cannot live in memory: its processes share it",
            remedy="name a file: sqlite:////absolute/path.db",
        )
    if parsed.query:
        raise StoreError(
            f"a sqlite store takes no options, not {dict(parsed.query)}",
            remedy="remove what follows the question mark",
        )
    return parsed.set(drivername="sqlite")


def _without_secret(text: str) -> str:
    return text.rpartition("@")[2]


def sqlite_file(url: sa.URL) -> Path | None:
    """Return the file of a SQLite store, None for other stores."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def make_engine(
    url: sa.URL, *, read_only: bool = False, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> sa.Engine:
    """Return an engine for an address that passed :func:`store_url`; connects to nothing yet."""
    options: dict[str, Any] = {
        "json_serializer": dump_json,
        "json_deserializer": load_json,
        "hide_parameters": True,
    }
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(
            url, connect_args={"timeout": busy_timeout_s, "check_same_thread": False}, **options
        )
        sa.event.listen(engine, "connect", _SqliteSetup(read_only))
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    settings = f"-c search_path={POSTGRESQL_SCHEMA} -c timezone=UTC"
    if read_only:
        settings += " -c default_transaction_read_only=on"
    return sa.create_engine(
        url,
        pool_pre_ping=True,
        pool_size=3,
        connect_args={
            "application_name": "autopilot store",
            "connect_timeout": 10,
            "options": settings,
        },
        **options,
    )


class _SqliteSetup:
    """Prepares each new SQLite connection."""

    def __init__(self, read_only: bool) -> None:
        self.read_only = read_only

    def __call__(self, connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None  # We begin transactions ourselves.
        if not self.read_only:
            _enable_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        if self.read_only:
            connection.execute("PRAGMA query_only=ON")


def _enable_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead mode, once in the file's life.

    Where several processes try at once, SQLite refuses at once instead of waiting, so we ask
    again until our time is over.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            if mode != "wal":
                raise sqlite3.OperationalError(f"write-ahead mode refused, journal_mode={mode}")
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    writer = connection.get_execution_options().get(WRITER, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")


class Connections:
    """Hands out transactions to the store's parts.

    Safe for use by several threads; each thread has a transaction of its own.
    """

    def __init__(self, engine: sa.Engine, *, read_only: bool = False) -> None:
        """Take over ``engine`` from :func:`make_engine`; :meth:`close` disposes of it."""
        self._engine = engine
        self._read_only = read_only
        self._thread = threading.local()

    @property
    def address(self) -> str:
        """The store's URL without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is a SQLite file."""
        return self._engine.dialect.name == "sqlite"

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Group the writes of this thread: all or nothing.

        Other writers wait meanwhile, so do nothing slow inside. An inner transaction is part
        of the outer one.
        """
        with self._writing():
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        current: sa.Connection | None = getattr(self._thread, "connection", None)
        if current is not None:
            yield current
            return
        if self._read_only:
            raise StoreError(
                f"the store {self.address} was opened for reading only",
                remedy="open it without read_only",
            )
        with self._told(), self._engine.connect() as connection:
            connection = connection.execution_options(**{WRITER: True})
            with connection.begin():
                self._thread.connection = connection
                try:
                    yield connection
                finally:
                    self._thread.connection = None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        current: sa.Connection | None = getattr(self._thread, "connection", None)
        if current is not None:
            yield current
            return
        with self._told(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn the database's errors into ours; statements and values stay out of them."""
        try:
            yield
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            raise told(error, self.address) from error

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._engine.dispose()


def told(error: Exception, address: str) -> StoreError:
    """Say what went wrong with the store at ``address``, with the remedy where we know one."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    lower = text.lower()
    remedy: str | None = None
    if "locked" in lower or "busy" in lower:
        remedy = "another process holds it and does not let go; look for one that hangs"
    elif "malformed" in lower or "not a database" in lower:
        remedy = (
            "the file is damaged or no store: move it away (a new one is made at the next start) "
            "or put a copy in its place"
        )
    elif "full" in lower or "no space" in lower:
        remedy = "free disk space"
    elif "readonly" in lower or "unable to open" in lower or "permission denied" in lower:
        remedy = "make the file, its folder or the schema writable for this user"
    elif isinstance(error, sa.exc.OperationalError) and not address.startswith("sqlite"):
        remedy = "check that the server runs and that address, user and password are right"
    return StoreError(f"store {address}: {text}", remedy=remedy)
