"""Keeps secrets and unstorable characters out of the store.

A guard, not the first defence: callers do not hand secrets over. It errs on the side of hiding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
MAX_TEXT_LENGTH = 20_000
"""Longer free texts (characters) are cut: a store is no place for a dump."""

_NAMES = r"(?:password|passwd|passphrase|pwd|secret|secret_?key|api_?key|(?:access_?|auth_?)?token)"
_SECRET_KEY = re.compile(rf"(?:\w*[_\-.])?(?:pg)?{_NAMES}", re.IGNORECASE)
# user:secret@ inside a URL; greedy, since a secret may itself hold an @.
# Its length is bounded, or a hostile text could make the search take quadratic time.
_URL = re.compile(r"(://[^\s:/@'\"]{0,256}):[^\s'\"]{0,1024}@")
# password=x, password: 'x', "password": "x", PGPASSWORD=x, and SQL's PASSWORD 'x'.
_VALUE = r"(?:E?'(?:[^'\\]|''|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^\s,;&}\)\]]+)"
_ASSIGNED = re.compile(
    rf"(?<![a-z0-9])((?:pg)?{_NAMES}['\"]?\s*(?:=>?|:)\s*){_VALUE}", re.IGNORECASE
)
_SQL = re.compile(r"\b(password\s+)E?'(?:[^'\\]|''|\\.)*'?", re.IGNORECASE)


def redact(text: str) -> str:
    """Return ``text`` without what looks like a secret, NUL or a lone surrogate."""
    if len(text) > MAX_TEXT_LENGTH:
        text = text[:MAX_TEXT_LENGTH] + "…"
    if "\x00" in text:
        text = text.replace("\x00", "")
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    if "://" in text and "@" in text:
        text = _URL.sub(rf"\1:{HIDDEN}@", text)
    text = _ASSIGNED.sub(rf"\g<1>{HIDDEN}", text)
    return _SQL.sub(rf"\g<1>'{HIDDEN}'", text)


def redact_deep(value: Any) -> Any:
    """Redact every text in nested mappings and sequences, and all values of secret keys."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            redact(str(key)): HIDDEN
            if item and _SECRET_KEY.fullmatch(str(key))
            else redact_deep(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact_deep(item) for item in value]
    return value
