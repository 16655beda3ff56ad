"""Knobs worth changing, each with what it rests on; and those left alone, with the reason.

Three grounds, in this order: a trial recorded on this server, a finding, a rule of thumb. The last
counts only where the knob stands at the server's default: what somebody chose is left alone unless
something measured speaks against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from backend.advice.counter_evidence import speaks_against
from backend.advice.facts import Facts
from backend.advice.finding import Direction, Finding
from backend.advice.quoting import exact_text
from backend.advice.texts import CopyText, Place, texts
from backend.advice.track_record import TrackRecord
from backend.catalog.entries import same_value
from backend.domain.knobs import Knob, KnobValue
from backend.domain.modes import Verdict
from backend.domain.quantities import unit_size
from backend.expert_rules import Family, rules_of_thumb, unknown_needs
from backend.memory_budget import MemoryBudget

NOT_MEASURED = "not measured here"

_HARM = {
    "memory": "too much in all sessions together makes the machine swap",
    "planner-costs": "some statements may get a worse plan",
    "planner-methods": "some statements may get a worse plan, or take longer to plan",
    "parallelism": "a large report may take longer, or take cores from others",
    "wal": "more disk for WAL, and a longer recovery after a crash",
    "background-writer": "more writes in the background",
    "autovacuum": "more CPU and I/O in the background",
    "io": "more requests at once for the storage",
    "statistics": "longer ANALYZE and planning",
}
_HARM_OF_KNOB = {
    "effective_cache_size": "some statements may get a worse plan",
    "wal_buffers": "a little memory",
    "wal_compression": "CPU time for every page that is compressed",
}
_STEP = 2.0
_MIB = 1024**2


class Basis(str, Enum):
    """What a proposal rests on, the strongest first."""

    TRIAL = "trial"
    FINDING = "finding"
    RULE = "rule of thumb"


@dataclass(frozen=True)
class KnobAdvice:
    """One knob worth changing.

    Args:
        knob: which one; ``present`` and ``proposed`` are in its native unit.
        source: where the present value comes from.
        basis: what the proposal rests on; ``findings`` their keys.
        why: the reason.
        effect: a figure with its interval, or that there is none.
        risk: how much a bad value can hurt, and how.
        notes: what was assumed.
        texts: to copy.
    """

    knob: Knob
    present: KnobValue
    proposed: KnobValue
    source: str
    basis: Basis
    why: str
    effect: str
    risk: str
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    texts: tuple[CopyText, ...] = ()

    @property
    def needs_restart(self) -> bool:
        """Whether it acts only after a restart; else after a reload."""
        return self.knob.context == "restart"

    @property
    def shown(self) -> tuple[str, str]:
        """Present and proposed value for people."""
        return exact_text(self.knob, self.present), exact_text(self.knob, self.proposed)


@dataclass(frozen=True)
class Withheld:
    """A knob of which nothing is proposed, though something speaks for it."""

    knob: str
    reason: str


@dataclass(frozen=True)
class _Wish:
    """A value on its way to a proposal."""

    value: KnobValue
    basis: Basis
    why: str
    findings: tuple[str, ...] = ()


def knob_advice(
    facts: Facts, found: Sequence[Finding], record: TrackRecord
) -> tuple[tuple[KnobAdvice, ...], tuple[Withheld, ...]]:
    """Judge every knob.

    Args:
        facts: the server and what was seen.
        found: its findings.
        record: its trials.

    Returns:
        What to change, strongest grounds first, and what was withheld.
    """
    space = facts.catalog.space(tunable_only=False, include_restart=True)
    rules = rules_of_thumb(space, facts.host, clients=facts.clients)
    needs = unknown_needs(facts.host)
    withheld: list[Withheld] = []
    wishes: dict[str, _Wish] = {}
    for entry in facts.catalog:
        knob = entry.knob
        if knob.name not in facts.readings:
            continue
        reasons = [finding for finding in found if knob.name in finding.calls_for]
        wish = (
            _of_trials(facts, knob, record)
            or _of_findings(facts, knob, reasons, rules.get(knob.name))
            or _of_rules(facts, knob, rules.get(knob.name))
        )
        at_default = same_value(facts.present[knob.name], knob.default)
        if knob.name in needs and (reasons or at_default):
            withheld.append(Withheld(knob.name, _unknown(needs[knob.name])))
            continue
        if wish is None:
            if reasons:
                withheld.append(Withheld(knob.name, _exhausted(knob, facts.present[knob.name])))
            continue
        hindrance = _hindrance(facts, knob, wish, record)
        if hindrance:
            withheld.append(Withheld(knob.name, hindrance))
        else:
            wishes[knob.name] = wish
    fitting, too_large = _within_memory(facts, wishes)
    withheld += too_large
    advice = [_advice(facts, space[name], wish, record) for name, wish in fitting.items()]
    order = list(Basis)
    advice.sort(key=lambda one: order.index(one.basis))
    return tuple(advice), tuple(withheld)


# -- grounds --------------------------------------------------------------------------------------


def _of_trials(facts: Facts, knob: Knob, record: TrackRecord) -> _Wish | None:
    trial = record.proven().get(knob.name)
    if trial is None or same_value(trial.after[knob.name], facts.present[knob.name]):
        return None
    why = f"a trial on this server accepted it ({trial.proposer}), and it is not in force"
    return _Wish(trial.after[knob.name], Basis.TRIAL, why)


def _of_findings(
    facts: Facts,
    knob: Knob,
    reasons: Sequence[Finding],
    rule: tuple[KnobValue, Family] | None,
) -> _Wish | None:
    for finding in reasons:
        present = facts.present[knob.name]
        value = _turned(knob, present, finding.calls_for[knob.name], rule[0] if rule else None)
        if value is not None and not same_value(value, present):
            keys = tuple(one.key for one in reasons)
            return _Wish(
                _tidy(knob, value), Basis.FINDING, "; ".join(one.title for one in reasons), keys
            )
    return None


def _of_rules(facts: Facts, knob: Knob, rule: tuple[KnobValue, Family] | None) -> _Wish | None:
    present = facts.present[knob.name]
    if rule is None or not same_value(present, knob.default) or same_value(present, rule[0]):
        return None
    return _Wish(_tidy(knob, rule[0]), Basis.RULE, rule[1].why)


def _turned(
    knob: Knob, present: KnobValue, direction: Direction, rule: KnobValue | None
) -> KnobValue | None:
    """The rule's value where it lies that way, else twice or half the present one."""
    if direction is Direction.SET:
        return rule if same_value(present, knob.default) else None
    if isinstance(present, (bool, str)) or isinstance(rule, (bool, str)):
        return None
    raised = direction is Direction.RAISE
    if rule is not None and (rule > present if raised else rule < present):
        return rule
    if present <= 0:  # off, or a special meaning: there is no half or double of it
        return None
    low, high = knob.bounds
    value = min(max(present * _STEP if raised else present / _STEP, low), high)
    if (value <= present) if raised else (value >= present):
        return None  # it is at our bound, or beyond it
    return round(value) if knob.kind == "integer" else float(f"{value:.6g}")


def _tidy(knob: Knob, value: KnobValue) -> KnobValue:
    """Whole megabytes, where the value is more than a few: people read it."""
    if not isinstance(value, int) or isinstance(value, bool) or knob.unit is None:
        return value
    dimension, unit = unit_size(knob.unit)
    step = round(_MIB / unit) if dimension == "bytes" else 0
    return value - value % step if step > 1 and value >= 8 * step else value


# -- what stands in the way -----------------------------------------------------------------------


def _unknown(need: str) -> str:
    option = {"memory": "--memory-gib", "cores": "--cores"}[need]
    return f"its value depends on the machine's {need}, which cannot be seen: give {option}"


def _exhausted(knob: Knob, present: KnobValue) -> str:
    return f"{exact_text(knob, present)} was chosen, and is as far as is sensible that way"


def _hindrance(facts: Facts, knob: Knob, wish: _Wish, record: TrackRecord) -> str:
    group = facts.catalog.knob(knob.name).group
    if facts.rights.in_recovery and group == "autovacuum":
        return "this is a stand-by, and autovacuum runs on the primary alone"
    if facts.readings[knob.name].pending_restart:
        return "another value waits for a restart already"
    if wish.basis is Basis.RULE and (against := speaks_against(facts, knob.name)):
        return against
    trial = record.newest(knob.name, wish.value)
    if trial is not None and trial.verdict is Verdict.REJECT:
        return f"{exact_text(knob, wish.value)} was {record.told(trial, knob.name)}"
    return ""


def _within_memory(
    facts: Facts, wishes: Mapping[str, _Wish]
) -> tuple[Mapping[str, _Wish], list[Withheld]]:
    """Shrink what would take too much memory or disk, all proposals together."""
    budget = MemoryBudget(facts.host, facts.clients, math.inf, present=lambda: facts.present)
    # Each has to fit by itself as well: whoever takes one need not take those that make room.
    alone = {name: budget.clamp({name: wish.value})[name] for name, wish in wishes.items()}
    clamped = budget.clamp(alone)
    fitting: dict[str, _Wish] = {}
    withheld = []
    for name, wish in wishes.items():
        if same_value(clamped[name], wish.value):
            fitting[name] = wish
        elif _is_between(facts.present[name], clamped[name], wish.value):
            why = f"{wish.why}; less than asked for, to fit memory and disk"
            value = _tidy(facts.catalog.knob(name).knob, clamped[name])
            fitting[name] = replace(wish, value=value, why=why)
        else:
            withheld.append(Withheld(name, "there is no memory, or no disk, left for more"))
    return fitting, withheld


def _is_between(present: KnobValue, clamped: KnobValue, wished: KnobValue) -> bool:
    if not all(isinstance(v, (int, float)) for v in (present, clamped, wished)):
        return False
    return float(present) < float(clamped) < float(wished)


# -- the proposal ---------------------------------------------------------------------------------


def _advice(facts: Facts, knob: Knob, wish: _Wish, record: TrackRecord) -> KnobAdvice:
    reading = facts.readings[knob.name]
    trial = record.newest(knob.name, wish.value)
    effect = record.told(trial, knob.name) if trial is not None else NOT_MEASURED
    group = facts.catalog.knob(knob.name).group
    place = Place(
        rights=facts.rights,
        version=facts.info.version,
        role=facts.busiest_role,
        sees_entries=facts.info.can("file_settings"),
    )
    return KnobAdvice(
        knob=knob,
        present=reading.value,
        proposed=wish.value,
        source=reading.source,
        basis=wish.basis if trial is None else Basis.TRIAL,
        why=wish.why,
        effect=effect,
        risk=f"{knob.risk}: {_HARM_OF_KNOB.get(knob.name) or _HARM[group]}",
        findings=wish.findings,
        notes=tuple(_notes(facts, knob, wish.value)),
        texts=texts(knob, wish.value, reading, place),
    )


def _notes(facts: Facts, knob: Knob, value: KnobValue) -> Iterator[str]:
    if knob.name == "wal_compression" and value in ("lz4", "zstd"):
        yield f"Needs a server built with {value}; pglz works on every one."
    if knob.name in ("max_wal_size", "min_wal_size") and facts.host.free_disk_bytes is None:
        yield "The free disk space cannot be seen: some 40 GB are assumed."
    if knob.name == "random_page_cost":
        yield "For SSDs, or data that is cached; not for rotating disks."
    if knob.name in ("work_mem", "max_parallel_workers_per_gather"):
        yield f"Reckoned with {facts.clients} statements at once."
    override = facts.readings[knob.name].override
    if override:
        yield f"{override[0].upper()}{override[1:]} sets it too, and wins there."
