"""The rows of a store's file as they lie there, by plain SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

Row = dict[str, Any]
JSON_COLUMNS = {
    "config", "quality_reasons", "rates", "gauges", "before", "after", "reasons", "detail",
    "block_log_ratios", "class_effects", "before_value", "after_value", "steering", "weights",
    "genes", "fitness", "profile", "comparison", "evidence", "document",
}  # fmt: skip
TEXT_COLUMNS = {("policy_updates", "weights"), ("changes", "detail")}
"""Of these tables they are no JSON."""
TIME_COLUMNS = {
    "at", "started_at", "ended_at", "created_at", "finished_at", "settled_at", "first_seen_at",
}  # fmt: skip
FLAG_COLUMNS = {"active", "deployed", "needs_restart"}
ENDED = ("accept", "reject", "inconclusive")


class RawStore:
    """The tables of a store's file as rows of plain values.

    Args:
        path: of the file; it is only read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        present = {row["name"]: row["document"] for row in self.rows("present", order="name")}
        self.status: Row = present["status"]
        self.knobs = {knob["name"]: knob for knob in present["knobs"]}
        self.workloads: Sequence[Row] = present.get("workloads", [])
        self.start = datetime.fromisoformat(self.status["started_at"])

    def rows(self, table: str, order: str = "id") -> list[Row]:
        """All rows of a table."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()
        return [
            {name: _value(table, name, row[name]) for name in row.keys()}  # noqa: SIM118
            for row in found
        ]

    def of_the_run(self, table: str, time: str, order: str = "id") -> list[Row]:
        """The rows of a table since the run began."""
        return [row for row in self.rows(table, order) if row[time] >= self.start]


def _value(table: str, name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in JSON_COLUMNS and (table, name) not in TEXT_COLUMNS:
        return json.loads(value)
    if name in TIME_COLUMNS:
        return datetime.fromisoformat(value).replace(tzinfo=timezone.utc)
    return bool(value) if name in FLAG_COLUMNS else value


def plain(row: Row) -> Row:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }
