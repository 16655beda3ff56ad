"""The advice as a whole, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from backend.advice.facts import Facts
from backend.advice.finding import Finding
from backend.advice.findings import findings
from backend.advice.knob_advice import KnobAdvice, Withheld, knob_advice
from backend.advice.statements import HeavyStatement, HintAdvice, heavy_statements, hint_advice
from backend.advice.texts import CopyText, together
from backend.advice.track_record import TrackRecord
from backend.domain.records import TrialRecord
from backend.domain.steering import SteeredClassRecord
from backend.telemetry.redaction import redact

_SHOWN_GAPS = 3
FORMAT = 1
"""Raised when a field of the JSON changes its meaning or goes."""

_UNKNOWN_MACHINE = (
    "The machine's {what} cannot be seen from here: give {option} for advice that rests on it."
)


@dataclass(frozen=True)
class Advice:
    """What there is to tell of a server.

    Args:
        made_at: when.
        facts: what it rests on.
        findings: the most severe first.
        knobs: worth changing; ``withheld``: not proposed, with the reason.
        together: all changes at once, text to copy.
        statements: that take the time; ``hint_sets``: proven for some.
        next_steps: what would have to be run to know more.
        unknown: what could not be told, and what would help.
    """

    made_at: datetime
    facts: Facts
    findings: tuple[Finding, ...]
    knobs: tuple[KnobAdvice, ...]
    withheld: tuple[Withheld, ...]
    together: tuple[CopyText, ...]
    statements: tuple[HeavyStatement, ...]
    hint_sets: tuple[HintAdvice, ...]
    next_steps: tuple[str, ...]
    unknown: tuple[str, ...]

    def as_json(self) -> str:
        """The advice for other programs."""
        return json.dumps(self.document(), indent=2, ensure_ascii=True) + "\n"

    def document(self) -> dict[str, Any]:
        """All of it as plain values."""
        info, seen = self.facts.info, self.facts.observation
        return {
            "format": FORMAT,
            "made_at": self.made_at.isoformat(),
            "server": {
                "address": info.address,
                "version": info.version_text,
                "database": self.facts.rights.database,
                "role": self.facts.rights.role,
                "stand_by": self.facts.rights.in_recovery,
                "managed_by": self.facts.rights.managed_by,
                "memory_bytes": self.facts.host.memory_bytes or None,
                "cores": self.facts.host.cpu_count or None,
                "stated": list(self.facts.stated),
            },
            "load": self._load(),
            "observed": {
                "started_at": seen.started_at.isoformat(),
                "ended_at": seen.ended_at.isoformat(),
                "seconds": seen.observed_s,
                "gaps": dict(seen.gaps),
                "totals": dict(seen.totals),
                "means": dict(seen.means),
                "peaks": dict(seen.peaks),
            },
            "findings": [
                {**asdict(one), "severity": one.severity.value, "manual": one.manual}
                for one in self.findings
            ],
            "knobs": [_knob(one) for one in self.knobs],
            "withheld": [asdict(one) for one in self.withheld],
            "together": [asdict(one) for one in self.together],
            "statements": [asdict(one) for one in self.statements],
            "hint_sets": [asdict(one) for one in self.hint_sets],
            "next_steps": list(self.next_steps),
            "unknown": list(self.unknown),
        }

    def _load(self) -> dict[str, Any]:
        seen = self.facts.observation
        return {
            "statements_per_s": seen.calls / seen.observed_s,
            "mean_ms": seen.exec_time_ms / seen.calls if seen.calls else None,
            "transactions_per_s": seen.rate("xact_commit") + seen.rate("xact_rollback"),
            "active_sessions": seen.means.get("mean_active_sessions"),
            "connections": seen.means.get("connections_total"),
            "cache_hit_ratio": seen.means.get("cache_hit_ratio"),
            "wal_bytes_per_s": seen.rate("wal_bytes"),
            "cpu_percent": seen.means.get("host_cpu_percent"),
            "database_size_bytes": seen.last.get("database_size_bytes"),
        }


def advise(
    facts: Facts,
    made_at: datetime,
    *,
    trials: Iterable[TrialRecord] = (),
    classes: Sequence[SteeredClassRecord] = (),
    remarks: Sequence[str] = (),
) -> Advice:
    """Make the advice.

    Args:
        facts: what it rests on.
        made_at: the time to put on it.
        trials: recorded on this server, oldest first.
        classes: what steering knows.
        remarks: what else keeps things from being known.
    """
    found = findings(facts)
    knobs, withheld = knob_advice(facts, found, TrackRecord(trials, facts.catalog))
    statements = heavy_statements(facts)
    hint_sets = hint_advice(classes, facts.info.server_id, facts.rights.database)
    return Advice(
        made_at=made_at,
        facts=facts,
        findings=found,
        knobs=knobs,
        withheld=withheld,
        together=together(
            [(one.knob, one.proposed) for one in knobs],
            facts.rights.managed_by,
            next((one.texts[0].obstacle for one in knobs if one.texts[0].obstacle), ""),
        ),
        statements=statements,
        hint_sets=hint_sets,
        next_steps=tuple(_next_steps(statements, hint_sets)),
        unknown=(*_unknown(facts), *remarks),
    )


def _knob(one: KnobAdvice) -> dict[str, Any]:
    present, proposed = one.shown
    return {
        "name": one.knob.name,
        "present": present,
        "proposed": proposed,
        "present_native": one.present,
        "proposed_native": one.proposed,
        "unit": one.knob.unit,
        "source": one.source,
        "basis": one.basis.value,
        "findings": list(one.findings),
        "why": one.why,
        "expected_effect": one.effect,
        "risk": one.risk,
        "needs": "restart" if one.needs_restart else "reload",
        "notes": list(one.notes),
        "manual": one.knob.doc_url,
        "texts": [asdict(text) for text in one.texts],
    }


def _next_steps(
    statements: Sequence[HeavyStatement], hint_sets: Sequence[HintAdvice]
) -> Iterable[str]:
    searchable = sum(one.worth_a_search for one in statements)
    if searchable and not hint_sets:
        yield (
            f"No hint set is known for the {searchable} reading statements that weigh most. To "
            "search some, put them with real constants into a file: run.py steering explore FILE. "
            "That runs them, read-only and with time-outs."
        )
    if hint_sets:
        yield "run.py steering export writes the proven hint sets as text for pg_hint_plan."
    if searchable:
        yield (
            "Whether extended statistics would help shows only when a statement runs: run.py "
            "steering report --class FINGERPRINT runs the default plan of a known class once, "
            "read-only and with a time-out, and writes CREATE STATISTICS where they would."
        )
    yield (
        "One change at a time, measured before and after; or let the autopilot try them in mode "
        "approve, which undoes what does not help."
    )


def _unknown(facts: Facts) -> Iterable[str]:
    if facts.host.memory_bytes <= 0:
        yield _UNKNOWN_MACHINE.format(what="memory", option="--memory-gib")
    if facts.host.cpu_count <= 0:
        yield _UNKNOWN_MACHINE.format(what="cores", option="--cores")
    if not facts.info.host.is_local:
        yield "CPU, memory in use, swap and free disk of its machine cannot be seen from here."
    for capability, what in (
        ("read_all_stats", "Sessions, statements and replication of other roles"),
        ("statement_statistics", "Single statements"),
        ("io_timing", "How long reads and writes take"),
        ("file_settings", "Entries of postgresql.auto.conf"),
    ):
        if not facts.info.can(capability):
            yield f"{what} cannot be seen. {facts.info.missing.get(capability, '')}".rstrip()
    for source, reason in facts.unseen.items():
        yield f"{source[0].upper()}{source[1:]} could not be read: {redact(reason)}"
    gaps = facts.observation.gaps
    for reason in list(gaps)[:_SHOWN_GAPS]:
        yield f"Not covered, {gaps[reason]} times: {redact(reason)}"
    more = sum(list(gaps.values())[_SHOWN_GAPS:])
    if more:
        yield f"Not covered, {more} times more, for reasons like these."
