"""The loads of the live comparison: who offers them, and what is counted of them."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from backend.errors import WorkloadError
from backend.workload.mixes import mix_named
from benchmarks import knob_live
from benchmarks.harness.offers import LoadCounts, PgbenchOffer, StoreOffer
from benchmarks.harness.pgbench import after_line, pgbench_command
from benchmarks.harness.repeating import Repeated
from benchmarks.live.workloads import description


def test_pgbenchs_progress_is_counted() -> None:
    counts = after_line(
        LoadCounts(completed=100),
        "progress: 3.0 s, 149.7 tps, lat 2.100 ms stddev 0.500, 1 failed, lag 0.100 ms, 2 skipped",
    )
    assert counts == LoadCounts(completed=250, errors=1, dropped=2)
    late = "progress: 4.0 s, 20.0 tps, lat 900.1 ms stddev 5.0, 0 failed, lag 812.500 ms, 0 skipped"
    assert after_line(counts, late).backlog


def test_pgbenchs_lost_clients_are_counted() -> None:
    text = (
        "pgbench: error: client 3 script 0 aborted in command 5 query 0: "
        "ERROR:  canceling statement due to statement timeout"
    )
    assert after_line(LoadCounts(), text) == LoadCounts(timeouts=1)
    lost = (
        "pgbench: error: client 1 aborted in command 2 (SQL) of script 0; perhaps the backend died"
    )
    assert after_line(LoadCounts(), lost) == LoadCounts(errors=1)
    assert after_line(LoadCounts(), "pgbench (17.10)") == LoadCounts()


PGBENCH = PgbenchOffer("select-only", 150.0, 2, 8, 10.0, "/bin/pgbench", {})


def test_pgbenchs_command_line_holds_no_password() -> None:
    url = make_url("postgresql+psycopg2://role:secret@127.0.0.1:5433/live_run")
    command = pgbench_command(url, PGBENCH)
    assert "--builtin=select-only" in command
    assert "--random-seed=2" in command
    assert "--rate=150.0" in command
    assert not any("secret" in part for part in command)


def test_unknown_workloads_and_broken_scales_are_refused() -> None:
    with pytest.raises(WorkloadError, match="no workload"):
        knob_live.LiveWorkload.named("nightly")
    with pytest.raises(WorkloadError, match="whole number"):
        knob_live.LiveWorkload.named("pgbench", scale=0.5)
    assert knob_live.LiveWorkload.named("oltp", rate_per_s=50.0).rate_per_s == 50.0
    with pytest.raises(WorkloadError, match="whole number"):
        knob_live.LiveWorkload.named("pgbench-select", scale=0.5)


@pytest.mark.parametrize(
    ("name", "script"), [("pgbench", "tpcb-like"), ("pgbench-select", "select-only")]
)
def test_pgbenchs_scripts_are_offered_by_pgbench_itself(name: str, script: str) -> None:
    server: Any = SimpleNamespace(bin_dir=Path("/some/bin"))
    workload = knob_live.LiveWorkload.named(name, clients=3)
    offer = workload.offer(server, 5)
    assert isinstance(offer, PgbenchOffer)
    assert (offer.script, offer.program) == (script, "/some/bin/pgbench")
    assert (offer.rate_per_s, offer.seed, offer.clients) == (workload.rate_per_s, 5, 3)
    assert workload.template == "live_pgbench"
    assert script in description(name)


def test_the_stores_load_stands_still_at_its_rate() -> None:
    server: Any = None
    offer = knob_live.LiveWorkload.named("mixed", rate_per_s=40.0).offer(server, 5)
    assert isinstance(offer, StoreOffer)
    schedule = offer.schedule()
    assert schedule.rate_per_s == pytest.approx(40.0)
    assert offer.repeat_s is None
    day_later = schedule.hour_at(24 * 3600.0) - schedule.hour_at(0.0)
    assert day_later == pytest.approx(0.024)  # simulated hours in a real day


def test_a_comparison_may_have_its_statements_come_again_sooner() -> None:
    again = knob_live.LiveWorkload.named("oltp", repeat_s=10.0)
    assert again.repeating(4.0).repeat_s == 4.0
    assert again.repeat_s == 10.0
    for name in ("oltp", "pgbench"):  # ever new ones stay so
        assert knob_live.LiveWorkload.named(name).repeating(4.0).repeat_s is None


def test_every_window_of_the_store_holds_the_same_statements() -> None:
    server: Any = None
    workload = knob_live.LiveWorkload.named("analytical", repeat_s=10.0)
    offer = workload.offer(server, 5)
    assert isinstance(offer, StoreOffer)
    arrivals = list(itertools.takewhile(lambda a: a.offset_s < 60.0, offer.arrivals()))

    def asked(from_s: float) -> Counter[tuple[str, Any]]:
        window = (a for a in arrivals if from_s <= a.offset_s < from_s + 10.0)
        return Counter((a.class_name, a.parameters) for a in window)

    assert len(arrivals) == pytest.approx(60 * workload.rate_per_s, rel=0.01)
    assert asked(0.0) == asked(3.7) == asked(29.9) == asked(50.0)
    fresh = list(itertools.islice(offer.schedule(), len(arrivals)))
    assert fresh[: asked(0.0).total()] == arrivals[: asked(0.0).total()]
    assert fresh != arrivals


def test_pgbench_draws_its_own_statements() -> None:
    assert knob_live.LiveWorkload.named("pgbench", repeat_s=10.0).repeat_s is None


def test_a_stretch_in_which_nothing_arrives_cannot_be_repeated() -> None:
    schedule = StoreOffer(mix_named("oltp"), 0.25, seed=1, rate_per_s=0.01).schedule()
    with pytest.raises(WorkloadError, match=r"no statement arrives in the 0\.001 s"):
        Repeated(schedule, 0.001)
