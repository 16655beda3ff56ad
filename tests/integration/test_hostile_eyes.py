"""Whoever reads logs, pages, answers, reports, the store or the process list finds no password."""

from __future__ import annotations

import base64
import contextlib
import http.cookiejar
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from backend.embedded.place import free_port
from backend.report import build_report, write_reports
from backend.run_options import ENVIRONMENT_KEY
from dashboard.pages import PAGES
from tests.running_product import (
    REPOSITORY,
    START_TIMEOUT_S,
    RunningProduct,
    clean_environment,
    open_folder,
)
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PAGES_SECRET, EXPLORER_SECRET = "Pages-Secret-4711", "Explorer-Secret-4712"
DSN_SECRET, ENVIRONMENT_SECRET = "Dsn-Secret-4713", "Environment-Secret-4714"
MAY_HOLD = {"config.yaml", "password", "explorer-password"}
"""The user's own file, and those of the embedded server, of mode 0600."""
ROUTES = ("/api/status", "/api/commands/1", "/metrics", "/healthz", "/plain", "/_dash-layout",
          "/_dash-dependencies", *(page.path for page in PAGES))  # fmt: skip


@pytest.fixture(scope="module")
def product() -> Iterator[RunningProduct]:
    """With users on its pages, and an explorer whose server nobody answers for."""
    with open_folder() as folder:
        dsn = f"postgresql://explorer:{EXPLORER_SECRET}@127.0.0.1:{free_port()}/shop"
        running = RunningProduct(
            folder,
            dashboard={"users": {"ann": {"role": "operator", "password": PAGES_SECRET}}},
            steering={"dsn": dsn, "share": 1.0, "cpu_limit_percent": 100},
        )
        try:
            yield running.start("--fast-mode")
        finally:
            running.end()


@pytest.fixture(scope="module")
def secrets(product: RunningProduct) -> list[bytes]:
    """All passwords of this run, as they are and as they would travel."""
    product.wait_for_child("tuner")
    eventually(lambda: product.store.windows(), "a window", START_TIMEOUT_S)
    own = [
        (product.server.home / name).read_text().strip()
        for name in ("password", "explorer-password")
        if (product.server.home / name).exists()
    ]
    known = [PAGES_SECRET, EXPLORER_SECRET, *own]
    assert all(len(secret) > 10 for secret in known)
    return [
        form
        for secret in known
        for form in (secret.encode(), base64.b64encode(secret.encode()).rstrip(b"="))
    ]


def found(secrets: list[bytes], text: bytes) -> list[bytes]:
    return [secret for secret in secrets if secret in text]


class Operator:
    """Somebody who has logged in."""

    def __init__(self, port: int) -> None:
        self._origin = f"http://127.0.0.1:{port}"
        jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        token = re.search(rb'name="token" value="([^"]+)"', self.get("/login"))
        assert token
        form = {"name": "ann", "password": PAGES_SECRET, "token": token[1].decode()}
        self.get("/login", urllib.parse.urlencode(form).encode())

    def get(self, path: str, form: bytes | None = None) -> bytes:
        """The body and the headers of an answer."""
        headers = {"Origin": self._origin, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
        request = urllib.request.Request(self._origin + path, form, headers)
        try:
            with self._opener.open(request, timeout=30) as answer:
                return bytes(answer.read()) + str(answer.headers).encode()
        except urllib.error.HTTPError as error:
            return error.read() + str(error.headers).encode()


def test_nowhere_is_a_password(product: RunningProduct, secrets: list[bytes]) -> None:
    assert len(found(secrets, product.config_path.read_bytes())) == 2  # or nothing would be found
    # The connections of tuner, watchdog and clients fail for a while.
    postmaster = product.server_processes()[0]
    postmaster.kill()
    psutil.wait_procs([postmaster], timeout=10)
    log = product.data_dir / "logs" / "optimizer.log"
    eventually(lambda: product.try_server_state(), "the server again", START_TIMEOUT_S)

    operator = Operator(product.port)
    assert b"ann" in operator.get("/_dash-layout")
    for path in ROUTES:
        assert not found(secrets, operator.get(path)), path

    processes = [*product.processes(), *product.server_processes()]
    assert len(processes) > 4
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert not found(secrets, "\0".join(process.cmdline()).encode()), process
            options = process.environ().get(ENVIRONMENT_KEY, "")
            assert not found(secrets, options.encode())

    for command in (["report"], ["doctor"], ["steering", "list"]):
        done = subprocess.run(
            product.command(*command),
            env=clean_environment(),
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert not found(secrets, done.stdout + done.stderr), command

    write_reports(build_report(product.store, workload={}), product.data_dir)

    assert log.stat().st_size > 0
    looked_at = []
    for path in product.data_dir.rglob("*"):
        if path.is_file() and path.name not in MAY_HOLD and "cluster" not in path.parts:
            assert not found(secrets, path.read_bytes()), path
            looked_at.append(path.name)
    assert {"telemetry.db", "console.log", "optimizer.log"} <= set(looked_at)
    assert any(name.startswith("final_report") for name in looked_at)
    for path in product.server.home.glob("*password"):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("doctor", "DATABASE_URL"),
        ("doctor", "PGPASSWORD"),
        ("doctor", "AUTOPILOT_DATABASE__PASSWORD"),
        ("advise", "DATABASE_URL"),
    ],
)
def test_a_connection_that_fails_tells_no_password(
    tmp_path: Path, command: str, variable: str
) -> None:
    port = str(free_port())
    given = {"PGHOST": "127.0.0.1", "PGPORT": port, variable: ENVIRONMENT_SECRET}
    if variable == "DATABASE_URL":
        given = {variable: f"postgresql://u:{DSN_SECRET}@127.0.0.1:{port}/shop"}
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "run.py"), command, "--data-dir", str(tmp_path)],
        env=clean_environment(**given),
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    told = done.stdout + done.stderr
    assert b"127.0.0.1" in told
    assert b"Traceback" not in told
    for path in [*tmp_path.rglob("*")]:
        told += path.read_bytes() if path.is_file() else b""
    assert not found([DSN_SECRET.encode(), ENVIRONMENT_SECRET.encode()], told)
