"""Nothing that looks like a secret reaches the store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.telemetry.redaction import HIDDEN, MAX_TEXT_LENGTH, redact, redact_deep


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
