"""``run.py doctor``: what is connected, what our role may do, and the SQL that grants the rest."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from backend.config import Settings
from backend.errors import PrivilegeError
from backend.servers import embedded_server, postgres_target

APPLICATION = "autopilot_doctor"


def examine(settings: Settings, console: Console) -> None:
    """Look at the server of these settings and print what was found.

    The embedded server is started for it, and stopped again where it did not run before.

    Raises:
        ServerConnectionError, EmbeddedServerError: with the remedy.
    """
    server = embedded_server(settings) if settings.is_embedded else None
    running = server is None or server.is_running()
    target = postgres_target(settings, application_name=APPLICATION)
    try:
        info = target.describe()
        try:
            file_errors = target.config_file_errors()
        except PrivilegeError:
            file_errors = []  # told below, as a missing capability
    finally:
        target.close()
        if server is not None and not running:
            server.stop()
    console.print(f"{info.version_text} at {info.address}", markup=False)
    console.print(
        f"host: {info.host.memory_bytes / 2**30:.1f} GiB of memory, "
        f"{info.host.cpu_count:g} cores{'' if info.host.is_local else ' (remote: unknown)'}"
    )
    table = Table("capability", "we have it", "what is missing, and the remedy")
    for name, have in info.capabilities.items():
        table.add_row(name, "yes" if have else "no", info.missing.get(name, ""))
    console.print(table)
    for error in file_errors:
        console.print(f"error in the server's settings: {error}", markup=False)
    if file_errors:
        console.print("As long as they stand, a change may not take effect.")
    console.print(f"mode to start in: {settings.effective_mode.value}")
