"""A built wheel, installed elsewhere and run from another folder, is the whole product."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.embedded.place import free_port
from backend.embedded_postgres import EmbeddedPostgres
from dashboard.pages import PAGES
from tests.running_product import REPOSITORY, clean_environment, open_folder
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.integration]

SOURCES = (
    "backend", "dashboard", "static", "templates", "run.py", "setup.py", "pyproject.toml",
    "README.md", "LICENSE", "requirements.txt",
)  # fmt: skip
NOT_DATA = (".py", ".pyc", "pyproject.toml")
"""What setuptools finds by itself, or never packs."""
WAIT_S = 120.0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that nothing is left in the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, tree / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tree / "dist")]
    _pip("wheel", *options, str(tree))
    (built,) = (tree / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Path]:
    """A folder outside the tree that holds the wheel's contents; its dependencies are here."""
    with open_folder() as folder:
        _pip("install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel))
        (folder / "elsewhere").mkdir()
        yield folder


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        cwd="/", env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_holds_every_file_that_is_not_code(wheel: Path):
    places = {"static": "dashboard/static", "templates": "dashboard/templates"}
    wanted = set()
    for top in ("backend", "dashboard", "static", "templates"):
        for path in (REPOSITORY / top).rglob("*"):
            if path.is_file() and not path.name.endswith(NOT_DATA):
                inside = path.relative_to(REPOSITORY / top).as_posix()
                wanted.add(f"{places.get(top, top)}/{inside}")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wanted - names == set()
    assert {"run.py", "backend/telemetry/migrations/env.py"} <= names
    assert any(re.search(r"migrations/versions/\d+_\w+\.py$", name) for name in names)
    assert any(name.endswith(".css") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "static/"))]
    assert {"query_steering/plugin.py", "query_steering/py.typed"} <= names


PLUGIN_ALONE = """
import pathlib
import sys
from sqlalchemy import create_engine, text
import query_steering
engine = create_engine(
    sys.argv[1], plugins=["query_steering"], query_steering_table="table.json",
    query_steering_report="timings.jsonl",
)
sql = "SELECT current_setting('work_mem')"
query_steering.write_table(
    pathlib.Path("table.json"),
    [
        query_steering.SteeringEntry(
            query_steering.fingerprint(sql), '"$user", public', "larger", {"work_mem": "64MB"},
            {"work_mem": "4MB"}, query_steering.functions_called(sql), mode="pin",
        )
    ],
    expires_at_s=4e9,
)
with engine.connect() as connection:
    print(connection.execute(text(sql)).scalar_one())
roots = {name.partition(".")[0] for name in sys.modules}
print(sorted(roots & {"backend", "dashboard", "numpy", "pydantic", "tensorflow", "yaml"}))
print(query_steering.__file__)
"""


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in the product's wheel"])
def test_the_plug_in_works_where_nothing_else_of_the_product_is(
    alone: bool, wheel: Path, tmp_path: Path, embedded_server: EmbeddedPostgres
) -> None:
    if alone:
        source = shutil.copytree(REPOSITORY / "backend/steering/client", tmp_path / "client")
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path)]
        _pip("wheel", *options, str(source))
        (wheel,) = tmp_path.glob("*.whl")
    _pip("install", "--no-deps", "--no-index", "--target", str(tmp_path / "site"), str(wheel))
    done = subprocess.run(
        [sys.executable, "-c", PLUGIN_ALONE, embedded_server.dsn().render_as_string(False)],
        cwd=tmp_path, env=clean_environment(PYTHONPATH=str(tmp_path / "site"), PYTHONSAFEPATH="1"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "64MB", "[]", str(tmp_path / "site" / "query_steering" / "__init__.py")
    ]  # fmt: skip
    # What was noted is reported when the process ends.
    assert '"arm":"steered","executions":1' in (tmp_path / "timings.jsonl").read_text("utf-8")


def test_installed_elsewhere_it_serves_the_pages_and_tunes(installed: Path):
    environment = clean_environment(PYTHONPATH=str(installed / "site"), PYTHONSAFEPATH="1")
    where = subprocess.run(
        [sys.executable, "-c", "import run, backend, dashboard; print(run.__file__)"],
        cwd=installed / "elsewhere", env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.strip() == str(installed / "site" / "run.py")

    port = free_port()
    with (installed / "console.log").open("wb") as console:
        process = subprocess.Popen(
            [sys.executable, "-m", "run", "--port", str(port), "--scale", "0.01"],
            cwd=installed / "elsewhere", env=environment, stdin=subprocess.DEVNULL,
            stdout=console, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        base = f"http://127.0.0.1:{port}"
        eventually(lambda: _get(f"{base}/healthz"), "the page answers", WAIT_S)
        # Everything that the page asks for is there: style sheets, scripts, the icons' font.
        page = _get(f"{base}/").decode()
        wanted = re.findall(r'(?:href|src)="(/[^"]+\.(?:css|js|svg|png|ico)[^"]*)"', page)
        assert any(".css" in path for path in wanted)
        assert any(".js" in path for path in wanted)
        for path in wanted:
            assert _get(base + path.replace("&amp;", "&")), path
        for entry in PAGES:
            assert b"<html" in _get(base + entry.path), entry.path
        assert b"<html" in _get(f"{base}/plain")
        # The tuner has read its catalogues, migrated the store and seen the server.
        eventually(
            lambda: b'"mode":"auto"' in _get(f"{base}/healthz").replace(b" ", b"")
            and b'"phase":"baseline"' in _get(f"{base}/healthz").replace(b" ", b""),
            "the tuner measures", WAIT_S,
        )  # fmt: skip
    except BaseException:
        print((installed / "console.log").read_text(encoding="utf-8"))
        raise
    finally:
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
    report = subprocess.run(
        [sys.executable, "-m", "run", "report"], cwd=installed / "elsewhere", env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert report.returncode == 0, report.stderr
    assert "PostgreSQL" in report.stdout


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            body: bytes = response.read()
            return body
    except OSError:
        return b""
