"""The printed grants, given to psql as they are: what a role may do then, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from backend.commands.grants import grant_script, knobs_in_play
from backend.config import Settings
from backend.db_connector import quoted_identifier
from backend.domain.modes import Mode
from backend.errors import PrivilegeError
from backend.targets.postgresql import PostgresTarget
from tests.foreign_roles import (
    ROLE,
    connector_of,
    drop_role,
    make_role,
    psql,
)
from tests.foreign_server import ForeignServer
from tests.integration.foreign_servers.conftest import SettingsOf
from tests.waiting import eventually, set_and_wait

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["server_14", "server_15", "server_16", "server_18"])
def server(request: pytest.FixtureRequest) -> ForeignServer:
    found: ForeignServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def target(server: ForeignServer, settings_of: SettingsOf, mode: str) -> Iterator[PostgresTarget]:
    """A target as a role that was made by the script for the mode, and by nothing else."""
    make_role(server, settings_of(server), mode)
    with closing(PostgresTarget(connector_of(server))) as made:
        yield made
    drop_role(server)


@pytest.mark.parametrize("mode", ["observe", "advise"])
def test_to_look_is_all_that_is_granted_for_looking(
    server: ForeignServer, settings_of: SettingsOf, target: PostgresTarget, mode: str
) -> None:
    info = target.describe()
    settings = settings_of(server)
    by_version = grant_script(settings, mode=mode, server_version=server.version)
    assert grant_script(settings, mode=mode) == by_version, "the server tells its version"
    assert info.can("read_all_stats")
    assert not info.can("alter_system")
    assert info.best_mode is (Mode.ADVISE if server.has_statements else Mode.OBSERVE)
    eventually(target.hold_tuner_lock, "the end of another test's session")
    assert target.snapshot().gauges["connections_max"] > 0
    assert target.metric_failures == {}
    with pytest.raises(PrivilegeError):
        target.write_entries({"work_mem": 5000})
    with pytest.raises(PrivilegeError):
        target.reload()


@pytest.mark.parametrize("mode", ["approve", "auto"])
def test_the_knobs_that_are_tried_can_be_set_and_no_others(
    server: ForeignServer, settings_of: SettingsOf, target: PostgresTarget
) -> None:
    info = target.describe()
    knobs = knobs_in_play(settings_of(server), server.version)
    if server.version < 150000:
        assert not info.can("alter_system")
        assert "superuser" in info.missing["alter_system"]
        assert not target.read_knobs(["work_mem"])["work_mem"].may_alter
        return
    assert info.can("alter_system")
    assert info.best_mode is (Mode.AUTO if server.has_statements else Mode.OBSERVE)
    readings = target.read_knobs([*knobs, "autovacuum_naptime", "fsync"])
    assert {name for name, reading in readings.items() if reading.may_alter} == set(knobs)
    try:
        set_and_wait(target, "work_mem", 5555)
        assert target.read_knobs(["work_mem"])["work_mem"].entry == "5555"
        with pytest.raises(PrivilegeError, match="autovacuum_naptime"):
            target.write_entries({"autovacuum_naptime": 30})
    finally:
        target.write_entries({"work_mem": None})
        target.reload()


def test_in_another_database_nothing_is_done(
    server: ForeignServer, settings_of: SettingsOf
) -> None:
    script = grant_script(settings_of(server), mode="auto", server_version=server.version)
    assert "this is not database shop" in psql(server, script, dbname="postgres")
    assert server.run("SELECT 1 FROM pg_roles WHERE rolname LIKE 'o''ne%'") == []


def test_without_a_named_server_it_is_the_database_that_psql_is_in(
    server_15: ForeignServer,
) -> None:
    database, role = "x\"'; \\! touch $HOME/y", "unnamed"
    name = quoted_identifier(database)
    server_15.run(f"CREATE DATABASE {name}")
    script = grant_script(Settings(), mode="auto", role=role, server_version=server_15.version)
    try:
        assert psql(server_15, script, dbname=database) == ""
        may = f"SELECT datname FROM pg_database WHERE datacl::text LIKE '%{role}=c/%' ORDER BY 1"
        assert server_15.run(may) == [("postgres",), (database,)]
    finally:
        server_15.run(f"DROP DATABASE {name}")
        drop_role(server_15, role)


def test_a_hostile_name_of_a_database_stays_a_name(server_15: ForeignServer) -> None:
    database = "x'; \\! touch $HOME/y; \"q :elsewhere"
    name = quoted_identifier(database)
    server_15.run(f"CREATE DATABASE {name}")
    address = {"host": server_15.host, "user": ROLE, "dbname": database}
    settings = Settings.model_validate({"database": address})
    script = grant_script(settings, mode="auto", server_version=server_15.version)
    try:
        assert "nothing was done" in psql(server_15, script)
        assert psql(server_15, script, dbname=database) == ""
        target = "has_database_privilege('" + ROLE.replace("'", "''") + "', datname, 'CONNECT')"
        granted = server_15.run(
            f"SELECT {target} AND datacl IS NOT NULL FROM pg_database WHERE datname LIKE 'x%'"
        )
        assert granted == [(True,)]
    finally:
        server_15.run(f"DROP DATABASE {name}")
        drop_role(server_15)
