"""The sandbox on real servers: what it finds, what it leaves alone, and that it leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from sqlalchemy.engine import URL

from backend.db_connector import DatabaseConnector
from backend.domain.steering import ClassKey, StatementSample
from backend.embedded.postmaster import living_postmaster
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError
from backend.sandbox.copying import CopyLimits, MadeCopy, make_copy
from backend.sandbox.outcome import SandboxOutcome
from backend.sandbox.sandbox import Sandbox, SandboxSettings
from backend.sandbox.scratch_server import ScratchServer, remove_leftovers
from backend.steering.client.statements import fingerprint
from backend.steering.statements.sample_book import SampleBook
from tests.integration.conftest import open_folder

pytestmark = pytest.mark.integration

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


@pytest.fixture(scope="module")
def source(embedded_server: EmbeddedPostgres) -> Iterator[URL]:
    with filled(embedded_server) as url:
        yield url


@contextmanager
def filled(server: EmbeddedPostgres) -> Iterator[URL]:
    """A database with the schema above, and without afterwards."""
    with closing(connect(server.dsn())) as admin, admin.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{DATABASE}"')
        url = server.dsn(DATABASE)
        with closing(connect(url)) as own, own.cursor() as inside:
            inside.execute(SCHEMA)
            inside.execute("VACUUM ANALYZE")
        yield url
        with closing(connect(url)) as own, own.cursor() as inside:
            inside.execute("DROP OWNED BY sandbox_reader; DROP ROLE sandbox_reader")
        cursor.execute(f'DROP DATABASE "{DATABASE}" WITH (FORCE)')


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with open_folder() as folder:
        yield Path(folder)
        remove_leftovers(Path(folder))


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


@pytest.fixture(scope="module")
def whole(source: URL) -> Iterator[MadeCopy]:
    """A copy for which the budgets suffice."""
    with open_folder() as folder:
        made = copied(source, Path(folder), ("child", "part"))
        yield made
        made.server.destroy()


class TestCopy:
    def test_rows_are_the_originals(self, source: URL, whole: MadeCopy) -> None:
        for query in (
            'SELECT id, mood, note, doubled FROM "Odd ""name".parent ORDER BY 1',
            'SELECT id, parent, amount, "at" FROM "Odd ""name".child ORDER BY 1',
            'SELECT * FROM "Odd ""name".part ORDER BY 1',
            'SELECT * FROM "Odd ""name".seen ORDER BY 1',
        ):
            assert rows_of(whole.server.owner_url, query) == rows_of(source, query)
        assert whole.lacking == 0
        assert whole.rows.whole == whole.rows.tables == 3

    def test_tables_that_no_statement_reads_stay_empty(self, whole: MadeCopy) -> None:
        assert rows_of(whole.server.owner_url, 'SELECT * FROM "Odd ""name".elsewhere') == []

    def test_indexes_keys_and_statistics_are_there_triggers_are_not(
        self, source: URL, whole: MadeCopy
    ) -> None:
        for query in (
            "SELECT indexdef FROM pg_indexes WHERE schemaname LIKE 'Odd%' ORDER BY 1",
            "SELECT conname, convalidated FROM pg_constraint WHERE contype IN ('f', 'p') "
            "AND connamespace::regnamespace::text LIKE '%Odd%' ORDER BY 1",
        ):
            assert rows_of(whole.server.owner_url, query) == rows_of(source, query)
        url = whole.server.owner_url
        assert rows_of(url, "SELECT count(*) FROM pg_stats WHERE schemaname LIKE 'Odd%'")[0][0] > 0
        assert rows_of(url, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == [(0,)]

    def test_its_database_sorts_like_the_original(self, source: URL, whole: MadeCopy) -> None:
        query = (
            "SELECT encoding, datcollate, datctype FROM pg_database "
            "WHERE datname = current_database()"
        )
        assert rows_of(whole.server.owner_url, query) == rows_of(source, query)

    def test_statements_are_run_by_a_role_without_rights_over_the_server(
        self, whole: MadeCopy
    ) -> None:
        query = "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = USER"
        assert rows_of(whole.server.owner_url, query) == [(False, False, False)]

    def test_the_server_listens_on_the_loopback_alone_and_is_bounded(self, whole: MadeCopy) -> None:
        url = whole.server.copy_admin_url
        assert rows_of(url, "SHOW listen_addresses") == [("127.0.0.1",)]
        assert rows_of(url, "SHOW unix_socket_directories") == [("",)]
        assert rows_of(url, "SHOW temp_file_limit") != [("-1",)]
        with closing(connect(url)) as connection:
            backend = psutil.Process(connection.info.backend_pid)
            assert backend.nice() == 19
            limits = Path(f"/proc/{backend.pid}/limits").read_text(encoding="ascii")
            assert re.search(r"Max data size +\d+ ", limits)
            adjusted = Path(f"/proc/{backend.pid}/oom_score_adj").read_text(encoding="ascii")
            assert adjusted.strip() == "1000"

    def test_durability_is_off_here_alone(self, source: URL, whole: MadeCopy) -> None:
        assert rows_of(whole.server.copy_admin_url, "SHOW fsync") == [("off",)]
        assert rows_of(source, "SHOW fsync") == [("on",)]


class TestSample:
    def test_children_come_with_all_their_siblings_and_find_their_parents(
        self, source: URL, data_dir: Path
    ) -> None:
        made = copied(source, data_dir, ("child",), CopyLimits(4000, 50_000_000, seed=3))
        url = made.server.owner_url

        children = rows_of(url, 'SELECT count(*) FROM "Odd ""name".child')[0][0]
        assert 500 < children <= 2100
        assert rows_of(
            url, 'SELECT DISTINCT count(*) FROM "Odd ""name".child GROUP BY parent ORDER BY 1'
        )[-1] == (10,)
        assert rows_of(
            url,
            'SELECT count(*) FROM "Odd ""name".child AS c WHERE NOT EXISTS '
            '(SELECT FROM "Odd ""name".parent AS p WHERE p.id = c.parent)',
        ) == [(0,)]

    def test_a_role_that_may_not_read_a_table_gets_the_others(
        self, source: URL, data_dir: Path
    ) -> None:
        reader = source.set(username="sandbox_reader", password="reads")

        made = copied(reader, data_dir, ("parent", "child", "part"))

        url = made.server.owner_url
        assert rows_of(url, 'SELECT count(*) FROM "Odd ""name".parent') == [(4000,)]
        assert rows_of(url, 'SELECT to_regclass(\'"Odd ""name".child\')') == [(None,)]
        assert made.lacking > 0  # the view of what could not be read

    def test_bytes_are_bounded(self, source: URL, data_dir: Path) -> None:
        made = copied(source, data_dir, ("child", "parent"), CopyLimits(10**6, 200_000))

        assert made.rows.size_bytes <= 200_000

    def test_one_that_is_given_up_leaves_nothing(self, source: URL, data_dir: Path) -> None:
        told: list[str] = []

        def is_over() -> bool:
            return told[-1:] == ["builds indexes"]

        with pytest.raises(InterruptedError):
            make_copy(source, data_dir, ("child",), FITS, tell=told.append, is_over=is_over)

        assert list(data_dir.iterdir()) == []


@pytest.fixture
def sandbox(source: URL, data_dir: Path) -> Iterator[Sandbox]:
    made = Sandbox(source, settings_in(data_dir, STATEMENTS), threading.Event())
    yield made
    made.close()


def settings_in(
    data_dir: Path, statements: tuple[tuple[str, ...], ...], standby: URL | None = None
) -> SandboxSettings:
    return SandboxSettings(
        data_dir=data_dir,
        samples=recorded(data_dir / "samples.json", *statements),
        knobs=KNOBS,
        limits=FITS,
        max_s=240.0,
        max_regression=0.15,
        standby=standby,
    )


def fingerprint_of_all(url: URL) -> list[tuple[Any, ...]]:
    """What a check must not change in the original: rows, roles, databases, settings."""
    return [
        *rows_of(url, 'SELECT count(*), sum(amount) FROM "Odd ""name".child'),
        *rows_of(url, "SELECT rolname FROM pg_roles ORDER BY 1"),
        *rows_of(url, "SELECT datname FROM pg_database ORDER BY 1"),
        *rows_of(url, "SELECT name, setting FROM pg_file_settings ORDER BY 1"),
        *rows_of(url, "SELECT relname, relkind FROM pg_class ORDER BY oid"),
    ]


@pytest.mark.slow
class TestChecks:
    def test_it_finds_the_harmful_ones_and_lets_the_harmless_one_pass(
        self, source: URL, data_dir: Path, sandbox: Sandbox
    ) -> None:
        before = fingerprint_of_all(source)

        no_start = sandbox.check(NO_START)
        slow = sandbox.check(SLOW)
        harmless = sandbox.check({"work_mem": 8192, "bgwriter_delay": 300})

        assert no_start.outcome is SandboxOutcome.FAILED
        assert "does not start with it" in no_start.reasons[0]
        assert slow.outcome is SandboxOutcome.FAILED
        assert slow.statements == 4
        assert harmless.outcome is SandboxOutcome.PASSED, harmless.reasons
        assert harmless.blocks >= 4
        assert harmless.interval is not None
        assert fingerprint_of_all(source) == before
        assert sandbox.progress == ""
        sandbox.close()
        assert [path.name for path in data_dir.iterdir()] == ["samples.json"]

    def test_a_value_that_the_server_refuses_fails(self, sandbox: Sandbox) -> None:
        found = sandbox.check({"work_mem": 1})

        assert found.outcome is SandboxOutcome.FAILED
        assert "refuses" in found.reasons[0]

    def test_without_statements_it_cannot_tell_but_the_server_was_started(
        self, source: URL, data_dir: Path
    ) -> None:
        with closing(
            Sandbox(source, settings_in(data_dir, ((VOLATILE,),)), threading.Event())
        ) as empty:
            found = empty.check({"work_mem": 8192})
            no_start = empty.check(NO_START)

        assert found.outcome is SandboxOutcome.UNKNOWN
        assert "an empty set proves nothing" in found.reasons[0]
        assert no_start.outcome is SandboxOutcome.FAILED

    def test_asked_to_stop_it_stops(self, source: URL, data_dir: Path) -> None:
        stop = threading.Event()
        stop.set()
        with closing(Sandbox(source, settings_in(data_dir, STATEMENTS), stop)) as stopped:
            found = stopped.check({"work_mem": 8192})

        assert found.outcome is SandboxOutcome.UNKNOWN
        assert found.may_be_tried

    def test_the_server_rests_between_checks(
        self, data_dir: Path, source: URL, sandbox: Sandbox
    ) -> None:
        sandbox.check(NO_START)

        cluster = EmbeddedPostgres(data_dir / "sandbox", dbname="postgres").cluster_dir
        assert cluster.is_dir()
        assert living_postmaster(cluster) is None


class TestStandby:
    """A server that the user names; here the original itself stands in for its stand-by."""

    def test_sessions_are_compared_and_the_rest_is_told(self, source: URL, data_dir: Path) -> None:
        settings = settings_in(data_dir, (*STATEMENTS, (VOLATILE,)), standby=source)
        before = fingerprint_of_all(source)

        with closing(Sandbox(source, settings, threading.Event())) as box:
            slow = box.check({**SLOW, "bgwriter_delay": 300})
            server_only = box.check({"bgwriter_delay": 300})

        assert slow.outcome is SandboxOutcome.FAILED
        assert any(reason.startswith("bgwriter_delay was not tried") for reason in slow.reasons)
        assert any("1 statements were not run" in reason for reason in slow.reasons)
        assert server_only.outcome is SandboxOutcome.UNKNOWN
        assert fingerprint_of_all(source) == before
        assert not (data_dir / "sandbox").exists()


KILLED = """
import sys, threading
from pathlib import Path
from sqlalchemy.engine import make_url
from backend.sandbox.copying import CopyLimits, make_copy
make_copy(make_url(sys.argv[1]), Path(sys.argv[2]), ("child",), CopyLimits(1000, 10**7),
          tell=lambda what: print(what, flush=True), is_over=lambda: False)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["copies a sample of rows", "ready"])
def test_what_a_killed_process_left_is_found_and_removed(
    source: URL, data_dir: Path, when: str
) -> None:
    process = subprocess.Popen(
        [
            sys.executable, "-c", KILLED,
            source.render_as_string(hide_password=False), str(data_dir),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        while (line := process.stdout.readline()).strip() != when:
            assert line, "it ended too early"
        assert not remove_leftovers(data_dir)  # its owner lives
        with pytest.raises(EmbeddedServerError, match=f"process {process.pid} has a sandbox"):
            ScratchServer(data_dir, 17, 10**6).create({})
        os.kill(process.pid, signal.SIGKILL)
    cluster = EmbeddedPostgres(data_dir / "sandbox", dbname="postgres").cluster_dir
    left = living_postmaster(cluster)
    assert left is not None

    assert remove_leftovers(data_dir)

    assert not psutil.pid_exists(left.pid) or (
        psutil.Process(left.pid).status() == psutil.STATUS_ZOMBIE  # init has not reaped it yet
    )
    assert list(data_dir.iterdir()) == []
    assert not remove_leftovers(data_dir)


def test_an_older_server_is_copied_to_one_of_its_version(
    debian_server: EmbeddedPostgres, data_dir: Path
) -> None:
    with filled(debian_server) as source:
        made = copied(source, data_dir, ("child", "part"))

        copy = made.server.owner_url
        assert made.lacking == 0
        assert rows_of(copy, "SHOW server_version") == rows_of(source, "SHOW server_version")
        query = 'SELECT * FROM "Odd ""name".child ORDER BY id'
        assert rows_of(copy, query) == rows_of(source, query)


def test_a_version_that_this_machine_does_not_have_is_said_so(data_dir: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="the cluster was made by 11"):
        ScratchServer(data_dir, 11, 10**6)


def test_every_statement_on_the_original_is_tagged(
    embedded_server: EmbeddedPostgres, source: URL, data_dir: Path
) -> None:
    with closing(DatabaseConnector(embedded_server.dsn())) as connector:
        connector.execute("SELECT public.pg_stat_statements_reset()")
        copied(source, data_dir, ("child",))
        seen = connector.fetch(
            "SELECT s.query FROM public.pg_stat_statements AS s "
            "JOIN pg_database AS d ON d.oid = s.dbid WHERE d.datname = %s",
            (DATABASE,),
        )

    texts = [row["query"] for row in seen]
    assert texts
    assert [text for text in texts if "/* autopilot */" not in text] == []
