"""The colours of the figures, light and dark; the style sheet holds the same for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.domain.modes import Phase, Verdict


@dataclass(frozen=True)
class Palette:
    """Colours of one theme."""

    text: str
    muted: str
    grid: str
    surface: str
    border: str
    accent: str
    accent_soft: str
    amber: str
    good: str
    bad: str
    violet: str
    blue: str
    grey: str
    phases: Mapping[Phase, str]

    @property
    def verdicts(self) -> Mapping[Verdict | None, str]:
        """The colour of each verdict; None is a trial that still runs."""
        return {
            Verdict.ACCEPT: self.good,
            Verdict.REJECT: self.bad,
            Verdict.INCONCLUSIVE: self.grey,
            Verdict.ABORTED: self.amber,
            None: self.blue,
        }

    @property
    def cycle(self) -> tuple[str, ...]:
        """Colours for lines that stand for categories, most telling first."""
        return (self.accent, self.amber, self.violet, self.blue, self.bad, self.good, self.grey)


LIGHT = Palette(
    text="#1c2730",
    muted="#5d6b77",
    grid="#e6e9e6",
    surface="#ffffff",
    border="#dfe4e1",
    accent="#0c7a6f",
    accent_soft="rgba(12,122,111,.12)",
    amber="#b4610a",
    good="#18794e",
    bad="#c2312c",
    violet="#6b4bc4",
    blue="#2868c8",
    grey="#82909b",
    phases={
        Phase.STARTING: "rgba(130,144,155,.06)",
        Phase.BASELINE: "rgba(130,144,155,.13)",
        Phase.LEARNING: "rgba(40,104,200,.07)",
        Phase.OPTIMISED: "rgba(12,122,111,.10)",
        Phase.FINAL_COMPARISON: "rgba(107,75,196,.10)",
        Phase.FINISHED: "rgba(130,144,155,.06)",
    },
)
DARK = Palette(
    text="#e3eaee",
    muted="#93a2ad",
    grid="#243039",
    surface="#161e24",
    border="#2a3740",
    accent="#3cc9b4",
    accent_soft="rgba(60,201,180,.14)",
    amber="#e9a23b",
    good="#52c58a",
    bad="#f07a72",
    violet="#a58bf0",
    blue="#6ea8f7",
    grey="#7f8f9b",
    phases={
        Phase.STARTING: "rgba(147,162,173,.05)",
        Phase.BASELINE: "rgba(147,162,173,.12)",
        Phase.LEARNING: "rgba(110,168,247,.08)",
        Phase.OPTIMISED: "rgba(60,201,180,.10)",
        Phase.FINAL_COMPARISON: "rgba(165,139,240,.12)",
        Phase.FINISHED: "rgba(147,162,173,.05)",
    },
)


def palette(dark: bool) -> Palette:
    """The palette of a theme."""
    return DARK if dark else LIGHT
