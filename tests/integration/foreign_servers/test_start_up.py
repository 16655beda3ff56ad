"""A tuner on servers where something is missing: it starts, in the mode that is possible."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from backend.commands.doctor import examine
from backend.config import Settings
from backend.db_connector import quoted_identifier
from backend.domain.modes import Mode
from backend.errors import ServerConnectionError
from backend.orchestrator import SystemOrchestrator
from backend.servers import greet
from tests.foreign_roles import (
    ROLE,
    ROLE_PASSWORD,
    drop_role,
    make_role,
)
from tests.foreign_server import ForeignServer, foreign_server
from tests.integration.conftest import DEBIAN_BIN_DIR
from tests.integration.foreign_servers.conftest import SettingsOf

pytestmark = pytest.mark.integration


@contextmanager
def tuner(settings: Settings) -> Iterator[SystemOrchestrator]:
    """A tuner whose jobs have each run a few times."""
    orchestrator = SystemOrchestrator(settings)
    orchestrator.begin()
    try:
        for _ in range(3):
            orchestrator.tune()
            orchestrator.observe()
            orchestrator.save_status()
            orchestrator.save_knobs()
        yield orchestrator
    finally:
        orchestrator.end()


def told(settings: Settings) -> str:
    """What the doctor says; it holds no password."""
    output = io.StringIO()
    examine(settings, Console(file=output, width=100))
    assert ROLE_PASSWORD not in output.getvalue()
    return output.getvalue()


def modes(orchestrator: SystemOrchestrator) -> tuple[Mode, str]:
    """The mode that is in force, and the event that says why it is no further one."""
    parts = orchestrator._components
    assert parts.store.status() is not None
    assert not orchestrator._fault
    events = [event.message for event in parts.store.events() if event.kind == "best_mode"]
    return parts.deployment.mode, "\n".join(events)


def test_a_role_that_has_nothing(server_15: ForeignServer, settings_of: SettingsOf) -> None:
    password = ROLE_PASSWORD.replace("'", "''")
    server_15.run(f"CREATE ROLE {quoted_identifier(ROLE)} LOGIN PASSWORD '{password}'")
    settings = settings_of(server_15, mode="auto")
    try:
        with tuner(settings) as orchestrator:
            mode, why = modes(orchestrator)
            statuses = orchestrator._components.store.knob_statuses()
        assert mode is Mode.OBSERVE
        assert "GRANT pg_monitor TO" in why
        assert statuses
        assert not any(status.writable for status in statuses)
        text = told(settings)
    finally:
        drop_role(server_15)
    for item in ("pg_read_all_stats", "pg_file_settings", "pg_reload_conf()", "ALTER SYSTEM"):
        assert any(line.startswith("MISSING") and item in line for line in text.splitlines()), item
    assert "best mode that is possible: observe" in text


def test_some_knobs_are_granted(server_15: ForeignServer, settings_of: SettingsOf) -> None:
    """One that is granted does not make the others writable."""
    settings = settings_of(server_15, mode="auto")
    make_role(server_15, settings, "auto")
    name = quoted_identifier(ROLE)
    server_15.run(f"REVOKE ALTER SYSTEM ON PARAMETER work_mem, jit FROM {name}")
    try:
        with tuner(settings) as orchestrator:
            mode, why = modes(orchestrator)
            space = orchestrator._components.space.names
            statuses = {s.name: s for s in orchestrator._components.store.knob_statuses()}
        text = told(settings)
    finally:
        drop_role(server_15)
    assert (mode, why) == (Mode.AUTO, "")
    assert "random_page_cost" in space
    assert not {"work_mem", "jit"} & set(space)
    assert statuses["random_page_cost"].writable
    assert "run.py grants" in statuses["work_mem"].note
    assert "not tried: work_mem, jit -> GRANT ALTER SYSTEM ON PARAMETER work_mem, jit TO" in text


def test_the_start_tells_what_it_found(server_15: ForeignServer, settings_of: SettingsOf) -> None:
    settings = settings_of(server_15, mode="approve")
    make_role(server_15, settings, "advise")
    try:
        first, second, third = greet(settings)
    finally:
        drop_role(server_15)
    assert first.startswith("PostgreSQL 15")
    assert first.endswith("mode advise")
    assert "approve is not possible: nothing may be changed" in second
    assert "run.py doctor" in third
    with pytest.raises(ServerConnectionError, match="authentication failed"):
        greet(settings)  # the role is gone


def test_a_stand_by(settings_of: SettingsOf) -> None:
    with foreign_server(DEBIAN_BIN_DIR) as primary:
        settings = settings_of(primary)
        make_role(primary, settings, "auto")
        with foreign_server(DEBIAN_BIN_DIR, copy_of=primary) as standby:
            settings = settings_of(standby, mode="auto")
            with tuner(settings) as orchestrator:
                mode, why = modes(orchestrator)
                assert orchestrator._components.target.metric_failures == {}
            text = told(settings)
    assert mode is Mode.ADVISE
    assert "stand-by" in why
    assert "MISSING  primary" in text


def test_settings_that_are_managed_elsewhere(
    server_18: ForeignServer, settings_of: SettingsOf
) -> None:
    settings = settings_of(server_18, mode="auto")
    make_role(server_18, settings, "auto")
    server_18.run("CREATE ROLE rds_superuser")
    server_18.configure("allow_alter_system = off")
    try:
        server_18.restart()
        with tuner(settings) as orchestrator:
            mode, why = modes(orchestrator)
        text = told(settings)
    finally:
        server_18.configure("allow_alter_system = on")
        server_18.restart()
        server_18.run("DROP ROLE rds_superuser")
        drop_role(server_18)
    assert mode is Mode.ADVISE
    assert "allow_alter_system = off" in why
    assert "MISSING  allow_alter_system" in text
    assert "parameter group" in text


@pytest.mark.parametrize("version", [14, 16])
def test_no_statement_statistics(
    request: pytest.FixtureRequest, settings_of: SettingsOf, version: int
) -> None:
    server: ForeignServer = request.getfixturevalue(f"server_{version}")
    settings = settings_of(server, mode="auto")
    make_role(server, settings, "auto")
    try:
        with tuner(settings) as orchestrator:
            mode, why = modes(orchestrator)
        text = told(settings)
    finally:
        drop_role(server)
    assert mode is Mode.OBSERVE
    assert "without pg_stat_statements nothing can be compared" in why
    assert "not installed on the server's machine" in text
    assert "best mode that is possible: observe" in text


def test_statement_statistics_that_are_not_preloaded(settings_of: SettingsOf) -> None:
    with foreign_server(DEBIAN_BIN_DIR, {"shared_preload_libraries": ""}) as server:
        settings = settings_of(server, mode="auto")
        make_role(server, settings, "auto")
        assert "not created in this database" in told(settings)
        server.run("CREATE EXTENSION pg_stat_statements")
        with tuner(settings) as orchestrator:
            assert modes(orchestrator)[0] is Mode.OBSERVE
        assert "shared_preload_libraries" in told(settings)


def test_no_way_into_the_database_of_the_lock(
    server_15: ForeignServer, settings_of: SettingsOf
) -> None:
    settings = settings_of(server_15)
    make_role(server_15, settings, "observe")
    server_15.run(
        "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
        f"REVOKE CONNECT ON DATABASE postgres FROM {quoted_identifier(ROLE)}",
    )
    try:
        with pytest.raises(ServerConnectionError) as caught:
            SystemOrchestrator(settings).begin()
        assert "GRANT CONNECT ON DATABASE postgres" in (caught.value.remedy or "")
        assert "MISSING  one-tuner lock" in told(settings)
    finally:
        server_15.run("GRANT CONNECT ON DATABASE postgres TO PUBLIC")
        drop_role(server_15)
