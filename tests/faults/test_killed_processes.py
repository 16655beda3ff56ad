"""Real processes are killed and hung; the server must end up with what was proven.

Times are asserted here where they are a promise to the user.
"""

from __future__ import annotations

import signal
import sqlite3
import time
from typing import Any

import psutil
import pytest

from backend.errors import EmbeddedServerError
from backend.lease import LEASE_TTL_S
from tests.running_product import Candidate, RunningProduct, lives, open_folder, send
from tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.integration, pytest.mark.slow]

ROLLBACK_PROMISE_S = 10.0
"""After the death of the tuner the last good configuration stands again within this time."""
END_PROMISE_S = 30.0
"""SIGTERM or Ctrl-C ends everything within this time."""
LOOK_S = 1.0
"""How often the watchdog looks."""


def newest_epoch(product: RunningProduct) -> int:
    lease = product.store.lease()
    return 0 if lease is None else lease.epoch


def event_kinds(product: RunningProduct, since: int) -> list[str]:
    return [event.kind for event in product.store.events(limit=200) if (event.id or 0) > since]


def newest_event(product: RunningProduct) -> int:
    return max((event.id or 0 for event in product.store.events(limit=1)), default=0)


def integrity(product: RunningProduct) -> str:
    connection = sqlite3.connect(product.data_dir / "telemetry.db")
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def test_killing_the_tuner_during_a_trial_brings_the_last_good_configuration_back(product):
    candidate = product.wait_for_candidate()
    tuner, before = product.wait_for_child("tuner"), newest_event(product)

    tuner.kill()
    wait_for_rollback(product, candidate)

    product.wait_for_child("tuner", other_than=tuner.pid)
    eventually(lambda: newest_epoch(product) > candidate.epoch, "a new tuner's epoch", 60)
    again = product.wait_for_candidate()
    assert again.epoch > candidate.epoch
    assert "process_died" in event_kinds(product, before)
    product.wait_for_child("tuner").resume()


def test_killing_tuner_and_watchdog_together_is_undone_by_those_started_next(product):
    candidate = product.wait_for_candidate()
    killed = [product.wait_for_child(name) for name in ("watchdog", "tuner")]

    for process in killed:
        process.kill()
    wait_for_rollback(product, candidate)
    assert newest_epoch(product) > candidate.epoch


def wait_for_rollback(product: RunningProduct, candidate: Candidate) -> None:
    """Wait until the last good configuration stands again, no longer than promised."""
    killed_s = time.monotonic()
    eventually(
        lambda: product.stands_again(candidate.last_good),
        f"the last good configuration after {candidate.changes}",
        ROLLBACK_PROMISE_S,
    )
    print(f"restored {time.monotonic() - killed_s:.1f} s after kill -9")


def test_a_killed_server_comes_back_with_the_last_good_configuration(product):
    candidate = product.wait_for_candidate()
    postmaster, before = product.server_processes()[0], newest_event(product)
    clients = product.store.client_intervals(limit=1)[-1].ended_at

    postmaster.kill()
    product.wait_for_child("tuner").resume()
    trial_id = candidate.changes[0].trial_id
    assert trial_id is not None
    eventually(
        lambda: (t := product.store.trial(trial_id)) is not None and t.verdict is not None,
        "the trial is given up", 60,
    )  # fmt: skip
    undone = {row.id for row in candidate.changes}
    eventually(
        lambda: not undone & {row.id for row in product.store.open_changes()},
        "the candidate is off", 60,
    )  # fmt: skip
    states = {row.state.value for row in product.store.changes(limit=500) if row.id in undone}
    assert states == {"rolled back"}
    eventually(
        lambda: {"server_lost", "server_back"} <= set(event_kinds(product, before)),
        "it is told that the server was away and is back", 60,
    )  # fmt: skip
    eventually(
        lambda: any(
            interval.completed and interval.started_at > clients
            for interval in product.store.client_intervals(limit=5)
        ),
        "the clients are served again", 60,
    )  # fmt: skip
    assert product.child("tuner") is not None


def test_a_hung_tuner_loses_its_right_to_act(product):
    candidate = product.wait_for_candidate()
    tuner, before = product.wait_for_child("tuner"), newest_event(product)

    eventually(
        lambda: product.stands_again(candidate.last_good),
        "the watchdog takes the hung tuner's candidate off",
        LEASE_TTL_S + LOOK_S + ROLLBACK_PROMISE_S,
    )
    eventually(
        lambda: "watchdog_rollback" in event_kinds(product, before), "the watchdog tells of it", 10
    )
    assert newest_epoch(product) > candidate.epoch
    written = [row.id for row in product.store.changes(limit=500) if row.epoch == candidate.epoch]

    tuner.resume()
    eventually(lambda: not lives(tuner), "the tuner of the stale epoch ends", 30)
    product.wait_for_child("tuner", other_than=tuner.pid)
    eventually(lambda: newest_epoch(product) > candidate.epoch + 1, "a new tuner's epoch", 60)
    rows = product.store.changes(limit=500)
    assert [row.id for row in rows if row.epoch == candidate.epoch] == written
    trials = {trial.id: trial for trial in product.store.trials()}
    trial = trials[candidate.changes[0].trial_id]
    assert trial.verdict is not None
    assert trial.verdict.value == "aborted"


def test_killing_everything_at_once_is_undone_on_the_next_start(product, make_product: Any):
    candidate = product.wait_for_candidate()
    product.kill_everything()
    assert product.try_server_state() is None
    assert integrity(product) == "ok"

    again = make_product(mode="observe").start()
    eventually(
        lambda: again.stands_again(candidate.last_good),
        f"the last good configuration after {candidate.changes}",
        60,
    )
    # Where nothing may be tried it stays so, also after the new tuner began.
    eventually(lambda: newest_epoch(again) > candidate.epoch, "a new tuner's epoch", 60)
    eventually(lambda: _phase(again) == "learning", "the baseline is measured", 60)
    assert again.server_state().differences(candidate.last_good) == {}
    assert integrity(again) == "ok"
    trial = again.store.trial(candidate.changes[0].trial_id)
    assert trial is not None
    assert trial.verdict is not None


def _phase(product: RunningProduct) -> str:
    status = product.store.status()
    return "" if status is None else status.phase.value


def test_the_other_processes_are_started_again(make_product: Any):
    product = make_product(mode="observe").start()
    first = {name: product.wait_for_child(name) for name in ("dashboard", "workload", "watchdog")}
    eventually(lambda: product.get("/healthz")[0] == 200, "the page answers", 60)
    eventually(lambda: product.store.client_intervals(limit=1), "the workload runs", 60)
    eventually(lambda: _sessions(product, "autopilot_watchdog"), "the watchdog is connected", 60)

    for process in first.values():
        process.kill()
    psutil.wait_procs(list(first.values()), timeout=10)
    newest = product.store.client_intervals(limit=1)[-1].ended_at
    for name, process in first.items():
        assert product.wait_for_child(name, other_than=process.pid).pid != process.pid
    eventually(lambda: product.get("/healthz")[0] == 200, "the page answers again", 60)
    eventually(
        lambda: product.store.client_intervals(limit=1)[-1].ended_at > newest,
        "the workload runs again", 60,
    )  # fmt: skip
    eventually(lambda: _sessions(product, "autopilot_watchdog"), "the watchdog is back", 60)


def _sessions(product: RunningProduct, application: str) -> int:
    state = "SELECT application_name FROM pg_stat_activity"
    return sum(name == application for (name,) in product.query(state))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_ending_the_supervisor_ends_everything_in_good_order(product, number: signal.Signals):
    candidate = product.wait_for_candidate()
    product.wait_for_child("tuner").resume()
    everything = [*product.processes(), *product.server_processes()]

    send(product.supervisor, number)
    assert product.wait_for_exit(END_PROMISE_S) == 0
    assert [process for process in everything if lives(process)] == []
    assert product.server_processes() == []
    assert product.store.open_changes() == []
    lease = product.store.lease()
    assert lease is not None
    assert lease.released
    product.server.start()
    assert product.server_state().differences(candidate.last_good) == {}
    assert product.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


def test_a_hung_tuner_does_not_keep_the_end_away(product):
    candidate = product.wait_for_candidate()
    everything = [*product.processes(), *product.server_processes()]

    send(product.supervisor, signal.SIGTERM)
    assert product.wait_for_exit(END_PROMISE_S) == 0
    assert [process for process in everything if lives(process)] == []
    product.server.start()
    assert product.stands_again(candidate.last_good)


@pytest.mark.parametrize("awaited", ["starting PostgreSQL", "loading"])
def test_it_can_be_ended_while_it_starts_and_goes_on_later(awaited: str):
    with open_folder() as folder:
        product = RunningProduct(folder, mode="observe").start()
        try:
            eventually(
                lambda: (s := product.store.status()) is not None and awaited in s.activity,
                f"it is {awaited}", 60, poll_s=0.02,
            )  # fmt: skip
            send(product.supervisor, signal.SIGTERM)
            assert product.wait_for_exit(END_PROMISE_S) == 0
            assert product.processes() == []
            assert product.server_processes() == []
            product.start()
            eventually(
                lambda: product.store.client_intervals(limit=1), "the demo is loaded and runs", 60
            )
        finally:
            print(product.story())
            product.end()
            product.server.destroy()


def test_without_the_supervisor_the_others_end_by_themselves(product):
    candidate = product.wait_for_candidate()
    product.wait_for_child("tuner").resume()
    children = [p for p in product.processes() if p.pid != product.supervisor.pid]

    product.supervisor.kill()
    eventually(lambda: not any(map(lives, children)), "the orphaned processes end", END_PROMISE_S)
    try:
        product.server.ensure_started()
    except EmbeddedServerError as error:
        pytest.fail(f"the server does not start any more: {error}")
    assert product.stands_again(candidate.last_good)
