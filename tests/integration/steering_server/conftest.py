"""A schema on servers of both kinds, and what runs statements on it as a reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.engine import URL

from backend.catalog.hint_sets import HintSetCatalog, load_hint_sets
from backend.db_connector import DatabaseConnector
from backend.steering.running.runner import StatementRunner
from backend.steering.statements.read_only import ReadOnlyCheck, ReadOnlyVerdict
from tests.foreign_server import AnyServer, explorer_dsn
from tests.integration.steering_servers import AMPLE, owner

SCHEMA = """
DROP SCHEMA IF EXISTS trial CASCADE;
CREATE SCHEMA trial;
CREATE TABLE trial.parents (id int PRIMARY KEY, kind int NOT NULL, label text NOT NULL);
CREATE TABLE trial.children (id int PRIMARY KEY, parent int NOT NULL, weight float8 NOT NULL);
INSERT INTO trial.parents SELECT i, i % 7, 'parent ' || i FROM generate_series(1, 2000) i;
INSERT INTO trial.children SELECT i, 1 + i % 2000, i / 3.0 FROM generate_series(1, 10000) i;
CREATE INDEX children_parent ON trial.children (parent);
CREATE SEQUENCE trial.numbers;
CREATE FUNCTION trial.careless(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION trial.careful(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION trial.liar() RETURNS bigint LANGUAGE plpgsql STABLE
    AS 'BEGIN RETURN nextval(''trial.numbers''); END';
CREATE FUNCTION trial.secret(trial.parents) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION trial.add_up(int, int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1 + $2';
CREATE FUNCTION trial.ticket(a int DEFAULT nextval('trial.numbers')) RETURNS int
    LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION trial.again(a int DEFAULT 1 + abs(-2)) RETURNS int
    LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE OR REPLACE FUNCTION trial.again(a int DEFAULT trial.again(1)) RETURNS int
    LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE AGGREGATE trial.total(int) (SFUNC = trial.add_up, STYPE = int, INITCOND = '0');
CREATE OPERATOR trial.@+@ (LEFTARG = int, RIGHTARG = int, FUNCTION = trial.add_up);
CREATE DOMAIN trial.checked AS int CHECK (trial.careless(VALUE) > 0);
CREATE VIEW trial.plain_view AS SELECT id, kind FROM trial.parents;
CREATE VIEW trial.counting_view AS SELECT nextval('trial.numbers') AS n;
CREATE VIEW trial.view_of_view AS SELECT n FROM trial.counting_view;
CREATE TABLE trial.guarded (id int);
ALTER TABLE trial.guarded ENABLE ROW LEVEL SECURITY;
CREATE FOREIGN DATA WRAPPER trial_wrapper;
CREATE SERVER trial_server FOREIGN DATA WRAPPER trial_wrapper;
CREATE FOREIGN TABLE trial.elsewhere (id int) SERVER trial_server;
CREATE TABLE trial.halves (id int) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE trial.half_elsewhere PARTITION OF trial.halves
    FOR VALUES FROM (0) TO (9) SERVER trial_server;
ANALYZE trial.parents, trial.children;
"""
CLEAN_UP = """
DROP SCHEMA trial CASCADE;
DROP FOREIGN DATA WRAPPER trial_wrapper CASCADE;
"""


@pytest.fixture(scope="module")
def server(server: AnyServer) -> Iterator[AnyServer]:
    """A server of each kind, with the schema ``trial``."""
    with owner(server) as cursor:
        cursor.execute(SCHEMA)
    yield server
    with owner(server) as cursor:
        cursor.execute(CLEAN_UP)


@pytest.fixture
def catalog(server: AnyServer) -> HintSetCatalog:
    return load_hint_sets(server.version, AMPLE)


@pytest.fixture
def url(server: AnyServer) -> URL:
    return explorer_dsn(server)


@pytest.fixture
def runner(url: URL, catalog: HintSetCatalog) -> Iterator[StatementRunner]:
    made = StatementRunner(url, catalog)
    yield made
    made.close()


@pytest.fixture
def check(url: URL) -> Iterator[Callable[..., ReadOnlyVerdict]]:
    connector = DatabaseConnector(url)

    def judge(statement: str, *allowed: str) -> ReadOnlyVerdict:
        return ReadOnlyCheck(connector, allowed_functions=allowed).check(statement)

    yield judge
    connector.close()
