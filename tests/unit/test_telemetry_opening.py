"""How a SQLite store is created, migrated, checked and refused."""

from __future__ import annotations

import io
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from rich.console import Console

from backend.errors import StoreError
from backend.telemetry import open_store, opening
from backend.telemetry.connections import store_url
from backend.telemetry.schema import SCHEMA_REVISION, metadata
from tests.contracts import records as full

NEXT = "next"
ADD_A_TABLE = f"""
import sqlalchemy as sa
from alembic import op

revision = "{NEXT}"
down_revision = "{SCHEMA_REVISION}"

def upgrade():
    op.create_table("extra", sa.Column("id", sa.Integer, primary_key=True))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "telemetry.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program with one migration more than this one; the folder of its migrations."""
    migrations = tmp_path / "migrations"
    shutil.copytree(opening.MIGRATIONS, migrations)
    (migrations / "versions" / "later_next.py").write_text(ADD_A_TABLE)
    monkeypatch.setattr(opening, "MIGRATIONS", migrations)
    monkeypatch.setattr(opening, "SCHEMA_REVISION", NEXT)
    yield migrations
    monkeypatch.undo()


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def test_a_new_store_is_durable_and_private(url: str, path: Path) -> None:
    with closing(open_store(url)) as store:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with store._reading() as connection:

            def pragma(name: str) -> object:
                return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

            assert pragma("journal_mode") == "wal"
            assert pragma("synchronous") == 2
            assert pragma("foreign_keys") == 1
            assert pragma("busy_timeout") == 5000


def test_who_cannot_wait_long_for_a_turn_says_so(url: str) -> None:
    with closing(open_store(url, busy_timeout_s=1.0)) as store, store._reading() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 1000


def test_the_migrations_make_the_schema_that_the_code_expects(url: str) -> None:
    with closing(open_store(url)) as store, store._reading() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
    assert ScriptDirectory(str(opening.MIGRATIONS)).get_current_head() == SCHEMA_REVISION


def test_an_older_store_is_copied_and_migrated(url: str, path: Path, next_version: Path) -> None:
    versions = next_version / "versions" / "later_next.py"
    text = versions.read_text()
    versions.unlink()
    opening.SCHEMA_REVISION = SCHEMA_REVISION
    with closing(open_store(url)) as store:
        store.add_event(full.EVENT)
    versions.write_text(text)
    opening.SCHEMA_REVISION = NEXT
    with closing(open_store(url)) as store:
        assert len(store.events()) == 1
        with store._reading() as connection:
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    copy = path.with_name(f"telemetry.db.before-{NEXT}")
    assert "extra" in tables(path)
    assert "extra" not in tables(copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_a_store_of_the_first_version_gets_what_is_new(url: str, path: Path) -> None:
    with closing(sqlite3.connect(_first_version(path))) as connection, connection:
        connection.execute(
            "INSERT INTO learning (at, agent, step, replay_size, reward_terms) "
            "VALUES ('2026-03-01 12:00:00', 'knob', 7, 0, '{}')"
        )
        connection.execute(
            'INSERT INTO policy_versions (created_at, author, config, "index", note, active) '
            "VALUES ('2026-03-01 12:00:00', 'server', '{\"work_mem\":8192}', 1.0, 'found', 1)"
        )
    with closing(open_store(url)) as store:
        assert [record.step for record in store.learning()] == [7]
        (old,) = store.policy_versions()
        assert (old.config, old.steering, old.weights) == ({"work_mem": 8192}, (), {})
        store.add_policy_version(full.VERSION)
        assert [v.active for v in store.policy_versions()] == [False, True]
        store.add_policy_update(full.POLICY_UPDATE)
        store.add_genome(full.GENOME)
        store.add_knob_space(full.KNOB_SPACE)
        store.add_transition(full.TRANSITION)
        assert len(store.transitions()) == 1
    assert "transitions" not in tables(path.with_name(f"telemetry.db.before-{SCHEMA_REVISION}"))


def _first_version(path: Path) -> Path:
    """A store as the first released schema made it."""
    path.parent.mkdir(parents=True)
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        command.upgrade(opening.alembic_config(connection), "0001")
    engine.dispose()
    return path


def test_a_failed_migration_leaves_the_store_as_it_was(
    url: str, path: Path, next_version: Path
) -> None:
    versions = next_version / "versions" / "later_next.py"
    versions.unlink()
    opening.SCHEMA_REVISION = SCHEMA_REVISION
    open_store(url).close()
    before = tables(path)
    versions.write_text(ADD_A_TABLE + "    op.execute('nonsense')\n")
    opening.SCHEMA_REVISION = NEXT
    with pytest.raises(StoreError, match="nonsense"):
        open_store(url)
    assert tables(path) == before


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_store_is_refused(url: str, path: Path, read_only: bool) -> None:
    open_store(url).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"schema 9999, newer(.|\n)*upgrade this program"):
        open_store(url, read_only=read_only)


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\x00" + b"\x01" * 5000]
)
def test_a_damaged_file_is_refused_and_kept(url: str, path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match="move it away"):
        open_store(url)
    assert path.read_bytes() == content


def test_another_programs_file_is_refused(url: str, path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE recipes (id)")
    with pytest.raises(StoreError, match=r"another program's tables \(recipes\)"):
        open_store(url)
    assert tables(path) == {"recipes"}


def test_reading_only_creates_nothing(url: str, path: Path) -> None:
    with pytest.raises(StoreError, match="start the tuner"):
        open_store(url, read_only=True)
    assert not path.exists()
    path.parent.mkdir()
    path.touch()
    with pytest.raises(StoreError, match="schema none"):
        open_store(url, read_only=True)


def test_a_folder_is_refused(url: str, path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="is a folder"):
        open_store(url)


def test_damage_found_later_is_told(url: str, path: Path) -> None:
    with closing(open_store(url)) as store:
        with store._writing() as connection:
            connection.exec_driver_sql("DROP TABLE events")
        with pytest.raises(StoreError, match="no such table: events"):
            store.events()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("data/telemetry.db", "not a URL"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///x.db?mode=ro", "no options"),
        ("mysql://root:hunter2@host/db", "cannot live in 'mysql'"),
        ("oops//root:hunter2@host", "not a URL"),
    ],
)
def test_addresses_that_are_refused(address: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason) as caught:
        store_url(address)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_one_driver_for_postgresql(scheme: str) -> None:
    assert store_url(f"{scheme}://u@h/d").drivername == "postgresql+psycopg2"


def test_an_unreachable_server_is_told_without_its_password() -> None:
    with pytest.raises(StoreError, match="check that the server runs") as caught:
        open_store(sa.URL.create("postgresql", "app", "hunter2", "127.0.0.1", 1, "shop"))
    assert "hunter2" not in str(caught.value)
    assert "app:***@127.0.0.1" in str(caught.value)


def test_print_summary(url: str) -> None:
    with closing(open_store(url)) as store:
        store.save_status(full.STATUS)
        store.add_event(full.EVENT)
        out = io.StringIO()
        store.print_summary(Console(file=out, width=20))
    assert "latency index  0.800 (1 at the start)" in out.getvalue()
    assert "warning: somebody changed jit" in out.getvalue()
