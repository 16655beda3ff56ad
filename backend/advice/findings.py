"""All findings: every rule looks at the facts, what matters most comes first."""

from __future__ import annotations

from backend.advice import (
    findings_planner,
    findings_sessions,
    findings_storage,
    findings_upkeep,
)
from backend.advice.facts import Facts
from backend.advice.finding import Finding, Rule, Severity

RULES: tuple[Rule, ...] = (
    *findings_planner.RULES,
    *findings_storage.RULES,
    *findings_upkeep.RULES,
    *findings_sessions.RULES,
)


def findings(facts: Facts) -> tuple[Finding, ...]:
    """What the rules have to tell, the most severe first."""
    found = [finding for rule in RULES if (finding := rule(facts)) is not None]
    order = list(Severity)
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))
