"""Query steering in words: hint sets, where a class stands, SQL to copy. All pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from backend.domain.modes import Mode
from backend.domain.steering import ClassKey, SteeredClassRecord, SteeringMode, SteeringState

STEPS: Mapping[str, str] = {
    "enable_nestloop": "nested loops",
    "enable_hashjoin": "hash joins",
    "enable_mergejoin": "merge joins",
    "enable_seqscan": "sequential scans",
    "enable_indexscan": "index scans",
    "enable_indexonlyscan": "index-only scans",
    "enable_bitmapscan": "bitmap scans",
    "enable_memoize": "memoizing",
    "enable_material": "materializing",
    "enable_hashagg": "hashed grouping",
    "enable_sort": "sorts",
    "enable_incremental_sort": "incremental sorts",
    "enable_partitionwise_join": "partitionwise joins",
    "enable_partitionwise_aggregate": "partitionwise grouping",
    "enable_parallel_hash": "parallel hash tables",
    "enable_gathermerge": "ordered gathering",
    "jit": "compilation",
}
LONGEST_SUMMARY = 72
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def hint_words(settings: Mapping[str, str]) -> str:
    """A hint set for people: ``no nested loops, work_mem 64MB``."""
    return ", ".join(_setting_words(name, value) for name, value in settings.items())


def hint_summary(settings: Mapping[str, str]) -> str:
    """A hint set in a narrow column: in words, or where these are long their number."""
    text = hint_words(settings)
    return text if len(text) <= LONGEST_SUMMARY else f"{len(settings)} settings"


def _setting_words(name: str, value: str) -> str:
    step = STEPS.get(name)
    if step is not None and value in ("on", "off"):
        return f"no {step}" if value == "off" else step
    if (name, value) == ("max_parallel_workers_per_gather", "0"):
        return "no parallel workers"
    return f"{name} {value}"


def set_lines(settings: Mapping[str, str]) -> str:
    """The hint set as SQL, a line a setting."""
    return "\n".join(
        f"SET {_quoted_name(name)} = '{_doubled(value)}';" for name, value in settings.items()
    )


def _quoted_name(name: str) -> str:
    if _PLAIN_NAME.fullmatch(name):
        return name
    return '"' + name.replace('"', '""') + '"'


def _doubled(value: str) -> str:
    return value.replace("'", "''")


def class_id(key: ClassKey) -> str:
    """A class's key as one text, for ids on a page."""
    return f"{key.fingerprint} {key.search_path}"


@dataclass(frozen=True)
class Standing:
    """Where a class stands: a word, how it is drawn, and why."""

    word: str
    tone: str
    icon: str
    reason: str


_STANDINGS: Mapping[SteeringState, Standing] = {
    SteeringState.VERIFIED: Standing("steered", "good", "signpost-split", ""),
    SteeringState.WITHDRAWN: Standing("withdrawn", "warn", "arrow-counterclockwise", ""),
    SteeringState.EXPLORING: Standing("exploring", "info", "search", ""),
    SteeringState.WAITING: Standing("waiting", "neutral", "hourglass-split", "not explored yet"),
    SteeringState.DEFAULT_BEST: Standing(
        "default is best", "neutral", "check-lg", "no plan was proven faster"
    ),
    SteeringState.REFUSED: Standing("not tried", "neutral", "slash-circle", ""),
}


def standing(record: SteeredClassRecord, mode: Mode | None) -> Standing:
    """Where a class stands while the autopilot is in a mode (None: not known yet)."""
    known = _STANDINGS[record.state]
    reason = record.reason or known.reason
    if record.mode is SteeringMode.OFF:
        return Standing("off", "neutral", "power", "switched off by hand")
    if record.mode is SteeringMode.PIN and record.evidence is not None:
        if record.state is SteeringState.WITHDRAWN:
            return Standing("pinned", "warn", "pin-angle-fill", f"no longer pays: {reason}")
        return Standing("pinned", "accent", "pin-angle-fill", "by hand, steered in every mode")
    if record.state is SteeringState.VERIFIED and not (mode and record.is_served(mode)):
        present = f"mode {mode.value}" if mode else "not running yet"
        why = f"steered in mode auto alone; the autopilot is {'in ' if mode else ''}{present}"
        return Standing("proven", "info", "patch-check", why)
    return Standing(known.word, known.tone, known.icon, reason)
