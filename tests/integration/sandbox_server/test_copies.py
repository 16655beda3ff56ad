"""The copy of a database: what is in it, what is not, and what its server may do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import URL

from backend.db_connector import DatabaseConnector
from backend.errors import EmbeddedServerError
from backend.sandbox.copying import CopyLimits, MadeCopy, make_copy
from backend.sandbox.scratch_server import ScratchServer
from tests.foreign_server import AnyServer
from tests.integration.conftest import open_folder
from tests.integration.sandbox_server.originals import (
    DATABASE,
    FITS,
    connect,
    copied,
    rows_of,
)

pytestmark = pytest.mark.integration


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
        version = "SHOW server_version"
        assert rows_of(whole.server.owner_url, version) == rows_of(source, version)
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

    @pytest.mark.parametrize("server", ["embedded_server"], indirect=True)
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


def test_a_version_that_this_machine_does_not_have_is_said_so(data_dir: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="the cluster was made by 11"):
        ScratchServer(data_dir, 11, 10**6)


def test_every_statement_on_the_original_is_tagged(
    server: AnyServer, source: URL, data_dir: Path
) -> None:
    with closing(DatabaseConnector(server.dsn())) as connector:
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
