"""What the PostgreSQL target says it can and cannot do on a server, and why."""

from __future__ import annotations

from typing import Any

import pytest

from backend.db_connector import DatabaseConnector
from backend.domain.modes import Mode
from backend.errors import PrivilegeError
from backend.protocols import TargetDatabase
from backend.targets.postgresql import PostgresTarget
from backend.targets.postgresql_privileges import read_entries
from tests.foreign_server import AnyServer, has_statements
from tests.waiting import eventually, set_and_wait

pytestmark = pytest.mark.integration


def test_describe(server: AnyServer, target: PostgresTarget) -> None:
    assert isinstance(target, TargetDatabase)
    info = target.describe()
    assert info.kind == "postgresql"
    assert info.version == server.version
    assert info.server_id.isdigit()
    assert info.server_id == target.describe().server_id
    assert str(server.port) in info.address
    assert server.password not in repr(info)
    assert info.host.is_local
    assert info.host.memory_bytes > 0
    assert info.host.cpu_count > 0
    for capability in ("alter_system", "reload", "file_settings"):
        assert info.can(capability), info.missing
    if has_statements(server):
        assert (info.best_mode, info.why_not_further) == (Mode.AUTO, "")
    else:
        assert info.best_mode is Mode.OBSERVE
        assert "pg_stat_statements" in info.why_not_further
    assert not info.can("restart")
    assert "restart" in info.missing


def test_a_restarter_gives_the_capability(server: AnyServer) -> None:
    target = PostgresTarget(DatabaseConnector(server.dsn()), restarter=server.restart)
    assert target.describe().can("restart")
    target.close()


def test_a_newer_version_is_only_observed(
    target: PostgresTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DatabaseConnector, "server_version", 190000)
    info = target.describe()
    assert not info.can("alter_system")
    assert "nothing is changed on it" in info.missing["alter_system"]


def test_a_role_without_privileges_is_told_what_it_lacks(
    stranger: DatabaseConnector, server: AnyServer
) -> None:
    target = PostgresTarget(stranger)
    info = target.describe()
    for capability in ("alter_system", "reload", "read_all_stats", "file_settings"):
        assert not info.can(capability)
        assert "autopilot_stranger" in info.missing[capability]
    assert info.mode_for(Mode.AUTO) in (Mode.OBSERVE, Mode.ADVISE)
    with pytest.raises(PrivilegeError) as caught:
        target.write_entries({"work_mem": 5000})
    assert 'ON PARAMETER work_mem TO "autopilot_stranger"' in str(caught.value.remedy)
    with pytest.raises(PrivilegeError):
        target.reload()
    with pytest.raises(PrivilegeError):
        target.config_file_errors()
    assert target.read_knobs(["work_mem"])["work_mem"].value == 4096
    eventually(lambda: target.snapshot().counters["xact_commit"] > 0, "14 counts late", 30)
    target.close()


def test_what_may_not_be_read_is_not_asked_for(
    stranger: DatabaseConnector, server: AnyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refusal would be an error in the server's log, every few seconds."""
    sent, fetch = [], stranger.fetch

    def heard(text: str, *given: Any, **named: Any) -> Any:
        sent.append(text)
        return fetch(text, *given, **named)

    monkeypatch.setattr(stranger, "fetch", heard)
    admin, target = DatabaseConnector(server.dsn()), PostgresTarget(stranger)
    assert target.read_knobs(["work_mem"])["work_mem"].entry is None
    with pytest.raises(PrivilegeError, match="pg_file_settings"):
        target.config_file_errors()
    assert not [text for text in sent if "FROM pg_file_settings" in text]
    granted = read_entries("autopilot_stranger")
    for statement in (granted, granted.replace("GRANT", "REVOKE").replace(" TO ", " FROM ")):
        admin.execute(statement)
        target.read_knobs(["work_mem"])
        target.read_knobs(["work_mem"])
    asked = [text for text in sent if "FROM pg_file_settings" in text]
    assert len(asked) == 3, "twice while it was granted, and once to learn that it is no more"
    admin.close()
    target.close()


def test_the_sql_that_is_named_grants_what_is_missing(
    stranger: DatabaseConnector, server: AnyServer
) -> None:
    if server.version < 150000:
        pytest.skip("privileges on single settings came with version 15")
    target = PostgresTarget(stranger)
    admin = DatabaseConnector(server.dsn())
    missing = target.describe().missing
    for capability in ("alter_system", "reload", "read_all_stats", "file_settings"):
        for statement in missing[capability].partition("--")[0].split(";"):
            if statement.strip():
                admin.execute(statement.strip())
    admin.close()
    info = target.describe()
    for capability in ("alter_system", "reload", "read_all_stats", "file_settings"):
        assert info.can(capability), capability
    set_and_wait(target, "work_mem", 5555)
    readings = target.read_knobs(["work_mem", "jit"])
    assert readings["work_mem"].entry == "5555"
    assert (readings["work_mem"].may_alter, readings["jit"].may_alter) == (True, False)
    target.write_entries({"work_mem": None})
    target.reload()
    target.close()


def test_what_could_not_be_undone_is_not_done(
    stranger: DatabaseConnector, server: AnyServer
) -> None:
    if server.version < 150000:
        pytest.skip("privileges on single settings came with version 15")
    admin = DatabaseConnector(server.dsn())
    admin.execute("GRANT SET, ALTER SYSTEM ON PARAMETER work_mem TO autopilot_stranger")
    admin.close()
    target = PostgresTarget(stranger)
    info = target.describe()
    target.close()
    assert not info.can("alter_system")
    assert "pg_file_settings" in info.missing["alter_system"]


def test_a_database_without_the_extension(server: AnyServer) -> None:
    target = PostgresTarget(DatabaseConnector(server.dsn(dbname="template1")))
    info = target.describe()
    assert not info.can("statement_statistics")
    assert "CREATE EXTENSION pg_stat_statements" in info.missing["statement_statistics"]
    assert target.snapshot().queries == {}
    eventually(lambda: target.snapshot().counters["wal_bytes"] > 0, "14 counts late", 30)
    target.close()
