"""Settings of Level 0: the hyper-parameters of the two agents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from backend.settings.section import Section

Width = Annotated[int, Field(ge=1, le=4096)]
"""Units of a hidden layer."""


class KnobAgentSection(Section):
    """The knob agent (DDPG)."""

    learning_rate: float = Field(
        0.0003, gt=0, le=1, description="Adam's step of actor and critics."
    )
    gamma: float = Field(
        0.05, ge=0, lt=1, description="Discount; near 0, since tuning is close to a bandit."
    )
    batch_size: int = Field(64, ge=1, le=4096, description="Transitions a gradient step.")
    buffer_size: int = Field(10000, ge=16, le=1_000_000, description="Transitions in the replay.")
    target_update: float = Field(
        0.01, gt=0, le=1, description="Share by which the target networks follow a step (tau)."
    )
    exploration_start: float = Field(
        0.4, gt=0, le=2, description="First standard deviation of the noise, in encoded units."
    )
    exploration_end: float = Field(
        0.05, gt=0, le=2, description="Last standard deviation of the noise."
    )
    exploration_samples: int = Field(
        100, ge=1, description="Measurements over which it falls from the first to the last."
    )
    hidden_layers: tuple[Width, ...] = Field(
        (64, 64), min_length=1, description="Widths of the hidden layers."
    )
    quality_floor: float = Field(
        0.2, ge=0, le=1, description="A sample below this quality is kept but trains nothing."
    )
    pretrained: bool | Path = Field(
        True,
        description="Where a first run starts from: true, the trained agent that is shipped, if it "
        "fits the server; false, expert rules alone; or the folder that run.py train has written.",
    )
    weight_resources: float = Field(
        0.05, ge=0, le=1, description="Weight of the host's CPU and memory use in the reward."
    )
    weight_errors: float = Field(
        1.0, ge=0, le=10, description="Weight of the error rate in the reward."
    )


class PlanAgentSection(Section):
    """The plan agent (DQN); docs/plan-agent.md."""

    learning_rate: float = Field(0.002, gt=0, le=1, description="Adam's step.")
    gamma: float = Field(0.9, ge=0, lt=1, description="Discount over the steps of one plan search.")
    batch_size: int = Field(64, ge=1, le=4096, description="Transitions a gradient step.")
    buffer_size: int = Field(10000, ge=16, le=1_000_000, description="Plans in the replay.")
    target_update: int = Field(100, ge=1, description="Gradient steps between target updates.")
    hidden_layers: tuple[Width, ...] = Field(
        (64, 32), min_length=1, description="Widths of the hidden layers."
    )
    clear_gain: float = Field(
        0.1,
        ge=0,
        description="A hint set is guessed when more than this gain is left after caution "
        "(natural logarithm of the latency ratio).",
    )


class Level0Section(Section):
    """Level 0: the two agents."""

    knob: KnobAgentSection = Field(default_factory=KnobAgentSection, description="The knob agent.")
    plan: PlanAgentSection = Field(default_factory=PlanAgentSection, description="The plan agent.")
