"""A foreign server's address: URL, libpq's variables, a service file; whose word counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.config import DatabaseSettings, Settings
from backend.errors import ConfigError
from tests.settings_texts import loader

SECRET = "hunter2-correct-horse"
HOSTADDR = {"hostaddr": "10.0.0.9"}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return loader(tmp_path, monkeypatch)


@pytest.fixture
def services(tmp_path: Path) -> dict[str, str]:
    """An environment with a service file."""
    path = tmp_path / "services"
    path.write_text(
        "# ours\n[shop]\nhost=db.example\nport=6000\nuser=tuner\ndbname=orders\n"
        f"password={SECRET}\nsslmode=verify-full\n\n[bare]\nuser=somebody\n"
    )
    return {"PGSERVICEFILE": str(path)}


def place(database: DatabaseSettings) -> tuple[str | None, int, str, str]:
    return database.host, database.port, database.user, database.dbname


def test_parameters_of_a_url_reach_libpq(load: Any) -> None:
    found = load(dsn="postgresql://me@h/d?sslmode=verify-full&sslrootcert=/ca.pem")
    assert found.database.parameters == {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}
    assert dict(found.foreign_url().query) == found.database.parameters


@pytest.mark.parametrize("dsn", ["postgresql://u@%2Frun%2Fpg/d", "postgresql://u@/d?host=/run/pg"])
def test_a_socket_is_a_host(load: Any, dsn: str) -> None:
    assert load(dsn=dsn).database.host == "/run/pg"


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        (f"postgresql://me:{SECRET}@b/ck@h/d", "more than one @"),
        (f"postgresql://me:a@{SECRET}?x@h/d", "more than one @"),
        (f"postgresql://me@{'h' * 300}/d", "300 characters"),
        (f"mysql://me:{SECRET}@h/d", "'mysql' is not supported"),
    ],
)
def test_a_url_that_is_misunderstood_is_refused_and_its_password_not_told(
    load: Any, dsn: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(dsn=dsn)
    assert caught.value.remedy
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_libpqs_variables_name_a_server(load: Any) -> None:
    found = load(env={"PGHOST": "h", "PGPORT": "77", "PGUSER": "me", "PGDATABASE": "d"})
    assert place(found.database) == ("h", 77, "me", "d")
    assert load(env={"PGHOSTADDR": "10.0.0.1"}).database.host == "10.0.0.1"


def test_without_a_server_they_say_nothing_of_the_embedded_one(load: Any) -> None:
    assert load(env={"PGUSER": "me", "PGDATABASE": "d", "PGPORT": "77"}) == Settings()


def test_they_fill_in_what_the_url_leaves_out(load: Any) -> None:
    env = {"PGHOST": "other", "PGUSER": "me", "PGDATABASE": "d", "PGPORT": "77"}
    found = load(env=env, dsn="postgresql://h/orders")
    assert place(found.database) == ("h", 77, "me", "orders")
    assert load(env=env, dsn="postgresql:///orders").database.host == "other"
    assert load(dsn="postgresql:///orders").database.host == "localhost"


def test_a_file_that_names_a_server_wins_and_one_that_names_none_does_not(load: Any) -> None:
    env = {"PGHOST": "h", "PGUSER": "me"}
    assert place(load("database: {host: mine, user: us}", env).database)[0::2] == ("mine", "us")
    found = load("database: {host: , user: autopilot, port: 5432}", env)
    assert (found.database.host, found.database.user) == ("h", "me")


def test_our_own_variables_win_over_libpqs(load: Any) -> None:
    env = {"PGHOST": "h", "PGUSER": "me", "AUTOPILOT_DATABASE__USER": "tuner"}
    assert (load(env=env).database.host, load(env=env).database.user) == ("h", "tuner")


def test_a_service_is_read_from_its_file(load: Any, services: dict[str, str]) -> None:
    expected = ("db.example", 6000, "tuner", "orders")
    for given in (
        {"env": {**services, "PGSERVICE": "shop", "PGUSER": "loses"}},
        {"env": services, "dsn": "postgresql://?service=shop"},
    ):
        found = load(**given)
        assert place(found.database) == expected
        assert not found.is_embedded
        assert SECRET not in repr(found)
    assert found.database.parameters == {"service": "shop"}


def test_a_url_wins_over_its_service(load: Any, services: dict[str, str]) -> None:
    found = load(env=services, dsn="postgresql://me@/d?service=shop")
    assert place(found.database) == ("db.example", 6000, "me", "d")


def test_a_service_without_a_host_is_on_this_machine(load: Any, services: dict[str, str]) -> None:
    found = load(env={**services, "PGSERVICE": "bare"})
    assert (found.database.host, found.database.user) == ("localhost", "somebody")


def test_a_service_that_there_is_not_is_told_with_the_files(
    load: Any, services: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match=r"service .nothere. is not in .*services") as caught:
        load(env={**services, "PGSERVICE": "nothere"})
    assert "[nothere]" in str(caught.value)


def test_a_broken_service_file_repeats_nothing(load: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_text(f"password {SECRET}\n[x\n")
    with pytest.raises(ConfigError, match="service file") as caught:
        load(env={"PGSERVICEFILE": str(path), "PGSERVICE": "x"})
    assert SECRET not in str(caught.value)


def test_a_parameter_of_the_settings_must_be_known(load: Any) -> None:
    with pytest.raises(ConfigError, match="sslmoed"):
        load("database: {host: h, parameters: {sslmoed: require}}")
    assert load("database: {host: h, parameters: {sslmode: require}}").foreign_url().query


def test_the_address_of_another_host_leads_nobody_astray(load: Any, tmp_path: Path) -> None:
    # libpq would connect there, and the pages would name the host.
    path = tmp_path / "services"
    path.write_text("[shop]\nhost=db.example\nhostaddr=10.0.0.9\n")
    service = {"PGSERVICEFILE": str(path)}
    file = "database: {host: here, parameters: {hostaddr: 10.0.0.9, sslmode: require}}"
    for found in (
        load(env={"PGHOSTADDR": "10.0.0.9"}, dsn="postgresql://h/d"),
        load("database: {host: h}", {"PGHOSTADDR": "10.0.0.9"}),
        load(env={**service, "PGSERVICE": "shop"}, dsn="postgresql://h/d"),
        load(env=service, dsn="postgresql://h/d?service=shop"),
        load(file, dsn="postgresql://h/d"),
    ):
        assert found.database.host == "h"
        assert "hostaddr" not in found.database.parameters


def test_the_address_of_the_host_itself_is_kept(load: Any, tmp_path: Path) -> None:
    path = tmp_path / "services"
    path.write_text("[shop]\nhost=db.example\nhostaddr=10.0.0.9\n")
    variables = {"PGHOST": "db.example", "PGHOSTADDR": "10.0.0.9"}
    for found in (
        load(env=variables),
        load(env=variables, dsn="postgresql:///orders"),
        load(env={"PGSERVICEFILE": str(path), "PGSERVICE": "shop"}),
        load(dsn="postgresql://db.example/d?hostaddr=10.0.0.9"),
    ):
        assert found.database.host == "db.example"
        assert found.database.parameters == HOSTADDR
    named_by_service = load(env={"PGSERVICEFILE": str(path)}, dsn="postgresql://?service=shop")
    assert named_by_service.database.parameters == {"service": "shop", **HOSTADDR}
