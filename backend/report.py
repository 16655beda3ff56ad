"""The final report: what was measured, changed and proved, as text, JSON and a printable page.

``reporting.data`` gathers it from the store, ``reporting.tables`` puts it into words and tables,
``reporting.pages`` makes text and HTML of them; this module, the one that others import, writes the
files.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from backend.config import Settings
from backend.errors import StoreError
from backend.reporting.data import FinalReport, build_report
from backend.reporting.measures import Measured
from backend.reporting.pages import to_html, to_text
from backend.run_options import RunOptions
from backend.telemetry.summary import summary_text
from backend.workload.runner import WorkloadSettings

__all__ = [
    "FinalReport",
    "Measured",
    "build_report",
    "summary_text",
    "workload_facts",
    "write_reports",
]


def workload_facts(settings: Settings, options: RunOptions) -> dict[str, object]:
    """What ran, for the report; ``schedule`` is the hash that tells equal loads.

    It is the one that ``python -m backend.workload`` prints.
    """
    run = {"duration_days": options.duration_days, "fast_mode": options.fast_mode}
    if not settings.is_embedded:
        return {"name": "foreign", **run}
    section = settings.workload
    schedule = WorkloadSettings.of(section, options.time_scale).schedule()
    return {
        "name": section.name,
        **run,
        "scale": section.data_scale_factor,
        "seed": section.seed,
        "schedule": schedule.short_fingerprint,
    }


def write_reports(report: FinalReport, folder: Path) -> list[Path]:
    """Write final_report.txt, .json and .html into ``folder``; each is there whole or not at all.

    Raises:
        StoreError: the folder cannot be written.
    """
    contents = {"txt": to_text(report), "json": report.as_json(), "html": to_html(report)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / f"final_report.{end}", text) for end, text in contents.items()]
    except OSError as error:
        raise StoreError(
            f"the reports could not be written to {folder}: {error.strerror}",
            remedy="make the folder writable for this user, or set paths.data_dir",
        ) from error


def _write(path: Path, text: str) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    return path
