"""The statements that take the time, and what might give them better plans.

Nothing is explained or run for it: hint sets come from what steering has proven before, and what
extended statistics would need is said.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backend.advice.facts import Facts
from backend.domain.steering import HintEvidence, SteeredClassRecord
from backend.errors import SteeringError
from backend.steering.export.hint_plan import hints, proven_classes
from backend.telemetry.redaction import redact_statement
from backend.telemetry.wording import interval, milliseconds, percent

MOST = 10
"""Statements that are shown, heaviest first."""
WORTH_A_SEARCH = 0.05
"""Least share of the time of a statement whose plan is worth a search."""

_BLOCK = 8192.0


@dataclass(frozen=True)
class HeavyStatement:
    """A query class by the time it took. Times are means: the server gives no percentiles.

    Args:
        text: normalised, without literals; empty where nobody may read it.
        role: who runs it; empty where that is not known.
        calls: while it was observed.
        mean_ms: of a call.
        time_share: of all execution time.
        rows: a call.
        hit_ratio: of its blocks in shared buffers; None where it read none.
        temp_bytes: written to temporary files by a call.
        worth_a_search: it only reads, as far as its first word tells, and weighs enough.
    """

    text: str
    role: str
    calls: int
    mean_ms: float
    time_share: float
    rows: float
    hit_ratio: float | None
    temp_bytes: float
    worth_a_search: bool


@dataclass(frozen=True)
class HintAdvice:
    """A hint set that was proven faster for a query class.

    Args:
        fingerprint, text: of the class, without literals.
        hint_set: its name.
        effect: measured, with its interval.
        comment: for pg_hint_plan; empty where it could not keep the settings.
        hindrance: why there is no comment.
    """

    fingerprint: str
    text: str
    hint_set: str
    effect: str
    comment: str
    hindrance: str = ""


def heavy_statements(facts: Facts) -> tuple[HeavyStatement, ...]:
    """The statements that took most of the time."""
    seen = facts.observation
    ranked = sorted(seen.queries.values(), key=lambda query: -query.exec_time_ms)[:MOST]
    found = []
    for query in ranked:
        blocks = query.shared_blocks_hit + query.shared_blocks_read
        share = query.exec_time_ms / seen.exec_time_ms if seen.exec_time_ms > 0 else 0.0
        text = redact_statement(facts.texts.get(query.key, ""))
        reads = text.lstrip(" \n\t(").upper().startswith(("SELECT", "WITH"))
        found.append(
            HeavyStatement(
                text=text,
                role=facts.roles.get(query.key.userid, ""),
                calls=query.calls,
                mean_ms=query.mean_ms,
                time_share=share,
                rows=query.rows / query.calls,
                hit_ratio=query.shared_blocks_hit / blocks if blocks else None,
                temp_bytes=query.temp_blocks_written * _BLOCK / query.calls,
                worth_a_search=reads and share >= WORTH_A_SEARCH,
            )
        )
    return tuple(found)


def hint_advice(
    classes: Iterable[SteeredClassRecord], server_id: str, database: str
) -> tuple[HintAdvice, ...]:
    """The hint sets that steering has proven on this server and database, the best first."""
    found = [
        (record, record.evidence)
        for record in proven_classes(classes)
        if record.evidence is not None and _is_of(record.evidence, server_id, database)
    ]
    found.sort(key=lambda both: both[1].effect)
    return tuple(_hint(record, evidence) for record, evidence in found)


def _is_of(evidence: HintEvidence, server_id: str, database: str) -> bool:
    home = evidence.home
    return home.server in ("", server_id) and home.database in ("", database)


def _hint(record: SteeredClassRecord, evidence: HintEvidence) -> HintAdvice:
    try:
        comment, hindrance = f"/*+ {hints(evidence.settings)} */", ""
    except SteeringError as error:
        comment, hindrance = "", error.message
    return HintAdvice(
        fingerprint=record.key.fingerprint,
        text=redact_statement(record.text),
        hint_set=evidence.hint_set,
        effect=f"{percent(evidence.effect, signed=True)} of the time "
        f"({interval(evidence.ci_low, evidence.ci_high, signed=True)}), "
        f"{milliseconds(evidence.default_ms)} to {milliseconds(evidence.steered_ms)}, "
        f"{evidence.pairs} pairs of runs on {evidence.verified_at:%Y-%m-%d}",
        comment=comment,
        hindrance=hindrance,
    )
