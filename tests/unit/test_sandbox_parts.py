"""Statements, arms and definitions of the sandbox, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy.engine import URL, make_url

from backend.db_connector import DatabaseConnector
from backend.domain.modes import Arm
from backend.domain.steering import ClassKey, StatementSample
from backend.errors import ServerError
from backend.sandbox.arms import plan_arms
from backend.sandbox.schema_copy import _address, _pattern, _statements, run_all
from backend.sandbox.statement_set import (
    MAX_CLASSES,
    PER_CLASS,
    ChosenClass,
    choose_statements,
    class_name,
    only_reading,
)
from backend.settings.address import CONNECTION_PARAMETERS
from backend.steering.statements.read_only import ReadOnlyCheck, ReadOnlyVerdict
from backend.steering.statements.sample_book import SampleBook
from backend.steering.statements.samples import ClassUse

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
USUAL = '"$user", public'


def book_of(path: Path, seconds: Mapping[str, float], samples: int = 1) -> SampleBook:
    book = SampleBook(path / "samples.json")
    keys = {name: ClassKey(name, USUAL) for name in seconds}
    book.add(
        [
            StatementSample(key, f"SELECT {n} FROM {name}", NOW + timedelta(seconds=n), "log")
            for name, key in keys.items()
            for n in range(samples)
        ],
        [
            ClassUse(keys[name], 10, 10 if total else 0, total, NOW)
            for name, total in seconds.items()
        ],
    )
    return book


class TestStatements:
    def test_classes_weigh_by_their_share_of_the_time(self, tmp_path: Path) -> None:
        chosen = choose_statements(book_of(tmp_path, {"a": 6.0, "b": 3.0, "c": 1.0}))

        shares = {found.key.fingerprint: found.share for found in chosen}
        assert shares == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1})
        assert [found.key.fingerprint for found in chosen] == ["a", "b", "c"]

    def test_a_class_without_a_time_counts_like_a_usual_one(self, tmp_path: Path) -> None:
        chosen = choose_statements(book_of(tmp_path, {"a": 6.0, "b": 2.0, "c": 2.0, "new": 0.0}))

        shares = {found.key.fingerprint: found.share for found in chosen}
        assert shares["new"] == pytest.approx(2 / 12)

    def test_without_any_time_all_count_alike(self, tmp_path: Path) -> None:
        chosen = choose_statements(book_of(tmp_path, {"a": 0.0, "b": 0.0}))

        assert [found.share for found in chosen] == [0.5, 0.5]

    def test_an_empty_book_has_none(self, tmp_path: Path) -> None:
        assert choose_statements(book_of(tmp_path, {})) == ()

    def test_so_many_classes_and_the_newest_statements(self, tmp_path: Path) -> None:
        seconds = {f"t{n}": 1.0 + n for n in range(MAX_CLASSES + 5)}

        chosen = choose_statements(book_of(tmp_path, seconds, samples=PER_CLASS + 2))

        assert len(chosen) == MAX_CLASSES
        assert sum(found.share for found in chosen) == pytest.approx(1)
        assert all(len(found.texts) == PER_CLASS for found in chosen)
        assert chosen[0].texts[0] == f"SELECT {PER_CLASS + 1} FROM t{MAX_CLASSES + 4}"

    def test_what_is_not_shown_to_read_is_left_out(self) -> None:
        class Check:
            def check(self, statement: str, search_path: str) -> ReadOnlyVerdict:
                if "broken" in statement:
                    raise ServerError("not now")
                if "random" in statement:
                    return ReadOnlyVerdict("", "random is volatile")
                return ReadOnlyVerdict(statement)

        chosen = (
            ChosenClass(ClassKey("a", USUAL), 0.7, ("SELECT 1", "SELECT random()")),
            ChosenClass(ClassKey("b", USUAL), 0.3, ("SELECT broken", "SELECT random()")),
        )

        left, refused = only_reading(chosen, cast(ReadOnlyCheck, Check()))

        assert left == (ChosenClass(ClassKey("a", USUAL), 0.7, ("SELECT 1",)),)
        assert refused == {"random is volatile": 2, "not now": 1}

    def test_classes_under_other_search_paths_have_other_names(self) -> None:
        assert class_name(ClassKey("f", USUAL)) != class_name(ClassKey("f", "app"))


class FakeServer:
    """Knows the contexts and built-in values of a few settings."""

    SETTINGS: Mapping[str, tuple[str, str]] = {
        "work_mem": ("user", "4096"),
        "enable_hashjoin": ("user", "on"),
        "bgwriter_delay": ("sighup", "200"),
        "shared_buffers": ("postmaster", "16384"),
    }

    def fetch(self, statement: str, params: tuple[list[str]]) -> list[dict[str, Any]]:
        return [
            {"name": name, "context": self.SETTINGS[name][0], "boot_val": self.SETTINGS[name][1]}
            for name in params[0]
            if name in self.SETTINGS
        ]


def arms_of(
    changes: Mapping[str, Any], *, may_configure: bool = True, left_out: Mapping[str, str] = {}
) -> Any:
    return plan_arms(
        cast(DatabaseConnector, FakeServer()),
        {"bgwriter_delay": 100, "shared_buffers": 4096},
        changes,
        left_out=left_out,
        may_configure=may_configure,
    )


class TestArms:
    def test_what_a_session_may_set_is_set_there(self) -> None:
        arms = arms_of({"work_mem": 8192, "enable_hashjoin": False})

        assert arms.session == {"work_mem": "8192", "enable_hashjoin": "off"}
        assert not arms.is_server_switched
        assert not arms.needs_restart
        assert not arms.is_empty

    def test_the_rest_goes_into_the_servers_configuration(self) -> None:
        arms = arms_of({"bgwriter_delay": 300, "work_mem": 8192})

        assert arms.server[Arm.INCUMBENT] == {"bgwriter_delay": 100, "shared_buffers": 4096}
        assert arms.server[Arm.CANDIDATE] == {"bgwriter_delay": 300, "shared_buffers": 4096}
        assert not arms.needs_restart

    def test_what_needs_a_restart_is_known(self) -> None:
        assert arms_of({"shared_buffers": 8192}).needs_restart

    def test_an_entry_taken_away_means_the_built_in_value(self) -> None:
        arms = arms_of({"bgwriter_delay": None, "work_mem": None})

        assert arms.server[Arm.CANDIDATE] == {"shared_buffers": 4096}
        assert arms.session == {"work_mem": "4096"}

    def test_a_stand_by_is_never_configured(self) -> None:
        arms = arms_of({"bgwriter_delay": 300, "work_mem": 8192}, may_configure=False)

        assert arms.server == {Arm.INCUMBENT: {}, Arm.CANDIDATE: {}}
        assert arms.session == {"work_mem": "8192"}
        assert set(arms.left_out) == {"bgwriter_delay"}

    def test_nothing_may_be_left_to_try(self) -> None:
        assert arms_of({"bgwriter_delay": 300}, may_configure=False).is_empty
        assert arms_of({"unheard_of": 1}).is_empty
        assert arms_of({"work_mem": 1}, left_out={"work_mem": "why"}).is_empty


DUMP = """--
-- PostgreSQL database dump
--

\\restrict abc123

SET statement_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);

--
-- Name: app; Type: SCHEMA
--

CREATE SCHEMA app;

CREATE FUNCTION app.f(i integer) RETURNS integer
    LANGUAGE plpgsql
    AS $$BEGIN RETURN i; END; $$;

CREATE EXTENSION IF NOT EXISTS dblink WITH SCHEMA public;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;
CREATE FOREIGN TABLE app.far (id integer) SERVER elsewhere;
CREATE SUBSCRIPTION s CONNECTION 'host=elsewhere' PUBLICATION p;
CREATE UNLOGGED TABLE app.t (id integer);
CREATE TRIGGER t BEFORE INSERT ON app.t FOR EACH ROW EXECUTE FUNCTION app.g();
CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION app.g();
CREATE RULE r AS ON INSERT TO app.t DO NOTHING;
COPY app.t FROM PROGRAM 'touch /tmp/here';
DO $$BEGIN RAISE NOTICE 'x'; END$$;
ALTER SYSTEM SET work_mem = 1;
ALTER ROLE postgres SUPERUSER;
CREATE UNIQUE INDEX i ON app.t USING btree (id);
ALTER TABLE ONLY app.t
    ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES app.t(id);

\\unrestrict abc123
"""


class TestDefinitions:
    def test_only_definitions_that_act_on_nothing_are_taken(self) -> None:
        taken = [statement.split("(")[0].split("\n")[0] for statement in _statements(DUMP)]

        assert taken == [
            "CREATE SCHEMA IF NOT EXISTS app",
            "CREATE FUNCTION app.f",
            "CREATE UNLOGGED TABLE app.t ",
            "CREATE UNIQUE INDEX i ON app.t USING btree ",
            "ALTER TABLE ONLY app.t",
        ]

    def test_a_dump_of_a_newer_grammar_is_taken_apart_too(self) -> None:
        text = "CREATE TABLE a (x integer);\nCREATE TABLE b (x integer) NEWER GRAMMAR;"

        assert list(_statements(text)) == text.removesuffix(";").split(";\n")

    def test_what_fails_is_tried_again_after_the_others(self) -> None:
        needs = {"a": "b", "b": "c", "c": None, "d": "what was left out"}
        ran: list[str] = []

        class Owner:
            def execute(self, statement: str) -> None:
                if needs[statement] is not None and needs[statement] not in ran:
                    raise ServerError("not there yet")
                ran.append(statement)

        left = run_all(cast(DatabaseConnector, Owner()), list(needs), lambda: False)

        assert ran == ["c", "b", "a"]
        assert left == 1

    def test_a_key_that_the_sample_breaks_is_made_without_looking(self) -> None:
        ran: list[str] = []

        class Owner:
            def execute(self, statement: str) -> None:
                ran.append(statement)
                if not statement.endswith("NOT VALID"):
                    raise ServerError("violated")

        foreign_key = "ALTER TABLE ONLY a ADD CONSTRAINT k FOREIGN KEY (x) REFERENCES b(x)"
        primary_key = "ALTER TABLE ONLY a ADD CONSTRAINT k PRIMARY KEY (x)"

        left = run_all(cast(DatabaseConnector, Owner()), [foreign_key, primary_key], lambda: False)

        assert ran[:3] == [foreign_key, f"{foreign_key} NOT VALID", primary_key]
        assert f"{primary_key} NOT VALID" not in ran
        assert left == 1

    def test_names_are_taken_literally(self) -> None:
        assert _pattern('a.*"b') == '"a.*""b"'

    def test_the_password_goes_into_the_environment(self) -> None:
        url = make_url("postgresql://u:secret@h:5433/db?sslmode=require&sslrootcert=/ca")

        address, secret = _address(cast(URL, url))

        assert secret == {"PGPASSWORD": "secret"}
        found = parse_dsn(address)
        assert (found["host"], found["port"], found["dbname"]) == ("h", "5433", "db")
        assert "password" not in found

    def test_no_parameter_is_lost_on_the_way(self) -> None:
        # Without sslmode or require_auth the dump would come over a less safe connection.
        given = {name: f"a '{name}'" for name in CONNECTION_PARAMETERS}

        address, secret = _address(URL.create("postgresql", host="h", query=given))

        assert parse_dsn(address) == {"host": "h", **given}
        assert secret == {}
