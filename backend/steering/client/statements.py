"""What a statement's text says: its fingerprint, and whether it may be steered at all.

Both come from PostgreSQL's own parser (pglast). Parsing takes from a tenth of a millisecond to
several, so results are kept by text, and new texts get a small share of the time only: an
application that writes its values into the text is steered less, not slowed down.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, TypeVar

import pglast
from pglast.parser import parse_sql_json

MAX_TEXT_LENGTH = 16_384
"""Longer statements are left alone: they are rarely repeated, and dear to parse and to keep."""
CACHED_TEXTS = 1024
PARSING_SHARE = 0.02
"""Of one core, for texts not seen before."""
PARSING_BURST_S = 0.5
PARSER = int(pglast.get_postgresql_version()[0])
"""The major version of PostgreSQL whose grammar pglast has: other grammars, other fingerprints."""
HINT_COMMENT = "/*+"
"""Begins a comment that pg_hint_plan reads: a statement with one has been planned by hand."""
MAY_SELECT = re.compile(r"[\s(]*(?:select|with|values|table|--|/\*)", re.IGNORECASE)
"""How the text of a query begins, so that others need not be parsed."""

_PLACEHOLDER = re.compile(r"%(?:\([^)]*\)s|s|%)")
_VOLATILE = re.compile(
    r"""(?: pg_ | lo_ | brin_ | gin_ | dblink | binary_upgrade_ ) .*
    | amvalidate | array_sample | array_shuffle | clock_timestamp | current_query | currtid2
    | currval | cursor_to_xml | cursor_to_xmlschema | dsnowball_init | dsnowball_lexize
    | gen_random_uuid | lastval | loread | lowrite | nextval | query_to_xml
    | query_to_xml_and_xmlschema | query_to_xmlschema | random | random_normal | set_config
    | setseed | setval | timeofday | ts_rewrite | ts_stat | txid_current | txid_status
    | unique_key_recheck | uuid_generate_v1 | uuid_generate_v1mc | uuid_generate_v4 | uuidv4
    | uuidv7""",
    re.VERBOSE,
)
"""Functions that no table can vouch for: the volatile ones of PostgreSQL and its own modules."""

T = TypeVar("T")


class NotNow(Exception):  # noqa: N818 - not an error: ask again later
    """The time for parsing new texts is used up."""


class ParsingBudget:
    """Time for parsing new texts: a burst, then a share of the time that passes.

    Without a lock: what two threads lose to each other here is a few microseconds of budget.

    Args:
        share: seconds earned a second.
        burst_s: what is there at the start, and can be saved up.
    """

    def __init__(self, share: float = PARSING_SHARE, burst_s: float = PARSING_BURST_S) -> None:
        self._share = share
        self._burst_s = burst_s
        self._left_s = burst_s
        self._seen_s = time.monotonic()

    def spend(self, work: Callable[[], T]) -> T:
        """Do the work and pay for it.

        Raises:
            NotNow: nothing is left.
        """
        now_s = time.monotonic()
        earned_s = (now_s - self._seen_s) * self._share
        self._left_s = min(self._left_s + earned_s, self._burst_s)
        self._seen_s = now_s
        if self._left_s <= 0:
            raise NotNow
        begun_s = time.perf_counter()
        try:
            return work()
        finally:
            self._left_s -= time.perf_counter() - begun_s


def plain_sql(text: str) -> str:
    """The text that a driver sends, with ``$1`` for each ``%s`` and ``%(name)s``."""
    return _PLACEHOLDER.sub(lambda match: "%" if match[0] == "%%" else "$1", text)


def fingerprint(sql: str) -> str:
    """What the statement looks like without its constants, parameters and spacing.

    Args:
        sql: as PostgreSQL reads it; parameters as ``$1``, a constant, or a cast of either.

    Raises:
        pglast.parser.ParseError: PostgreSQL would not read it.
    """
    return str(pglast.fingerprint(sql))


def functions_called(sql: str) -> frozenset[str] | None:
    """The functions that a plain query calls, as it writes them; None: it may not be steered.

    A plain query is one SELECT (VALUES, TABLE) that locks no rows, writes nothing, fills no table,
    draws no sample, and calls no function that is known to be volatile. Whether the functions
    named here are volatile, only the server knows; those behind operators and casts are not named.

    Raises:
        pglast.parser.ParseError: PostgreSQL would not read it.
    """
    statements = json.loads(parse_sql_json(sql)).get("stmts", [])
    if len(statements) != 1 or set(statements[0]["stmt"]) != {"SelectStmt"}:
        return None
    names = set()
    for kind, node in _nodes(statements[0]["stmt"]):
        if kind in ("LockingClause", "intoClause", "RangeTableSample"):
            return None
        if kind.endswith("Stmt") and kind != "SelectStmt":
            return None
        if kind == "FuncCall":
            parts = [part["String"]["sval"] for part in node["funcname"]]
            if _VOLATILE.fullmatch(parts[-1]):
                return None
            names.add(".".join(parts))
    return frozenset(names)


def _nodes(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every named part of a parse tree, with its contents."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from node.items()
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


class StatementReader:
    """Reads the texts of one application, each once.

    Args:
        interpolated: whether the driver replaces ``%s`` and ``%(name)s`` in them.
        budget: the time for texts not seen before.
    """

    def __init__(self, *, interpolated: bool, budget: ParsingBudget | None = None) -> None:
        self._interpolated = interpolated
        self._budget = budget or ParsingBudget()
        self.fingerprint = lru_cache(CACHED_TEXTS)(partial(self._read, fingerprint))
        self.functions_called = lru_cache(CACHED_TEXTS)(partial(self._read, functions_called))

    def _read(self, read: Callable[[str], T | None], text: str) -> T | None:
        """What ``read`` finds, or None: it is no query, too long, hinted or unreadable.

        Raises:
            NotNow: the time for new texts is used up; nothing is remembered.
        """
        if len(text) > MAX_TEXT_LENGTH or HINT_COMMENT in text or MAY_SELECT.match(text) is None:
            return None
        if "\0" in text:  # the parser, written in C, would take it for the end
            return None
        sql = plain_sql(text) if self._interpolated else text
        try:
            return self._budget.spend(lambda: read(sql))
        except NotNow:
            raise
        except Exception:
            # A text that the parser, its JSON or its nesting does not bear is not ours to judge.
            return None
