"""SQL that is handed to people: what comes from servers and clients is quoted, or a comment."""

from __future__ import annotations

from collections.abc import Iterable

_ESCAPES = str.maketrans({"'": "''", "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})

MAX_COMMENT = 300
"""Characters of a statement that a comment repeats."""


def quoted_text(text: str) -> str:
    """A string constant in one line; right whatever ``standard_conforming_strings`` says."""
    escaped = text.translate(_ESCAPES)
    return f"'{escaped}'" if "\\" not in escaped else f"E'{escaped}'"


def comment(text: str, *, at_most: int = MAX_COMMENT) -> str:
    """One line of comment, indented like ``text``, which cannot end it."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    short = flat if len(flat) <= at_most else f"{flat[: at_most - 1]}…"
    return f"-- {' ' * (len(text) - len(text.lstrip(' ')))}{short}"


def commented(lines: Iterable[str]) -> list[str]:
    """Each line as a comment, as long as it is; empty ones stay empty comments."""
    return [comment(line, at_most=10_000) if line else "--" for line in lines]
