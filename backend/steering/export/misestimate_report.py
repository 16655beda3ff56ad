"""The report for those who would rather fix the query: misestimates and their remedies, as SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from backend.domain.steering import SteeredClassRecord
from backend.steering.export.hint_plan import evidence_lines, header
from backend.steering.export.misestimates import MIN_FACTOR, Misestimate
from backend.steering.export.quoting import comment


@dataclass(frozen=True)
class ClassFindings:
    """What the default plan of a class was wrong about.

    Args:
        record: the class.
        found: the misestimates, the greatest first.
        hindrance: why its plan could not be looked at; empty where it was.
    """

    record: SteeredClassRecord
    found: tuple[Misestimate, ...] = ()
    hindrance: str = ""


def misestimate_report(
    classes: Sequence[ClassFindings], now: datetime, existing: Collection[str] = ()
) -> str:
    """Return the report as SQL text: comments, and the statements that would help.

    A statement that helps several classes stands there once.

    Args:
        classes: those to report on.
        now: goes into the head.
        existing: names of extended statistics that the database has, qualified and quoted.
    """
    lines = header(
        "What the planner was wrong about",
        now,
        "Each class's default plan was run once with its steps counted. The statistics below would "
        "have told the planner; whether it then finds the better plan by itself, only the next "
        "measurement shows. Statistics cost time in each ANALYZE, and nothing else.",
    )
    if not classes:
        lines += [
            "",
            "-- No class with a better hint set is known yet; --class looks at any class.",
        ]
    known = set(existing)
    for one in classes:
        lines += ["", *evidence_lines(one.record)]
        if one.hindrance:
            lines.append(comment(f"Not looked at: {one.hindrance}."))
        elif not one.found:
            lines.append(
                f"-- No step was wrong by a factor of {MIN_FACTOR:g} or more: the rows were "
                "estimated well, the costs were not."
            )
        for misestimate in one.found:
            lines += _told(misestimate, known)
    return "\n".join(lines) + "\n"


def _told(misestimate: Misestimate, known: set[str]) -> list[str]:
    direction = "few" if misestimate.actual_rows > misestimate.estimated_rows else "many"
    lines = [
        comment(
            f"{misestimate.step}: {misestimate.estimated_rows:,.0f} rows expected, "
            f"{misestimate.actual_rows:,.0f} found, {misestimate.factor:,.0f} times too {direction}"
        )
    ]
    if misestimate.looks_at:
        lines.append(comment(f"  by {', '.join(misestimate.looks_at)}"))
    lines.append(comment(f"  {misestimate.advice.text}", at_most=1000))
    for remedy in misestimate.advice.remedies:
        if remedy.what in known:
            lines.append(comment(f"  {remedy.what}: proposed above, or there already."))
            continue
        known.add(remedy.what)
        lines += [statement for statement in (remedy.change, remedy.analyze) if statement]
        if remedy.undo:
            lines.append(comment(f"To undo: {remedy.undo}", at_most=1000))
    return lines
