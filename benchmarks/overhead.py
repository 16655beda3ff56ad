"""What the autopilot itself costs while it observes: ``python -m benchmarks.overhead``.

Starts the product in mode ``observe`` on its embedded server, with the demo workload at a fixed
moderate rate, waits until start-up and baseline are over, and measures

1. the CPU time of its processes, and of its sessions on the server, as a share of the machine's
   core-seconds (wall seconds times cores);
2. the execution and planning time of its own statements, from pg_stat_statements;
3. latency and throughput of the workload with the tuner running against the tuner stopped
   (SIGSTOP), in randomised ABBA / BAAB blocks, as a ratio with its 95 % interval.

Definitions and figures: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import psutil
import psycopg2
import psycopg2.extensions
import yaml
from rich.console import Console
from rich.table import Table

from backend.config import load_settings
from backend.db_connector import STATEMENT_TAG, TUNER_APPLICATION, WATCHDOG_APPLICATION
from backend.domain.modes import Phase
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import StoreError
from backend.run_options import ENVIRONMENT_KEY
from backend.servers import embedded_server
from backend.telemetry import SqlStore, open_store
from backend.workload.generator import ALL_CLASSES
from benchmarks.harness.command_line import end_in_good_order
from benchmarks.harness.ratio import Ratio
from benchmarks.harness.server import data_folder

REPOSITORY = Path(__file__).resolve().parents[1]
PROMISE = 0.01
"""The tuner's CPU, and the server time of its statements: each at most this share."""
PROCESSES = ("tuner", "watchdog", "dashboard", "workload")
OUR_SESSIONS = (TUNER_APPLICATION, WATCHDOG_APPLICATION)
RATE_PER_S = 16.0
SEGMENT_S, SETTLE_S = 12.0, 2.0
COST_SHARE = 0.3
"""Share of the time for the cost; the rest is for the blocks."""
START_TIMEOUT_S = 300.0
SAMPLE_S = 1.0
CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Row:
    """A line of the table: a cost as CPU or server seconds over a wall time."""

    name: str
    seconds: float
    wall_s: float
    promised: bool = False

    @property
    def share(self) -> float:
        """Share of the machine's core-seconds, in [0, 1]."""
        return self.seconds / (self.wall_s * cores())


def cores() -> int:
    """Cores of this machine."""
    return psutil.cpu_count() or 1


class Product:
    """The running product: its processes, its server and its store.

    Args:
        data_dir: where it writes; an earlier run's loaded demo store is used again.
        scale: of the demo store.
        rate_per_s: statements offered a second.
    """

    def __init__(self, data_dir: Path, scale: float, rate_per_s: float) -> None:
        self.data_dir = data_dir
        self._config = data_dir / "overhead.yaml"
        sections = {
            "mode": "observe",  # in which nothing is tried, no statement either
            "workload": {
                "name": "mixed",
                "data_scale_factor": scale,
                "queries_per_hour": round(rate_per_s * 3600),
            },
            "dashboard": {"port": _free_port()},
        }
        self._config.write_text(yaml.safe_dump(sections), encoding="utf-8")
        paths = {"paths": {"data_dir": str(data_dir)}}
        self.server: EmbeddedPostgres = embedded_server(
            load_settings(self._config, overrides=paths, environ={})
        )
        self._supervisor: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[SqlStore]:
        """Start it, wait until the baseline is taken, yield its store; end it in good order."""
        began = datetime.now(timezone.utc)
        command = [sys.executable, str(REPOSITORY / "run.py")]
        with (self.data_dir / "console.log").open("ab") as console:
            self._supervisor = subprocess.Popen(
                [*command, "--data-dir", str(self.data_dir), "--config", str(self._config)],
                cwd=REPOSITORY,
                env={k: v for k, v in os.environ.items()
                     if not k.startswith("AUTOPILOT_") and k != "DATABASE_URL"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            store = self._wait(self._open_store, "the store")
            with contextlib.closing(store):
                self._wait(lambda: self._is_observing(store, began), "the end of the baseline")
                yield store
        finally:
            self._supervisor.terminate()
            self._supervisor.wait(120)

    def _open_store(self) -> SqlStore | None:
        with contextlib.suppress(StoreError):
            return open_store(f"sqlite:///{self.data_dir / 'telemetry.db'}", read_only=True)
        return None

    def _is_observing(self, store: SqlStore, began: datetime) -> bool:
        status = store.status()
        return status is not None and status.at >= began and status.phase is Phase.LEARNING

    def _wait(self, look: Callable[[], Found | None], what: str) -> Found:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (found := look()):
            if self._supervisor is not None and self._supervisor.poll() is not None:
                raise SystemExit(f"the product ended; see {self.data_dir / 'console.log'}")
            if time.monotonic() > deadline_s:
                raise SystemExit(f"{what} did not come within {START_TIMEOUT_S:.0f} s")
            time.sleep(0.5)
        return found

    def process(self, name: str) -> psutil.Process:
        """The process of this run with this name."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[-2:] == ["process", name] and (
                    json.dumps(str(self._config)) in process.environ().get(ENVIRONMENT_KEY, "")
                ):
                    return process
        raise SystemExit(f"there is no {name} process; see {self.data_dir / 'console.log'}")

    def connect(self) -> psycopg2.extensions.connection:
        """A connection for looking on; it belongs to the measurement, not to the product."""
        url = self.server.dsn()
        connection = psycopg2.connect(
            host=url.host, port=url.port, user=url.username, password=url.password,
            dbname=url.database, application_name="overhead_benchmark",
        )  # fmt: skip
        connection.autocommit = True
        return connection


class SessionCpu:
    """CPU seconds of the server's backends of our sessions, summed over looks."""

    def __init__(self, connection: psycopg2.extensions.connection) -> None:
        self._connection = connection
        self._last_s: dict[int, float] = {}
        self.total_s = 0.0
        self.look()
        self.total_s = 0.0

    def look(self) -> None:
        """Add what each backend used since the last look; a new one counts from its beginning."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = ANY(%s)",
                [list(OUR_SESSIONS)],
            )
            pids = [row[0] for row in cursor.fetchall()]
        now_s = {pid: used for pid in pids if (used := _cpu_s(pid)) is not None}
        self.total_s += sum(used - self._last_s.get(pid, 0.0) for pid, used in now_s.items())
        self._last_s = now_s


def _cpu_s(pid: int) -> float | None:
    """User and system CPU seconds of a process (proc(5), fields 14 and 15 of stat)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS_PER_S


def statement_seconds(connection: psycopg2.extensions.connection) -> float:
    """Execution and planning seconds of our statements since the statistics began."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(total_exec_time + total_plan_time), 0) / 1000 "
            "FROM pg_stat_statements WHERE strpos(query, %s) > 0",
            [STATEMENT_TAG],
        )
        (seconds,) = cursor.fetchone() or (0.0,)
    return float(seconds)


def measure_cost(product: Product, duration_s: float) -> list[Row]:
    """CPU of processes and sessions over ``duration_s`` seconds."""
    connection = product.connect()
    processes = {name: product.process(name) for name in PROCESSES}
    sessions = SessionCpu(connection)
    statements_s = statement_seconds(connection)
    used_s = {name: _process_cpu_s(process) for name, process in processes.items()}
    began_s = time.monotonic()
    while time.monotonic() - began_s < duration_s:
        time.sleep(SAMPLE_S)
        sessions.look()
    wall_s = time.monotonic() - began_s
    used_s = {name: _process_cpu_s(processes[name]) - used_s[name] for name in processes}
    statements_s = statement_seconds(connection) - statements_s
    connection.close()
    return [
        Row("tuner process, CPU", used_s["tuner"], wall_s, promised=True),
        Row("server backends of our sessions, CPU", sessions.total_s, wall_s, promised=True),
        Row("our statements, execution and planning", statements_s, wall_s, promised=True),
        Row("watchdog process, CPU", used_s["watchdog"], wall_s),
        Row("dashboard process, CPU (no page open)", used_s["dashboard"], wall_s),
        Row("workload generator, CPU (the demo only)", used_s["workload"], wall_s),
    ]


def _process_cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


# -- with against without ---------------------------------------------------------------------


@dataclass(frozen=True)
class Segment:
    """What the workload's clients saw in one segment."""

    mean_ms: float
    completed_per_s: float


def stop_between_writes(tuner: psutil.Process, store_path: Path) -> None:
    """SIGSTOP the tuner at a moment when it does not hold the store's write lock."""
    while True:
        tuner.suspend()
        connection = sqlite3.connect(store_path, timeout=0.5, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            return
        except sqlite3.OperationalError:
            tuner.resume()
            time.sleep(0.05)
        finally:
            connection.close()


def measure_segment(store: SqlStore) -> Segment:
    """Let a segment pass, and sum up the client intervals that lie within it."""
    time.sleep(SETTLE_S)
    began = datetime.now(timezone.utc)
    time.sleep(SEGMENT_S - SETTLE_S)
    ended = datetime.now(timezone.utc)
    intervals = [
        interval
        for interval in store.client_intervals(since=began, class_name=ALL_CLASSES)
        if interval.ended_at <= ended and interval.completed and interval.service_mean_ms
    ]
    completed = sum(interval.completed for interval in intervals)
    seconds = sum((i.ended_at - i.started_at).total_seconds() for i in intervals)
    if not completed:
        raise SystemExit("the workload completed nothing within a segment; is the machine stuck?")
    total_ms = sum(i.completed * (i.service_mean_ms or 0.0) for i in intervals)
    return Segment(total_ms / completed, completed / seconds)


def measure_ratios(product: Product, store: SqlStore, duration_s: float) -> list[Ratio]:
    """Blocks of four segments, ABBA or BAAB by lot; A is with the tuner, B without."""
    tuner, lot = product.process("tuner"), random.Random(0)
    latency: list[float] = []
    throughput: list[float] = []
    for _ in range(max(2, int(duration_s // (4 * SEGMENT_S)))):
        seen: dict[str, list[Segment]] = {"A": [], "B": []}
        for arm in lot.choice(("ABBA", "BAAB")):
            if arm == "B":
                stop_between_writes(tuner, product.data_dir / "telemetry.db")
            try:
                seen[arm].append(measure_segment(store))
            finally:
                tuner.send_signal(signal.SIGCONT)
        latency.append(_log_ratio(seen, lambda segment: segment.mean_ms))
        throughput.append(_log_ratio(seen, lambda segment: segment.completed_per_s))
    return [
        Ratio.of("mean latency at the clients", latency),
        Ratio.of("statements completed a second", throughput),
    ]


def _log_ratio(seen: dict[str, list[Segment]], value: Callable[[Segment], float]) -> float:
    mean = {arm: fmean(math.log(value(segment)) for segment in seen[arm]) for arm in seen}
    return mean["A"] - mean["B"]


# -- the table --------------------------------------------------------------------------------


def print_table(rows: Sequence[Row], ratios: Sequence[Ratio], console: Console) -> None:
    """One table: costs, then ratios."""
    table = Table(title="The autopilot's own cost in mode observe", title_justify="left")
    for column, justify in (("what", "left"), ("measured", "right"), ("promise", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        promise = ""
        if row.promised:
            promise = f"at most {PROMISE:.0%}: {'kept' if row.share <= PROMISE else 'BROKEN'}"
        table.add_row(row.name, f"{row.share:.2%} of {cores()} cores", promise)
    for ratio in ratios:
        table.add_row(
            f"{ratio.name}, with / without",
            f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
            f"95 % interval over {ratio.blocks} blocks",
        )
    console.print(table)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="of measuring (12)")
    parser.add_argument("--data-dir", type=Path, help="kept and used again; default: a fresh one")
    parser.add_argument("--scale", type=float, default=0.1, help="of the demo store (0.1)")
    parser.add_argument(
        "--rate", type=float, default=RATE_PER_S, help=f"statements a second ({RATE_PER_S:g})"
    )
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    console = Console(width=110)
    end_in_good_order()
    with contextlib.ExitStack() as stack:
        data_dir = stack.enter_context(data_folder(arguments.data_dir, "overhead-"))
        product = Product(data_dir, arguments.scale, arguments.rate)
        store = stack.enter_context(product.running())
        total_s = arguments.minutes * 60
        console.print(f"start-up and baseline are over; measuring for {total_s:.0f} s")
        rows = measure_cost(product, COST_SHARE * total_s)
        ratios = measure_ratios(product, store, (1 - COST_SHARE) * total_s)
        print_table(rows, ratios, console)


if __name__ == "__main__":
    main()
