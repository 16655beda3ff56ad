"""An agent that is gone leaves no graph of TensorFlow behind: an evolution makes hundreds."""

from __future__ import annotations

import gc

from backend.agent.lazy_tensorflow import import_tensorflow
from backend.domain.knobs import Knob, KnobSpace
from backend.rl_agent import KnobAgent

SPACE = KnobSpace([Knob("work_mem", "integer", 64, 2097151, "log", "kB", 4096)])


def graphs_after_an_agent(seed: int) -> int:
    agent = KnobAgent(SPACE, seed=seed)
    for step in range(3):
        agent.tell(agent.ask(), objective=1.0 + step)
    del agent
    gc.collect()
    from tensorflow.python.framework.func_graph import FuncGraph

    return sum(isinstance(found, FuncGraph) for found in gc.get_objects())


def test_no_graph_outlives_its_agent() -> None:
    import_tensorflow()  # before the first count, so that its own objects are no difference
    first = graphs_after_an_agent(0)
    assert graphs_after_an_agent(1) == graphs_after_an_agent(2) == first
