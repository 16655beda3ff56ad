"""What the live benchmarks share, without a server."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from backend.config import Settings
from backend.domain.clock import ManualClock
from backend.domain.metrics import MetricsSnapshot, QueryCounters
from backend.errors import ServerError, StaleEpochError, WorkloadError
from backend.workload.mixes import MIXES, mix_named
from backend.workload.schedule import ArrivalSchedule
from backend.workload.shape import StoreShape
from backend.workload.statements import STATEMENTS
from benchmarks.harness import command_line, load, server
from benchmarks.harness.command_line import TimeLimit, end_in_good_order
from benchmarks.harness.load import OfferedLoad
from benchmarks.harness.offers import (
    LoadCounts,
    Offer,
    PgbenchOffer,
    StoreOffer,
    from_text,
    to_text,
)
from benchmarks.harness.server import data_folder, settings_in, shop_server
from benchmarks.harness.waiting import TICK_S, pass_time, renew
from benchmarks.harness.windows import WINDOW_ATTEMPTS, Meter
from benchmarks.live.workloads import LiveWorkload
from benchmarks.recording.workloads import (
    GROUPS,
    LEAST_DISTANCE,
    SCALES,
    distance,
    training_workload,
)
from tests.windows import START, key

URL = make_url("postgresql+psycopg2://role:sec%40ret@127.0.0.1:5433/shop")
STORE = StoreOffer(mix_named("oltp"), 0.25, seed=7)
PGBENCH = PgbenchOffer("tpcb-like", 150.0, 2, 8, 10.0, "/bin/pgbench", {"ICU_DATA": "/x"})


# -- offers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("offer", [STORE, replace(STORE, repeat_s=10.0), PGBENCH])
def test_an_offer_travels_as_one_line(offer: Offer) -> None:
    text = to_text(URL, offer)
    assert "\n" not in text
    assert from_text(text) == (URL, offer)


def arrivals_after_travelling(offer: Offer) -> str:
    _, arrived = from_text(to_text(URL, offer))
    assert isinstance(arrived, StoreOffer)
    return arrived.schedule().fingerprint


def test_the_arrivals_of_a_training_workload_are_those_of_its_seed() -> None:
    workload = training_workload(3, 5)
    shape = StoreShape.at_scale(workload.scale)
    frozen = ArrivalSchedule(workload.mix(37.3), seed=11, shape=shape)
    offer = StoreOffer(workload.mix(37.3), workload.scale, seed=11)
    assert arrivals_after_travelling(offer) == frozen.fingerprint


def test_an_option_that_counts_takes_whole_numbers_from_zero_on() -> None:
    assert (command_line.whole("0"), command_line.whole("12")) == (0, 12)
    with pytest.raises(argparse.ArgumentTypeError, match="-1 is below 0"):
        command_line.whole("-1")
    with pytest.raises(ValueError, match="invalid literal"):
        command_line.whole("1.5")


def test_one_training_workload_of_four_has_no_reports_and_is_of_no_mix_judged_on() -> None:
    reports = {name for name, s in STATEMENTS.items() if s.kind in GROUPS[2]}
    workloads = [training_workload(0, number) for number in range(24)]
    without = [number for number, w in enumerate(workloads) if not reports & set(w.weights)]
    assert without == [3, 7, 11, 15, 19, 23]
    assert {workloads[number].scale for number in without} == set(SCALES)
    for workload in workloads:
        assert min(distance(workload.weights, mix) for mix in MIXES.values()) >= LEAST_DISTANCE
        assert all(weight > 0 for weight in workload.weights.values())


def test_the_arrivals_of_the_live_comparison_are_those_of_its_protocol() -> None:
    frozen = ArrivalSchedule(
        mix_named("mixed"), 32.0 * 3600.0 / 1e-3, 2, 1e-3, shape=StoreShape.at_scale(0.25)
    )
    offer = LiveWorkload.named("mixed").offer(SimpleNamespace(), 2)  # type: ignore[arg-type]
    assert arrivals_after_travelling(offer) == frozen.fingerprint


def test_the_arrivals_of_a_swinging_day_are_the_demos() -> None:
    frozen = ArrivalSchedule(
        mix_named("mixed"), None, 4, 100.0, shape=StoreShape.at_scale(0.1)
    ).fingerprint
    offer = StoreOffer(mix_named("mixed"), 0.1, 4, time_scale=100.0)
    assert arrivals_after_travelling(offer) == frozen


# -- the load's process ---------------------------------------------------------------------------

COUNTING = """
import json, sys
offer = json.loads(sys.stdin.readline())
print(json.dumps({"completed": offer["offer"]["seed"], "backlog": True}), flush=True)
"""
UNTIL_CLOSED = "sys.stdin.read()\n"


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a program in the place of the load's process."""

    def put(program: str) -> None:
        monkeypatch.setattr(load, "COMMAND", (sys.executable, "-c", program))

    return put


def test_a_load_is_started_counted_and_ended(process: Callable[[str], None]) -> None:
    process(COUNTING + UNTIL_CLOSED)
    alive: list[int] = []
    offered = OfferedLoad(URL, STORE, lambda: alive.append(1))
    with offered:
        assert offered.counts() == LoadCounts(completed=7, backlog=True)
        child = offered._process
        assert child is not None
    assert child.poll() == 0
    assert alive
    with pytest.raises(WorkloadError, match="the clients have ended: they were stopped"):
        offered.counts()


def test_clients_that_end_by_themselves_are_told_with_their_last_words(
    process: Callable[[str], None],
) -> None:
    process("import sys; sys.stdin.readline(); sys.exit('no such mix')")
    with (
        pytest.raises(WorkloadError, match="the clients have ended: no such mix"),
        OfferedLoad(URL, STORE),
    ):
        pass


def test_clients_that_bring_nothing_back_are_not_waited_for_for_ever(
    process: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    process("import sys; sys.stdin.read()")
    monkeypatch.setattr(load, "START_TIMEOUT_S", 0.2)
    offered = OfferedLoad(URL, STORE)
    with pytest.raises(WorkloadError, match=r"no statement came back within 0\.2 s"):
        offered.start()
    assert offered._process is None


def test_clients_that_do_not_end_are_killed_whatever_keeps_alive_says(
    process: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    process(COUNTING + "import time\ntime.sleep(600)\n")
    monkeypatch.setattr(load, "STOP_TIMEOUT_S", 0.2)
    lost: list[str] = []

    def keep_alive() -> None:
        if lost:
            raise StaleEpochError("another tuner acts")

    offered = OfferedLoad(URL, STORE, keep_alive)
    offered.start()
    child = offered._process
    assert child is not None
    lost.append("now")
    with pytest.raises(StaleEpochError):
        offered.stop()
    assert child.poll() == -signal.SIGKILL


# -- windows --------------------------------------------------------------------------------------


class Site:
    """A collector and clients on a clock that is turned by hand; a call every 10 ms."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.running_since_s: float | None = None
        self.backlog_until_s = 0.0
        self.spoilt = 0
        self.taken: list[float] = []

    def collect(self) -> MetricsSnapshot:
        now_s = self.clock.monotonic_s()
        self.taken.append(now_s)
        since_s = self.running_since_s
        calls = round(now_s * 100)
        # As if somebody reset the statistics just before each of the next snapshots.
        reset_s = now_s if len(self.taken) <= self.spoilt else -1.0
        return MetricsSnapshot(
            taken_at=START + timedelta(seconds=now_s),
            counters={},
            gauges={"longest_statement_s": 0.0 if since_s is None else now_s - since_s},
            queries={key(1): QueryCounters(calls, 5.0 * calls)},
            server_started_at=START,
            config_loaded_at=START,
            statistics_reset_at=START + timedelta(seconds=reset_s),
        )

    def counts(self) -> LoadCounts:
        now_s = self.clock.monotonic_s()
        return LoadCounts(completed=round(now_s * 100), backlog=now_s < self.backlog_until_s)

    def meter(self, **options: Any) -> Meter:
        site: Any = self
        return Meter(site, site, self.clock, 10.0, **options)


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_window_follows_the_settling_and_has_two_halves(site: Site) -> None:
    site.clock.advance(100.0)
    found = site.meter().measure(2.0)
    assert site.taken == pytest.approx([102.0, 107.0, 112.0])
    assert found.window.duration_s == pytest.approx(10.0)
    assert found.window.calls == 1000
    assert [half.calls for half in found.halves] == [500, 500]
    assert (found.before.completed, found.after.completed) == (10200, 11200)


def test_it_waits_for_what_began_before_the_switch(site: Site) -> None:
    site.clock.advance(100.0)
    site.running_since_s = 97.0

    def ends(seconds: float) -> None:
        site.clock.advance(seconds)
        if site.clock.monotonic_s() >= 106.0:
            site.running_since_s = None

    site.meter(rest=ends).measure(2.0)
    assert site.taken[-3] == pytest.approx(106.0)


def test_what_began_after_the_switch_is_the_windows_own(site: Site) -> None:
    site.clock.advance(100.0)
    site.running_since_s = 100.5
    site.meter().measure(2.0)
    assert len(site.taken) == 3


@pytest.mark.parametrize("longest_wait_s", [5.0, 40.0])
def test_it_does_not_wait_for_ever(site: Site, longest_wait_s: float) -> None:
    site.clock.advance(100.0)
    site.running_since_s = 1.0
    site.meter(longest_wait_s=longest_wait_s).measure(2.0)
    assert longest_wait_s < site.taken[-3] - 100.0 <= longest_wait_s + 0.5


def test_a_pile_is_worked_off_on_request_only(site: Site) -> None:
    site.clock.advance(100.0)
    site.backlog_until_s = 120.0
    assert site.meter().measure(2.0).before.backlog
    site.clock.advance(1.0)
    site.backlog_until_s = site.clock.monotonic_s() + 9.0
    assert not site.meter().measure(2.0, work_off=True).before.backlog


def test_a_window_that_was_spoilt_is_taken_again_and_finally_given_up(site: Site) -> None:
    site.spoilt = 3
    assert site.meter().measure(2.0).window.calls == 1000
    assert len(site.taken) == 6
    site.spoilt = 1000
    with pytest.raises(ServerError, match=r"no window in 3 attempts: .*reset"):
        site.meter().measure(2.0)
    assert len(site.taken) == 6 + 3 * WINDOW_ATTEMPTS


# -- waiting --------------------------------------------------------------------------------------


def test_time_passes_with_signs_of_life() -> None:
    clock, alive = ManualClock(), []
    pass_time(clock, 1.1, lambda: alive.append(clock.monotonic_s()))
    assert clock.monotonic_s() == pytest.approx(1.1)
    assert alive == pytest.approx([0.0, TICK_S, 2 * TICK_S, 3 * TICK_S, 4 * TICK_S])


def test_a_lost_lease_ends_the_waiting() -> None:
    clock, answers = ManualClock(), iter([True, True, False])
    lease: Any = SimpleNamespace(renew=lambda: next(answers))
    with pytest.raises(StaleEpochError, match="another tuner") as caught:
        pass_time(clock, 60.0, partial(renew, lease))
    assert caught.value.remedy
    assert clock.monotonic_s() == pytest.approx(2 * TICK_S)


# -- folder, settings, server ---------------------------------------------------------------------


def test_nothing_but_what_is_given_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("safety: {query_timeout: 7}", encoding="utf-8")
    monkeypatch.setenv("AUTOPILOT_SAFETY__QUERY_TIMEOUT", "8")
    sections = {"mode": "auto", "paths": {"policies_dir": "elsewhere"}}
    found = settings_in(tmp_path / "here", sections)
    assert found.safety == Settings().safety
    assert found.mode == "auto"
    assert found.paths.data_dir == tmp_path / "here"
    assert found.paths.telemetry_db == str(tmp_path / "here" / "telemetry.db")
    assert found.paths.policies_dir == Path("elsewhere")


def test_a_given_folder_is_made_and_kept(tmp_path: Path) -> None:
    with data_folder(tmp_path / "new" / "er", "x-") as folder:
        assert folder.is_dir()
    assert folder == tmp_path / "new" / "er"
    assert folder.is_dir()


def test_a_temporary_folder_goes_with_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    destroyed: list[Path] = []

    class Server:
        def __init__(self, folder: Path) -> None:
            self._folder = folder

        def destroy(self) -> None:
            assert self._folder.is_dir()
            destroyed.append(self._folder)

    monkeypatch.setattr(server, "EmbeddedPostgres", Server)
    working = data_folder(None, "harness-")
    folder = working.__enter__()
    assert folder.stat().st_mode & 0o777 == 0o755
    interrupt = KeyboardInterrupt()
    assert not working.__exit__(KeyboardInterrupt, interrupt, None)
    assert destroyed == [folder]
    assert not folder.exists()


class FakeServer:
    """A server that is on or off."""

    def __init__(self) -> None:
        self.on = False

    def ensure_started(self) -> None:
        self.on = True

    def is_running(self) -> bool:
        return self.on

    def stop(self) -> None:
        self.on = False


@contextmanager
def faked(monkeypatch: pytest.MonkeyPatch, *, loaded: bool) -> Iterator[SimpleNamespace]:
    found = SimpleNamespace(server=FakeServer(), loads=0)

    def load_store() -> None:
        assert found.server.on
        found.loads += 1

    store = SimpleNamespace(is_loaded=lambda: loaded, load=load_store)
    monkeypatch.setattr(server, "embedded_server", lambda _: found.server)
    monkeypatch.setattr(server, "demo_store", lambda *_: store)
    yield found
    assert not found.server.on


def test_the_store_is_loaded_once_and_the_server_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with faked(monkeypatch, loaded=False) as found:
        with shop_server(Settings(), told.append) as running:
            assert running.is_running()
        assert found.loads == 1
    assert told == ["loading the demo store at scale 0.25"]
    with faked(monkeypatch, loaded=True) as found:
        with pytest.raises(WorkloadError), shop_server(Settings(), told.append):
            raise WorkloadError("whatever happens inside")
        assert found.loads == 0


# -- the command line -----------------------------------------------------------------------------


def test_a_piece_has_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr(command_line, "time", SimpleNamespace(monotonic=clock.monotonic_s))
    limit, endless = TimeLimit(2.0), TimeLimit(None)
    assert limit.allows(120.0)
    assert not limit.allows(121.0)
    clock.advance(100.0)
    assert limit.allows(20.0)
    assert not limit.allows(21.0)
    assert endless.allows(1e9)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_in_good_order(number: signal.Signals) -> None:
    former = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(number, signal.SIG_DFL)
        end_in_good_order()
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(number)
        signal.raise_signal(number)  # does not cut short what is ended now
    finally:
        for other, handler in former.items():
            signal.signal(other, handler)
    assert ended.value.code == 128 + number


def test_what_was_told_to_survive_its_terminal_does() -> None:
    former = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        end_in_good_order()
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for other, handler in former.items():
            signal.signal(other, handler)
