"""Every tuner that the benchmarks compare, behind one interface: ask, tell, lower is better.

All of them try the default configuration first, then the priors that they were given, then what
they choose themselves. The peers (Optuna, SMAC3) are optional: requirements-bench.txt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from backend.domain.knobs import KnobSpace, KnobValue
from backend.errors import ConfigError
from backend.protocols import AskTellAgent
from backend.rl_agent import KnobAgent, KnobAgentSettings, Pretrained
from benchmarks.tuners.peer import MissingPeerError
from benchmarks.tuners.plain_ddpg import PlainDdpg
from benchmarks.tuners.random_search import RandomSearch
from benchmarks.tuners.smac3 import Smac3
from benchmarks.tuners.tpe import Tpe

__all__ = ["TUNERS", "MissingPeerError", "make_tuner"]

TUNERS = ("random", "tpe", "smac3", "ddpg", "ours", "ours-warm")


def make_tuner(
    name: str,
    space: KnobSpace,
    seed: int,
    *,
    priors: Sequence[Mapping[str, KnobValue]] = (),
    budget: int = 200,
    state_width: int = 0,
    checkpoint: Path | None = None,
    settings: KnobAgentSettings | None = None,
) -> AskTellAgent:
    """A fresh tuner.

    Args:
        name: one of :data:`TUNERS`.
        space: the knobs to turn.
        seed: same seed and same tells, same asks.
        priors: configurations to try right after the default one; absent knobs count as default.
        budget: evaluations planned; SMAC3 sizes its initial design by it.
        state_width: length of the state vector; 0 for tuning without states. Only "ddpg" and
            ours look at states; "ours-warm" takes the length from its checkpoint.
        checkpoint: the file of what "ours-warm" starts from (``Pretrained``).
        settings: of our own agents, "ours" and "ours-warm".

    Raises:
        ConfigError: no such tuner, or "ours-warm" without a checkpoint.
        MissingPeerError: the peer's package is not installed.
        CheckpointError: the checkpoint does not fit the space.
    """
    if name == "random":
        return RandomSearch(space, seed, priors)
    if name == "tpe":
        return Tpe(space, seed, priors)
    if name == "smac3":
        return Smac3(space, seed, priors, budget=budget)
    if name == "ddpg":
        return PlainDdpg(space, seed, priors, state_width=state_width)
    first = [{}, *priors]  # no knob named: the default configuration
    if name == "ours":
        return KnobAgent(space, seed=seed, settings=settings, priors=first, state_width=state_width)
    if name == "ours-warm":
        if checkpoint is None:
            raise ConfigError("ours-warm starts from a checkpoint, and none was given")
        known = Pretrained.read(checkpoint)
        return KnobAgent.warm(known, space, seed, settings=settings, priors=first)
    raise ConfigError(f"no tuner named {name!r}", remedy=f"choose from {', '.join(TUNERS)}")
