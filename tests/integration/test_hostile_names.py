"""Names of any characters pass through every way of quoting, and a server reads them unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pglast
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2 import sql

from backend.advice.quoting import sql_identifier
from backend.commands.grants import script
from backend.db_connector import DatabaseConnector, quoted_identifier
from backend.domain.modes import Mode
from backend.embedded.database import ensure_database
from backend.embedded_postgres import EmbeddedPostgres
from backend.sandbox.schema_copy import _pattern
from backend.steering.export.quoting import comment, quoted_text
from tests.foreign_server import AnyServer, client_dsn
from tests.integration.steering_servers import session

pytestmark = pytest.mark.integration

NAMES = (
    st.text(
        st.characters(exclude_characters="\x00", exclude_categories=["Cs"])
        | st.sampled_from("\"'\\%;-/*$\n\r\t\x1b\x7f\u200b\u202e:`! "),
        min_size=1,
        max_size=15,
    )
    | st.sampled_from(["x\"; DROP TABLE y; --", "a'b", "%s", "%(x)s", "{}", "$$", "U&\"", "\\\\",
                       "select", "A b", "\\gexec", ":x", "*/", "pg_catalog.x"])
)  # fmt: skip
fuzzing = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def cursor(server: AnyServer) -> Iterator[Any]:
    with session(client_dsn(server)) as opened:
        yield opened


@fuzzing
@given(NAMES)
def test_an_identifier_is_read_back_as_it_was(cursor: Any, name: str) -> None:
    """A column's name comes back in the answer's description."""
    for quoted in (quoted_identifier(name), sql_identifier(name)):
        cursor.execute(f"SELECT 1 AS {quoted}")
        assert cursor.description[0].name == name
    assert sql_identifier(name).isprintable()
    cursor.execute(sql.SQL("SELECT 1 AS {}").format(sql.Identifier(name)))
    assert cursor.description[0].name == name


@fuzzing
@given(NAMES)
def test_a_text_is_read_back_as_it_was(cursor: Any, text: str) -> None:
    for conforming in ("on", "off"):
        cursor.execute(f"SET standard_conforming_strings = {conforming}")
        cursor.execute(f"SELECT {quoted_text(text)}")
        assert cursor.fetchone() == (text,)
    cursor.execute("RESET standard_conforming_strings")


@fuzzing
@given(NAMES)
def test_a_comment_is_one_line_and_ends_nothing(cursor: Any, text: str) -> None:
    line = comment(text)
    assert line.isprintable()
    cursor.execute(f"SELECT 1 {line}\n + 1")
    assert cursor.fetchone() == (2,)


@fuzzing
@given(NAMES, NAMES)
def test_printed_grants_name_the_role_and_nothing_else(role: str, database: str) -> None:
    """Without psql's own commands the script is SQL of these kinds alone."""
    lines = list(script(Mode.AUTO, role, database, 170000, ("work_mem",)))
    text = "\n".join(line for line in lines if not line.startswith("\\"))
    text = text.replace(" \\gexec", ";").replace(" AS elsewhere \\gset", " AS elsewhere;")
    kinds = {type(statement.stmt).__name__ for statement in pglast.parse_sql(text)}
    assert kinds <= {"TransactionStmt", "SelectStmt", "GrantStmt", "GrantRoleStmt"}


@fuzzing
@given(NAMES)
def test_a_pattern_of_pg_dump_is_one_quoted_name(name: str) -> None:
    assert _pattern(name) == quoted_identifier(name)


@pytest.mark.parametrize("name", ['x"; DROP TABLE y; --', "a'b %s {} \\", "\u202e\x1b[31m\n\t"])
def test_a_database_of_such_a_name_is_made_and_found_again(
    embedded_server: EmbeddedPostgres, name: str
) -> None:
    for _ in range(2):  # made, then found
        ensure_database(embedded_server.dsn(), name)
    with session(embedded_server.dsn()) as cursor:
        cursor.execute("SELECT count(*) FROM pg_database WHERE datname = %s", (name,))
        assert cursor.fetchone() == (1,)
        with closing(DatabaseConnector(embedded_server.dsn().set(database=name))) as connector:
            assert connector.fetch("SELECT current_database() AS it") == [{"it": name}]
        cursor.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
