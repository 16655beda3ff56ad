"""The servers' URLs, and that a password shows nowhere."""

from __future__ import annotations

import pytest

from backend.errors import ConfigError
from tests.settings_texts import loader

SECRET = "hunter2-correct-horse"


@pytest.fixture
def load(tmp_path, monkeypatch):
    return loader(tmp_path, monkeypatch)


# -- the database URL -------------------------------------------------------------------------


def test_a_url_names_the_server(load):
    found = load(env={"DATABASE_URL": f"postgresql://me:{SECRET}%40x@db.example:5433/app"})
    database = found.database
    assert (database.host, database.port, database.user) == ("db.example", 5433, "me")
    assert database.dbname == "app"
    assert database.password.get_secret_value() == SECRET + "@x"
    url = found.foreign_url()
    assert url.drivername == "postgresql+psycopg2"
    assert url.password == SECRET + "@x"
    assert (url.host, url.port, url.database) == ("db.example", 5433, "app")


def test_the_short_scheme_is_known_and_an_empty_url_is_none(load):
    assert load(env={"DATABASE_URL": "postgres://u@h/d"}).database.host == "h"
    assert load(env={"DATABASE_URL": ""}).is_embedded


def test_options_of_a_url_that_are_not_known_are_refused_and_not_dropped(load):
    """sslmode=require that is not read would be a connection without encryption."""
    with pytest.raises(ConfigError, match="sslmoed") as raised:
        load(dsn=f"postgresql://u:{SECRET}@h/d?sslmoed=require")
    assert "sslmode" in str(raised.value)
    with pytest.raises(ConfigError, match="options that are not known here: password"):
        load(dsn=f"postgresql://u@h/d?password={SECRET}")


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://u:{SECRET}@h:port/d",
        f"mysql://u:{SECRET}@h/d",
        f"u:{SECRET}@h",
        f"postgresql://u:{SECRET}@h:99999/d",
        f"sqlite:///{SECRET}",
    ],
)
def test_a_bad_url_is_refused_without_being_repeated(load, dsn):
    with pytest.raises(ConfigError) as raised:
        load(dsn=dsn)
    assert SECRET not in str(raised.value)


# -- the store --------------------------------------------------------------------------------


def test_a_plain_path_is_a_sqlite_file(load):
    url = load("paths: {telemetry_db: some where/t.db}").store_url
    assert (url.get_backend_name(), url.database) == ("sqlite", "some where/t.db")
    url = load("paths: {telemetry_db: 'postgresql://u@h/store'}").store_url
    assert (url.get_backend_name(), url.database) == ("postgresql", "store")


def test_a_store_that_cannot_be_parsed_is_told_when_loading(load):
    with pytest.raises(ConfigError, match=r"paths\.telemetry_db") as raised:
        load(f"paths: {{telemetry_db: 'postgresql://u:{SECRET}@h:x/d'}}")
    assert SECRET not in str(raised.value)


# -- the password -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env",
    [
        {"AUTOPILOT_DATABASE__PASSWORD": SECRET},
        {"DATABASE_URL": f"postgresql://u:{SECRET}@h/d"},
        {"AUTOPILOT_PATHS__TELEMETRY_DB": f"postgresql://u:{SECRET}@h/d"},
    ],
)
def test_a_password_never_shows(load, env):
    found = load(env=env)
    shown = (
        repr(found), str(found), repr(found.database), repr(found.paths),
        str(found.foreign_url()), repr(found.foreign_url()),
        str(found.store_url), repr(found.store_url),
    )  # fmt: skip
    assert not any(SECRET in text for text in shown)


@pytest.mark.parametrize(
    "text",
    [
        f"database: {{password: [{SECRET}]}}",
        f"database: {{password: {{a: {SECRET}}}}}",
        f"database: {{pasword: {SECRET}}}",
        f"database: 'postgresql://u:{SECRET}@h/d'",
        f"database: {{port: 'u:{SECRET}@h'}}",
        f"databse: {{password: {SECRET}}}",
        f"paths: {{telemetry_db: ['postgresql://u:{SECRET}@h/d']}}",
        f'database:\n  password: "{SECRET}\n  port: 5\n',
        f"database:\n  password: *{SECRET}\n",
        f"database:\n  password: !{SECRET} x\n",
        f"database:\n\tpassword: {SECRET}\n",
        f"database:\n  password: {SECRET}: x: y\n",
        f"password: {SECRET}",
    ],
)
def test_a_password_shows_in_no_error(load, text):
    with pytest.raises(ConfigError) as raised:
        load(text)
    assert SECRET not in str(raised.value)
    # Nor in the traceback that a log would hold.
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
