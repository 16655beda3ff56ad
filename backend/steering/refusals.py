"""What a server's refusal means, without its words: they may repeat literals."""

from __future__ import annotations

import re

_SQLSTATE = re.compile(r"[( ]([0-9A-Z]{5})\)\s*$")
_TRANSIENT_CLASSES = ("40", "55", "57")
_SAID = {
    "42501": "the role that tries statements may not read all that it reads",
    "42P01": "a table of it does not exist",
    "42703": "a column of it does not exist",
}


def said(message: object) -> str:
    """Why the server refused a statement, without its words, which may repeat the literals."""
    code = _sqlstate(message) or "unknown"
    return _SAID.get(code, f"the server refuses it (SQLSTATE {code})")


def is_transient(message: object) -> bool:
    """Whether it was somebody's lock, a cancelled statement or a server's trouble: no verdict.

    https://www.postgresql.org/docs/current/errcodes-appendix.html, classes 40, 55 and 57.
    """
    return _sqlstate(message)[:2] in _TRANSIENT_CLASSES


def _sqlstate(message: object) -> str:
    found = _SQLSTATE.search(str(message))
    return found.group(1) if found else ""
