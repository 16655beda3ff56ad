"""Real servers for the integration tests, one of each kind for the whole run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from backend.catalog import load_catalog
from backend.commands.grants import knobs_in_play
from backend.domain.server import HostFacts
from backend.embedded_postgres import EmbeddedPostgres
from backend.targets.postgresql_privileges import alter_system
from tests.foreign_roles import environment_of, make_roles, settings_for
from tests.foreign_server import AnyServer, ForeignServer, client_dsn, foreign_server, roles_of
from tests.query_steering import LOOK_ENTRY, OTHER_ENTRY, Sent, steered_engine
from tests.server_programs import bin_dir

DEBIAN_BIN_DIR = Path("/usr/lib/postgresql/15/bin")
NO_HOST = HostFacts(memory_bytes=0, cpu_count=0.0)
WRITTEN_BY_TESTS = ("max_locks_per_transaction", "log_line_prefix")
LEAST_PRIVILEGE = {"least_server", "server_15"}
"""The servers on which the product has what ``run.py grants`` prints, and nothing more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on such a server."""
    for item in items:
        if isinstance(item, pytest.Function):
            callspec = getattr(item, "callspec", None)
            chosen = callspec.params.values() if callspec else ()
            asked = {*item.fixturenames, *(name for name in chosen if isinstance(name, str))}
            if asked & LEAST_PRIVILEGE:
                item.add_marker(pytest.mark.least_privilege)


def open_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder that the server's account can reach (a fresh one is closed)."""
    folder = tempfile.TemporaryDirectory(prefix="autopilot-test-")
    Path(folder.name).chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[EmbeddedPostgres]:
    """Yield a started server of the default kind (the wheel's PostgreSQL 17)."""
    with open_folder() as folder:
        server = EmbeddedPostgres(Path(folder))
        try:
            server.ensure_started()
            yield server
        finally:
            server.destroy()


@pytest.fixture(scope="session")
def debian_server() -> Iterator[EmbeddedPostgres]:
    """Yield a started server from Debian's PostgreSQL 15."""
    if not (DEBIAN_BIN_DIR / "postgres").exists():
        pytest.skip(f"no PostgreSQL 15 in {DEBIAN_BIN_DIR} (apt-get install postgresql-15)")
    with open_folder() as folder:
        server = EmbeddedPostgres(Path(folder), bin_dir=DEBIAN_BIN_DIR)
        try:
            server.ensure_started()
            yield server
        finally:
            server.destroy()


@pytest.fixture(scope="session", params=["embedded_server", "least_server"])
def server(request: pytest.FixtureRequest) -> AnyServer:
    """A started server: the product's own as its superuser, then a user's with least privilege."""
    found: AnyServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def server_14() -> Iterator[ForeignServer]:
    """PostgreSQL 14, without pg_stat_statements."""
    yield from _of_version(14)


@pytest.fixture(scope="session")
def server_15() -> Iterator[ForeignServer]:
    """Debian's PostgreSQL 15, as a user has it."""
    if not (DEBIAN_BIN_DIR / "postgres").exists():
        pytest.skip(f"no PostgreSQL 15 in {DEBIAN_BIN_DIR} (apt-get install postgresql-15)")
    with foreign_server(DEBIAN_BIN_DIR) as server:
        yield server


@pytest.fixture(scope="session")
def least_server() -> Iterator[ForeignServer]:
    """The same, where the product's roles have what ``run.py grants`` prints, and nothing more."""
    if not (DEBIAN_BIN_DIR / "postgres").exists():
        pytest.skip(f"no PostgreSQL 15 in {DEBIAN_BIN_DIR} (apt-get install postgresql-15)")
    with foreign_server(DEBIAN_BIN_DIR) as server:
        make_roles(server)
        yield server


@pytest.fixture
def any_knob(server: AnyServer) -> Iterator[None]:
    """The right to settings that the printed grants leave out, as an owner gives it by hand."""
    roles = roles_of(server)
    if not isinstance(server, ForeignServer) or roles is None:
        yield
        return
    printed = knobs_in_play(settings_for(server), server.version)
    catalogued = load_catalog(server.version, NO_HOST).names
    more = [name for name in (*catalogued, *WRITTEN_BY_TESTS) if name not in printed]
    grant = alter_system(roles.tuner, more)
    server.run(grant)
    yield
    server.run(grant.replace("GRANT", "REVOKE", 1).replace(" TO ", " FROM ", 1))


@pytest.fixture(scope="session")
def server_16() -> Iterator[ForeignServer]:
    """PostgreSQL 16, without pg_stat_statements."""
    yield from _of_version(16)


@pytest.fixture(scope="session")
def server_18() -> Iterator[ForeignServer]:
    """PostgreSQL 18."""
    yield from _of_version(18)


def _of_version(major: int) -> Iterator[ForeignServer]:
    programs = bin_dir(major)
    if programs is None:
        reason = f"no programs of PostgreSQL {major}: make servers"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with foreign_server(programs) as server:
        yield server


@pytest.fixture
def data_dir(server: AnyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a product that knows this server; its commands are run inside it."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    folder = tmp_path
    if isinstance(server, EmbeddedPostgres):
        folder = server.home.parent
    else:
        for name, value in environment_of(server).items():
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def steered(server: AnyServer) -> Iterator[tuple[Engine, Sent]]:
    """An engine of one connection for `LOOK` and `OTHER`, of an application."""
    with steered_engine(
        client_dsn(server), LOOK_ENTRY, OTHER_ENTRY, pool_size=1, max_overflow=0
    ) as both:
        yield both
