"""The genes of Level 2 for people, and in which a genome differs from another. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dashboard import format as fmt

TITLES: Mapping[str, str] = {
    "learning_rate": "Actor's learning rate",
    "critic_learning_rate": "Critics' learning rate",
    "gamma": "Discount of later rewards",
    "tau": "Share of new weights in the target networks",
    "batch_size": "Transitions a batch",
    "buffer_size": "Transitions in the replay",
    "hidden_width": "Width of a network's layer",
    "hidden_depth": "Layers of a network",
    "ensemble_size": "Critics",
    "updates_per_tell": "Updates a measurement",
    "noise_start": "Exploration noise at first",
    "noise_end": "Exploration noise in the end",
    "optimism": "Optimism about what is unknown",
    "design_size": "Proposals before the agent's own",
    "candidates": "Candidates compared for a proposal",
    "actor_share": "Share of candidates near the actor's",
    "trust_start": "Widest step from the best, at first",
    "trust_min": "Widest step from the best, at least",
    "far_knobs": "Knobs that may move further",
    "moved_knobs": "Knobs moved in a proposal",
    "quality_floor": "Lowest sample quality learnt from",
    "alpha": "Chance of a wrong verdict",
    "futility_alpha": "Chance of giving up wrongly",
    "min_improvement": "Smallest gain worth deploying",
    "min_blocks": "Fewest blocks of a promotion",
    "max_blocks": "Most blocks of a promotion",
}


def title_of(gene: str) -> str:
    """A gene's name for people; its own where it is not known here."""
    return TITLES.get(gene, gene.replace("_", " "))


def gene_text(value: float | None) -> str:
    """A gene's value for people."""
    return fmt.NONE if value is None else fmt.number(value)


def differing(
    before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, tuple[float | None, float | None]]:
    """The genes that differ, with both values, largest relative change first."""
    found = {
        name: (before.get(name), after.get(name))
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    }
    return dict(sorted(found.items(), key=lambda item: -_relative(*item[1])))


def _relative(before: float | None, after: float | None) -> float:
    if before is None or after is None or before == 0 or after == 0 or (before < 0) != (after < 0):
        return math.inf
    return abs(math.log(after / before))
