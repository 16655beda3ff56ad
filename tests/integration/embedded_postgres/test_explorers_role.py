"""The role under which statements are tried: it reads all and writes nothing."""

from __future__ import annotations

import stat
from contextlib import closing

import psycopg2
import psycopg2.errors
import pytest

from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError
from tests.integration.embedded_servers import connect, query

pytestmark = pytest.mark.integration


class TestTheExplorersRole:
    """A role under which statements are tried: it may read everything, and nothing else."""

    def test_it_reads_every_table_and_writes_none(self, server: EmbeddedPostgres) -> None:
        query(server, "CREATE SCHEMA books; CREATE TABLE books.titles AS SELECT 'Emma' AS title")
        explorer = connect(server, **explorer_login(server))
        with closing(explorer), explorer.cursor() as cursor:
            explorer.autocommit = True
            cursor.execute("SELECT title FROM books.titles")
            assert cursor.fetchall() == [("Emma",)]
            with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
                cursor.execute("CREATE TEMPORARY TABLE scratch (id int)")
            cursor.execute("SET default_transaction_read_only = off")
            for statement in (
                "DELETE FROM books.titles",
                "CREATE TABLE public.mine (id int)",
                "CREATE ROLE friend",
                "SELECT pg_reload_conf()",
                "COPY books.titles TO '/tmp/titles'",
                "SET log_statement = 'all'",
            ):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(statement)

    def test_what_is_granted_to_it(self, server: EmbeddedPostgres) -> None:
        [role] = query(
            server,
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
            " FROM pg_roles WHERE rolname = 'autopilot_explorer'",
        )
        assert role == (False,) * 5
        member_of = query(
            server,
            "SELECT roleid::regrole::text FROM pg_auth_members"
            " WHERE member = 'autopilot_explorer'::regrole",
        )
        assert member_of == [("pg_read_all_data",)]
        parameters = query(
            server,
            "SELECT parname, privilege_type FROM pg_parameter_acl, aclexplode(paracl)"
            " WHERE grantee = 'autopilot_explorer'::regrole",
        )
        assert parameters == [("pg_stat_statements.track", "SET")]

    def test_what_it_runs_cannot_fill_the_disk(self, server: EmbeddedPostgres) -> None:
        explorer = connect(server, **explorer_login(server))
        with closing(explorer), explorer.cursor() as cursor:
            explorer.autocommit = True
            cursor.execute("SHOW temp_file_limit")
            assert cursor.fetchone() == ("2GB",)
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute("SET temp_file_limit = -1")

    def test_its_password_is_in_a_closed_file_and_nowhere_else(
        self, server: EmbeddedPostgres
    ) -> None:
        path = server.home / "explorer-password"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().strip() != server.password
        path.unlink()
        query(server, "ALTER SYSTEM SET log_statement = 'all'")
        server.restart()
        server.ensure_started()
        log = server.log_path.read_text()
        assert "ALTER ROLE" in log
        assert path.read_text().strip() not in log

    def test_a_cluster_from_before_gets_it(self, server: EmbeddedPostgres) -> None:
        password = explorer_login(server)["password"]
        query(server, "DROP OWNED BY autopilot_explorer; DROP ROLE autopilot_explorer")
        server.ensure_started()
        assert explorer_login(server)["password"] == password
        connect(server, **explorer_login(server)).close()

    def test_a_role_from_before_gets_its_limit(self, server: EmbeddedPostgres) -> None:
        password = explorer_login(server)["password"]
        query(server, "ALTER ROLE autopilot_explorer RESET temp_file_limit")
        server.ensure_started()
        assert explorer_login(server)["password"] == password
        explorer = connect(server, **explorer_login(server))
        with closing(explorer), explorer.cursor() as cursor:
            cursor.execute("SHOW temp_file_limit")
            assert cursor.fetchone() == ("2GB",)

    def test_a_lost_password_is_replaced(self, server: EmbeddedPostgres) -> None:
        (server.home / "explorer-password").unlink()
        with pytest.raises(EmbeddedServerError, match="no complete embedded server"):
            server.explorer_dsn()
        server.ensure_started()
        connect(server, **explorer_login(server)).close()

    def test_debian_15_has_it_too(self, debian_server: EmbeddedPostgres) -> None:
        explorer = connect(debian_server, **explorer_login(debian_server))
        with closing(explorer), explorer.cursor() as cursor:
            cursor.execute("SET pg_stat_statements.track = 'none'")


def explorer_login(server: EmbeddedPostgres) -> dict[str, str]:
    address = server.explorer_dsn()
    assert address.username == "autopilot_explorer"
    return {"user": str(address.username), "password": str(address.password)}
