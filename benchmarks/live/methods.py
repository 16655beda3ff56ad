"""The methods to compare, by name."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.config import Settings
from backend.domain.knobs import KnobSpace
from backend.domain.server import HostFacts
from backend.errors import ConfigError
from backend.expert_rules import expert_proposals
from backend.memory_budget import MemoryBudget
from backend.protocols import AskTellAgent
from backend.state_features import STATE_LAYOUT, STATE_WIDTH

DEFAULTS, PGTUNE, OURS, OURS_WARM = "defaults", "pgtune", "ours", "ours-warm"
FIXED = (DEFAULTS, PGTUNE)
"""Configurations that are known beforehand: nothing is tried, they are measured at the end."""
TUNERS = ("random", "tpe", "smac3", "ddpg", OURS, OURS_WARM)
NAMES = (*FIXED, *TUNERS)
_PACKAGES = {"tpe": "optuna", "smac3": "smac"}


def is_ours(name: str) -> bool:
    """Whether it is the product's agent; all others are peers."""
    return name in (OURS, OURS_WARM)


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The methods asked for, each once, in the order given.

    Raises:
        ConfigError: an unknown name, none at all, or one whose package is not installed.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise ConfigError(
            f"unknown methods: {', '.join(unknown)}" if unknown else "no method was named",
            remedy=f"choose among {', '.join(NAMES)}",
        )
    missing = [n for n in names if n in _PACKAGES and not importlib.util.find_spec(_PACKAGES[n])]
    if missing:
        raise ConfigError(
            f"not installed: {', '.join(_PACKAGES[name] for name in missing)}",
            remedy="pip install -r requirements-bench.txt, or leave out " + ", ".join(missing),
        )
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class Problem:
    """What a tuner is made for.

    Args:
        space: the knobs to tune; its default configuration is what stands.
        host: the machine, for the expert rules.
        budget: the joint memory budget.
        settings: section level0.knob is the agent's.
        trials: how many there will be, about; SMAC3 sizes its initial design by it.
        checkpoint: the trained agent that ours-warm starts from; None: the one that is shipped.
    """

    space: KnobSpace
    host: HostFacts
    budget: MemoryBudget
    settings: Settings
    trials: int
    checkpoint: Path | None = None


def make(name: str, seed: int, problem: Problem) -> AskTellAgent:
    """A fresh tuner of this name; ours is wired as :mod:`backend.learning` wires it.

    Raises:
        CheckpointError: ours-warm has none that fits.
    """
    if is_ours(name):
        return _agent(name, seed, problem)
    from benchmarks.tuners import make_tuner

    return make_tuner(name, problem.space, seed, budget=problem.trials, state_width=STATE_WIDTH)


def agent_digest(name: str, problem: Problem) -> str:
    """Tells the trained agents that ours-warm starts from apart; empty for other methods."""
    if name != OURS_WARM:
        return ""
    return hashlib.sha256(_checkpoint(problem).read_bytes()).hexdigest()[:12]


def _checkpoint(problem: Problem) -> Path:
    from backend.learning import SHIPPED, TRAINED_FILE

    return problem.checkpoint or SHIPPED / TRAINED_FILE


def _agent(name: str, seed: int, problem: Problem) -> AskTellAgent:
    from backend.learning import agent_settings
    from backend.rl_agent import KnobAgent, Pretrained

    space = problem.space
    rules = expert_proposals(space, problem.host, space.default_config())
    priors = [problem.budget.clamp(rule.config) for rule in rules]
    settings = agent_settings(problem.settings.level0.knob)
    if name == OURS:
        return KnobAgent(space, seed, settings=settings, priors=priors, state_width=STATE_WIDTH)
    known = Pretrained.read(_checkpoint(problem))
    known.check(space, STATE_LAYOUT)
    return KnobAgent.warm(known, space, seed, settings=settings, priors=priors)
