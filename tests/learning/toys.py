"""Toy problems with a known answer, and how an agent or blind search does on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from backend.domain.knobs import Knob, KnobSpace, KnobValue
from backend.rl_agent import KnobAgent

Objective = Callable[[Mapping[str, KnobValue]], float]

SPACE = KnobSpace(
    [
        Knob("work_mem", "integer", 64, 1048576, "log", "kB", 4096),
        Knob("random_page_cost", "real", 1.0, 10.0, "log", default=4.0),
        Knob("workers", "integer", 0, 8, default=2),
        Knob("jit", "boolean", default=True),
        Knob("method", "categorical", choices=("a", "b", "c", "d"), default="a"),
    ]
)
BEST: Mapping[str, KnobValue] = {
    "work_mem": 65536,
    "random_page_cost": 1.5,
    "workers": 6,
    "jit": False,
    "method": "c",
}


def bowl(config: Mapping[str, KnobValue]) -> float:
    """Quadratic in the encoding with an interaction; 1.0 at BEST, several at the default."""
    gap = {
        name: float(SPACE[name].encode(config[name])[0] - SPACE[name].encode(BEST[name])[0])
        for name in ("work_mem", "random_page_cost", "workers")
    }
    cost = 2.0 * gap["work_mem"] ** 2 + gap["random_page_cost"] ** 2 + 0.5 * gap["workers"] ** 2
    cost += 1.2 * gap["work_mem"] * gap["random_page_cost"]
    cost += 0.4 * (config["jit"] != BEST["jit"])
    cost += {"a": 0.6, "b": 0.3, "c": 0.0, "d": 1.0}[str(config["method"])]
    return 1.0 + cost


def best_found(agent: KnobAgent, objective: Objective, evaluations: int) -> list[float]:
    """Let the agent ask and be told; the best true value so far after each evaluation."""
    values = []
    for _ in range(evaluations):
        config = agent.ask()
        values.append(objective(config))
        agent.tell(config, values[-1])
    return list(np.minimum.accumulate(values))


def random_search(space: KnobSpace, objective: Objective, evaluations: int, seed: int) -> float:
    """The best of the default configuration and uniform draws."""
    rng = np.random.default_rng(seed)
    draws = [space.decode(rng.uniform(-1, 1, space.width)) for _ in range(evaluations - 1)]
    return min(objective(config) for config in [space.default_config(), *draws])
