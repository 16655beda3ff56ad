"""The live comparison end to end: a real server, real clients, very little time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.config import load_settings
from backend.embedded_postgres import EmbeddedPostgres
from backend.servers import embedded_server
from backend.workload.connection import connect
from benchmarks.live.records import Pace, Part, Results
from benchmarks.live.server import RUN_DATABASE
from tests.integration.conftest import open_folder

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = "benchmarks.knob_live"
OPTIONS = [
    "--methods", "defaults,pgtune,random", "--seeds", "0", "--window", "2", "--warm-up", "2",
    "--minutes", "0.4", "--blocks", "2", "--scale", "0.005", "--rate", "40",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as name:
        data_dir = Path(name)
        yield data_dir
        server_of(data_dir).destroy()


def server_of(data_dir: Path) -> EmbeddedPostgres:
    sections = {"paths": {"data_dir": str(data_dir)}, "database": {"dbname": RUN_DATABASE}}
    return embedded_server(load_settings(None, overrides=sections, environ={}))


def command(data_dir: Path, results: Path, *options: str) -> list[str]:
    return [
        sys.executable, "-m", MODULE, "--data-dir", str(data_dir), "--results", str(results),
        *OPTIONS, *options,
    ]  # fmt: skip


def entries(data_dir: Path) -> list[tuple[Any, ...]]:
    """What ALTER SYSTEM has left in the server's settings."""
    server = server_of(data_dir)
    server.ensure_started()
    try:
        with closing(connect(server.dsn(), application_name="test")) as connection:
            cursor = connection.cursor()
            cursor.execute(
                "SELECT name, setting FROM pg_settings "
                "WHERE sourcefile LIKE '%postgresql.auto.conf'"
            )
            return list(cursor.fetchall())
    finally:
        server.stop()


def test_a_short_session_runs_to_its_table_and_is_not_repeated(folder: Path) -> None:
    results = folder / "results.jsonl"
    first = subprocess.run(
        command(folder, results), cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert first.returncode == 0, first.stderr
    assert not server_of(folder).is_running()

    found = Results(results)
    tuned = found.parts["mixed", 0, "random"]
    assert tuned.evaluations
    for trial in tuned.evaluations:
        assert trial.objective > 0
        assert 0 < trial.coverage <= 1
    assert found.parts["mixed", 0, "defaults"].final == {}
    assert found.parts["mixed", 0, "pgtune"].final["random_page_cost"] == 1.1
    comparison = found.comparisons["mixed", 0]
    assert len(comparison.blocks) == 2
    assert set(comparison.finals) == {"defaults", "pgtune", "random"}
    checked: list[Part | Any] = [*found.parts.values(), comparison]
    assert all(not record.violations and not record.durability for record in checked)
    assert "1 finished cells" in first.stdout

    before = results.read_bytes()
    second = subprocess.run(
        command(folder, results), cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert second.returncode == 0, second.stderr
    assert results.read_bytes() == before
    assert entries(folder) == []

    third = subprocess.run(
        command(folder, results, "--compare-window", "1.5", "--compare-settle", "0.5"),
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert third.returncode == 0, third.stderr
    again = Results(results)
    assert again.parts == found.parts
    assert again.comparisons["mixed", 0].pace == Pace(window_s=1.5, settle_s=0.5)
    assert len(again.comparisons["mixed", 0].blocks) == 2


def test_an_interrupt_in_mid_trial_leaves_nothing_behind(folder: Path) -> None:
    """Under pgbench, so that its loading, its load and its end are seen as well."""
    results = folder / "interrupted.jsonl"
    options = ["--workload", "pgbench", "--scale", "1", "--methods", "random"]
    options += ["--minutes", "5"]
    process = subprocess.Popen(
        command(folder, results, *options), cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        # As in a terminal: where the tests run in the background, SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if "random 1 at" in line:
                break
        assert results.exists(), told
        clients = psutil.Process(process.pid).children(recursive=True)
        assert any("pgbench" in client.name() for client in clients)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    _, left = psutil.wait_procs(clients, timeout=30)
    assert not left, "the load goes on"
    assert not server_of(folder).is_running()
    records = [json.loads(line) for line in results.read_text().splitlines()]
    assert {record["kind"] for record in records} == {"evaluation"}
    assert Results(results).parts == {}  # the part was cut: it will be done again
    assert entries(folder) == []
