"""Records what the shipped agent learns from: ``python -m benchmarks.record_workloads``.

Random workloads, made of the demo's statements at other shares, rates and data scales than the ones
that are judged on, run on the embedded server one after the other. Under each, configurations
are measured against the defaults: expert rules, random parts of them, Sobol points near them and
near the defaults, and what a fresh agent asks for. Nothing is deployed; every measurement goes
through the learner into the store, as in the product. Run it again to go on: a workload that has
its measurements is left alone.

``python run.py train --store FILE --out backend/agent/pretrained`` then makes the shipped file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from backend.errors import AutopilotError
from backend.telemetry import open_store
from benchmarks.harness.command_line import TimeLimit, add_stop_after, end_in_good_order, whole
from benchmarks.recording.session import record
from benchmarks.recording.workloads import TrainingWorkload, training_workload

MEASUREMENT_S = 25.0
"""About how long one configuration takes."""
BEGINNING_S = 120.0
"""About how long a workload takes until the first: server, rate, baseline."""


def recorded(store: Path, workload: TrainingWorkload) -> int:
    """How many measurements of a workload the store holds, those of the defaults included."""
    opened = open_store(f"sqlite:///{store.resolve()}")
    try:
        return len(opened.transitions(workload=workload.name))
    finally:
        opened.close()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.record_workloads", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--store", type=Path, default=Path("data/recorded.db"),
                        help="SQLite file to record into")  # fmt: skip
    parser.add_argument("--workloads", type=int, default=12, help="how many workloads")
    parser.add_argument("--first", type=whole, default=0, help="the first one's number (0)")
    parser.add_argument("--configurations", type=int, default=24,
                        help="configurations measured under each, about "
                        f"{MEASUREMENT_S:g} s a piece")  # fmt: skip
    add_stop_after(parser, "measurement")
    parser.add_argument("--seed", type=whole, default=0, help="of workloads, arrivals and designs")
    parser.add_argument("--data-dir", type=Path, default=Path("data/recording"),
                        help="folder of the servers, one for each data scale")  # fmt: skip
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Record until all workloads have their measurements, or the time is over."""
    arguments = _arguments(argv)
    limit = TimeLimit(arguments.stop_after)

    def time_left() -> bool:
        return limit.allows(MEASUREMENT_S)

    def tell(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    complete = 0
    for number in range(arguments.first, arguments.first + arguments.workloads):
        workload = training_workload(arguments.seed, number)
        done = recorded(arguments.store, workload)
        # Each start measures the defaults once more, which counts as one.
        missing = arguments.configurations + 1 - done
        if missing > 0 and limit.allows(BEGINNING_S + MEASUREMENT_S):
            tell(f"workload {number}, scale {workload.scale:g}, "
                 f"{len(workload.weights)} statement classes")  # fmt: skip
            missing -= record(
                workload,
                arguments.store,
                arguments.data_dir,
                configurations=max(missing - 1, 1),
                seed=[arguments.seed, number, done],
                time_left=time_left,
                tell=tell,
            )
            missing -= 1
        complete += missing <= 0
    tell(f"{complete} of {arguments.workloads} workloads are complete in {arguments.store}")
    return 0


if __name__ == "__main__":
    end_in_good_order()
    try:
        sys.exit(main())
    except AutopilotError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
