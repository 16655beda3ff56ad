"""What can be set about the plan agent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlanAgentSettings:
    """What can be set about the plan agent (section ``level0.plan``).

    Gains are natural logarithms: default latency ÷ latency, above 0 is faster.

    Args:
        learning_rate: Adam's step.
        gamma: discount in [0, 1) over the steps of one plan search.
        batch_size: transitions in an update.
        buffer_size: plans kept in the replay; the statement told longest ago is forgotten first.
        target_update: updates between copies of the networks into the target networks.
        hidden_layers: widths of the hidden layers.
        ensemble_size: networks, at least 2. Each is kept from some query classes.
        left_out: share of the networks that a query class is kept from, in (0, 1).
        weight_decay: of the squared weights in the loss.
        prior_scale: of the fixed random functions that hold the networks apart without data.
        step_cost: what an EXPLAIN costs, as a gain.
        reward_clip: gains are clipped to [-reward_clip, reward_clip].
        max_toggles: steps of one plan search.
        max_explains: EXPLAINs of one first guess, that of the default plan included.
        caution: how many standard deviations are taken off an expected gain before it counts.
        clear_gain: a hint set is preferred to the default plan when more than this is left.

    Raises:
        ValueError: a setting is out of its range.
    """

    learning_rate: float = 0.002
    gamma: float = 0.9
    batch_size: int = 64
    buffer_size: int = 10_000
    target_update: int = 100
    hidden_layers: tuple[int, ...] = (64, 32)
    ensemble_size: int = 6
    left_out: float = 0.34
    weight_decay: float = 0.0005
    prior_scale: float = 0.3
    step_cost: float = 0.01
    reward_clip: float = 3.0
    max_toggles: int = 4
    max_explains: int = 24
    caution: float = 0.7
    clear_gain: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_layers", tuple(self.hidden_layers))
        for name in (
            "learning_rate",
            "batch_size",
            "buffer_size",
            "target_update",
            "reward_clip",
            "max_toggles",
            "max_explains",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be above 0")
        for name in ("weight_decay", "prior_scale", "step_cost", "caution", "clear_gain"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be 0 or more")
        if not 0.0 <= self.gamma < 1.0:
            raise ValueError(f"gamma = {self.gamma} must lie in [0, 1)")
        if not 0.0 < self.left_out < 1.0:
            raise ValueError(f"left_out = {self.left_out} must lie in (0, 1)")
        if self.ensemble_size < 2:
            raise ValueError(f"ensemble_size = {self.ensemble_size} must be at least 2")
        if not self.hidden_layers or min(self.hidden_layers) < 1:
            raise ValueError(f"hidden_layers = {self.hidden_layers} must be positive widths")
