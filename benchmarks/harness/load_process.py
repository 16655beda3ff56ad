"""The offered load as a process of its own: ``python -m benchmarks.harness.load_process``.

So whatever else a benchmark does never delays a client. Reads one line (the address, password
included, and what to offer) from standard input, then offers until standard input is closed, also
by the end of the process that started it. Writes its counts to standard output, one JSON object a
line.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict

from sqlalchemy.engine import URL

from backend.workload.generator import WorkloadGenerator
from benchmarks.harness.offers import LoadCounts, StoreOffer, from_text
from benchmarks.harness.pgbench import offer_pgbench

APPLICATION_NAME = "benchmark_load"
TICK_S = 0.25
STOP_TIMEOUT_S = 2.0
"""Statements that are still running then are cancelled."""


def offer_store(
    url: URL, offer: StoreOffer, stop: threading.Event, say: Callable[[LoadCounts], None]
) -> None:
    """Offer statements of the demo store until told to stop."""
    generator = WorkloadGenerator(
        url,
        offer.arrivals(),
        max_concurrency=offer.clients,
        statement_timeout_s=offer.statement_timeout_s,
        application_name=APPLICATION_NAME,
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
                    backlog=stats.waiting > offer.clients,
                )
            )
    finally:
        generator.stop(timeout_s=STOP_TIMEOUT_S)


def _stop_at_end_of(lines: Iterable[str], stop: threading.Event) -> None:
    for _ in lines:
        pass
    stop.set()


def main() -> None:
    """Offer what standard input asks for until it is closed."""
    url, offer = from_text(sys.stdin.readline())
    stop = threading.Event()
    threading.Thread(target=_stop_at_end_of, args=(sys.stdin, stop), daemon=True).start()

    def say(counts: LoadCounts) -> None:
        try:
            print(json.dumps(asdict(counts)), flush=True)
        except BrokenPipeError:
            stop.set()

    if isinstance(offer, StoreOffer):
        offer_store(url, offer, stop, say)
    else:
        offer_pgbench(url, offer, APPLICATION_NAME, stop, say)


if __name__ == "__main__":
    main()
