"""Log files: optimizer.log (everything) and errors.log, shared by all processes, rotated."""

from __future__ import annotations

import logging

from concurrent_log_handler import ConcurrentRotatingFileHandler

from backend.config import Settings
from backend.printable import printable
from backend.telemetry.redaction import redact

_FOR_US_ALONE = 0o600  # errors of statements hold values of other people's applications
FORMAT = "%(asctime)s %(levelname)-7s %(processName)s %(name)s: %(message)s"


class RedactingFormatter(logging.Formatter):
    """Formats a record and removes what looks like a password or a URL with one.

    Foreign text in it neither reaches the terminal that shows it nor poses as another record: what
    does not print is a space, and further lines are indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The formatted, redacted line (with its traceback)."""
        text = printable(redact(super().format(record)), keep="\n\t")
        return text.replace("\n", "\n  ")


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
            chmod=_FOR_US_ALONE,
        )
        handler.setLevel(level)
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(settings.logging.level)
    # Tells of every run of every job, several times a second.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
