"""``run.py doctor``: what is connected, what is possible there, and what would help where not."""

from __future__ import annotations

from rich.console import Console

from backend.commands.grants import knobs_in_play
from backend.config import Settings
from backend.domain.modes import Mode
from backend.domain.server import ServerInfo
from backend.errors import PrivilegeError
from backend.printable import printable
from backend.servers import embedded_server, postgres_target
from backend.targets.postgresql_checkup import HINT, MISSING, Item

APPLICATION = "autopilot_doctor"
_MARKS = {MISSING: "MISSING", HINT: "hint"}


def examine(settings: Settings, console: Console) -> None:
    """Look at the server of these settings and print what was found, a line an item.

    The embedded server is started for it, and stopped again where it did not run before.

    Raises:
        ServerConnectionError, EmbeddedServerError: with the remedy.
    """
    server = embedded_server(settings) if settings.is_embedded else None
    running = server is None or server.is_running()
    target = postgres_target(settings, application_name=APPLICATION)
    try:
        info = target.describe()
        items = target.check_up(info, knobs_in_play(settings, info.version))
        try:
            file_errors = target.config_file_errors()
        except PrivilegeError:
            file_errors = []  # told as an item of its own
    finally:
        target.close()
        if server is not None and not running:
            server.stop()
    lines = [*_head(info), *_lines(items)]
    for error in file_errors:
        lines.append(f"error in the server's settings: {error}")
    if file_errors:
        lines.append("As long as they stand, a change may not take effect.")
    lines += _verdict(settings, info, items)
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _head(info: ServerInfo) -> list[str]:
    host = info.host
    where = "" if host.is_local else " (another machine: unknown)"
    return [
        f"{info.version_text} at {info.address}",
        f"host: {host.memory_bytes / 2**30:.1f} GiB of memory, {host.cpu_count:g} cores{where}",
    ]


def _lines(items: list[Item]) -> list[str]:
    width = max(len(item.name) for item in items)
    lines = []
    for item in items:
        told = "; ".join(text for text in (item.found, item.consequence) if text)
        remedy = f" -> {item.remedy}" if item.remedy else ""
        mark = _MARKS.get(item.state, "ok")
        lines.append(f"{mark:<8} {item.name:<{width}}  {told}{remedy}")
    return lines


def _verdict(settings: Settings, info: ServerInfo, items: list[Item]) -> list[str]:
    best, wanted = info.best_mode, settings.effective_mode
    lines = [f"best mode that is possible: {best.value}"]
    if best is not Mode.AUTO:
        lines[0] += f" ({info.why_not_further})"
    chosen = info.mode_for(wanted)
    lines.append(f"mode to start in: {chosen.value}")
    if chosen is not wanted:
        lines[-1] += f" ({wanted.value} was asked for)"
    if any(item.state == MISSING for item in items):
        lines.append(f"All of the SQL for a mode: run.py grants --mode {Mode.AUTO.value}")
    return lines
