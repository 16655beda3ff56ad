"""A knob agent of few weights on a space with a knob of every kind."""

from __future__ import annotations

from backend.domain.knobs import Knob, KnobConfig, KnobSpace
from backend.rl_agent import KnobAgent, KnobAgentSettings

SPACE = KnobSpace(
    [
        Knob("work_mem", "integer", 64, 2097151, "log", "kB", 4096),
        Knob("cost", "real", 0.5, 10, "log", default=1.1),
        Knob("limit", "integer", 0, 100, special=(-1,), default=-1),
        Knob("workers", "integer", 0, 4, default=2),
        Knob("jit", "boolean", default=True),
        Knob("method", "categorical", choices=("a", "b", "c"), default="b"),
    ]
)
TINY = KnobAgentSettings(
    updates_per_tell=2, hidden_layers=(8,), ensemble_size=3, candidates=64, design_size=3
)


def agent(**options: object) -> KnobAgent:
    return KnobAgent(SPACE, settings=TINY, **options)  # type: ignore[arg-type]


def objective(config: KnobConfig) -> float:
    return 1.0 + abs(float(SPACE["work_mem"].encode(config["work_mem"])[0]) - 0.3)


def drive(learner: KnobAgent, rounds: int) -> list[KnobConfig]:
    asked = []
    for _ in range(rounds):
        asked.append(learner.ask())
        learner.tell(asked[-1], objective(asked[-1]))
    return asked
