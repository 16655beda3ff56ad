"""What was learnt on some workloads helps on another one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from backend.domain.knobs import KnobValue
from backend.domain.transition import Transition
from backend.rl_agent import KnobAgent, KnobAgentSettings
from tests.learning.toys import BEST, SPACE

QUICK = KnobAgentSettings(updates_per_tell=30, candidates=400)
TRIALS = 10


class Workload:
    """Statements of which a share sorts: the more of them, the more work_mem they want.

    All workloads agree about the other knobs. The state shows the share and two idle readings.
    """

    def __init__(self, sorting: float, seed: int) -> None:
        self.sorting, self._rng = sorting, np.random.default_rng(seed)

    def state(self) -> NDArray[np.float64]:
        return np.array([100.0 * self.sorting, *self._rng.normal(size=2)])

    def index(self, config: Mapping[str, KnobValue]) -> float:
        encoded = {knob.name: float(knob.encode(config[knob.name])[0]) for knob in SPACE}
        best = {name: float(SPACE[name].encode(value)[0]) for name, value in BEST.items()}
        cost = 2.0 * (encoded["work_mem"] - (2.0 * self.sorting - 1.0)) ** 2
        cost += (encoded["random_page_cost"] - best["random_page_cost"]) ** 2
        cost += 0.4 * (config["jit"] != BEST["jit"])
        cost += {"a": 0.6, "b": 0.3, "c": 0.0, "d": 1.0}[str(config["method"])]
        return 1.0 + cost


def recorded(workload: Workload, count: int, seed: int) -> list[Transition]:
    rng = np.random.default_rng(seed)
    transitions = []
    for _ in range(count):
        config = SPACE.decode(rng.uniform(-1, 1, SPACE.width))
        index = workload.index(config) * float(np.exp(0.05 * rng.standard_normal()))
        state = workload.state()
        transitions.append(Transition(state, SPACE.encode(config), -index, state, index))
    return transitions


def best_after(agent: KnobAgent, workload: Workload) -> list[float]:
    values = []
    for _ in range(TRIALS):
        state = workload.state()
        config = agent.ask(state)
        values.append(workload.index(config))
        agent.tell(config, values[-1], state)
    return list(np.minimum.accumulate(values))


def test_a_warm_agent_is_ahead_of_a_cold_one_on_a_workload_it_never_saw() -> None:
    teacher = KnobAgent(SPACE, settings=QUICK, state_width=3)
    seen = [Workload(sorting, seed=10 + i) for i, sorting in enumerate((0.1, 0.3, 0.5, 0.7, 0.9))]
    teacher.pretrain([recorded(workload, 30, seed=i) for i, workload in enumerate(seen)])
    known = teacher.pretrained()
    warm, cold = [], []
    for seed, sorting in enumerate((0.2, 0.4, 0.8)):
        warm.append(
            best_after(KnobAgent.warm(known, SPACE, seed, settings=QUICK), Workload(sorting, seed))
        )
        cold.append(
            best_after(
                KnobAgent(SPACE, seed, settings=QUICK, state_width=3), Workload(sorting, seed)
            )
        )
    assert np.mean([curve[2] for curve in warm]) < np.mean([curve[-1] for curve in cold])
    assert np.mean([curve[-1] for curve in warm]) < 1.15
