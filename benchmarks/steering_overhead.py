"""What the plug-in adds to a statement: ``python -m benchmarks.steering_overhead``.

The shortest statement there is, a row by its key, on the embedded server over its socket of the
loopback, one client. Each round runs the same small transaction (two statements, of which the
first is the one steered) and the same single statement in autocommit mode over five engines in an
order drawn anew, so that whatever else the machine does meets all of them alike:

* no plug-in,
* the plug-in with an empty table,
* the plug-in with a table of 200 other classes (nothing to say to these statements),
* the plug-in that steers: three settings are sent with the statement, under three conditions. They
  change nothing about this plan, so what is measured is the steering alone,
* the same with samples of statements noted.

A time is from `Connection.execute` until its row is read. The table has each engine's quantiles and
what they are above those without plug-in, with a 95 % bootstrap interval over blocks of rounds.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import URL

from backend.embedded_postgres import EmbeddedPostgres
from backend.steering.client import (
    SteeringEntry,
    SteeringTable,
    fingerprint,
    functions_called,
)

FIRST = "SELECT title FROM books WHERE id = :id"
NEXT = "SELECT title, price FROM books WHERE id = :id"
SETTINGS = {"enable_tidscan": "off", "geqo_effort": "6", "enable_partition_pruning": "off"}
UNDER = {"enable_tidscan": "on", "geqo_effort": "5", "enable_partition_pruning": "on"}
OTHER_CLASSES = 200
ROWS = 100_000
BLOCKS = 50
RESAMPLES = 1000
WARM_UP_ROUNDS = 500
KINDS = ("autocommit", "in a transaction", "the statement after it")
WITHOUT = "no plug-in"

Times = dict[tuple[str, str], NDArray[np.float64]]


class FixedTable:
    """A table that never changes."""

    def __init__(self, *entries: SteeringEntry) -> None:
        self._table = SteeringTable(entries)

    def refresh(self) -> SteeringTable:
        """The table."""
        return self._table


def entry(sql: str) -> SteeringEntry:
    """An entry that sets what does not matter to the statement."""
    return SteeringEntry(
        fingerprint(sql),
        '"$user", public',
        "three_settings",
        SETTINGS,
        UNDER,
        functions_called(sql) or frozenset(),
        mode="pin",
    )


def engines(url: URL) -> dict[str, Engine]:
    """The engines to compare, by name."""
    plugins.register("query_steering", "backend.steering.client", "QuerySteeringPlugin")
    others = [entry(f"SELECT column_{i} FROM books") for i in range(OTHER_CLASSES)]
    steered = FixedTable(*others, entry(FIRST.replace(":id", "$1")))
    variants = {
        "empty table": (FixedTable(), None),
        f"{OTHER_CLASSES} other classes": (FixedTable(*others), None),
        "steered": (steered, None),
        "steered, sampled": (steered, lambda _classes: None),
    }
    made = {WITHOUT: create_engine(url)}
    for name, (table, samples) in variants.items():
        made[name] = create_engine(
            url,
            plugins=["query_steering"],
            query_steering_table=table,
            query_steering_report=lambda _timings: None,
            query_steering_samples=samples,
        )
    return made


def set_up(url: URL) -> None:
    """Make the table of books."""
    with create_engine(url).begin() as connection:
        connection.execute(text("CREATE TABLE books (id int PRIMARY KEY, title text, price int)"))
        connection.execute(
            text("INSERT INTO books SELECT i, 'Book ' || i, i % 100 FROM generate_series(1, :n) i"),
            {"n": ROWS},
        )
    with create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE books"))


def timed(connection: Connection, statement: Any, id_: int) -> float:
    """Seconds that one statement takes."""
    begun_s = time.perf_counter()
    connection.execute(statement, {"id": id_}).one()
    return time.perf_counter() - begun_s


def measure(made: dict[str, Engine], rounds: int, tell: Callable[[str], None]) -> Times:
    """Seconds by engine and kind, one for each round."""
    generator = random.Random(1)
    times = {(name, kind): np.zeros(rounds) for name in made for kind in KINDS}
    first, following = text(FIRST), text(NEXT)
    sessions = {
        name: (
            engine.connect(),
            engine.connect().execution_options(isolation_level="AUTOCOMMIT"),
        )
        for name, engine in made.items()
    }
    order = list(made)
    for round_ in range(-WARM_UP_ROUNDS, rounds):
        generator.shuffle(order)
        id_ = generator.randint(1, ROWS)
        for name in order:
            transaction, single = sessions[name]
            # The BEGIN is not part of what is compared.
            transaction.exec_driver_sql("SELECT")
            found = (
                timed(single, first, id_),
                timed(transaction, first, id_),
                timed(transaction, following, id_),
            )
            transaction.commit()
            if round_ >= 0:
                for kind, seconds in zip(KINDS, found, strict=True):
                    times[name, kind][round_] = seconds
        if round_ > 0 and round_ % 5000 == 0:
            tell(f"{round_} of {rounds} rounds")
    for pair in sessions.values():
        for session in pair:
            session.close()
    return times


def added_ms(
    with_it: NDArray[np.float64], without: NDArray[np.float64], quantile: float
) -> tuple[float, float, float]:
    """Difference of a quantile in milliseconds, with its 95 % bootstrap interval.

    Whole blocks of successive rounds are drawn, the same for both, since slow spells last.
    """
    generator = np.random.default_rng(1)
    usable = len(with_it) // BLOCKS * BLOCKS
    pairs = np.stack([with_it[:usable], without[:usable]]).reshape(2, BLOCKS, -1)
    drawn = [
        np.quantile(pairs[:, generator.integers(BLOCKS, size=BLOCKS)].reshape(2, -1), quantile, 1)
        for _ in range(RESAMPLES)
    ]
    differences = [float(a - b) for a, b in drawn]
    low, high = np.quantile(differences, [0.025, 0.975])
    point = np.quantile(with_it, quantile) - np.quantile(without, quantile)
    return float(point) * 1e3, float(low) * 1e3, float(high) * 1e3


def print_table(times: Times, names: list[str], console: Console) -> None:
    """One row for each engine and kind."""
    table = Table(title="milliseconds a statement")
    for heading in ("statement", "engine", "p50", "p99", "added to p50", "added to p99"):
        table.add_column(heading, justify="left" if heading in ("statement", "engine") else "right")
    for kind in KINDS:
        without = times[WITHOUT, kind]
        for name in names:
            mine = times[name, kind]
            row = [kind, name, *(f"{np.quantile(mine, q) * 1e3:.3f}" for q in (0.5, 0.99))]
            if name == WITHOUT:
                table.add_row(*row, "", "")
                continue
            for quantile in (0.5, 0.99):
                point, low, high = added_ms(mine, without, quantile)
                row.append(f"{point:+.3f} ({low:+.3f} to {high:+.3f})")
            table.add_row(*row)
        table.add_section()
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steering_overhead",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--rounds", type=int, default=20_000, help="of all engines (20000)")
    rounds = max(BLOCKS, parser.parse_args().rounds)
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="steering-overhead-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(Path(folder))
        try:
            server.ensure_started()
            set_up(server.dsn())
            made = engines(server.dsn())
            times = measure(made, rounds, console.print)
            for engine in made.values():
                engine.dispose()
        finally:
            server.destroy()
    print_table(times, list(made), console)


if __name__ == "__main__":
    main()
