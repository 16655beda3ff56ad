"""The database that is copied, the statements and knobs that are tried on the copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy.engine import URL

from backend.domain.steering import ClassKey, StatementSample
from backend.sandbox.copying import CopyLimits, MadeCopy, make_copy
from backend.steering.client.statements import fingerprint
from backend.steering.statements.sample_book import SampleBook
from tests.foreign_server import AnyServer

DATABASE = "Sandbox source"
SCHEMA = """
CREATE SCHEMA "Odd ""name";
CREATE TYPE "Odd ""name".mood AS ENUM ('good', 'bad');
CREATE FUNCTION "Odd ""name".twice(integer) RETURNS integer IMMUTABLE LANGUAGE sql
    AS 'SELECT $1 * 2';
CREATE FUNCTION "Odd ""name".drawn() RETURNS double precision VOLATILE LANGUAGE sql
    AS 'SELECT random()';
CREATE FUNCTION "Odd ""name".noisy() RETURNS trigger LANGUAGE plpgsql
    AS $$BEGIN RAISE EXCEPTION 'a trigger ran'; END$$;
CREATE TABLE "Odd ""name".parent (
    id integer PRIMARY KEY, mood "Odd ""name".mood NOT NULL,
    note text, doubled integer GENERATED ALWAYS AS ("Odd ""name".twice(id)) STORED);
CREATE TABLE "Odd ""name".child (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parent integer NOT NULL REFERENCES "Odd ""name".parent, amount double precision NOT NULL,
    "at" timestamptz NOT NULL);
CREATE INDEX ON "Odd ""name".child (parent);
CREATE TABLE "Odd ""name".elsewhere (id integer);
CREATE TABLE "Odd ""name".part (id integer, at date) PARTITION BY RANGE (at);
CREATE TABLE "Odd ""name".part_1 PARTITION OF "Odd ""name".part
    FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE VIEW "Odd ""name".seen AS
    SELECT p.mood, sum(c.amount) AS amount
      FROM "Odd ""name".parent AS p JOIN "Odd ""name".child AS c ON c.parent = p.id GROUP BY 1;
INSERT INTO "Odd ""name".parent (id, mood, note)
    SELECT i, (CASE WHEN i % 3 = 0 THEN 'good' ELSE 'bad' END)::"Odd ""name".mood,
           E'tab\\tback\\\\slash ' || i FROM generate_series(1, 4000) AS i;
INSERT INTO "Odd ""name".child (parent, amount, "at")
    SELECT 1 + i % 4000, i / 7.0, '2026-01-01'::timestamptz + i * interval '1 minute'
      FROM generate_series(1, 40000) AS i;
INSERT INTO "Odd ""name".elsewhere SELECT generate_series(1, 100);
INSERT INTO "Odd ""name".part SELECT i, '2020-05-05' FROM generate_series(1, 10) AS i;
CREATE TRIGGER noisy BEFORE INSERT ON "Odd ""name".child
    FOR EACH ROW EXECUTE FUNCTION "Odd ""name".noisy();
CREATE ROLE sandbox_reader LOGIN PASSWORD 'reads';
GRANT USAGE ON SCHEMA "Odd ""name" TO sandbox_reader;
GRANT SELECT ON "Odd ""name".parent, "Odd ""name".part, "Odd ""name".part_1 TO sandbox_reader;
"""
JOIN = (
    'SELECT p.note, sum(c.amount) FROM "Odd ""name".parent AS p JOIN "Odd ""name".child AS c '
    "ON c.parent = p.id WHERE p.id BETWEEN {} AND {} GROUP BY p.note"
)
STATEMENTS = (
    tuple(JOIN.format(low, low + 2000) for low in (1, 1001)),
    ('SELECT amount FROM "Odd ""name".seen WHERE mood = \'good\'',),
    ('SELECT count(*) FROM "Odd ""name".part WHERE "at" > \'2020-01-01\'',),
)
VOLATILE = 'SELECT "Odd ""name".drawn() FROM "Odd ""name".elsewhere'
SLOW = {  # every join reads the child once for each parent
    "enable_hashjoin": False,
    "enable_mergejoin": False,
    "enable_indexscan": False,
    "enable_indexonlyscan": False,
    "enable_bitmapscan": False,
    "enable_material": False,
    "enable_memoize": False,
}
NO_START = {"huge_pages": "on", "shared_buffers": 2**30 // 8}
"""No machine has eight terabytes of huge pages to spare."""
KNOBS = (*SLOW, *NO_START, "work_mem", "random_page_cost", "bgwriter_delay")
FITS = CopyLimits(rows=100_000, size_bytes=50_000_000)


def connect(url: URL) -> Any:
    connection = psycopg2.connect(
        url.set(drivername="postgresql").render_as_string(hide_password=False)
    )
    connection.autocommit = True
    return connection


def rows_of(url: URL, query: str) -> list[tuple[Any, ...]]:
    with closing(connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


@contextmanager
def filled(server: AnyServer) -> Iterator[None]:
    """A database with the schema above, and without afterwards."""
    with closing(connect(server.dsn())) as admin, admin.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{DATABASE}"')
        url = server.dsn(DATABASE)
        with closing(connect(url)) as own, own.cursor() as inside:
            inside.execute(SCHEMA)
            inside.execute("VACUUM ANALYZE")
        yield
        with closing(connect(url)) as own, own.cursor() as inside:
            inside.execute("DROP OWNED BY sandbox_reader; DROP ROLE sandbox_reader")
        cursor.execute(f'DROP DATABASE "{DATABASE}" WITH (FORCE)')


def recorded(path: Path, *classes: tuple[str, ...]) -> Path:
    now = datetime.now(timezone.utc)
    SampleBook(path).add(
        StatementSample(ClassKey(fingerprint(texts[0]), '"$user", public'), text, now, "file")
        for texts in classes
        for text in texts
    )
    return path


def copied(
    source: URL, data_dir: Path, names: tuple[str, ...], limits: CopyLimits = FITS
) -> MadeCopy:
    return make_copy(source, data_dir, names, limits, tell=lambda _: None, is_over=lambda: False)
