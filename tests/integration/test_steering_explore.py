"""``run.py steering explore``: a search on somebody's server, from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backend.db_connector import DatabaseConnector
from backend.domain.steering import SteeringMode, SteeringState
from backend.telemetry import open_store
from tests.contracts import records as full
from tests.foreign_roles import environment_of, own_database
from tests.foreign_server import AnyServer, client_dsn, tuner_dsn
from tests.integration.test_command_line import fine, refused, run

pytestmark = pytest.mark.integration

DATABASE = "explored"
TABLES = """
CREATE TABLE public.large AS
  SELECT i % 100 AS kind, i % 100 AS same FROM generate_series(1, 20000) i;
CREATE TABLE public.small AS
  SELECT i % 100 AS kind, i % 100 AS same FROM generate_series(1, 4000) i;
ANALYZE public.large;
ANALYZE public.small;
"""
QUERIES = """
SELECT count(*) FROM small s JOIN large l ON l.kind = s.kind AND l.same = s.same
 WHERE s.kind = 7 AND s.same = 7;
SELECT setval('s', 3);
SELECT random() FROM small;
UPDATE small SET kind = 1;
"""


@pytest.fixture(scope="module")
def environ(server: AnyServer) -> Iterator[dict[str, str]]:
    """What tells a command of the server, as tuner and explorer."""
    with own_database(server, DATABASE):
        with closing(DatabaseConnector(client_dsn(server, DATABASE))) as connector:
            for statement in TABLES.strip().split(";\n"):
                connector.execute(statement.rstrip(";\n"))
        yield environment_of(server, DATABASE)


def test_what_only_reads_is_explored_and_the_rest_is_said(
    environ: dict[str, str], tmp_path: Path
) -> None:
    queries, data = tmp_path / "queries.sql", tmp_path / "data"
    queries.write_text(QUERIES, encoding="utf-8")
    output = fine(
        run("steering", "explore", str(queries), "--minutes", "0.5", "--data-dir", str(data),
            environ={**environ, "AUTOPILOT_STEERING__MIN_GAIN": "0.05"})
    )  # fmt: skip
    assert "query classes have a plan that was proven faster" in output
    with closing(open_store(f"sqlite:///{data}/telemetry.db", read_only=True)) as store:
        states = {record.text.split()[1][:6]: record.state for record in store.steered_classes()}
        runs = store.plan_runs()
    assert states.pop("count(") in (
        SteeringState.VERIFIED,
        SteeringState.DEFAULT_BEST,
        SteeringState.EXPLORING,
    )
    assert set(states.values()) <= {SteeringState.REFUSED}
    assert len(runs) >= 3
    assert not (data / "steering" / "table.json").exists()
    listed = fine(run("steering", "list", "--data-dir", str(data)))
    assert "count(" in listed


@pytest.mark.parametrize("server", ["embedded_server"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.sql"], "nowhere.sql"),
        (["empty.sql"], "no statement was found"),
        (["empty.sql", "--minutes", "0"], "--minutes"),
        ([], "FILES"),
    ],
)
def test_what_cannot_be_explored_is_refused_clearly(
    environ: dict[str, str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "empty.sql").write_text("-- nothing\n", encoding="utf-8")
    done = run("steering", "explore", *arguments, "--data-dir", str(tmp_path / "data"),
               cwd=tmp_path, environ=environ)  # fmt: skip
    assert said in refused(done)


def test_beside_a_tuner_nothing_is_explored(
    environ: dict[str, str], server: AnyServer, tmp_path: Path
) -> None:
    from backend.targets.postgresql import PostgresTarget

    (tmp_path / "one.sql").write_text("SELECT count(*) FROM small;", encoding="utf-8")
    with closing(PostgresTarget(DatabaseConnector(tuner_dsn(server, DATABASE)))) as tuner:
        assert tuner.hold_tuner_lock()
        done = run("steering", "explore", "one.sql", "--data-dir", str(tmp_path / "data"),
                   cwd=tmp_path, environ=environ)  # fmt: skip
    assert "a tuner acts on" in refused(done)


def test_what_was_proven_on_another_server_is_left_alone(
    environ: dict[str, str], tmp_path: Path
) -> None:
    queries, data = tmp_path / "queries.sql", tmp_path / "data"
    queries.write_text("SELECT count(*) FROM small", encoding="utf-8")
    data.mkdir()
    proven = replace(full.STEERED_CLASS, state=SteeringState.VERIFIED, mode=SteeringMode.AUTO)
    with closing(open_store(f"sqlite:///{data}/telemetry.db")) as store:
        store.save_steered_classes([proven])
    done = run("steering", "explore", str(queries), "--data-dir", str(data),
               environ=environ)  # fmt: skip
    told = refused(done)
    assert "proven on another server" in told
    assert "--data-dir" in told
    with closing(open_store(f"sqlite:///{data}/telemetry.db", read_only=True)) as store:
        assert store.steered_classes() == [proven]
