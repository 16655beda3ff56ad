"""Policy versions on the embedded server: deployed and rolled back, with and without a tuner."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

import run
from backend.commands.options import settings_of
from backend.components import Components, build_components
from backend.domain.clock import SystemClock
from backend.domain.policies import PolicyVersionRecord
from backend.domain.steering import ClassKey
from backend.steering_parts import planner_settings
from backend.telemetry import open_store
from dashboard.operator_commands import make_command
from tests.foreign_roles import database_section
from tests.foreign_server import AnyServer
from tests.integration.steering_servers import owner, session
from tests.running_product import (
    REPOSITORY,
    RunningProduct,
    clean_environment,
    eventually,
    open_folder,
)
from tests.steered_classes import evidence

pytestmark = pytest.mark.integration

KEY = ClassKey("0123456789abcdef", '"$user", public')
SETTINGS = ("enable_nestloop", "work_mem", "random_page_cost")


@pytest.fixture
def folder(server: AnyServer, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The data folder of a server on which nothing was deployed yet."""
    # A server with PostgreSQL's 100 connections could take more than the embedded one.
    monkeypatch.setenv("AUTOPILOT_SAFETY__MEMORY_LIMIT_GB", "8")
    yield data_dir
    with owner(server) as cursor:
        cursor.execute("ALTER ROLE ALL RESET enable_nestloop")
        cursor.execute("ALTER SYSTEM RESET ALL")
        cursor.execute("SELECT pg_reload_conf()")
    for file in data_dir.glob("telemetry.db*"):
        file.unlink(missing_ok=True)


@contextmanager
def tuner(folder: Path) -> Iterator[Components]:
    """What a tuner is built of, with its lock."""
    with closing(build_components(settings_of(None, folder), SystemClock())) as parts:
        yield parts


@pytest.fixture
def version(folder: Path) -> PolicyVersionRecord:
    """A version with a knob and a hint set, and no tuner at work any more."""
    with tuner(folder) as parts:
        in_force = planner_settings(parts.settings, parts.info)
        parts.deployment.deploy(
            {"work_mem": 12288}, author="tester", index=1.0, note="by hand"
        )  # fmt: skip
        under = in_force(SETTINGS)
        assert under == {"enable_nestloop": "on", "work_mem": "12MB", "random_page_cost": "4"}
        parts.register.add(KEY, "SELECT $1")
        proof = evidence(settings_in_force=under, under={"enable_nestloop": "on"})
        parts.register.verify(KEY, proof)
        assert parts.deployment.version is not None
        return parts.deployment.version


def policy(folder: Path, *arguments: str) -> str:
    result = CliRunner().invoke(run.app, ["policy", *arguments, "--data-dir", str(folder)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def newest(folder: Path) -> PolicyVersionRecord:
    with closing(open_store(f"sqlite:///{folder}/telemetry.db")) as store:
        return store.policy_versions(limit=1)[0]


def work_mem(server: AnyServer) -> str:
    with owner(server) as cursor:
        cursor.execute("SHOW work_mem")
        return str(cursor.fetchone()[0])


def test_back_and_forward_without_a_tuner(
    folder: Path, version: PolicyVersionRecord, server: AnyServer
) -> None:
    assert work_mem(server) == "12MB"
    assert "withdrawn: 1 hint set" in policy(folder, "rollback", "1")
    assert work_mem(server) == "4MB"
    assert newest(folder).steering == ()

    assert "served again: 1 hint set" in policy(folder, "deploy", str(version.id))
    assert work_mem(server) == "12MB"
    (hint,) = newest(folder).steering
    assert hint.identity == version.steering[0].identity
    assert newest(folder).author.endswith("@command-line")

    with tuner(folder) as parts:  # the next one takes it as it stands
        assert parts.deployment.version == newest(folder)
        assert [hint.key for hint in parts.register.hints()] == [KEY]


def test_a_proof_under_other_planner_settings_is_to_be_made_anew(
    folder: Path, version: PolicyVersionRecord, server: AnyServer
) -> None:
    policy(folder, "rollback", "1")
    with owner(server) as cursor:
        cursor.execute("ALTER ROLE ALL SET enable_nestloop = off")  # no knob of ours
    told = policy(folder, "deploy", str(version.id))
    assert "to be proven anew: 0123456789abcdef" in told
    assert "enable_nestloop = on, and off is in force" in told
    assert newest(folder).steering == ()
    assert work_mem(server) == "12MB"


@pytest.fixture(params=["embedded", "least_server"])
def product(request: pytest.FixtureRequest) -> Iterator[RunningProduct]:
    """All processes: with a server of their own, and on somebody's under the printed grants."""
    sections: dict[str, object] = {}
    if request.param != "embedded":
        foreign = request.getfixturevalue(request.param)
        sections["database"] = database_section(foreign)
        sections["safety"] = {"memory_limit_gb": 8}  # as above
    with open_folder() as data:
        made = RunningProduct(data, mode="observe", **sections)
        made.start()
        try:
            yield made
        finally:
            print(made.story())
            made.end()
            if not sections:
                made.server.destroy()


@pytest.mark.slow
def test_with_a_tuner_at_work_and_after_its_end(product: RunningProduct) -> None:
    eventually(lambda: product.store.policy_versions(), "the tuner has begun", 120)
    set_by_hand(product, 98304)
    listed = json.loads(asked(product, "list", "--json"))
    assert listed[-1]["active"]
    assert listed[-1]["changed"]["knobs"]["maintenance_work_mem"]["to"] == 98304
    assert "rolled back; now policy version 3" in asked(product, "rollback")
    assert maintenance_work_mem(product) == "65536"
    assert "deployed; now policy version 4" in asked(product, "deploy", "2")
    assert maintenance_work_mem(product) == "98304"
    assert "maintenance_work_mem: 96 MB -> the server's own" in asked(product, "diff", "2", "3")

    product.supervisor.terminate()
    assert product.wait_for_exit(60) == 0
    assert "deployed; now policy version 5" in asked(product, "deploy", "1")
    if settings_of(str(product.config_path), product.data_dir).is_embedded:
        product.server.start()
    assert maintenance_work_mem(product) == "65536"


def asked(product: RunningProduct, *arguments: str) -> str:
    """As a person types it."""
    places = ["--data-dir", str(product.data_dir), "--config", str(product.config_path)]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "run.py"), "policy", *arguments, *places],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def maintenance_work_mem(product: RunningProduct) -> str:
    settings = settings_of(str(product.config_path), product.data_dir)
    url = product.server.dsn() if settings.is_embedded else settings.foreign_url()
    with session(url) as cursor:
        cursor.execute("SELECT setting FROM pg_settings WHERE name = 'maintenance_work_mem'")
        return str(cursor.fetchone()[0])


def set_by_hand(product: RunningProduct, value: int) -> None:
    """As the page does it: a command in the store's queue."""
    with closing(open_store(f"sqlite:///{product.data_dir / 'telemetry.db'}")) as writing:
        statuses = eventually(writing.knob_statuses, "the knobs are read", 60)
        payload = {"knobs": {"maintenance_work_mem": value}}
        number = writing.submit(make_command("set_knobs", payload, statuses, "tester"))
        eventually(
            lambda: (c := writing.command(number)) is not None and c.state.value == "done",
            "it is done",
            30,
        )
