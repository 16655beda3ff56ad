"""Settings of real servers: what is written, read back, refused and overridden."""

from __future__ import annotations

from typing import Any

import pytest

from backend.db_connector import DatabaseConnector
from backend.errors import KnobBoundsError, RefusedValueError, ServerError
from backend.targets.postgresql import PostgresTarget
from tests.foreign_server import AnyServer
from tests.waiting import eventually

pytestmark = pytest.mark.integration


def test_values_go_in_and_come_back_in_native_units(target: PostgresTarget) -> None:
    entries = {"work_mem": 8192, "random_page_cost": 1.25, "jit": False}
    try:
        target.write_entries(entries)
        target.reload()
        names = [*entries, "wal_compression", "no_such_knob"]
        eventually(
            lambda: {n: target.read_knobs(names)[n].value for n in entries} == entries, "the values"
        )
        readings = target.read_knobs(names)
        assert set(readings) == {*entries, "wal_compression"}
        assert readings["work_mem"].entry == "8192"
        assert readings["work_mem"].source == "configuration file"
        assert readings["jit"].entry == "off"
        assert readings["jit"].value is False
        assert readings["wal_compression"].entry is None
        assert isinstance(readings["random_page_cost"].value, float)
    finally:
        target.write_entries(dict.fromkeys(entries))
        target.reload()
    eventually(lambda: target.read_knobs(["work_mem"])["work_mem"].value == 4096, "the default")
    reading = target.read_knobs(["work_mem"])["work_mem"]
    assert (reading.source, reading.entry) == ("default", None)


@pytest.mark.usefixtures("any_knob")
def test_a_knob_that_waits_for_a_restart(server: AnyServer, target: PostgresTarget) -> None:
    before = target.read_knobs(["max_locks_per_transaction"])["max_locks_per_transaction"]
    try:
        target.write_entries({"max_locks_per_transaction": 128})
        target.reload()
        eventually(
            lambda: target.read_knobs([before.name])[before.name].pending_restart, "the mark"
        )
        reading = target.read_knobs([before.name])[before.name]
        assert (reading.value, reading.entry) == (before.value, "128")
    finally:
        target.write_entries({"max_locks_per_transaction": None})
        target.reload()
    eventually(
        lambda: not target.read_knobs([before.name])[before.name].pending_restart, "its removal"
    )


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        ({"work_mem": 3}, RefusedValueError, "work_mem = 3 was refused: .*outside the valid range"),
        ({"no_such_knob": 3}, ServerError, "unrecognized configuration|permission denied"),
        ({"random_page_cost": float("nan")}, KnobBoundsError, "not a finite number"),
        ({"work_mem = 1; SELECT 1; --": 3}, ServerError, "was refused|cannot be set"),
        ({"log_line_prefix\"; SELECT '1": "x"}, ServerError, "was refused|cannot be set"),
    ],
)
def test_what_the_server_refuses(
    target: PostgresTarget, entries: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        target.write_entries(entries)


@pytest.mark.usefixtures("any_knob")
def test_a_string_stays_a_string(target: PostgresTarget) -> None:
    hostile = "x'; DROP TABLE y; -- \\ \" $1 %s"
    try:
        target.write_entries({"log_line_prefix": hostile})
        target.reload()
        eventually(
            lambda: target.read_knobs(["log_line_prefix"])["log_line_prefix"].value == hostile,
            "the prefix",
        )
        assert target.read_knobs(["log_line_prefix"])["log_line_prefix"].entry == hostile
    finally:
        target.write_entries({"log_line_prefix": None})
        target.reload()


def test_overrides_are_named(server: AnyServer, target: PostgresTarget, application: Any) -> None:
    application.execute(f"ALTER DATABASE {server.dbname} SET random_page_cost = 2.5")
    application.execute(f"ALTER ROLE {server.user} SET effective_cache_size = '1GB'")
    try:
        fresh = PostgresTarget(DatabaseConnector(server.dsn()))
        readings = fresh.read_knobs(["random_page_cost", "effective_cache_size", "work_mem"])
        fresh.close()
        assert readings["random_page_cost"].value == 2.5
        assert "database" in (readings["random_page_cost"].override or "")
        assert "role" in (readings["effective_cache_size"].override or "")
        assert readings["work_mem"].override is None
        # A session that began before still sees what will win over an entry.
        assert target.read_knobs(["random_page_cost"])["random_page_cost"].override
    finally:
        application.execute(f"ALTER DATABASE {server.dbname} RESET random_page_cost")
        application.execute(f"ALTER ROLE {server.user} RESET effective_cache_size")


def test_errors_in_the_files_are_told(server: AnyServer, target: PostgresTarget) -> None:
    assert target.config_file_errors() == []
    path = server.cluster_dir / "postgresql.auto.conf"
    before = path.read_text()
    try:
        path.write_text(before + "work_mem = 'many'\n")
        errors = target.config_file_errors()
    finally:
        path.write_text(before)
    assert len(errors) == 1
    assert "work_mem" in errors[0]
    assert "postgresql.auto.conf" in errors[0]
