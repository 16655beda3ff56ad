"""Graphs of TensorFlow: an agent makes few, and one that is gone leaves none behind."""

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
    return graphs()


def graphs() -> int:
    from tensorflow.python.framework.func_graph import FuncGraph

    gc.collect()
    return sum(isinstance(found, FuncGraph) for found in gc.get_objects())


def test_no_graph_outlives_its_agent() -> None:
    """An evolution makes hundreds of agents."""
    import_tensorflow()  # before the first count, so that its own objects are no difference
    first = graphs_after_an_agent(0)
    assert graphs_after_an_agent(1) == graphs_after_an_agent(2) == first


def test_no_graph_is_added_while_an_agent_goes_on() -> None:
    """A function that is traced anew for each size of the replay would take memory for good."""
    import_tensorflow()
    agent = KnobAgent(SPACE, seed=0)
    at = {}
    for step in range(1, 21):
        agent.tell(agent.ask(), objective=1.0 + step)
        if step in (10, 20):  # by the tenth every function was called
            at[step] = graphs()
    assert at[10] == at[20] > 0
