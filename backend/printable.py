"""Foreign text kept away from terminals, which take control characters for commands."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """The text with a space for each character that does not print, but for those to keep."""
    return "".join(c if c.isprintable() or c in keep else " " for c in text)
