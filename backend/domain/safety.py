"""The safety monitor's verdict."""

from __future__ import annotations

from dataclasses import dataclass

from backend.domain.modes import SafetyAction


@dataclass(frozen=True)
class SafetyVerdict:
    """ALLOW, BLOCK (try nothing new) or ROLLBACK (undo the candidate now), with the reasons."""

    action: SafetyAction
    reasons: tuple[str, ...] = ()
