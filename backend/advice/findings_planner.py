"""Findings about what the planner was told, where what was seen speaks against it."""

from __future__ import annotations

from backend.advice.facts import Facts
from backend.advice.finding import Direction, Finding, Rule, Severity, all_cached, count
from backend.telemetry.wording import percent

DEAR = 4.0
"""A random page's cost in sequential ones, as the server comes; more was chosen by somebody."""
_METHODS = "planner-methods"


def dear_random_pages(facts: Facts) -> Finding | None:
    """Index scans are priced as on a slow disk, and no disk is read."""
    random, sequential = facts.number("random_page_cost"), facts.number("seq_page_cost")
    if random is None or not sequential or random <= DEAR * sequential:
        return None
    cached = all_cached(facts.observation)
    if cached is None:
        return None
    return Finding(
        key="dear-random-pages",
        severity=Severity.WARNING,
        title="Index scans are priced as on a slow disk, but what is read is cached",
        evidence=(
            f"random_page_cost is {random:g} and seq_page_cost {sequential:g}: {random:g} to "
            f"{sequential:g}, where the server comes with {DEAR:g} to 1",
            f"{percent(cached)} of {count(_blocks(facts))} blocks were found in shared buffers",
        ),
        meaning="The planner then reads whole tables where an index would do. A lower cost lets it "
        "take the index; look at the plans of the heaviest statements before and after.",
        page="runtime-config-query.html#GUC-RANDOM-PAGE-COST",
        calls_for={"random_page_cost": Direction.LOWER},
    )


def methods_switched_off(facts: Facts) -> Finding | None:
    """Ways to run a statement are forbidden to all statements."""
    off = [
        entry.name
        for entry in facts.catalog
        if entry.group == _METHODS
        and entry.knob.default is True
        and entry.name in facts.readings
        and facts.readings[entry.name].value is False
    ]
    if not off:
        return None
    return Finding(
        key="planner-methods-off",
        severity=Severity.WARNING,
        title="Planner methods are switched off for all statements",
        evidence=tuple(f"{name} is off ({facts.readings[name].source})" for name in off),
        meaning="What helped one statement, or one debugging session, may hurt the others. SET "
        "LOCAL in the transaction, or ALTER ROLE, keeps it to those that need it.",
        page="runtime-config-query.html#RUNTIME-CONFIG-QUERY-ENABLE",
    )


def _blocks(facts: Facts) -> float:
    return facts.observation.total("blocks_hit") + facts.observation.total("blocks_read")


RULES: tuple[Rule, ...] = (dear_random_pages, methods_switched_off)
