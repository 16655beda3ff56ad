"""What the store holds, in plain words."""

from __future__ import annotations

from backend.protocols import TelemetryReader


def summary_text(reader: TelemetryReader) -> str:
    """Return the summary."""
    return ""
