"""The command line as a person uses it: real processes, real servers, clear refusals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from backend.domain.modes import Phase, TrialKind, TrialState, Verdict
from backend.domain.policies import PolicyVersionRecord
from backend.domain.records import TrialRecord, WindowRecord
from backend.embedded_postgres import EmbeddedPostgres
from backend.telemetry import open_store
from tests.foreign_roles import ROLE_PASSWORD, environment_of
from tests.foreign_server import ForeignServer
from tests.running_product import REPOSITORY, RunningProduct, clean_environment, open_folder
from tests.waiting import eventually

pytestmark = pytest.mark.integration

COMMANDS = ("", "demo", "setup-database", "report", "rollback", "doctor")
SECRET = "Very-Secret-7"
TIMEOUT_S = 120


def run(
    *arguments: str, cwd: Path = REPOSITORY, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run run.py with these arguments; returns with both outputs as text."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "run.py"), *arguments],
        cwd=cwd,
        env=clean_environment(COLUMNS="200", TERM="dumb", **(environ or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def fine(done: subprocess.CompletedProcess[str]) -> str:
    """The output of a command that must have succeeded."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a command that must have been refused clearly."""
    output = done.stdout + done.stderr
    assert done.returncode not in (0, None), output
    assert "Traceback" not in output
    assert SECRET not in output
    assert done.stderr.strip(), "the reason belongs on the error stream"
    return done.stderr


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


# -- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str):
    text = fine(run(*([command] if command else []), "--help"))
    assert "Usage" in text
    assert "--data-dir" in text


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("level1: {window_s: -3}", "level1.window_s"),
        ("no_such_section: {}", "no_such_section"),
        ("mode: turbo", "mode"),
        ("workload: {name: chess}", "workload.name"),
        (f"database: {{password: {SECRET}\nuser: [", "line"),
        (f"database: {{password: {SECRET}, port: many}}", "database.port"),
        ("level1: {min_blocks: 9, max_blocks: 4}", "max_blocks"),
        ("- just\n- a list\n", "list"),
    ],
)
def test_a_bad_settings_file_is_told_in_one_message(folder: Path, text: str, told: str):
    config = folder / "config.yaml"
    config.write_text(text, encoding="utf-8")
    message = refused(run("report", "--config", str(config), "--data-dir", str(folder)))
    assert told in message


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--mode", "turbo"], "turbo"),
        (["--workload", "chess"], "chess"),
        (["--scale", "-1"], "data_scale_factor"),
        (["--scale", "plenty"], "--scale"),
        (["--port", "99999999"], "port"),
        (["--config", "/no/such/file.yaml"], "/no/such/file.yaml"),
        (["no-such-command"], "no-such-command"),
        (["process", "tuner"], "supervisor"),
        (["train", "--fresh", "--trained", "folder"], "--fresh"),
    ],
)
def test_bad_arguments_are_told(folder: Path, arguments: Sequence[str], told: str):
    # A command's options stand behind it.
    place = [] if arguments[0] in ("no-such-command", "process") else ["--data-dir", str(folder)]
    assert told in refused(run(*arguments, *place))
    assert not (folder / "postgres").exists(), "nothing was made before the refusal"


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://someone:{SECRET}@127.0.0.1:1/shop",
        f"mysql://someone:{SECRET}@127.0.0.1/shop",
        f"postgresql://someone:{SECRET}@127.0.0.1:port/shop",
        f"postgresql://someone:{SECRET}@127.0.0.1/shop?sslmoed=require",
        f"someone:{SECRET}@127.0.0.1",
    ],
)
def test_a_bad_dsn_is_told_without_its_password(folder: Path, dsn: str):
    refused(run("doctor", "--dsn", dsn, "--data-dir", str(folder)))
    refused(run("doctor", "--data-dir", str(folder), environ={"DATABASE_URL": dsn}))
    for log in folder.rglob("*.log"):
        assert SECRET not in log.read_text(encoding="utf-8")


def test_a_demo_on_a_foreign_server_is_refused(folder: Path):
    config = folder / "config.yaml"
    config.write_text("database: {host: db.example}", encoding="utf-8")
    message = refused(run("demo", "--config", str(config), "--data-dir", str(folder)))
    assert "db.example" in message


# -- tools --------------------------------------------------------------------------------------


def test_setup_database_loads_once_and_verifies(folder: Path):
    first = fine(run("setup-database", "--scale", "0.01", "--verify", "--data-dir", str(folder)))
    assert "FAILED" not in first
    assert " ok " in first
    again = fine(run("setup-database", "--scale", "0.01", "--verify", "--data-dir", str(folder)))
    assert "loaded already" in again
    assert "FAILED" not in again
    server = EmbeddedPostgres(folder)
    assert not server.is_running(), "it was not running before, so it is stopped again"

    told = fine(run("doctor", "--data-dir", str(folder)))
    assert "PostgreSQL" in told
    assert "alter_system" in told
    assert "mode to start in: auto" in told
    assert server.password not in told
    assert not server.is_running()
    server.destroy()


def test_report_of_no_store_an_empty_and_a_filled_one(folder: Path):
    assert "no store" in refused(run("report", "--data-dir", str(folder)))
    path = folder / "telemetry.db"
    store = open_store(f"sqlite:///{path}")
    assert fine(run("report", "--data-dir", str(folder))).strip()

    now = datetime.now(timezone.utc)
    store.add_policy_version(PolicyVersionRecord(now, "autopilot", {"work_mem": 8192}, index=0.8))
    store.add_window(
        WindowRecord(now - timedelta(seconds=10), now, 10.0, Phase.LEARNING, {"work_mem": 8192})
    )
    store.save_trial(
        TrialRecord(
            TrialKind.PROMOTION, TrialState.FINISHED, "expert rule", now, {"work_mem": 4096},
            {"work_mem": 8192}, verdict=Verdict.ACCEPT, finished_at=now, effect=-0.2,
        )
    )  # fmt: skip
    store.close()
    text = fine(run("report", "--data-dir", str(folder)))
    assert "1 accept" in text
    assert re.search(r"promotion 1: .20(\.0)?\s?%", text)
    assert "work_mem = 8192" in text


def test_doctor_on_a_foreign_server(least_server: ForeignServer, folder: Path) -> None:
    told_of = environment_of(least_server)
    for done in (
        run("doctor", "--dsn", told_of["DATABASE_URL"], "--data-dir", str(folder)),
        run("doctor", "--data-dir", str(folder), environ=told_of),
    ):
        told = fine(done)
        assert "PostgreSQL 15" in told
        assert "mode to start in: observe" in told
        assert ROLE_PASSWORD not in told + done.stderr


# -- rollback -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_rollback_with_and_without_a_running_tuner(folder: Path):
    product = RunningProduct(folder, mode="observe").start()
    try:
        eventually(lambda: (s := product.store.status()) and s.epoch, "the tuner runs", 120)
        assert "no policy version" in refused(_rollback(product))

        _set_by_hand(product, 98304)
        assert "rolled back" in fine(_rollback(product))
        assert _maintenance_work_mem(product) == "65536"
        _set_by_hand(product, 131072)

        product.supervisor.terminate()
        assert product.wait_for_exit(60) == 0
        product.server.start()
        assert _maintenance_work_mem(product) == "131072", "a version outlives the run"
        told = fine(_rollback(product))
        assert "rolled back" in told
        assert _maintenance_work_mem(product) == "65536"
        author = product.store.policy_versions()[-1].author
        assert author.endswith("@command-line")
        assert "no policy version" in refused(_rollback(product, "--to", "9999"))
    finally:
        print(product.story())
        product.end()
        product.server.destroy()


def _rollback(product: RunningProduct, *more: str) -> subprocess.CompletedProcess[str]:
    config = ["--config", str(product.config_path)]
    return run("rollback", "--data-dir", str(product.data_dir), *config, *more)


def _maintenance_work_mem(product: RunningProduct) -> str:
    return str(product.query("SELECT setting FROM pg_settings WHERE name='maintenance_work_mem'")
               [0][0])  # fmt: skip


def _set_by_hand(product: RunningProduct, value: int) -> None:
    """As the page does it: a command in the store's queue."""
    from dashboard.operator_commands import make_command

    writing = open_store(f"sqlite:///{product.data_dir / 'telemetry.db'}")
    try:
        statuses = eventually(writing.knob_statuses, "the knobs are read", 60)
        payload = {"knobs": {"maintenance_work_mem": value}}
        writing.submit(make_command("set_knobs", payload, statuses, f"tester {os.getpid()}"))
    finally:
        writing.close()
    eventually(lambda: _maintenance_work_mem(product) == str(value), "it is on the server", 30)
    eventually(
        lambda: product.store.commands(limit=1)[-1].state.value == "done", "it is answered", 30
    )
