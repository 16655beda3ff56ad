"""What can be set about the knob agent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnobAgentSettings:
    """What can be set about the knob agent (section ``level0.knob``).

    Args:
        learning_rate: of the actor; Adam.
        critic_learning_rate: of the critics; ten times the actor's, as in the DDPG paper.
        gamma: discount in [0, 1). A configuration's effect is measured after it has settled, so
            hardly anything of the next state is due to it: near 0.
        tau: share by which the target networks follow in each update.
        batch_size, buffer_size: transitions in an update and in the replay.
        hidden_layers: widths of the hidden layers of actor and critics.
        ensemble_size: critics.
        updates_per_tell: updates after each measurement.
        noise_start, noise_end, noise_samples: standard deviation of the exploration noise in
            encoded units (the range of a knob is 2), falling geometrically over that many tells.
        optimism: how many standard deviations of the ensemble are added to its mean when
            candidates are compared.
        design_size: configurations tried before the critics choose, priors included.
        candidates: proposals compared in one ask; 0 for the paper's way: the actor's own action
            with noise is played.
        actor_share: share of the proposals that follow the actor, in [0, 0.5].
        rank_rewards: whether critics learn from the ranks of rewards, or from rewards with mean
            0 and spread 1.
        trust_start, trust_min, trust_max: half-width of the trust region, in encoded units; 2 and
            more is the whole space.
        far_knobs: proposals that move so many knobs at most may leave the trust region once asks
            have failed in a row, and every other one moves a single knob far; 0 keeps all inside.
        moved_knobs: proposals differ from the best known configuration in so many knobs at
            most; 0 for no limit.
        quality_floor: samples of lower quality train nothing.
        recall_columns: the state's coordinates that tell which load this is, and that knobs do
            not change; empty for all of them.

    Raises:
        ValueError: a setting is out of its range.
    """

    learning_rate: float = 0.0003
    critic_learning_rate: float = 0.003
    gamma: float = 0.05
    tau: float = 0.01
    batch_size: int = 64
    buffer_size: int = 10_000
    hidden_layers: tuple[int, ...] = (64, 64)
    ensemble_size: int = 8
    updates_per_tell: int = 60
    noise_start: float = 0.4
    noise_end: float = 0.05
    noise_samples: int = 100
    optimism: float = 1.5
    design_size: int = 8
    candidates: int = 1000
    actor_share: float = 0.25
    rank_rewards: bool = True
    trust_start: float = 1.0
    trust_min: float = 0.1
    trust_max: float = 2.0
    far_knobs: int = 2
    moved_knobs: int = 0
    quality_floor: float = 0.2
    recall_columns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_layers", tuple(self.hidden_layers))
        object.__setattr__(self, "recall_columns", tuple(self.recall_columns))
        positive = (
            "learning_rate",
            "critic_learning_rate",
            "tau",
            "batch_size",
            "buffer_size",
            "ensemble_size",
            "noise_start",
            "noise_end",
            "noise_samples",
            "trust_min",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be above 0")
        if not 0.0 <= self.gamma < 1.0:
            raise ValueError(f"gamma = {self.gamma} must lie in [0, 1)")
        if not 0.0 <= self.actor_share <= 0.5:
            raise ValueError(f"actor_share = {self.actor_share} must lie in [0, 0.5]")
        if not self.trust_min <= self.trust_start <= self.trust_max:
            raise ValueError("trust_min <= trust_start <= trust_max must hold")
        if not self.hidden_layers or min(self.hidden_layers) < 1:
            raise ValueError(f"hidden_layers = {self.hidden_layers} must be positive widths")
        if min(self.recall_columns, default=0) < 0:
            raise ValueError(f"recall_columns = {self.recall_columns} must count from 0")
