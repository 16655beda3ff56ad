"""What the server said when it refused, without its words: they may repeat literals."""

from __future__ import annotations

import re

_SQLSTATE = re.compile(r"\(([0-9A-Z]{5})\)\s*$")
_SAID = {
    "42501": "the role that tries statements may not read all that it reads",
    "42P01": "a table of it does not exist",
    "42703": "a column of it does not exist",
}


def said(message: object) -> str:
    """Why the server refused a statement, without its words, which may repeat the literals."""
    found = _SQLSTATE.search(str(message))
    code = found.group(1) if found else "unknown"
    return _SAID.get(code, f"the server refuses it (SQLSTATE {code})")
