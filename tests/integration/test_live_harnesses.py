"""The live benchmarks on a real server with real clients, in very little time.

The live comparison has a module of its own: test_knob_live_integration.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import WorkloadError
from backend.telemetry import open_store
from benchmarks.filter_experiment import live as filter_live
from benchmarks.recording import session
from benchmarks.recording.workloads import TrainingWorkload
from benchmarks.shift import live as shift_live
from tests.integration.conftest import open_folder

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SCALE = 0.005
LOAD_PROCESS = "benchmarks.harness.load_process"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as name:
        data_dir = Path(name)
        yield data_dir
        for password in data_dir.glob("*/postgres/password"):
            EmbeddedPostgres(password.parents[1]).destroy()


def load_processes() -> list[psutil.Process]:
    """The clients of this process that live."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if LOAD_PROCESS in " ".join(child.cmdline())]


def test_a_recording_measures_the_defaults_and_a_configuration(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("WINDOW_S", 2.0), ("SETTLE_S", 0.2), ("WARM_UP_S", 1.0), ("BASELINE_WINDOWS", 1)
    ):  # fmt: skip
        monkeypatch.setattr(session, name, value)
    store, told = folder / "recorded.db", []
    weights = {"product_by_id": 3.0, "customer_orders": 2.0, "daily_revenue": 1.0}
    workload = TrainingWorkload("random 9.9", SCALE, weights, busy=0.05)
    clients: list[int] = []

    def time_left() -> bool:
        clients.append(len(load_processes()))
        return True

    count = session.record(
        workload, store, folder, configurations=1, seed=[9, 9, 0],
        time_left=time_left, tell=told.append,
    )  # fmt: skip
    assert count == 1, told
    assert set(clients) == {1}
    assert load_processes() == []
    with closing(open_store(f"sqlite:///{store}", read_only=True)) as opened:
        found = opened.transitions(workload="random 9.9")
    assert len(found) == 2
    assert not EmbeddedPostgres(folder / f"scale-{SCALE:g}").is_running()


def test_the_swinging_load_runs_while_the_server_is_at_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filter_live, "WARM_UP_S", 0.5)
    data_dir = folder / f"scale-{SCALE:g}"
    settings = filter_live.live_settings(data_dir, SCALE, filtered=True)
    with filter_live.server_at_work(settings, lambda _: None) as load:
        assert load.counts().completed > 0
        assert len(load_processes()) == 1
    assert load_processes() == []
    assert not EmbeddedPostgres(data_dir).is_running()


def test_at_a_shift_the_clients_change_and_lost_clients_are_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift_live, "WARM_UP_S", 0.5)
    data_dir = folder / f"scale-{SCALE:g}"
    with shift_live.live_site(shift_live.live_settings(data_dir, SCALE), seed=1) as site:
        seen = []
        for workload in shift_live.WORKLOADS:
            site.offer(workload)
            assert len(load_processes()) == 1
            before = site.collect()
            site.clock.sleep(1.0)
            site.keep_alive()
            after = site.collect()
            calls = {k: q.calls - before.queries[k].calls if k in before.queries else q.calls
                     for k, q in after.queries.items()}  # fmt: skip
            seen.append({key for key, count in calls.items() if count > 0})
        assert all(seen)
        assert not seen[0] & seen[1]  # the mixes have no statement in common
        (clients,) = load_processes()
        clients.kill()
        clients.wait(10)
        with pytest.raises(WorkloadError, match="the clients have ended"):
            site.keep_alive()
    assert load_processes() == []
    assert not EmbeddedPostgres(data_dir).is_running()
