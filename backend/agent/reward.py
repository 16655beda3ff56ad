"""The knob agent's reward: latency, resources and errors as terms that add up."""

from __future__ import annotations

import math
from collections.abc import Mapping


def reward(
    objective: float,
    resource_use: Mapping[str, float],
    error_rate: float,
    weights: Mapping[str, float],
) -> tuple[float, Mapping[str, float]]:
    """Reward of one measurement: ``-w_latency ln(objective) - sum(w_i use_i) - w_errors rate``.

    Args:
        objective: latency index, above 0 (1 is the reference, lower is better); infinite where
            the configuration crashed.
        resource_use: shares in [0, 1], such as ``{"cpu": 0.7, "memory": 0.4}``.
        error_rate: failed statements as a share of all, in [0, 1].
        weights: by term: ``latency`` (default 1), ``errors`` and the names in ``resource_use``
            (default 0).

    Returns:
        The reward, higher is better, and its terms, which add up to it.

    Raises:
        ValueError: the objective is not above 0, or a share is not finite.
    """
    if not objective > 0.0:
        raise ValueError(f"objective = {objective} must be above 0")
    shares = {**resource_use, "errors": error_rate}
    for name, share in shares.items():
        if not math.isfinite(share):
            raise ValueError(f"{name} = {share} is not a finite share")
    terms = {"latency": -weights.get("latency", 1.0) * math.log(objective)}
    terms.update({name: -weights.get(name, 0.0) * share for name, share in shares.items()})
    return sum(terms.values()), terms
