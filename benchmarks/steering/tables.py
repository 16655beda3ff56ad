"""The tables of the steering benchmark: one for each matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.steering.runs import Run


def print_tables(runs: Sequence[Run], methods: Sequence[str], console: Console) -> None:
    """Print mean ± standard deviation over the seeds, for each matrix and method."""
    for name in dict.fromkeys(run.cell.matrix for run in runs):
        of_matrix = [run for run in runs if run.cell.matrix == name]
        one = of_matrix[0]
        whole = one.cell.queries == one.cell.hint_sets == 1.0
        total = f"default {one.default_s:.1f} s, oracle {one.oracle_s:.1f} s" if whole else (
            f"{one.cell.queries:.0%} of the queries, {one.cell.hint_sets:.0%} of the hint sets"
        )  # fmt: skip
        table = Table(title=f"{name}: {total}", title_justify="left")
        table.add_column("method")
        table.add_column("runs", justify="right")
        for budget_s in one.cell.budgets_s:
            table.add_column(f"{budget_s:g} s", justify="right")
        table.add_column("probes", justify="right")
        table.add_column("stopped", justify="right")
        table.add_column("thinking s", justify="right")
        for method in methods:
            table.add_row(*_row(method, [r for r in of_matrix if r.cell.method == method], whole))
        console.print(table)


def _row(method: str, runs: Sequence[Run], whole: bool) -> list[str]:
    """Totals in seconds on a whole matrix, shares of the reachable saving on parts of it."""
    if not runs:
        return [method, "0"]
    shown = []
    for budget in range(len(runs[0].cell.budgets_s)):
        values = [r.spent[budget].total_s if whole else r.reached(budget) for r in runs]
        digits = 3 if not whole else 0 if runs[0].default_s > 1000.0 else 1
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        shown.append(f"{np.mean(values):.{digits}f}{spread}")
    last = [run.spent[-1] for run in runs]
    probes = np.mean([mark.probes for mark in last])
    stopped = np.mean([mark.timed_out / max(mark.probes, 1) for mark in last])
    thinking_s = [f"{np.mean([r.spent[i].thinking_s for r in runs]):.1f}" for i in (0, -1)]
    return [
        method, str(len(runs)), *shown, f"{probes:.0f}", f"{stopped:.0%}", " … ".join(thinking_s)
    ]  # fmt: skip
