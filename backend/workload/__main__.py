"""`python -m backend.workload`: offer the workload to a database from the command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from backend.errors import AutopilotError, WorkloadError
from backend.run_options import FAST_MODE_FACTOR
from backend.workload.generator import ALL_CLASSES, ClientInterval
from backend.workload.mixes import MIXES
from backend.workload.runner import WorkloadSettings, run_workload
from backend.workload.shape import DEMO_SCALE


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m backend.workload", description=__doc__)
    parser.add_argument("--url-env", default="DATABASE_URL", metavar="VAR",
                        help="environment variable that holds the database's URL")  # fmt: skip
    parser.add_argument("--mix", default="mixed", choices=sorted(MIXES))
    parser.add_argument("--queries", type=float, help="statements per simulated hour")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=DEMO_SCALE, help="scale of the demo store")
    parser.add_argument(
        "--fast-mode", action="store_true", help=f"{FAST_MODE_FACTOR:g} simulated seconds a second"
    )
    parser.add_argument("--max-concurrency", type=int, default=8)
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S real seconds")
    return parser.parse_args(argv)


def _print_interval(interval: ClientInterval) -> None:
    whole = next(entry for entry in interval.classes if entry.class_name == ALL_CLASSES)
    mean, p95 = whole.mean_ms or 0.0, whole.p95_ms or 0.0
    sys.stdout.write(
        f"{interval.ended_at:%H:%M:%S} offered {whole.offered} completed {whole.completed} "
        f"errors {whole.errors} timeouts {whole.timeouts} dropped {whole.dropped} "
        f"late {whole.late} mean {mean:.1f} ms p95 {p95:.1f} ms\n"
    )
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    """Run until the duration has passed, Ctrl-C or SIGTERM; return the exit code."""
    arguments = _arguments(argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = WorkloadSettings(
        mix=arguments.mix,
        queries_per_hour=arguments.queries,
        seed=arguments.seed,
        time_scale=FAST_MODE_FACTOR if arguments.fast_mode else 1.0,
        scale=arguments.scale,
        max_concurrency=arguments.max_concurrency,
    )
    try:
        try:
            url = make_url(os.environ[arguments.url_env])
        except KeyError:
            raise WorkloadError(
                f"the environment variable {arguments.url_env} is not set",
                remedy="set it to a URL such as postgresql://user@127.0.0.1:5432/shop",
            ) from None
        except ArgumentError:
            raise WorkloadError(
                f"the environment variable {arguments.url_env} holds no database URL",
                remedy="set it to a URL such as postgresql://user@127.0.0.1:5432/shop",
            ) from None
        sys.stdout.write(f"schedule {settings.schedule().short_fingerprint}\n")
        if arguments.duration is not None:
            timer = threading.Timer(arguments.duration, stop.set)
            timer.daemon = True
            timer.start()
        run_workload(url, settings, stop, _print_interval)
    except AutopilotError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
