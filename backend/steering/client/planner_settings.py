"""The planner settings that a steering table may change, and the values it may give them.

A steering table is a file, so it is not trusted: what is not allowed here is never sent. The list
holds settings alone that change a plan and never an answer; bounds keep a wrong or forged table
from asking for memory, workers or planning time without measure. Meaning and units:
https://www.postgresql.org/docs/current/runtime-config-query.html and runtime-config-resource.html.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_WHOLE = re.compile(r"[0-9]{1,10}")
_REAL = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,10})?(?:e[+-]?[0-9]{1,3})?")
_MEMORY = re.compile(r"([0-9]{1,10})(kB|MB|GB|TB)")
_KB = {"kB": 1, "MB": 1024, "GB": 1024**2, "TB": 1024**3}


@dataclass(frozen=True)
class OneOf:
    """A setting with named values; ``allowed`` may be set, ``known`` may be in force."""

    allowed: frozenset[str]
    known: frozenset[str]

    def is_value(self, text: str) -> bool:
        """Whether the server could show this value."""
        return text in self.known

    def may_be_set(self, text: str) -> bool:
        """Whether a steering table may ask for this value."""
        return text in self.allowed


@dataclass(frozen=True)
class Number:
    """A number without unit between two bounds, both allowed."""

    lowest: float
    highest: float
    whole: bool = False

    def is_value(self, text: str) -> bool:
        """Whether the server could show this value."""
        return (_WHOLE if self.whole else _REAL).fullmatch(text) is not None

    def may_be_set(self, text: str) -> bool:
        """Whether a steering table may ask for this value."""
        return self.is_value(text) and self.lowest <= float(text) <= self.highest


@dataclass(frozen=True)
class Memory:
    """An amount of memory with its unit (``64MB``) between two bounds, both allowed."""

    lowest_kb: int
    highest_kb: int

    def is_value(self, text: str) -> bool:
        """Whether the server could show this value."""
        return text == "0" or _MEMORY.fullmatch(text) is not None  # 0 is printed without a unit

    def may_be_set(self, text: str) -> bool:
        """Whether a steering table may ask for this value."""
        match = _MEMORY.fullmatch(text)
        return match is not None and (
            self.lowest_kb <= int(match[1]) * _KB[match[2]] <= self.highest_kb
        )


_ON_OFF = frozenset(("on", "off"))
_SWITCH = OneOf(_ON_OFF, _ON_OFF)
_COST = Number(0.0001, 1_000_000)

SETTINGS: Mapping[str, OneOf | Number | Memory] = {
    "enable_async_append": _SWITCH,
    "enable_bitmapscan": _SWITCH,
    "enable_gathermerge": _SWITCH,
    "enable_group_by_reordering": _SWITCH,
    "enable_hashagg": _SWITCH,
    "enable_hashjoin": _SWITCH,
    "enable_incremental_sort": _SWITCH,
    "enable_indexonlyscan": _SWITCH,
    "enable_indexscan": _SWITCH,
    "enable_material": _SWITCH,
    "enable_memoize": _SWITCH,
    "enable_mergejoin": _SWITCH,
    "enable_nestloop": _SWITCH,
    "enable_parallel_append": _SWITCH,
    "enable_parallel_hash": _SWITCH,
    "enable_partition_pruning": _SWITCH,
    "enable_partitionwise_aggregate": _SWITCH,
    "enable_partitionwise_join": _SWITCH,
    "enable_presorted_aggregate": _SWITCH,
    "enable_seqscan": _SWITCH,
    "enable_sort": _SWITCH,
    "enable_tidscan": _SWITCH,
    "jit": _SWITCH,
    # Without the genetic search joins of many tables are planned for hours: never switched off.
    "geqo": OneOf(frozenset(("on",)), _ON_OFF),
    "geqo_effort": Number(1, 10, whole=True),
    "geqo_threshold": Number(2, 16, whole=True),
    "from_collapse_limit": Number(1, 16, whole=True),
    "join_collapse_limit": Number(1, 16, whole=True),
    "max_parallel_workers_per_gather": Number(0, 8, whole=True),
    "cpu_index_tuple_cost": _COST,
    "cpu_operator_cost": _COST,
    "cpu_tuple_cost": _COST,
    "parallel_setup_cost": Number(0, 1_000_000),
    "parallel_tuple_cost": Number(0, 1_000_000),
    "random_page_cost": _COST,
    "seq_page_cost": _COST,
    "hash_mem_multiplier": Number(1, 16),
    "work_mem": Memory(64, 1024**2),
    "effective_cache_size": Memory(8, 1024**3),
    "min_parallel_index_scan_size": Memory(0, 1024**3),
    "min_parallel_table_scan_size": Memory(0, 1024**3),
}
"""Every setting that may be named, with its values. No value holds a quote, a space or a ``%``."""


def refusal(settings: Mapping[str, str], under: Mapping[str, str]) -> str | None:
    """Why these settings may not be used; None: they may.

    Args:
        settings: the values to send.
        under: the values that must be in force for them to be sent, as ``SHOW`` prints them.
    """
    if not settings:
        return "settings are empty"
    for name, text in under.items():
        kind = SETTINGS.get(name)
        if kind is None:
            return f"{name[:80]!r} is not a planner setting that may be named"
        if not kind.is_value(text):
            return f"{text[:80]!r} is not a value of {name} (write it as SHOW {name} prints it)"
    for name, text in settings.items():
        kind = SETTINGS.get(name)
        if kind is None:
            return f"{name[:80]!r} is not a planner setting that may be set"
        if name not in under:
            return f"it does not say under which value of {name} it was verified"
        if not kind.may_be_set(text):
            return f"{text[:80]!r} is outside the values that {name} may be set to"
    return None
