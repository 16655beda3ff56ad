"""What ``run.py steering`` writes is run on a real server, does what it says, and is taken back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import URL
from typer.testing import CliRunner

import run
from backend.domain.metrics import QueryKey
from backend.domain.modes import Mode
from backend.domain.records import QueryClassRecord
from backend.domain.steering import SteeredClassRecord, SteeringMode, SteeringState
from backend.steering.places import SteeringPlaces
from backend.steering.statements.sample_book import SampleBook
from backend.steering.statements.samples import sample_of
from backend.telemetry import open_store
from tests.contracts import records as full
from tests.foreign_server import AnyServer
from tests.integration.steering_servers import session

pytestmark = pytest.mark.integration

ROLE = 'exports "role"'
SECRET = "s3cret-city"
STATEMENT = (
    "SELECT count(*) FROM exports_trial.places WHERE city = 'City 7' AND region = 'Region 7' "
    f"AND city <> '{SECRET}'"
)
SCHEMA = """
DROP SCHEMA IF EXISTS exports_trial CASCADE;
CREATE SCHEMA exports_trial;
CREATE TABLE exports_trial.places AS
    SELECT 'City ' || i % 100 AS city, 'Region ' || i % 100 AS region
    FROM generate_series(1, 20000) i;
ANALYZE exports_trial.places;
DROP SCHEMA IF EXISTS hint_plan CASCADE;
CREATE SCHEMA hint_plan;
"""
# The columns and the key of pg_hint_plan's table in its two layouts.
TABLES = {
    "1.6": "norm_query_string text NOT NULL",
    "1.7": "query_id bigint NOT NULL",
}


@pytest.fixture
def owner(server: AnyServer) -> Iterator[Any]:
    with session(server.dsn()) as cursor:
        cursor.execute(SCHEMA)
        yield cursor
        cursor.execute("DROP SCHEMA exports_trial CASCADE; DROP SCHEMA hint_plan CASCADE")


@pytest.fixture
def folder(data_dir: Path, owner: Any) -> Iterator[Path]:
    """The data folder of that server, with one proven class of which a statement is kept."""
    data = data_dir
    sample = sample_of(STATEMENT, '"$user", public', full.NOW, "file")
    places = SteeringPlaces(data / "steering")
    SampleBook(places.kept_samples).add([sample])
    store_file = data / "telemetry.db"
    with closing(open_store(f"sqlite:///{store_file}")) as store:
        store.save_steered_classes([proven(sample.key)])
        store.save_status(replace(full.STATUS, mode=Mode.AUTO, server_version="17.2"))
        store.add_query_classes(query_classes(owner))
    yield data
    for file in (places.kept_samples, *data.glob("telemetry.db*")):
        file.unlink(missing_ok=True)


def proven(key: Any) -> SteeredClassRecord:
    evidence = replace(full.EVIDENCE, settings={"enable_nestloop": "off"}, effect=-0.5)
    return replace(
        full.STEERED_CLASS, key=key, state=SteeringState.VERIFIED, mode=SteeringMode.AUTO,
        reason="", evidence=evidence, query_keys=(), default_ms=100.0,
    )  # fmt: skip


def query_classes(owner: Any) -> list[QueryClassRecord]:
    """The statement as pg_stat_statements shows it to telemetry; each new table is a new entry."""
    owner.execute(STATEMENT)
    owner.execute(
        "SELECT userid, dbid, queryid, query FROM pg_stat_statements "
        "WHERE query LIKE '%exports_trial.places WHERE%' AND query LIKE 'SELECT count%'"
    )
    return [
        QueryClassRecord(str(QueryKey(userid, database, queryid)), text, full.NOW)
        for userid, database, queryid, text in owner.fetchall()
    ]


def steering(folder: Path, *arguments: str) -> str:
    result = CliRunner().invoke(run.app, ["steering", *arguments, "--data-dir", str(folder)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def undo(text: str, mark: str = "-- To undo: ") -> str:
    return "\n".join(line.removeprefix(mark) for line in text.splitlines() if line.startswith(mark))


def test_the_proposed_statistics_end_the_misestimate(folder: Path, owner: Any) -> None:
    text = steering(folder, "report")
    assert "2 rows expected, 200 found" in text
    assert "exports_trial.places.city, exports_trial.places.region" in text
    assert SECRET not in text
    assert "City 7" not in text
    owner.execute(text)
    owner.execute("SELECT count(*) FROM pg_statistic_ext WHERE stxname LIKE 'places_city_region%'")
    assert owner.fetchone() == (1,)
    assert "No step was wrong" in steering(folder, "report")
    owner.execute("DELETE FROM pg_statistic_ext_data")
    again = steering(folder, "report")
    assert "there already" in again
    assert "\nCREATE STATISTICS" not in again
    owner.execute(undo(text))
    owner.execute("SELECT count(*) FROM pg_statistic_ext WHERE stxname LIKE 'places_city_region%'")
    assert owner.fetchone() == (0,)


@pytest.mark.parametrize("layout", sorted(TABLES))
def test_rows_of_the_hint_table_and_their_undoing(folder: Path, owner: Any, layout: str) -> None:
    column = TABLES[layout].split()[0]
    owner.execute(
        f"CREATE TABLE hint_plan.hints (id serial PRIMARY KEY, {TABLES[layout]}, "
        f"application_name text NOT NULL, hints text NOT NULL, UNIQUE ({column}, application_name))"
    )
    text = steering(folder, "export", "--format", "hint-table", "--pg-hint-plan", layout)
    owner.execute(text)
    owner.execute(f"SELECT {column}, application_name, hints FROM hint_plan.hints ORDER BY id")
    rows = owner.fetchall()
    assert {row[1:] for row in rows} == {("", "Set(enable_nestloop off)")}
    if layout == "1.7":
        owner.execute(f"EXPLAIN (VERBOSE, FORMAT JSON) {STATEMENT}")
        assert owner.fetchone()[0][0]["Query Identifier"] in [row[0] for row in rows]
    else:
        masked = STATEMENT.replace("'City 7'", "?").replace("'Region 7'", "?")
        assert rows[0][0] == masked.replace(f"'{SECRET}'", "?")
    with pytest.raises(psycopg2.errors.UniqueViolation):  # what stands there is not overwritten
        owner.execute(text)
    owner.execute(undo(text))
    owner.execute("SELECT count(*) FROM hint_plan.hints")
    assert owner.fetchone() == (0,)


@pytest.fixture
def role(server: AnyServer, owner: Any) -> Iterator[URL]:
    """A role with an awkward name, to connect as."""
    name = '"' + ROLE.replace('"', '""') + '"'
    owner.execute(f"DROP ROLE IF EXISTS {name}")
    owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'exports-pw'")
    yield server.dsn().set(username=ROLE, password="exports-pw")
    owner.execute(f"DROP ROLE {name}")


def in_force(url: URL) -> str:
    with session(url) as cursor:
        cursor.execute("SHOW enable_nestloop")
        return str(cursor.fetchone()[0])


@pytest.mark.parametrize("more", [(), ("--database", "shop")])
def test_settings_of_a_role_and_their_undoing(
    folder: Path, owner: Any, role: URL, more: tuple[str, ...]
) -> None:
    text = steering(folder, "export", "--format", "alter-role", "--role", ROLE, *more)
    assert in_force(role) == "on"
    owner.execute(text)
    assert in_force(role) == "off"
    owner.execute(text.partition("-- To undo:\n")[2].replace("-- ", ""))
    assert in_force(role) == "on"


def test_a_class_whose_plan_stays_the_same_needs_no_run(folder: Path) -> None:
    other = sample_of(
        "SELECT city FROM exports_trial.places LIMIT 3", '"$user", public', full.NOW, "file"
    )
    SampleBook(SteeringPlaces(folder / "steering").kept_samples).add([other])
    tried = replace(
        proven(other.key), evidence=None, state=SteeringState.DEFAULT_BEST, default_ms=5.0
    )
    with closing(open_store(f"sqlite:///{folder}/telemetry.db")) as store:
        store.save_steered_classes([tried])
    text = steering(folder, "export", "--format", "alter-role", "--database", "shop")
    assert f"{other.key.fingerprint}: 100% (the same plan)" in text
    assert 'ALTER DATABASE "shop" SET enable_nestloop' in text


def test_a_class_of_which_nothing_is_kept_says_so(folder: Path) -> None:
    unknown = proven(full.STEERED_CLASS.key)
    with closing(open_store(f"sqlite:///{folder}/telemetry.db")) as store:
        store.save_steered_classes([unknown])
    text = steering(folder, "report", "--class", unknown.key.fingerprint)
    assert "Not looked at: no statement of the class is kept" in text
