"""pgbench as offered load: its command line, and what its progress lines say."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy.engine import URL

from benchmarks.harness.offers import LoadCounts, PgbenchOffer

BACKLOG_MS = 250.0
"""A mean delay behind the schedule from which on transactions are piling up."""
LATENCY_LIMIT_MS = 2000
"""What would start later than this is skipped, so a pile does not outlast its cause."""
LONGEST_RUN_S = 24 * 3600
RETRY_S = 0.5
TICK_S = 0.25

PROGRESS = re.compile(
    r"progress: [\d.]+ s, (?P<tps>[\d.]+) tps, lat [\d.]+ ms stddev [\d.]+, (?P<failed>\d+) failed"
    r"(?:, lag (?P<lag>[\d.]+) ms)?(?:, (?P<skipped>\d+) skipped)?"
)
ABORTED = re.compile(r"client \d+ .*aborted")
TIMED_OUT = re.compile(r"canceling statement due to statement timeout")


def pgbench_command(url: URL, offer: PgbenchOffer) -> list[str]:
    """The command line; no password in it."""
    return [
        offer.program,
        f"--builtin={offer.script}",
        "--no-vacuum",
        f"--client={offer.clients}",
        "--jobs=1",
        f"--rate={offer.rate_per_s}",
        f"--latency-limit={LATENCY_LIMIT_MS}",
        f"--random-seed={offer.seed}",
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
    url: URL,
    offer: PgbenchOffer,
    application_name: str,
    stop: threading.Event,
    say: Callable[[LoadCounts], None],
) -> None:
    """Run pgbench until told to stop; begun anew where a client of it has given up."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment["PGPASSWORD"] = str(url.password or "")
    environment["PGOPTIONS"] = f"-c statement_timeout={offer.statement_timeout_s * 1e3:g}"
    environment["PGAPPNAME"] = application_name
    environment.update(offer.environment)
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
