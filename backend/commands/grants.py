"""``run.py grants``: the SQL that gives a role what a mode needs and no more, for psql."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from backend.catalog.knobs import load_catalog
from backend.config import Settings
from backend.db_connector import (
    EXPLORER_ROLE,
    NEWEST_VERSION,
    OLDEST_VERSION,
    quoted_identifier,
)
from backend.domain.modes import Mode
from backend.domain.server import HostFacts
from backend.errors import ConfigError
from backend.servers import postgres_target
from backend.steering.export.quoting import comment, quoted_text
from backend.targets.postgresql_privileges import (
    FIRST_WITH_PARAMETER_GRANTS,
    database_name,
    explorer_grants,
    grants,
    may_change_settings,
)

APPLICATION = "autopilot_grants"


def grant_script(
    settings: Settings,
    *,
    mode: str,
    role: str | None = None,
    server_version: int | None = None,
    explorer: bool = False,
) -> str:
    """The script for a mode; the server is asked for its version where none is given.

    It is for the settings' database; where they name no server, for the one that psql is in.
    With ``explorer``, it also makes the role under which statements are tried.

    Raises:
        ConfigError: no such mode or version.
        ServerConnectionError: the server cannot be reached; give the version then.
    """
    try:
        wanted = Mode(mode)
    except ValueError:
        raise ConfigError(
            f"mode {mode!r:.40} is unknown",
            remedy=f"choose one of {', '.join(m.value for m in Mode)}",
        ) from None
    version = _checked(server_version) if server_version is not None else _asked(settings)
    database = None if settings.is_embedded else settings.database.dbname
    name = role or settings.database.user
    knobs = knobs_in_play(settings, version)
    lines = script(wanted, name, database, version, knobs, explorer=explorer)
    return "\n".join(lines) + "\n"


def knobs_in_play(settings: Settings, version: int) -> tuple[str, ...]:
    """The knobs that would be tried on a foreign server of this version."""
    catalog = load_catalog(version, HostFacts(memory_bytes=0, cpu_count=0.0))
    return catalog.space(max_settle_s=settings.level1.max_settle_s).names


def script(
    mode: Mode,
    role: str,
    database: str | None,
    version: int,
    knobs: tuple[str, ...],
    *,
    explorer: bool = False,
) -> Iterator[str]:
    """The script, line by line."""
    major = version // 10000
    yield comment(f"What the autopilot needs in mode {mode.value} on PostgreSQL {major}: no more.")
    place = "the database to be tuned" if database is None else f"database {database}"
    yield comment(f"Run it as a superuser in {place}:")
    yield comment("    run.py grants ... | psql --dbname=<that database>")
    yield comment("It makes a role where there is none, without a password: set one with")
    yield comment("\\password in psql, and keep it in ~/.pgpass.")
    yield "\\set ON_ERROR_STOP on"
    if database is None:
        yield '\\echo in database :"DBNAME":'
    else:
        yield from _guard(database)
    yield "BEGIN;"
    yield from _creation(role)
    for grant in grants(mode, role, database, version, knobs):
        if grant.purpose:
            yield comment(f"{grant.purpose}:")
        yield grant.statement
    if explorer:
        yield comment("try statements (steering.explore, steering.dsn): a role that only reads:")
        yield from _creation(EXPLORER_ROLE)
        explorers = quoted_identifier(EXPLORER_ROLE)
        yield f"GRANT CONNECT ON DATABASE {database_name(database)} TO {explorers};"
        yield from explorer_grants(EXPLORER_ROLE, version)
    yield "COMMIT;"
    if may_change_settings(mode) and version < FIRST_WITH_PARAMETER_GRANTS:
        yield comment(f"Mode {mode.value} is not possible with this role: before version 15 only a")
        yield comment("superuser may use ALTER SYSTEM, and no function can do it for another role.")
        yield comment("The above is enough for mode advise, which gives you the text to run.")
    yield comment("Not a privilege, but needed: the extension pg_stat_statements, preloaded")
    yield comment("(shared_preload_libraries) and made in this database:")
    yield comment("    CREATE EXTENSION IF NOT EXISTS pg_stat_statements;")
    yield comment("Look at the result with: run.py doctor")


def _creation(role: str) -> Iterator[str]:
    creation = f"CREATE ROLE {quoted_identifier(role)} LOGIN"
    there = f"SELECT FROM pg_roles WHERE rolname = {quoted_text(role)}"  # nosec B608
    yield f"SELECT {quoted_text(creation)}"
    yield f" WHERE NOT EXISTS ({there}) \\gexec"


def _guard(database: str) -> Iterator[str]:
    """Some of the grants hold in one database alone: psql ends where it is another one."""
    yield f"SELECT current_database() <> {quoted_text(database)} AS elsewhere \\gset"
    yield "\\if :elsewhere"
    warning = "".join(c if c.isprintable() and c not in "'\\`" else "?" for c in database)
    yield f"\\warn 'this is not database {warning}: nothing was done'"
    yield "\\quit"
    yield "\\endif"


def _checked(version: int) -> int:
    number = version if version >= 10000 else version * 10000
    if not OLDEST_VERSION <= number // 10000 <= NEWEST_VERSION:
        raise ConfigError(
            f"PostgreSQL {version} is not one of the versions {OLDEST_VERSION} to {NEWEST_VERSION}",
            remedy="give --server-version 14 to 18, or leave it out and the server is asked",
        )
    return number


def _asked(settings: Settings) -> int:
    if settings.is_embedded:
        raise ConfigError(
            "no server was named, and on the embedded one the autopilot's role is the superuser",
            remedy="name yours with --dsn, DATABASE_URL or PGHOST, or give --server-version",
        )
    with closing(postgres_target(settings, application_name=APPLICATION)) as target:
        return target.describe().version
