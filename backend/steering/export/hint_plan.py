"""Proven hint sets for those who do without the plug-in, as SQL text.

Comments and the hint table are for the extension pg_hint_plan
(https://github.com/ossc-db/pg_hint_plan); for settings of a role see `role_settings`. Each text
says what it rests on and how it is taken back. To run it, and to withdraw it when a hint set stops
paying, is up to its reader: only the plug-in keeps running the default plan now and then to notice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum

from backend.domain.metrics import QueryKey
from backend.domain.steering import SteeredClassRecord, SteeringMode, SteeringState
from backend.errors import SteeringError
from backend.steering.export.quoting import comment, commented, quoted_text

WHILE_IT_RUNS = frozenset({"work_mem", "hash_mem_multiplier"})
"""Settings that act while a plan runs. pg_hint_plan's Set holds while it is planned, no longer."""

_PLACEHOLDER = re.compile(r'"(?:[^"]|"")*"|\$\d+')
_INDENT = "    "


class HintTable(str, Enum):
    """The layouts of pg_hint_plan's table, named by the first and last version that has it.

    BY_TEXT: up to 1.6 (PostgreSQL 16), ``norm_query_string``. BY_QUERY_ID: from 1.7
    (PostgreSQL 17) on, ``query_id``.
    """

    BY_TEXT = "1.6"
    BY_QUERY_ID = "1.7"

    @classmethod
    def of_server(cls, version: int) -> HintTable:
        """The layout that goes with a server's version, such as 170002 or 17."""
        major = version // 10_000 if version >= 10_000 else version
        return cls.BY_QUERY_ID if major >= 17 else cls.BY_TEXT


def proven_classes(classes: Iterable[SteeredClassRecord]) -> tuple[SteeredClassRecord, ...]:
    """The classes whose hint set may be exported: verified still, or pinned; none switched off."""
    return tuple(
        record
        for record in classes
        if record.evidence is not None
        and record.mode is not SteeringMode.OFF
        and (record.state is SteeringState.VERIFIED or record.mode is SteeringMode.PIN)
    )


def hints(settings: Mapping[str, str]) -> str:
    """A hint set as pg_hint_plan writes it: ``Set(enable_nestloop off)``.

    Raises:
        SteeringError: it has settings that pg_hint_plan could not keep while the plan runs.
    """
    lost = sorted(WHILE_IT_RUNS & set(settings))
    if lost:
        raise SteeringError(
            f"pg_hint_plan sets {' and '.join(lost)} only while the plan is made, not while it "
            "runs, so the plan would not run as it was measured",
            remedy="use the plug-in query_steering for this class",
        )
    return " ".join(f"Set({name} {value})" for name, value in settings.items())


def header(title: str, now: datetime, *notes: str) -> list[str]:
    """The comments that every text begins with."""
    return commented([f"{title}, {now:%Y-%m-%d %H:%M} UTC.", *notes])


def evidence_lines(record: SteeredClassRecord) -> list[str]:
    """A class, and what its hint set rests on, as comments."""
    key, evidence = record.key, record.evidence
    lines = [
        comment(f"Class {key.fingerprint}, search_path {key.search_path}"),
        comment(record.text),
    ]
    if evidence is None:
        return [*lines, "-- No hint set was proven faster."]
    under = ", ".join(f"{name} = {value}" for name, value in evidence.under.items())
    lines.append(
        comment(
            f"{evidence.hint_set}: {evidence.effect:+.1%} of the time "
            f"({evidence.default_ms:.4g} ms -> {evidence.steered_ms:.4g} ms; at most "
            f"{evidence.ci_high:+.1%} at {evidence.confidence:.2%} confidence; {evidence.pairs} "
            f"pairs of {evidence.statements} statements, {evidence.verified_at:%Y-%m-%d})."
        )
    )
    if under:
        lines.append(comment(f"Measured under {under}"))
    if record.mode is SteeringMode.PIN:
        lines.append("-- Pinned by hand.")
    if record.state is not SteeringState.VERIFIED:
        lines.append(comment(f"NO LONGER PROVEN ({record.state.value}): {record.reason}"))
    return lines


def hint_comments(classes: Sequence[SteeredClassRecord], now: datetime) -> str:
    """A hint comment for each class, to be put in front of its statements.

    Args:
        classes: what `proven_classes` returns.
        now: goes into the header.
    """
    lines = header(
        "Hint comments for pg_hint_plan",
        now,
        _UNWATCHED,
        "Put each comment in front of the statement it belongs to, as the first thing in the text "
        "that is sent. pg_hint_plan must be loaded (shared_preload_libraries or "
        "session_preload_libraries); elsewhere a comment is a comment.",
        "To undo: remove the comment.",
    )
    return _text(lines, classes, lambda record, written: [f"/*+ {written} */"])


def hint_table(
    classes: Sequence[SteeredClassRecord],
    now: datetime,
    *,
    layout: HintTable,
    texts: Mapping[str, str],
) -> str:
    """Rows for pg_hint_plan's table ``hint_plan.hints``, with what takes them out again.

    Args:
        classes: what `proven_classes` returns.
        now: goes into the header.
        layout: of the table.
        texts: normalised statements by query key, as telemetry read them from
            pg_stat_statements.
    """
    lines = header(
        "Rows for pg_hint_plan's table hint_plan.hints",
        now,
        _UNWATCHED,
        "Needs CREATE EXTENSION pg_hint_plan in the database, pg_hint_plan.enable_hint_table = on, "
        "and compute_query_id on or auto. Rows of the table come before hint comments.",
        _LAYOUT_NOTES[layout],
    )
    if layout is HintTable.BY_QUERY_ID:
        return _text(lines, classes, _rows_by_id)
    known = {r.key: {texts[key]: None for key in r.query_keys if key in texts} for r in classes}
    owners = Counter(text for of_class in known.values() for text in of_class)
    return _text(
        lines, classes, lambda record, written: _rows_by_text(known[record.key], written, owners)
    )


# -- inside ---------------------------------------------------------------------------------------

_UNWATCHED = (
    "Each was measured faster than the default plan under the settings named with it. Nobody "
    "watches it here: look again when the data or the server has changed."
)
_LAYOUT_NOTES = {
    HintTable.BY_QUERY_ID: (
        "For pg_hint_plan 1.7 (PostgreSQL 17) and newer. A query_id holds in its database and "
        "major version alone, and is another one when a table of the statement is made anew."
    ),
    HintTable.BY_TEXT: (
        "For pg_hint_plan 1.6 (PostgreSQL 16) and older. The text must be the application's to the "
        "last space, with ? for each constant. Parameters that a driver sends apart stay $1, $2: "
        "that is the second row of a class; the row that does not fit does nothing."
    ),
}


def _text(
    lines: Sequence[str],
    classes: Sequence[SteeredClassRecord],
    body: Callable[[SteeredClassRecord, str], Iterable[str]],
) -> str:
    found = list(lines)
    for record in classes:
        if record.evidence is None:
            continue
        found += ["", *evidence_lines(record)]
        try:
            found += body(record, hints(record.evidence.settings))
        except SteeringError as error:
            found.append(comment(f"Not exported: {error.message}; {error.remedy}."))
    if len(found) == len(lines):
        found += ["", "-- No hint set is proven yet."]
    return "\n".join(found) + "\n"


def _rows_by_id(record: SteeredClassRecord, written: str) -> Iterator[str]:
    keys = {(key.dbid, key.queryid): None for key in map(QueryKey.parse, record.query_keys)}
    if not keys:
        yield comment(
            "Its query_id is not known to telemetry yet. EXPLAIN (VERBOSE) of the statement shows "
            "it as Query Identifier."
        )
    for database, query_id in keys:
        yield f"-- Database {database}:"
        yield from _row("query_id", str(query_id), written)


def _rows_by_text(texts: Iterable[str], written: str, owners: Mapping[str, int]) -> Iterator[str]:
    own = [text for text in texts if owners[text] == 1]
    if not own:
        yield comment(
            "Its text is that of another class too, under another search_path; the table cannot "
            "tell them apart."
            if any(texts)
            else "Its text as the application sends it is not known to telemetry yet, and the "
            "table wants it to the last space."
        )
    for text in own:
        pattern = _PLACEHOLDER.sub(lambda m: "?" if m[0].startswith("$") else m[0], text)
        for one in dict.fromkeys((pattern, text)):
            yield from _row("norm_query_string", quoted_text(one), written)


def _row(column: str, value: str, written: str) -> Iterator[str]:
    yield f"INSERT INTO hint_plan.hints ({column}, application_name, hints)"
    yield f"{_INDENT}VALUES ({value}, '', {quoted_text(written)});"
    # Every value is quoted, and nothing of this is run here.
    undo = f"DELETE FROM hint_plan.hints WHERE {column} = {value} AND application_name = '';"  # nosec B608 # noqa: S608
    yield f"-- To undo: {undo}"
