"""``python -m tests.faults.catalogue``: do the faults, print the table, write it as JSON."""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.faults.catalogue.all_faults import ALL_FAULTS
from tests.faults.catalogue.fault import Fault
from tests.faults.catalogue.runner import Row, plan, results_in, run, table

console = Console()


def main(
    only: Annotated[list[str] | None, typer.Option(help="Faults whose key begins so.")] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="Of the repeats; one at least.")] = 1.0,
    minutes: Annotated[float, typer.Option(help="Nothing new begins after so long.")] = 240.0,
    folder: Annotated[Path, typer.Option(help="Results; what is done there stays done.")] = Path(
        "build/faults"
    ),
) -> None:
    """Do the faults to real processes, print the table, write it to FOLDER/faults.json."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and tuners end with it
    chosen = [f for f in ALL_FAULTS if not only or f.key.startswith(tuple(only))]
    results = results_in(folder / "repeats.jsonl")
    end_s = time.monotonic() + 60 * minutes
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("", total=sum(1 for _ in plan(chosen, share)) + 1)

        def go_on(fault: Fault, number: int) -> bool:
            progress.update(task, advance=1, description=fault.key)
            return time.monotonic() < end_s

        run(chosen, results, share=share, go_on=go_on)
    rows = table(chosen, list(results.read().values()))
    (folder / "faults.json").write_text(
        json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8"
    )
    console.print(_printed(rows))
    for row in rows:
        for why in row.why:
            console.print(f"{row.fault}: {why}", markup=False, highlight=False)
    raise typer.Exit(0 if all(row.kept for row in rows) else 1)


def _printed(rows: list[Row]) -> Table:
    printed = Table("", "fault", "repeats", "survived", "restored in, p50 [s]", "max [s]")
    for row in rows:
        printed.add_row(
            str(row.item),
            row.fault,
            str(row.repeats),
            str(row.survived) if row.survived == row.repeats else f"[red]{row.survived}[/red]",
            _seconds(row.restored_p50_s),
            _seconds(row.restored_max_s),
        )
    return printed


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    typer.run(main)
