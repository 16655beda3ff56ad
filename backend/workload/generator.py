"""The workload generator: offers the schedule to the server, on time, over real connections.

One dispatcher thread hands each arrival to a bounded queue at its time, whether or not earlier
ones have finished (open loop); worker threads, each with a connection of its own, execute them.
The response latency counts from the scheduled arrival, the service latency from the send.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from sqlalchemy.engine import URL

from backend.errors import ServerConnectionError, WorkloadError
from backend.steering.client.plugin import DEFAULT_SHARE
from backend.steering.places import SteeringPlaces
from backend.workload.clients import Client, ClientPool
from backend.workload.latency import LatencyHistogram
from backend.workload.schedule import Arrival
from backend.workload.statements import STATEMENTS

QUEUE_PER_CONNECTION = 16
"""Arrivals that may wait per connection; more are dropped and counted."""

LATE_AFTER_S = 0.25
"""An arrival that waited longer than this for a free connection is counted as late."""

FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 2.0
STATS_HORIZON_S = 120.0
ALL_CLASSES = "*"


@dataclass(frozen=True)
class StatementRecord:
    """What one arrival came to. ``outcome`` is completed, error, timeout or dropped."""

    class_name: str
    outcome: str
    response_ms: float
    service_ms: float
    finished_at: datetime


@dataclass(frozen=True)
class ClassInterval:
    """One class (or ``*``, all) over an interval; latencies in ms of completed statements."""

    class_name: str
    offered: int
    completed: int
    errors: int
    timeouts: int
    dropped: int
    late: int
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    service_mean_ms: float | None


@dataclass(frozen=True)
class ClientInterval:
    """The client's truth between two calls of :meth:`WorkloadGenerator.drain_interval`."""

    started_at: datetime
    ended_at: datetime
    classes: tuple[ClassInterval, ...]
    response: LatencyHistogram


@dataclass(frozen=True)
class WorkloadStats:
    """Totals since the start, and latencies of the last ``horizon_s`` seconds by class."""

    running: bool
    uptime_s: float
    offered: int
    completed: int
    errors: int
    timeouts: int
    dropped: int
    late: int
    waiting: int
    connected: int
    horizon_s: float
    classes: tuple[ClassInterval, ...]


class _Tally:
    """Counts and latencies of one class."""

    __slots__ = ("completed", "dropped", "errors", "late", "offered", "response", "service",
                 "timeouts")  # fmt: skip

    def __init__(self) -> None:
        self.offered = self.completed = self.errors = self.timeouts = self.dropped = self.late = 0
        self.response = LatencyHistogram()
        self.service = LatencyHistogram()

    def merge(self, other: _Tally) -> None:
        self.offered += other.offered
        self.completed += other.completed
        self.errors += other.errors
        self.timeouts += other.timeouts
        self.dropped += other.dropped
        self.late += other.late
        self.response.merge(other.response)
        self.service.merge(other.service)

    def interval(self, name: str) -> ClassInterval:
        return ClassInterval(
            class_name=name,
            offered=self.offered,
            completed=self.completed,
            errors=self.errors,
            timeouts=self.timeouts,
            dropped=self.dropped,
            late=self.late,
            mean_ms=self.response.mean_ms,
            p50_ms=self.response.percentile_ms(0.50),
            p95_ms=self.response.percentile_ms(0.95),
            p99_ms=self.response.percentile_ms(0.99),
            service_mean_ms=self.service.mean_ms,
        )


_Tallies = dict[str, _Tally]


def _merged(parts: list[_Tallies]) -> _Tallies:
    whole: _Tallies = {ALL_CLASSES: _Tally()}
    for part in parts:
        for name, tally in part.items():
            whole.setdefault(name, _Tally()).merge(tally)
            whole[ALL_CLASSES].merge(tally)
    return whole


class WorkloadGenerator:
    """Runs an arrival schedule against a database until it is stopped.

    Args:
        url: the database that holds the demo store.
        schedule: what arrives when, in the order of time.
        max_concurrency: connections, and so statements in flight, at most.
        statement_timeout_s: set on each connection; the server cancels what takes longer.
        application_name: how the connections are named, so that the tuner knows the workload.
        on_record: called with each finished arrival from a worker thread; must be quick.
        steering, default_share: see :class:`ClientPool`.

    Lost connections and refused ones (a server restart, a killed backend) are counted as errors
    of the statements that met them; a worker reconnects with a back-off of 0.05 to 2 s while its
    arrivals wait in the queue.

    Raises:
        WorkloadError: when the concurrency is below 1, or `start` is called twice.
    """

    def __init__(
        self,
        url: URL,
        schedule: Iterable[Arrival],
        *,
        max_concurrency: int = 8,
        statement_timeout_s: float = 30,
        application_name: str = "autopilot_demo",
        on_record: Callable[[StatementRecord], None] | None = None,
        steering: SteeringPlaces | None = None,
        default_share: float = DEFAULT_SHARE,
    ) -> None:
        if max_concurrency < 1:
            raise WorkloadError(f"max_concurrency {max_concurrency} must be at least 1")
        self._schedule = schedule
        self._max_concurrency = max_concurrency
        self._on_record = on_record
        self._clients = ClientPool(
            url,
            application_name=application_name,
            statement_timeout_s=statement_timeout_s,
            steering=steering,
            default_share=default_share,
        )
        self._queue: queue.Queue[tuple[float, Arrival]] = queue.Queue(
            max_concurrency * QUEUE_PER_CONNECTION
        )
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._interval: _Tallies = {}
        self._interval_started = datetime.now(timezone.utc)
        self._seconds: deque[tuple[int, _Tallies]] = deque()
        self._totals = _Tally()
        self._started_s = 0.0
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Start the dispatcher and the workers; returns at once."""
        if self._threads:
            raise WorkloadError("the workload generator was started before")
        self._started_s = time.monotonic()
        self._interval_started = datetime.now(timezone.utc)
        self._threads = [
            threading.Thread(target=self._work, name=f"workload-{k}", daemon=True)
            for k in range(self._max_concurrency)
        ]
        self._threads.append(
            threading.Thread(target=self._dispatch, name="workload-dispatch", daemon=True)
        )
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 10) -> None:
        """Stop offering, let running statements end, cancel those that take longer.

        Returns within about ``timeout_s`` plus the time that a cancel takes.
        """
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._clients.cancel_all()
        for thread in self._threads:
            thread.join(2.0)
        self._clients.report()

    @property
    def failure(self) -> BaseException | None:
        """What ended the run against its will (a fault in schedule or address), if anything."""
        return self._failure

    @property
    def running(self) -> bool:
        """Whether arrivals are being offered."""
        return bool(self._threads) and not self._stopping.is_set()

    def stats(self, horizon_s: float = 60.0) -> WorkloadStats:
        """Return totals since the start and the classes of the last ``horizon_s`` (up to 120 s)."""
        now = int(time.monotonic())
        with self._lock:
            recent = [tallies for second, tallies in self._seconds if second > now - horizon_s]
            classes = _merged(recent)
            totals = self._totals
            return WorkloadStats(
                running=self.running,
                uptime_s=time.monotonic() - self._started_s if self._threads else 0.0,
                offered=totals.offered,
                completed=totals.completed,
                errors=totals.errors,
                timeouts=totals.timeouts,
                dropped=totals.dropped,
                late=totals.late,
                waiting=self._queue.qsize(),
                connected=self._clients.connected,
                horizon_s=min(horizon_s, STATS_HORIZON_S),
                classes=tuple(classes[name].interval(name) for name in sorted(classes)),
            )

    def drain_interval(self) -> ClientInterval:
        """Return counts and latencies by class since the last call, and begin a new interval."""
        with self._lock:
            tallies, self._interval = self._interval, {}
            started, self._interval_started = self._interval_started, datetime.now(timezone.utc)
            ended = self._interval_started
        whole = _merged([tallies])
        return ClientInterval(
            started_at=started,
            ended_at=ended,
            classes=tuple(whole[name].interval(name) for name in sorted(whole)),
            response=whole[ALL_CLASSES].response,
        )

    # -- the dispatcher -----------------------------------------------------------------------

    def _dispatch(self) -> None:
        try:
            for arrival in self._schedule:
                due_s = self._started_s + arrival.offset_s
                if self._stopping.wait(max(0.0, due_s - time.monotonic())):
                    return
                try:
                    self._queue.put_nowait((due_s, arrival))
                except queue.Full:
                    self._count(arrival.class_name, "dropped", due_s, due_s)
        except BaseException as error:
            # Nobody joins this thread while the workload runs: keep the cause for the owner.
            self._failure = error
            self._stopping.set()

    # -- the workers --------------------------------------------------------------------------

    def _work(self) -> None:
        client: Client | None = None
        try:
            while not self._stopping.is_set():
                if client is None:
                    client = self._connected()
                    continue
                try:
                    due_s, arrival = self._queue.get(timeout=0.2)
                except queue.Empty:
                    continue
                sent_s = time.monotonic()
                sql = STATEMENTS[arrival.class_name].sql
                outcome = client.execute(sql, arrival.parameters)
                self._count(arrival.class_name, outcome, due_s, sent_s)
                if not client.is_usable:
                    self._clients.disconnect(client)
                    client = None
        except BaseException as error:
            # As above: with its workers gone one by one, the run would only drop arrivals.
            self._failure = error
            self._stopping.set()
        finally:
            if client is not None:
                self._clients.disconnect(client)

    def _connected(self) -> Client | None:
        """Return a connection, or None when the generator stops first."""
        backoff_s = FIRST_BACKOFF_S
        while not self._stopping.is_set():
            try:
                return self._clients.connect()
            except ServerConnectionError:
                self._stopping.wait(backoff_s)
                backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)
        return None

    def _count(self, class_name: str, outcome: str, due_s: float, sent_s: float) -> None:
        now_s = time.monotonic()
        response_ms, service_ms = (now_s - due_s) * 1e3, (now_s - sent_s) * 1e3
        late = outcome != "dropped" and sent_s - due_s > LATE_AFTER_S
        with self._lock:
            second = int(now_s)
            if not self._seconds or self._seconds[-1][0] != second:
                self._seconds.append((second, {}))
                while self._seconds[0][0] < second - STATS_HORIZON_S:
                    self._seconds.popleft()
            for tally in (
                self._interval.setdefault(class_name, _Tally()),
                self._seconds[-1][1].setdefault(class_name, _Tally()),
                self._totals,
            ):
                tally.offered += 1
                tally.late += late
                if outcome == "completed":
                    tally.completed += 1
                    tally.response.add(response_ms)
                    tally.service.add(service_ms)
                elif outcome == "timeout":
                    tally.timeouts += 1
                elif outcome == "error":
                    tally.errors += 1
                else:
                    tally.dropped += 1
        if self._on_record is not None:
            self._on_record(
                StatementRecord(
                    class_name, outcome, response_ms, service_ms, datetime.now(timezone.utc)
                )
            )
