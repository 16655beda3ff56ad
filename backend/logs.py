"""Log files: optimizer.log (everything) and errors.log, shared by all processes, rotated."""

from __future__ import annotations

import logging

from concurrent_log_handler import ConcurrentRotatingFileHandler

from backend.config import Settings
from backend.telemetry.redaction import redact

FORMAT = "%(asctime)s %(levelname)-7s %(processName)s %(name)s: %(message)s"


class RedactingFormatter(logging.Formatter):
    """Formats a record and removes what looks like a password or a URL with one."""

    def format(self, record: logging.LogRecord) -> str:
        """The formatted, redacted line (with its traceback)."""
        return redact(super().format(record))


def configure_logging(settings: Settings, process: str) -> None:
    """Send this process's log to the two files, under the name of the process."""
    folder = settings.paths.logs_dir
    folder.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    formatter = RedactingFormatter(FORMAT.replace("%(processName)s", process))
    for name, level in (("optimizer.log", settings.logging.level), ("errors.log", "ERROR")):
        handler = ConcurrentRotatingFileHandler(
            str(folder / name),
            maxBytes=settings.logging.max_bytes,
            backupCount=settings.logging.backup_count,
            encoding="utf-8",
        )
        handler.setLevel(level)
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(settings.logging.level)
    # Tells of every run of every job, several times a second.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
