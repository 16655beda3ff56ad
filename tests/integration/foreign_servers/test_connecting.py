"""Every way to name a server and to prove who we are, on a real one with TLS."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backend.config import load_settings
from backend.errors import ServerConnectionError
from backend.servers import postgres_target
from tests.foreign_server import ForeignServer, foreign_server
from tests.integration.conftest import DEBIAN_BIN_DIR

pytestmark = pytest.mark.integration

SECRET = "s3cret: \\of %the 'tuner"
ROLE = "tuner"


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for ``localhost`` that is its own authority, and its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
            "subjectAltName=DNS:localhost", "-out", cert, "-keyout", key,
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("certificates")
    return {name: certificate(folder, name) for name in ("server", "stranger")}


@pytest.fixture(scope="module")
def server(certificates: dict[str, tuple[Path, Path]]) -> Iterator[ForeignServer]:
    """It takes TLS connections alone, but for its owner."""
    if not (DEBIAN_BIN_DIR / "postgres").exists():
        pytest.skip(f"no PostgreSQL 15 in {DEBIAN_BIN_DIR} (apt-get install postgresql-15)")
    with foreign_server(DEBIAN_BIN_DIR) as made:
        for path, name in zip(certificates["server"], ("tls.crt", "tls.key"), strict=True):
            made.give(name, path.read_text())
        made.configure("ssl = on\nssl_cert_file = 'tls.crt'\nssl_key_file = 'tls.key'")
        made.give(
            "pg_hba.conf",
            f"host all {made.user} 127.0.0.1/32 scram-sha-256\n"
            "hostssl all all 127.0.0.1/32 scram-sha-256\n",
        )
        made.restart()
        password = SECRET.replace("'", "''").replace("\\", "\\\\")
        made.run(f"CREATE ROLE {ROLE} LOGIN PASSWORD E'{password}'")
        yield made


@pytest.fixture
def environment(
    server: ForeignServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """An environment without any settings, in a folder without any files."""
    import os

    for name in list(os.environ):
        if name.startswith(("PG", "AUTOPILOT_")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def connected(dsn: str | None = None) -> dict[str, Any]:
    """Who we are where, and with which TLS, when the settings are followed."""
    settings = load_settings(dsn=dsn)
    with closing(postgres_target(settings)) as target:
        info = target.describe()
        assert SECRET not in repr(info) + repr(settings)
        found = target._connector.fetch(
            "SELECT current_user AS role, current_database() AS database, s.ssl AS tls"
            " FROM pg_stat_ssl AS s WHERE s.pid = pg_backend_pid()"
        )
    return found[0]


def failure(dsn: str | None = None) -> ServerConnectionError:
    """The error of a connection that must fail; it holds no password."""
    with pytest.raises(ServerConnectionError) as caught:
        connected(dsn)
    assert SECRET not in str(caught.value)
    return caught.value


US = {"role": ROLE, "database": "shop", "tls": True}
ESCAPED = "s3cret%3A%20%5Cof%20%25the%20%27tuner"


# -- sources ------------------------------------------------------------------------------------


def test_a_url(server: ForeignServer, environment: pytest.MonkeyPatch) -> None:
    dsn = f"postgresql://{ROLE}:{ESCAPED}@localhost:{server.port}/shop"
    assert connected(dsn) == US
    environment.setenv("DATABASE_URL", dsn)
    assert connected() == US


def libpq(server: ForeignServer, environment: pytest.MonkeyPatch, **more: str) -> None:
    given = {"PGHOST": "localhost", "PGPORT": str(server.port), "PGUSER": ROLE, **more}
    for name, value in {"PGDATABASE": "shop", **given}.items():
        environment.setenv(name, value)


def test_libpqs_variables(server: ForeignServer, environment: pytest.MonkeyPatch) -> None:
    libpq(server, environment, PGPASSWORD=SECRET)
    assert connected() == US


def test_a_password_file(
    server: ForeignServer, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    libpq(server, environment)
    error = failure()
    assert ".pgpass" in (error.remedy or "")
    password = SECRET.replace("\\", "\\\\").replace(":", "\\:")
    line = f"localhost:{server.port}:*:{ROLE}:{password}\n"
    (tmp_path / ".pgpass").write_text(line)
    (tmp_path / ".pgpass").chmod(0o600)
    assert connected() == US
    (tmp_path / ".pgpass").rename(tmp_path / "elsewhere")
    environment.setenv("PGPASSFILE", str(tmp_path / "elsewhere"))
    assert connected() == US
    (tmp_path / "elsewhere").chmod(0o644)  # libpq does not read what others can
    assert "0600" in (failure().remedy or "")


def test_a_service(server: ForeignServer, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".pg_service.conf").write_text(
        f"[ours]\nhost=localhost\nport={server.port}\nuser={ROLE}\ndbname=shop\n"
        f"password={SECRET}\nsslmode=require\n"
    )
    assert connected("postgresql://?service=ours") == US
    environment.setenv("PGSERVICE", "ours")
    assert connected() == US


# -- TLS ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
def test_every_mode_with_the_right_certificate(
    server: ForeignServer,
    environment: pytest.MonkeyPatch,
    certificates: dict[str, tuple[Path, Path]],
    mode: str,
) -> None:
    libpq(server, environment, PGPASSWORD=SECRET)
    authority = certificates["server"][0]
    by_url = f"postgresql://localhost/shop?sslmode={mode}&sslrootcert={authority}"
    assert connected(by_url) == US
    environment.setenv("PGSSLMODE", mode)
    environment.setenv("PGSSLROOTCERT", str(authority))
    assert connected() == US


def test_what_fails_is_told_with_its_remedy(
    server: ForeignServer,
    server_15: ForeignServer,
    environment: pytest.MonkeyPatch,
    certificates: dict[str, tuple[Path, Path]],
    tmp_path: Path,
) -> None:
    libpq(server, environment, PGPASSWORD=SECRET)
    right, wrong = certificates["server"][0], certificates["stranger"][0]
    for place, words in (
        (f"localhost/shop?sslmode=verify-full&sslrootcert={wrong}", "was not issued by"),
        (f"127.0.0.1/shop?sslmode=verify-full&sslrootcert={right}", "stands in the certificate"),
        (f"localhost/shop?sslmode=verify-ca&sslrootcert={tmp_path}/none", "sslrootcert"),
        ("localhost/shop?sslmode=disable", "sslmode=require"),
        ("localhost/no_such_database", "name of the database"),
        ("localhost:1/shop", "listen_addresses"),
    ):
        error = failure(f"postgresql://{place}")
        assert words in (error.remedy or ""), error
    error = failure(f"postgresql://localhost:{server_15.port}/shop?sslmode=require")
    assert "offers no TLS" in (error.remedy or "")
    environment.setenv("PGPASSWORD", "wrong")
    assert "wrong password" in (failure().remedy or "")
