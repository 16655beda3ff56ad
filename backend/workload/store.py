"""The demo store: loads, finds and verifies the shop in a PostgreSQL database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
from sqlalchemy.engine import URL

from backend.errors import WorkloadError
from backend.workload import load_steps, verify
from backend.workload.connection import connect
from backend.workload.load_steps import LoadStep
from backend.workload.shape import StoreShape
from backend.workload.verify import CheckResult

SCHEMA_VERSION = 1
"""Raised whenever the loaded content changes, so that an older store is not taken for this one."""

LOADER_LOCK = 0x5B0B
LANES = 2
COMPLETE = "complete"

ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True)
class StoreIdentity:
    """What a loaded (or half-loaded) store was made from."""

    version: int
    scale: float
    seed: int

    def __str__(self) -> str:
        """Name the identity in messages."""
        return f"version {self.version}, scale {self.scale:g}, seed {self.seed}"


class DemoStore:
    """The demo shop in one database, in the schemas `shop` (data) and `shop_load` (progress).

    Args:
        url: the database to load into; its role must be allowed to create schemas.
        scale: 1.0 is about 10 million rows.
        seed: the content is a pure function of (scale, seed).

    Raises:
        WorkloadError: when the scale is out of bounds.
    """

    def __init__(self, url: URL, *, scale: float, seed: int = 0) -> None:
        self._url = url
        self.shape = StoreShape.at_scale(scale)
        self.identity = StoreIdentity(SCHEMA_VERSION, scale, seed)

    def is_loaded(self) -> bool:
        """Return whether exactly this store (version, scale, seed) is loaded completely."""
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('shop_load.load_parameters') IS NOT NULL")
            if not _scalar(cursor):
                return False
            return _identity(cursor) == self.identity and COMPLETE in _finished(cursor)

    def load(self, on_progress: ProgressCallback | None = None) -> None:
        """Load the store, going on where an earlier load stopped.

        Each step is committed together with its row in `shop_load.load_progress`. Two
        connections work at once.

        Args:
            on_progress: called as (step, done, total) after each step, from the loading threads.

        Raises:
            WorkloadError: another store lies there, another loader is at work, or a step failed.
        """
        with closing(self._connect()) as guard, guard.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOADER_LOCK,))
            if not _scalar(cursor):
                raise WorkloadError(
                    "another process is loading the demo store into this database",
                    remedy="wait until it has finished",
                )
            self._prepare(cursor)
            finished = _finished(cursor)
            phases = [
                load_steps.row_steps(self.shape, self.identity.seed),
                load_steps.index_steps(),
                load_steps.key_steps(self.shape),
                load_steps.vacuum_steps(),
                [LoadStep(COMPLETE, 0, "CHECKPOINT", transactional=False)],
            ]
            progress = _Progress(
                total=sum(len(phase) for phase in phases), done=len(finished), report=on_progress
            )
            for phase in phases:
                self._run_phase([step for step in phase if step.name not in finished], progress)

    def drop(self) -> None:
        """Remove the store: the schemas `shop` and `shop_load` with all that is in them."""
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA IF EXISTS shop CASCADE")
            cursor.execute("DROP SCHEMA IF EXISTS shop_load CASCADE")

    def verify(self) -> list[CheckResult]:
        """Check counts, keys and distributions; see :mod:`backend.workload.verify`."""
        if not self.is_loaded():
            return [CheckResult("loaded", False, f"no complete store of {self.identity} here")]
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            return verify.run_checks(cursor, self.shape)

    def size_bytes(self) -> int:
        """Return the size of the whole database, indexes included."""
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_database_size(current_database())")
            return int(_scalar(cursor))

    def _connect(self) -> Any:
        return connect(self._url, application_name="autopilot_demo_loader")

    def _prepare(self, cursor: Any) -> None:
        cursor.execute(load_steps.prepare_sql(self.identity.seed))
        found = _identity(cursor)
        if found is not None and found != self.identity:
            raise WorkloadError(
                f"a demo store of {found} lies in this database, {self.identity} was asked for",
                remedy="use that scale and seed, or drop the store first",
            )
        if found is None:
            cursor.execute(Path(__file__).with_name("schema.sql").read_text(encoding="utf-8"))
            cursor.execute(
                "INSERT INTO shop_load.load_parameters VALUES (%s, %s, %s)",
                (self.identity.version, self.identity.scale, self.identity.seed),
            )

    def _run_phase(self, steps: list[LoadStep], progress: _Progress) -> None:
        failures: list[BaseException] = []
        stop = threading.Event()

        def work(lane: int) -> None:
            try:
                self._run_lane((step for step in steps if step.lane == lane), progress, stop)
            except BaseException as error:
                failures.append(error)
                stop.set()

        threads = [
            threading.Thread(target=work, args=(lane,), name=f"load-{lane}")
            for lane in range(LANES)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def _run_lane(
        self, steps: Iterable[LoadStep], progress: _Progress, stop: threading.Event
    ) -> None:
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            # Session settings of the loader alone; the server's own settings stay as they are.
            cursor.execute("SET synchronous_commit = off")
            cursor.execute("SET maintenance_work_mem = '256MB'")
            cursor.execute("SET work_mem = '64MB'")
            cursor.execute("SET max_parallel_maintenance_workers = 0")
            cursor.execute("SET max_parallel_workers_per_gather = 0")
            for step in steps:
                if stop.is_set():
                    return
                try:
                    _run_step(cursor, step)
                except psycopg2.Error as error:
                    raise WorkloadError(
                        f"loading the demo store failed at step {step.name!r}: "
                        f"{str(error).strip().splitlines()[0]}",
                        remedy="remove the cause and load again; finished steps are kept",
                    ) from error
                progress.advance(step.name)


class _Progress:
    def __init__(self, *, total: int, done: int, report: ProgressCallback | None) -> None:
        self._lock = threading.Lock()
        self._total, self._done, self._report = total, done, report

    def advance(self, step: str) -> None:
        with self._lock:
            self._done += 1
            if self._report is not None:
                self._report(step, self._done, self._total)


def _run_step(cursor: Any, step: LoadStep) -> None:
    record = "INSERT INTO shop_load.load_progress (step) VALUES (%s)"
    if not step.transactional:
        cursor.execute(step.sql)
        cursor.execute(record, (step.name,))
        return
    cursor.execute("BEGIN")
    try:
        cursor.execute(step.sql)
        cursor.execute(record, (step.name,))
        cursor.execute("COMMIT")
    except BaseException:
        if cursor.connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            cursor.execute("ROLLBACK")
        raise


def _scalar(cursor: Any) -> Any:
    row = cursor.fetchone()
    return None if row is None else row[0]


def _identity(cursor: Any) -> StoreIdentity | None:
    cursor.execute("SELECT version, scale, seed FROM shop_load.load_parameters")
    row = cursor.fetchone()
    return None if row is None else StoreIdentity(*row)


def _finished(cursor: Any) -> set[str]:
    cursor.execute("SELECT step FROM shop_load.load_progress")
    return {row[0] for row in cursor.fetchall()}
