"""The queue of commands, and several processes at one store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.domain.modes import CommandState
from backend.errors import StoreError
from backend.protocols import Store
from tests.contracts import records as full
from tests.contracts.conftest import OpenStore

ROOT = Path(__file__).parents[2]


class TestCommands:
    def test_the_life_of_a_command(self, store: Store) -> None:
        command_id = store.submit(full.COMMAND)
        assert store.command(command_id) == replace(full.COMMAND, id=command_id)
        taken = store.take()
        assert taken == replace(full.COMMAND, id=command_id, state=CommandState.RUNNING)
        assert store.take() is None
        store.finish(command_id, CommandState.DONE, "work_mem is 8192 kB")
        done = store.command(command_id)
        assert done is not None
        assert (done.state, done.result) == (CommandState.DONE, "work_mem is 8192 kB")
        assert done.finished_at is not None
        assert store.commands() == [done]

    def test_oldest_first(self, store: Store) -> None:
        ids = [store.submit(full.COMMAND) for _ in range(3)]
        assert [command.id for command in (store.take(), store.take()) if command] == ids[:2]
        assert [command.id for command in store.commands(limit=2)] == ids[1:]

    def test_a_command_ends_once(self, store: Store) -> None:
        command_id = store.submit(full.COMMAND)
        store.finish(command_id, CommandState.REFUSED, "frozen")
        with pytest.raises(StoreError, match="ended before"):
            store.finish(command_id, CommandState.DONE, "")
        with pytest.raises(StoreError, match="does not exist"):
            store.finish(command_id + 1, CommandState.DONE, "")

    def test_it_is_queued_whatever_it_says(self, store: Store) -> None:
        forged = replace(full.COMMAND, state=CommandState.DONE, finished_at=full.NOW)
        command = store.command(store.submit(forged))
        assert command is not None
        assert (command.state, command.finished_at) == (CommandState.QUEUED, None)

    def test_each_is_taken_once_by_threads(self, store: Store) -> None:
        ids = [store.submit(full.COMMAND) for _ in range(24)]
        start = threading.Barrier(4)

        def take_all() -> list[int | None]:
            start.wait(10)
            taken = []
            while (command := store.take()) is not None:
                taken.append(command.id)
            return taken

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(take_all) for _ in range(4)]
        # One that finds the queue's head locked may stop early; none is taken twice.
        taken = [command_id for future in futures for command_id in future.result()]
        assert sorted(taken + take_all_left(store)) == ids


def take_all_left(store: Store) -> list[int | None]:
    left = []
    while (command := store.take()) is not None:
        left.append(command.id)
    return left


class TestProcesses:
    """Tuner, workload, watchdog and dashboard write at once."""

    def test_four_at_once(self, store_url: sa.URL, open_again: OpenStore) -> None:
        store = open_again()
        ids = [store.submit(full.COMMAND) for _ in range(40)]
        results = run_processes(store_url, 4)
        assert sorted(epoch for r in results for epoch in r["epochs"]) == list(range(1, 41))
        taken = [command_id for r in results for command_id in r["taken"]]
        assert sorted(taken + take_all_left(store)) == ids
        assert len(store.windows()) == 40
        assert all(len(window.queries) == 2 for window in store.query_windows())
        versions = store.policy_versions()
        assert len(versions) == 40
        assert [v.active for v in versions].count(True) == 1


def run_processes(url: sa.URL, count: int) -> list[dict[str, list[int]]]:
    """Run processes that all write to the store, and return what each reports."""
    script = Path(__file__).with_name("store_process.py")
    address = url.render_as_string(hide_password=False)
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
        )
        for _ in range(count)
    ]
    results = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(address + "\n")
        process.stdin.flush()
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        results.append(json.loads(out))
    return results


@pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]
)
def test_processes_that_open_a_new_store_at_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The file, the schema and the tables are made once; nobody fails."""
    if kind == "sqlite":
        url = sa.make_url(f"sqlite:///{tmp_path}/new/telemetry.db")
    else:
        engine: sa.Engine = request.getfixturevalue("postgresql_template")
        with engine.connect() as connection:
            connection.execute(sa.text("DROP DATABASE IF EXISTS fresh WITH (FORCE)"))
            connection.execute(sa.text("CREATE DATABASE fresh"))
        url = engine.url.set(database="fresh")
    results = run_processes(url, 3)
    assert sorted(epoch for r in results for epoch in r["epochs"]) == list(range(1, 31))
