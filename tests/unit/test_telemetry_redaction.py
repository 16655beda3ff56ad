"""Nothing that looks like a secret reaches the store."""

from __future__ import annotations

import pglast
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.telemetry.redaction import (
    HIDDEN,
    MAX_STATEMENT_LENGTH,
    MAX_TEXT_LENGTH,
    redact,
    redact_deep,
    redact_statement,
)


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2",
        "host=db password=hunter2 user=app",
        "password = 'hunter2 with blanks'",
        "password='it''s hunter2'",
        'PASSWORD: "hunter2"',
        '{"password": "hunter2", "user": "app"}',
        "{'db_password': 'hunter2'}",
        "PGPASSWORD=hunter2 psql",
        "DATABASE_PASSWORD=hunter2",
        "postgresql://app:hunter2@db:5432/shop",
        "postgresql+psycopg2://app:hunter2@db/shop?sslmode=require",
        "postgresql://app:p@hunter2@db/shop",
        "postgresql://app:p/hunter2@db/shop",
        "redis://:hunter2@cache",
        "ALTER ROLE app PASSWORD 'hunter2'",
        "create user app with encrypted password E'hunter2'",
        "api_key=hunter2&secret: hunter2",
        "token => hunter2",
    ],
)
def test_secrets_are_hidden(text: str) -> None:
    assert "hunter2" not in redact(text)
    assert HIDDEN in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "password_encryption = scram-sha-256",
        "the password was refused",
        "http://localhost:8050/knobs",
        "work_mem = 4096 kB",
        "SELECT * FROM users WHERE token_count > $1",
        "a change of 12:30 mails me@example.org",
        "Größe ≥ 5 ☃",
    ],
)
def test_the_rest_stays(text: str) -> None:
    assert redact(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert (
        redact("cannot reach postgresql://app:hunter2@db/shop, password=x; retry")
        == "cannot reach postgresql://app:***@db/shop, password=***; retry"
    )


def test_nested_values_and_secret_keys() -> None:
    detail = {
        "password": "hunter2",
        "PGPASSWORD": "hunter2",
        "db.password": ["hunter2"],
        "token": 0,
        "deep": [{"note": "password=hunter2"}, ("://a:hunter2@b",)],
        "password_encryption": "md5",
        "number": 1.5,
        "none": None,
    }
    clean = redact_deep(detail)
    assert "hunter2" not in repr(clean)
    assert clean["password_encryption"] == "md5"
    assert (clean["number"], clean["none"], clean["token"]) == (1.5, None, 0)


def test_unstorable_characters_and_endless_texts() -> None:
    assert redact("a\x00b\ud800c") == "ab?c"
    assert len(redact("x" * 10**6)) == MAX_TEXT_LENGTH + 1


@given(st.text())
def test_any_text_can_be_stored_and_redacting_again_changes_nothing(text: str) -> None:
    once = redact(text)
    once.encode("utf-8")
    assert "\x00" not in once
    assert redact(once) == once


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'hunter2'",
        "SELECT 'it''s hunter2'",
        r"SELECT E'it\'s hunter2', e'\\', 'hunter2'",
        "SELECT 'a\\', 'hunter2'",
        "SELECT $$it's hunter2$$, $a$ $$hunter2 $a$",
        "SELECT a$b$c, 'hunter2' FROM t WHERE x = $1",
        "SELECT \"it's\", 'hunter2', \"a'b\"",
        'SELECT "a""\'b", \'hunter2\'',
        "SELECT 1 -- it's\n, 'hunter2' -- it's",
        "SELECT 1 /* it's */, 'hunter2' /* it's */",
        "SELECT 1 /* it /* is */ 'it */, 'hunter2'",
        "SELECT 1 /* password='hunter2' */",
        "SELECT ☃, 'hunter2', U&'hunter2', N'hunter2', B'10', X'1F'",
        "SELECT 1 -- postgresql://a:hunter2@db\n, 2",
        "SELECT 1 WHERE token = 'hunter2' AND f(password => 'hunter2')",
        "SELECT 1 WHERE a = '-- ' AND b = 'hunter2'",
    ],
)
def test_texts_in_a_statement_are_hidden_and_it_reads_the_same(sql: str) -> None:
    clean = redact_statement(sql)
    assert "hunter2" not in clean
    assert HIDDEN in clean
    assert pglast.fingerprint(clean) == pglast.fingerprint(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM users WHERE password = $1 AND token=$2 AND f(secret => $3)",
        "SELECT 1 FROM a JOIN b ON a.token = b.token AND a.api_key::text = b.api_key",
        'SELECT "it\'s", "a""b" FROM "Läden" -- that\'s all\nWHERE x ? $1 AND y @> $2',
        "SELECT 1 /* it's /* nested */ */ - -1, $1",
        "SELECT " + "$1, " * (MAX_STATEMENT_LENGTH // 4 - 10) + "$1",
    ],
)
def test_a_statement_without_literals_stays_to_the_letter(sql: str) -> None:
    assert redact_statement(sql) == sql


@pytest.mark.parametrize(
    "piece", ["'", "''", "'é', ", "E'\\", "$$", "$a$", "/*", '"', "--", "é", "x'$"]
)
def test_a_hostile_statement_is_read_in_one_go(piece: str) -> None:
    clean = redact_statement(piece * MAX_STATEMENT_LENGTH)
    assert len(clean) <= 2 * MAX_STATEMENT_LENGTH


def test_what_is_no_sql_is_a_text() -> None:
    assert redact_statement("SELECT 'it, password=hunter2") == "SELECT 'it, password=***"


_PIECES = ["'", "E'", "$$", "$a$", "/*", "*/", "--", "\n", '"', "password=", "://a:b@", " ", "x"]


@given(st.text() | st.lists(st.sampled_from(_PIECES)).map("".join))
def test_any_statement_can_be_stored(sql: str) -> None:
    once = redact_statement(sql)
    once.encode("utf-8")
    assert "\x00" not in once
