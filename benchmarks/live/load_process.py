"""The offered load as a process of its own: ``python -m benchmarks.live.load_process``.

So a tuner that trains never delays a client. Reads one JSON object (the address, password
included, and what to offer) from standard input, then offers until standard input is closed, also
by the end of the process that started it. Writes its counts to standard output, one JSON object a
line.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.engine import URL, make_url

from backend.workload.generator import WorkloadGenerator
from backend.workload.mixes import mix_named
from backend.workload.schedule import ArrivalSchedule
from backend.workload.shape import StoreShape

TICK_S = 0.25
FIXED_PHASE = 1e-3
"""Simulated seconds a real second: the time of day, and with it volume and mix, stands still."""
BACKLOG_MS = 250.0
"""pgbench: a mean delay behind the schedule from which on transactions are piling up."""
LATENCY_LIMIT_MS = 2000
"""pgbench: what would start later than this is skipped, so a pile does not outlast its cause."""
LONGEST_RUN_S = 24 * 3600
RETRY_S = 0.5

PROGRESS = re.compile(
    r"progress: [\d.]+ s, (?P<tps>[\d.]+) tps, lat [\d.]+ ms stddev [\d.]+, (?P<failed>\d+) failed"
    r"(?:, lag (?P<lag>[\d.]+) ms)?(?:, (?P<skipped>\d+) skipped)?"
)
ABORTED = re.compile(r"client \d+ .*aborted")
TIMED_OUT = re.compile(r"canceling statement due to statement timeout")


@dataclass(frozen=True)
class LoadCounts:
    """Totals since the start. ``backlog``: arrivals are piling up at the clients now."""

    completed: int = 0
    errors: int = 0
    timeouts: int = 0
    dropped: int = 0
    backlog: bool = False


def offer_store(
    url: URL, offer: Mapping[str, Any], stop: threading.Event, say: Callable[[LoadCounts], None]
) -> None:
    """Offer a mix of the demo store's statements, open-loop, at a fixed time of day."""
    rate_per_s = float(offer["rate_per_s"])
    schedule = ArrivalSchedule(
        mix_named(offer["mix"]),
        rate_per_s * 3600.0 / FIXED_PHASE,
        int(offer["seed"]),
        FIXED_PHASE,
        shape=StoreShape.at_scale(float(offer["scale"])),
    )
    clients = int(offer["clients"])
    generator = WorkloadGenerator(
        url,
        schedule,
        max_concurrency=clients,
        statement_timeout_s=float(offer["statement_timeout_s"]),
        application_name="knob_live_load",
    )
    generator.start()
    try:
        while not stop.wait(TICK_S):
            if generator.failure is not None:
                raise RuntimeError("the load generator stopped") from generator.failure
            stats = generator.stats(horizon_s=0)
            say(
                LoadCounts(
                    completed=stats.completed,
                    errors=stats.errors,
                    timeouts=stats.timeouts,
                    dropped=stats.dropped,
                    backlog=stats.waiting > clients,
                )
            )
    finally:
        generator.stop(timeout_s=2)


def pgbench_command(url: URL, offer: Mapping[str, Any]) -> list[str]:
    """The command line of pgbench's TPC-B-like script at a fixed rate; no password in it."""
    return [
        str(offer["program"]),
        "--no-vacuum",
        f"--client={offer['clients']}",
        "--jobs=1",
        f"--rate={offer['rate_per_s']}",
        f"--latency-limit={LATENCY_LIMIT_MS}",
        f"--random-seed={offer['seed']}",
        f"--time={LONGEST_RUN_S}",
        "--progress=1",
        f"--host={url.host}",
        f"--port={url.port}",
        f"--username={url.username}",
        str(url.database),
    ]


def after_line(counts: LoadCounts, line: str) -> LoadCounts:
    """The counts after one more line of pgbench's progress and error output."""
    if found := PROGRESS.search(line):
        return replace(
            counts,
            completed=counts.completed + round(float(found["tps"])),
            errors=counts.errors + int(found["failed"]),
            dropped=counts.dropped + int(found["skipped"] or 0),
            backlog=float(found["lag"] or 0) > BACKLOG_MS,
        )
    if TIMED_OUT.search(line):
        return replace(counts, timeouts=counts.timeouts + 1)
    if ABORTED.search(line):
        return replace(counts, errors=counts.errors + 1)
    return counts


def offer_pgbench(
    url: URL, offer: Mapping[str, Any], stop: threading.Event, say: Callable[[LoadCounts], None]
) -> None:
    """Run pgbench until told to stop; begun anew where a client of it has given up."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment["PGPASSWORD"] = str(url.password or "")
    environment["PGOPTIONS"] = f"-c statement_timeout={float(offer['statement_timeout_s']) * 1e3:g}"
    environment["PGAPPNAME"] = "knob_live_load"
    environment.update(offer.get("environment", {}))
    counts = LoadCounts()
    while not stop.is_set():
        process = subprocess.Popen(
            pgbench_command(url, offer),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        ender = threading.Thread(target=_end_when_told, args=(stop, process), daemon=True)
        ender.start()
        assert process.stderr is not None  # it was asked for
        for line in process.stderr:
            counts = after_line(counts, line)
            say(counts)
            if ABORTED.search(line):
                process.terminate()
        process.wait()
        ender.join()
        stop.wait(RETRY_S)


def _end_when_told(stop: threading.Event, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        if stop.wait(TICK_S):
            process.terminate()
            return


def _stop_at_end_of(lines: Iterable[str], stop: threading.Event) -> None:
    for _ in lines:
        pass
    stop.set()


def main() -> None:
    """Offer what standard input asks for until it is closed."""
    offer = json.loads(sys.stdin.readline())
    url = make_url(offer.pop("url"))
    stop = threading.Event()
    threading.Thread(target=_stop_at_end_of, args=(sys.stdin, stop), daemon=True).start()

    def say(counts: LoadCounts) -> None:
        try:
            print(json.dumps(asdict(counts)), flush=True)
        except BrokenPipeError:
            stop.set()

    work = offer_pgbench if offer["kind"] == "pgbench" else offer_store
    work(url, offer, stop, say)


if __name__ == "__main__":
    main()
