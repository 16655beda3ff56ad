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
MAX_STATEMENT_LENGTH = 200_000
"""Longer statements (characters) are cut: such are neither tried nor steered."""

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

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_LITERALS = frozenset(("SCONST", "USCONST", "BCONST", "XCONST"))
_COMMENTS = frozenset(("SQL_COMMENT", "C_COMMENT"))
_MAX_COMMENTS = 100
"""PostgreSQL's lexer takes quadratic time for ``/*/*/*``."""


def redact(text: str) -> str:
    """Return ``text`` without what looks like a secret, NUL or a lone surrogate."""
    if len(text) > MAX_TEXT_LENGTH:
        text = text[:MAX_TEXT_LENGTH] + "…"
    text = _storable(text)
    if "://" in text and "@" in text:
        text = _URL.sub(rf"\1:{HIDDEN}@", text)
    text = _ASSIGNED.sub(rf"\g<1>{HIDDEN}", text)
    return _SQL.sub(rf"\g<1>'{HIDDEN}'", text)


def redact_statement(sql: str) -> str:
    """Return a statement without literals to the letter; hide the texts that it holds nevertheless.

    Unlike :func:`redact` it leaves ``token = $1`` and ``a.password = b.password`` alone, and what
    it hides leaves a statement that reads the same, with the same fingerprint: a literal becomes
    ``'***'``, a comment with what looks like a secret ``/* *** */``. Statements longer than
    ``MAX_STATEMENT_LENGTH`` are cut; what is no SQL is treated as any other text.
    """
    import pglast.parser  # Here, since most processes that open a store never need it.

    if len(sql) > MAX_STATEMENT_LENGTH:
        sql = sql[:MAX_STATEMENT_LENGTH] + "…"
    sql = _storable(sql)
    if sql.count("/*") > _MAX_COMMENTS:
        return redact(sql)
    try:
        # To PostgreSQL other characters are letters; to pglast each makes all offsets dearer.
        tokens = pglast.parser.scan(_NOT_ASCII.sub("q", sql))
    except pglast.Error:
        return redact(sql)
    kept, end = [], 0
    for token in tokens:
        text = sql[token.start : token.end + 1]
        if token.name in _LITERALS:
            text = f"'{HIDDEN}'"
        elif token.name in _COMMENTS and redact(text) != text:
            text = f"/* {HIDDEN} */"
        kept += [sql[end : token.start], text]
        end = token.end + 1
    return "".join([*kept, sql[end:]])


def _storable(text: str) -> str:
    """Return the text without NUL and lone surrogates."""
    text = text.replace("\x00", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


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
