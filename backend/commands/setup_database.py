"""``run.py setup-database``: the embedded server with the demo store, loaded and checked."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from backend.config import Settings
from backend.servers import demo_store, embedded_server


def set_up(settings: Settings, console: Console, *, verify: bool) -> bool:
    """Load the demo store where it is not loaded yet; goes on where it was interrupted.

    The embedded server is stopped again where it did not run before.

    Args:
        settings: of the server and the store.
        console: for the progress and the result.
        verify: check counts, keys and distributions.

    Returns:
        Whether all checks passed (True without ``verify``).
    """
    server = embedded_server(settings)
    running = server.is_running()
    server.ensure_started()
    store = demo_store(settings, server)
    try:
        if store.is_loaded():
            console.print("The demo store is loaded already.")
        else:
            with Progress(
                SpinnerColumn(), TextColumn("{task.description}"), BarColumn(),
                TimeElapsedColumn(), console=console,
            ) as bar:  # fmt: skip
                task = bar.add_task("loading", total=1.0)
                store.load(
                    lambda step, done, total: bar.update(
                        task, description=f"loading {step}", completed=done / max(total, 1)
                    )
                )
        if not verify:
            return True
        results = store.verify()
        table = Table("check", "result", "detail")
        for check in results:
            table.add_row(check.name, "ok" if check.ok else "FAILED", check.detail)
        console.print(table)
        return all(check.ok for check in results)
    finally:
        if not running:
            server.stop()
