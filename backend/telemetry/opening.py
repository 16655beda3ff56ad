"""Makes a store ready: creates it, brings its schema up to date, refuses what it cannot read.

Alembic is loaded only when there is something to migrate. The migration is one transaction that
holds the database's own writer lock, so processes that start together migrate once.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from backend.errors import StoreError
from backend.telemetry.connections import BUSY_TIMEOUT_S, WRITER, sqlite_file, told
from backend.telemetry.schema import POSTGRESQL_SCHEMA, SCHEMA_REVISION

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x6175746F70696C
"""PostgreSQL's lock for migrations: the word "autopil" in ASCII."""

_alembic_is_busy = threading.Lock()  # Alembic's context is one per process.


def make_ready(engine: sa.Engine, *, read_only: bool = False) -> None:
    """Create or migrate the store behind ``engine``, or check it when reading only.

    Raises:
        StoreError: it is damaged, not a store, newer than this program, or out of reach.
    """
    address = engine.url.render_as_string(hide_password=True)
    path = sqlite_file(engine.url)
    try:
        if path is not None:
            _prepare_file(path, address, create=not read_only)
        with engine.connect() as connection:
            revision = _revision(connection, address)
        if revision == SCHEMA_REVISION:
            return
        if read_only:
            _refuse_newer(revision, address)
            raise StoreError(
                f"the store {address} has schema {revision or 'none'}, not {SCHEMA_REVISION}",
                remedy="start the tuner once, which creates or migrates it",
            )
        with _alembic_is_busy, _migrating(engine) as connection:
            revision = _revision(connection, address)
            if revision == SCHEMA_REVISION:
                return
            _refuse_newer(revision, address)
            if revision is not None and path is not None:
                copy_sqlite(path, path.with_name(f"{path.name}.before-{SCHEMA_REVISION}"))
            _upgrade(connection)
    except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise told(error, address) from error


def _prepare_file(path: Path, address: str, *, create: bool) -> None:
    if path.is_dir():
        raise StoreError(f"the store {address} is a folder", remedy="name a file in it")
    if path.exists():
        return
    if not create:
        raise StoreError(
            f"there is no store at {path} yet", remedy="start the tuner, which creates it"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # It holds the statements of other people's applications: for the owner's eyes alone.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _revision(connection: sa.Connection, address: str) -> str | None:
    """Return the schema's revision, None for an empty database."""
    inspector = sa.inspect(connection)
    schema = None
    if connection.dialect.name == "postgresql":
        schema = POSTGRESQL_SCHEMA
        if not inspector.has_schema(schema):
            return None
    tables = inspector.get_table_names(schema=schema)
    if "alembic_version" in tables:
        versions = connection.execute(sa.text("SELECT version_num FROM alembic_version"))
        return versions.scalar()
    if tables:
        raise StoreError(
            f"{address} holds another program's tables ({', '.join(sorted(tables)[:3])})",
            remedy="choose another place for the store",
        )
    return None


@contextlib.contextmanager
def _migrating(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open the one transaction in which a migration runs; other processes wait for it."""
    with engine.connect().execution_options(**{WRITER: True}) as connection:
        if connection.dialect.name == "sqlite":
            # Rebuilding a table must not cascade; it takes effect only outside a transaction.
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA foreign_keys=OFF")
        with connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
                connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {POSTGRESQL_SCHEMA}"))
            yield connection
        if connection.dialect.name == "sqlite":
            connection.invalidate()  # Its foreign keys are off: do not use it again.


def alembic_config(connection: sa.Connection | None = None) -> Config:
    """Return Alembic's settings for the store's migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command

    command.upgrade(alembic_config(connection), "head")


def _refuse_newer(revision: str | None, address: str) -> None:
    if revision is None:
        return
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if revision not in known:
        raise StoreError(
            f"the store {address} has schema {revision}, newer than this program's "
            f"{SCHEMA_REVISION}",
            remedy="upgrade this program, or choose another place for the store",
        )


def copy_sqlite(source: Path, target: Path) -> None:
    """Write a consistent copy of a SQLite file that may be in use (never a part of one)."""
    unfinished = target.with_name(target.name + ".part")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with (
        contextlib.closing(sqlite3.connect(source, timeout=BUSY_TIMEOUT_S)) as reading,
        contextlib.closing(sqlite3.connect(unfinished)) as writing,
    ):
        reading.backup(writing)
    os.replace(unfinished, target)
