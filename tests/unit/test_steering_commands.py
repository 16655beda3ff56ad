"""``run.py steering`` on a store, without a server: what it prints, writes, queues and refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pglast
import pytest
from click.testing import Result
from typer.testing import CliRunner

import run
from backend.commands import asking
from backend.domain.modes import CommandKind, CommandState, Mode
from backend.domain.plans import RunOutcome
from backend.domain.steering import (
    ClassKey,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from backend.errors import AdjustmentError, AutopilotError, SteeringError
from backend.lease import holder_name
from backend.telemetry import SqlStore, open_store
from tests.contracts import records as full

PROVEN = replace(
    full.STEERED_CLASS,
    key=ClassKey("aaaa111122223333", '"$user", public'),
    state=SteeringState.VERIFIED,
    mode=SteeringMode.AUTO,
    reason="",
    text="SELECT [bold]x[/bold]\x1b[31m FROM orders WHERE y = $1",
    query_keys=(full.QUERY_CLASS.key,),
)
PLAIN = replace(PROVEN, evidence=replace(full.EVIDENCE, settings={"enable_nestloop": "off"}))
WAITING = SteeredClassRecord(
    ClassKey("aabb111122223333", '"$user", public'), "SELECT $1", SteeringState.WAITING, full.NOW
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    with closing(open_store(f"sqlite:///{tmp_path}/telemetry.db")) as store:
        store.save_steered_classes([PLAIN, WAITING])
        store.add_query_classes([full.QUERY_CLASS])
        store.save_status(replace(full.STATUS, mode=Mode.AUTO, server_version="17.2"))
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[SqlStore]:
    with closing(open_store(f"sqlite:///{folder}/telemetry.db")) as opened:
        yield opened


def steering(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(run.app, ["steering", *arguments, "--data-dir", str(folder)])


def fine(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(result: Result, kind: type[AutopilotError] = SteeringError) -> str:
    assert isinstance(result.exception, kind), (result.output, result.exception)
    assert result.exception.remedy
    return result.exception.message


# -- list -----------------------------------------------------------------------------------------


def test_the_list_shows_each_class(folder: Path) -> None:
    lines = fine(steering(folder, "list")).splitlines()
    (proven,) = (line for line in lines if "aaaa111122223333" in line)
    for told in ("verified", full.EVIDENCE.hint_set, "-50.0 %", "yes", "[bold]x[/bold]"):
        assert told in proven
    assert "\x1b" not in proven
    (waiting,) = (line for line in lines if "aabb111122223333" in line)
    assert "waiting" in waiting
    assert " no " in waiting


def test_in_mode_observe_nothing_is_steered(folder: Path, store: SqlStore) -> None:
    store.save_status(replace(full.STATUS, mode=Mode.OBSERVE))
    assert " yes " not in fine(steering(folder, "list"))


def test_the_list_of_a_beginning(folder: Path) -> None:
    assert "aabb" not in fine(steering(folder, "list", "--class", "aaaa"))
    assert "begins with 'ffff'" in refused(steering(folder, "list", "--class", "ffff"))


def test_an_empty_store_and_none(tmp_path: Path) -> None:
    assert "no store" in refused(steering(tmp_path / "elsewhere", "list"), AutopilotError)
    open_store(f"sqlite:///{tmp_path}/telemetry.db").close()
    assert "No query class is known yet" in fine(steering(tmp_path, "list"))
    assert "No hint set is proven yet" in fine(steering(tmp_path, "export"))


# -- export ---------------------------------------------------------------------------------------


def test_comments_go_to_the_terminal_and_into_a_file(folder: Path) -> None:
    assert "/*+ Set(enable_nestloop off) */" in fine(steering(folder, "export"))
    target = folder / "hints.sql"
    assert str(target) in fine(steering(folder, "export", "-o", str(target)))
    assert "/*+ Set(enable_nestloop off) */" in target.read_text(encoding="utf-8")
    where = str(folder / "missing" / "hints.sql")
    assert "could not be written" in refused(steering(folder, "export", "-o", where))


def test_the_hint_table_is_that_of_the_servers_version(folder: Path, store: SqlStore) -> None:
    def table(*more: str) -> Result:
        return steering(folder, "export", "--format", "hint-table", *more)

    assert "(query_id, application_name, hints)" in fine(table())
    assert "(norm_query_string," in fine(table("--pg-hint-plan", "1.6"))
    store.save_status(replace(full.STATUS, server_version="15.4"))
    assert "(norm_query_string," in fine(table())
    assert "(query_id," in fine(table("--pg-hint-plan", "1.7"))
    store.save_status(replace(full.STATUS, server_version=""))
    assert "version is not known" in refused(table())


def test_the_settings_of_a_role_without_a_server_rest_on_runs_alone(
    folder: Path, store: SqlStore
) -> None:
    alter = ("export", "--format", "alter-role")
    result = steering(folder, *alter, "--role", "shop_app")
    assert "does not run" in result.stderr
    statements = pglast.parse_sql(fine(result))
    assert [type(raw.stmt).__name__ for raw in statements] == ["AlterRoleSetStmt"]
    tried = replace(WAITING, state=SteeringState.DEFAULT_BEST, default_ms=10.0)
    store.save_steered_classes([tried])
    assert "not measured under it" in fine(steering(folder, *alter, "--role", "shop_app"))
    same = replace(full.PLAN_RUN, latency_s=0.01, default_latency_s=0.01)
    settings = {"enable_nestloop": "off"}
    finished = replace(same, key=WAITING.key, settings=settings, outcome=RunOutcome.FINISHED)
    store.add_plan_runs([finished])
    assert "ALTER ROLE" in fine(steering(folder, *alter, "--role", "shop_app"))
    assert "whose sessions" in refused(steering(folder, *alter))
    assert "all classes" in refused(steering(folder, *alter, "--role", "x", "--class", "aaaa"))


# -- report ---------------------------------------------------------------------------------------


def test_the_report_needs_the_server(folder: Path) -> None:
    assert "does not run" in refused(steering(folder, "report"))


# -- set ------------------------------------------------------------------------------------------


def test_without_a_tuner_it_is_noted(folder: Path, store: SqlStore) -> None:
    assert "next start" in fine(steering(folder, "set", "aaaa", "off"))
    modes = {record.key: record.mode for record in store.steered_classes()}
    assert modes == {PROVEN.key: SteeringMode.OFF, WAITING.key: SteeringMode.AUTO}
    assert store.commands() == []
    assert "no hint set was proven" in refused(steering(folder, "set", "aabb", "pin"))
    assert "several classes" in refused(steering(folder, "set", "aa", "off"))


def test_a_tuner_at_work_is_asked(folder: Path, store: SqlStore) -> None:
    store.acquire_lease(holder_name(), 60.0)
    answers: list[object] = []

    def tuner() -> None:
        with closing(open_store(f"sqlite:///{folder}/telemetry.db")) as own:
            command = own.take()
            while command is None:
                time.sleep(0.01)  # as the tuner does between two looks
                command = own.take()
            assert command.id is not None
            answers.extend((command.kind, dict(command.payload)))
            own.finish(command.id, CommandState.DONE, "pinned it is")

    thread = threading.Thread(target=tuner)
    thread.start()
    try:
        assert fine(steering(folder, "set", "aaaa111122223333", "pin")) == "pinned it is\n"
    finally:
        thread.join(10)
    assert answers == [
        CommandKind.STEER,
        {"fingerprint": "aaaa111122223333", "search_path": '"$user", public', "mode": "pin"},
    ]


def test_a_tuner_that_does_not_answer(
    folder: Path, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.acquire_lease(holder_name(), 60.0)
    monkeypatch.setattr(asking, "ANSWER_TIMEOUT_S", 0.05)
    result = steering(folder, "set", "aaaa", "off")
    assert "did not answer" in refused(result, AdjustmentError)
    (command,) = store.commands()
    assert command.state is CommandState.REFUSED
    assert {record.mode for record in store.steered_classes()} == {SteeringMode.AUTO}


# -- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "list", "export", "report", "set"])
def test_help_teaches(command: str) -> None:
    result = CliRunner().invoke(run.app, ["steering", *filter(None, [command]), "--help"])
    assert result.exit_code == 0
    if command in ("export", "report", "set"):
        assert f"run.py steering {command}" in result.stdout
