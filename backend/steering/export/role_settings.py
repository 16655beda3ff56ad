"""Does one hint set suit everything that a role runs? ``ALTER ROLE ... SET`` where it does.

A setting of a role acts on all of its statements, so it is proposed only where it was measured on
every class that was explored, harms none of them, and saves time in total. Single runs count here:
what pairs of runs have proven for one class is not proven for the others, and the text says so.
https://www.postgresql.org/docs/current/sql-alterrole.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median

from backend.db_connector import quoted_identifier
from backend.domain.plans import RunOutcome
from backend.domain.steering import ClassKey, PlanRunRecord, SteeredClassRecord, SteeringState
from backend.errors import SteeringError
from backend.steering.export.hint_plan import WHILE_IT_RUNS, header, proven_classes
from backend.steering.export.quoting import commented, quoted_text

HARMLESS = 1.05
"""The largest ratio to the default plan's time that does not count as harm."""

Settings = frozenset[tuple[str, str]]
PlanPairs = Mapping[tuple[ClassKey, Settings], Sequence[tuple[str, str]]]
"""For a class and a hint set, the hashes of the default plan and of the hint set's, for each
statement of the class that was explained."""

_NOT_EXPLORED = (SteeringState.WAITING, SteeringState.REFUSED)


@dataclass(frozen=True)
class ClassRatio:
    """What a hint set does to one class.

    Args:
        key: the class.
        default_s: its default plan's time.
        ratio: of the hint set's time to it; None where that is not known.
        worst: of the statements that were run; what decides about harm.
        source: where that is known from, or why it is not.
    """

    key: ClassKey
    default_s: float
    ratio: float | None
    worst: float
    source: str

    @property
    def is_harmed(self) -> bool:
        """Whether a statement of it takes longer."""
        return self.worst > HARMLESS


@dataclass(frozen=True)
class RoleProposal:
    """A hint set and what it does to all explored classes.

    Args:
        hint_set, settings: which one.
        classes: what it does to each.
        not_explored: classes of which nothing is known.
        total: ratio of the summed times, one execution of each class; None where a class's is not
            known.
        refusal: why it is not proposed; empty where it is.
    """

    hint_set: str
    settings: Mapping[str, str]
    classes: tuple[ClassRatio, ...]
    not_explored: int
    total: float | None
    refusal: str

    def told(self) -> list[str]:
        """The evidence in lines for people."""
        if self.refusal:
            return [f"{self.hint_set}: not proposed, {self.refusal}."]
        lines = [
            f"{self.hint_set}: {self.total or 0:.0%} of the default plans' time, one execution of "
            f"each of {len(self.classes)} classes:"
        ]
        for one in self.classes:
            lines.append(f"  {one.key.fingerprint}: {one.ratio or 0:.0%} ({one.source})")
        if self.not_explored:
            lines.append(f"  Nothing is known of {self.not_explored} classes that were not tried.")
        return lines


def role_proposals(
    classes: Sequence[SteeredClassRecord],
    runs: Iterable[PlanRunRecord],
    *,
    min_gain: float,
    plans: PlanPairs,
) -> tuple[RoleProposal, ...]:
    """Judge every proven hint set as a setting of a role.

    Args:
        classes: all that are known.
        runs: of them.
        min_gain: smallest relative gain in total, in (0, 1).
        plans: what EXPLAIN told of classes and hint sets; a hint set that leads to the default
            plan, or to one that was run under another name, needs no run of its own.

    Returns:
        Those that suit first, the greatest gain first; then those with the fewest classes in doubt.
    """
    explored = [record for record in classes if record.state not in _NOT_EXPLORED]
    by_class: dict[ClassKey, list[PlanRunRecord]] = {}
    for run in runs:
        by_class.setdefault(run.key, []).append(run)
    candidates: dict[Settings, str] = {}
    for record in proven_classes(classes):
        if record.evidence is not None:
            settings = frozenset(record.evidence.settings.items())
            candidates.setdefault(settings, record.evidence.hint_set)
    proposals = [
        _judged(
            name,
            dict(sorted(settings)),
            tuple(
                _class_ratio(record, by_class.get(record.key, []), settings, plans)
                for record in explored
            ),
            not_explored=len(classes) - len(explored),
            min_gain=min_gain,
        )
        for settings, name in candidates.items()
    ]
    return tuple(sorted(proposals, key=_rank))


def role_settings(
    proposals: Sequence[RoleProposal],
    now: datetime,
    *,
    role: str | None = None,
    database: str | None = None,
) -> str:
    """``ALTER ROLE ... SET`` where one hint set suits all, else why none does, as SQL text.

    Args:
        proposals: as `role_proposals` returns them.
        now: goes into the header.
        role: whose sessions; in all databases, or in ``database`` where both are given.
        database: whose sessions, of all roles, where no role is given.

    Raises:
        SteeringError: neither is named.
    """
    if not role and not database:
        raise SteeringError(
            "whose sessions a hint set is for was not said",
            remedy="name a role (--role), a database (--database) or both",
        )
    whose = f"DATABASE {quoted_identifier(database or '')}"
    if role:
        inside = f" IN DATABASE {quoted_identifier(database)}" if database else ""
        whose = f"ROLE {quoted_identifier(role)}{inside}"
    lines = header(
        "Settings for all sessions of a role or a database",
        now,
        "They hold for every statement of the sessions that begin afterwards, those included that "
        "were never tried. Nobody watches them here: look again when the data or the server has "
        "changed. What is set there already is replaced, and RESET does not bring it back; look "
        "first:",
        "  SELECT setdatabase, setrole::regrole, setconfig FROM pg_db_role_setting;",
    )
    best = proposals[0] if proposals and not proposals[0].refusal else None
    for proposal in [best] if best else proposals:
        lines += ["", *commented(proposal.told())]
    if best is None:
        return "\n".join([*lines, "", "-- No hint set suits all classes: none is proposed.", ""])
    if WHILE_IT_RUNS & set(best.settings):
        lines.append(
            "-- Mind the server's memory: each sort and hash table of each session may take that."
        )
    lines += [f"ALTER {whose} SET {n} = {quoted_text(v)};" for n, v in best.settings.items()]
    lines += ["", "-- To undo:"]
    lines += commented(f"ALTER {whose} RESET {name};" for name in best.settings)
    return "\n".join(lines) + "\n"


# -- one class ------------------------------------------------------------------------------------


def _class_ratio(
    record: SteeredClassRecord,
    runs: Sequence[PlanRunRecord],
    settings: Settings,
    plans: PlanPairs,
) -> ClassRatio:
    defaults = [run.default_latency_s for run in runs if run.default_latency_s]
    default_s = record.default_ms / 1e3 if record.default_ms else median(defaults or [0.0])

    unknown = ClassRatio(record.key, default_s, None, 0.0, "not measured under it")
    evidence = record.evidence
    if (
        evidence is not None
        and record.state is SteeringState.VERIFIED
        and frozenset(evidence.settings.items()) == settings
    ):
        ratio = 1 + evidence.effect
        source = f"proven by {evidence.pairs} pairs of runs"
        return replace(unknown, ratio=ratio, worst=ratio, source=source)
    if not default_s:
        return replace(unknown, source="its default plan was not measured")
    own = [run for run in runs if frozenset(run.settings.items()) == settings]
    pairs = plans.get((record.key, settings), ())
    if not own and pairs:
        if all(default == hinted for default, hinted in pairs):
            return replace(unknown, ratio=1.0, worst=1.0, source="the same plan")
        hashes = {hinted for _, hinted in pairs}
        own = [run for run in runs if run.plan_hash in hashes]
    return _measured(own, unknown)


def _measured(runs: Sequence[PlanRunRecord], unknown: ClassRatio) -> ClassRatio:
    """A class's ratio from runs of the hint set, or of its plans, on several statements."""
    finished: dict[str, list[tuple[float, float]]] = {}
    stopped: dict[str, float] = {}
    for run in runs:
        if not run.default_latency_s:
            continue
        if run.outcome is RunOutcome.FINISHED:
            pair = (run.latency_s, run.default_latency_s)
            finished.setdefault(run.statement, []).append(pair)
        elif run.outcome is RunOutcome.TIMED_OUT:
            bound = run.latency_s / run.default_latency_s
            stopped[run.statement] = max(bound, stopped.get(run.statement, 0.0))
    bounds = [bound for statement, bound in stopped.items() if statement not in finished]
    if bounds:
        bound = max(bounds)
        source = f"broken off after {bound:.0%} of the default plan's time"
        return replace(unknown, worst=bound, source=source)
    if not finished:
        return unknown
    times = [
        (median(latency for latency, _ in pairs), median(default for _, default in pairs))
        for pairs in finished.values()
    ]
    ratio = sum(latency for latency, _ in times) / sum(default for _, default in times)
    worst = max(latency / default for latency, default in times)
    count = sum(len(pairs) for pairs in finished.values())
    source = f"{count} {'run' if count == 1 else 'runs'}"
    return replace(unknown, ratio=ratio, worst=worst, source=source)


# -- all classes ----------------------------------------------------------------------------------


def _judged(
    name: str,
    settings: Mapping[str, str],
    classes: tuple[ClassRatio, ...],
    *,
    not_explored: int,
    min_gain: float,
) -> RoleProposal:
    harmed = [one for one in classes if one.is_harmed]
    unknown = [one for one in classes if one.ratio is None and not one.is_harmed]
    total = None
    if not unknown and not any(one.ratio is None for one in classes):
        with_hint = sum(one.default_s * (one.ratio or 0.0) for one in classes)
        total = with_hint / sum(one.default_s for one in classes)
    if harmed:
        refusal = "it harms " + _named(
            f"{one.key.fingerprint} ({one.worst:.3g} times the time)" for one in harmed
        )
    elif unknown:
        refusal = f"what it does to {len(unknown)} of {len(classes)} classes is not known: " + (
            _named(f"{one.key.fingerprint} ({one.source})" for one in unknown)
        )
    elif total is None or total > 1 - min_gain:
        refusal = f"it saves {1 - (total or 1.0):.1%} in total, less than {min_gain:.0%}"
    else:
        refusal = ""
    return RoleProposal(name, settings, classes, not_explored, total, refusal)


def _named(texts: Iterable[str], most: int = 5) -> str:
    found = list(texts)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def _rank(proposal: RoleProposal) -> tuple[bool, int, float]:
    in_doubt = sum(one.is_harmed or one.ratio is None for one in proposal.classes)
    return bool(proposal.refusal), in_doubt, 1.0 if proposal.total is None else proposal.total
