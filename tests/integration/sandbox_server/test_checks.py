"""Candidates tried on a copy, or on a stand-by, before they reach the server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from backend.embedded.postmaster import living_postmaster
from backend.embedded_postgres import EmbeddedPostgres
from backend.sandbox.outcome import SandboxOutcome
from backend.sandbox.sandbox import Sandbox, SandboxSettings
from tests.foreign_server import AnyServer
from tests.integration.sandbox_server.originals import (
    DATABASE,
    FITS,
    KNOBS,
    NO_START,
    SLOW,
    STATEMENTS,
    VOLATILE,
    recorded,
    rows_of,
)

pytestmark = pytest.mark.integration


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


def fingerprint_of_all(server: AnyServer) -> list[tuple[Any, ...]]:
    """What a check must not change in the original: rows, roles, databases, settings."""
    url = server.dsn(DATABASE)
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
        self, server: AnyServer, data_dir: Path, sandbox: Sandbox
    ) -> None:
        before = fingerprint_of_all(server)

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
        assert fingerprint_of_all(server) == before
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

    def test_sessions_are_compared_and_the_rest_is_told(
        self, server: AnyServer, source: URL, data_dir: Path
    ) -> None:
        settings = settings_in(data_dir, (*STATEMENTS, (VOLATILE,)), standby=source)
        before = fingerprint_of_all(server)

        with closing(Sandbox(source, settings, threading.Event())) as box:
            slow = box.check({**SLOW, "bgwriter_delay": 300})
            server_only = box.check({"bgwriter_delay": 300})

        assert slow.outcome is SandboxOutcome.FAILED
        assert any(reason.startswith("bgwriter_delay was not tried") for reason in slow.reasons)
        assert any("1 statements were not run" in reason for reason in slow.reasons)
        assert server_only.outcome is SandboxOutcome.UNKNOWN
        assert fingerprint_of_all(server) == before
        assert not (data_dir / "sandbox").exists()
