"""The plan agent at work: its checkpoint, when it learns, and its learning records.

TensorFlow is imported when the agent is loaded, not before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backend.catalog.hint_sets import HintSetCatalog
from backend.config import Settings
from backend.domain.plans import ExplainedPlan, Guess, HintSet
from backend.domain.records import LearningRecord
from backend.errors import CheckpointError
from backend.protocols import Clock, Store
from backend.settings.level0 import PlanAgentSection

if TYPE_CHECKING:
    from backend.query_optimizer import PlanAgent, PlanAgentSettings

log = logging.getLogger(__name__)

AGENT = "plan"
"""The name under which the store keeps its learning."""
UPDATES_PER_OUTCOME = 25
MAX_UPDATES = 500
"""Updates between two turns of the explorer, so that learning stays within seconds."""


def plan_agent_folder(settings: Settings) -> Path:
    """The folder of the plan agent's checkpoint."""
    return Path(settings.paths.policies_dir) / "plan_agent"


def plan_agent_settings(section: PlanAgentSection) -> PlanAgentSettings:
    """The agent's settings, as section ``level0.plan`` says."""
    from backend.query_optimizer import PlanAgentSettings

    return PlanAgentSettings(**section.model_dump())


class PlanLearner:
    """A `PlanGuesser` that remembers: implements ``protocols.PlanGuesser``.

    Args:
        settings: sections level0.plan and paths.
        catalog: the hint sets of the server.
        store: learning records go there.
        clock: time.
        adapt: puts the hyper-parameters of Level 2's genome in place of the settings'.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: HintSetCatalog,
        store: Store,
        clock: Clock,
        adapt: Callable[[PlanAgentSettings], PlanAgentSettings] = lambda settings: settings,
    ) -> None:
        self._section, self._catalog, self._adapt = settings.level0.plan, catalog, adapt
        self._folder = plan_agent_folder(settings)
        self._seed = settings.workload.seed
        self._store, self._clock = store, clock
        self._agent: PlanAgent | None = None
        self._untaught = 0
        self._steps = 0

    def first_guess(
        self, query_class: str, plan_of: Callable[[HintSet], ExplainedPlan | None]
    ) -> Sequence[Guess]:
        """Hint sets ranked by what they promise; see ``PlanAgent.first_guess``."""
        return self._loaded().first_guess(query_class, plan_of)

    def tell(
        self,
        query_class: str,
        hint_set: HintSet,
        log_ratio: float,
        plan_of: Callable[[HintSet], ExplainedPlan | None],
        *,
        timed_out: bool = False,
    ) -> None:
        """Take an outcome; it is learnt from by the next :meth:`learn`."""
        self._loaded().tell(query_class, hint_set, log_ratio, plan_of, timed_out=timed_out)
        self._untaught += 1

    def learn(self) -> None:
        """Learn from the outcomes since the last call, and keep what was learnt.

        Some seconds at most; nothing happens where nothing was told.
        """
        if not self._untaught:
            return
        agent = self._loaded()
        learning = agent.learn(min(MAX_UPDATES, UPDATES_PER_OUTCOME * self._untaught))
        self._untaught = 0
        self._steps += learning.updates
        agent.save(self._folder)
        self._store.add_learning(
            LearningRecord(
                at=self._clock.now(),
                agent=AGENT,
                step=self._steps,
                reward=learning.value,
                critic_loss=learning.loss,
                replay_size=learning.outcomes,
                reward_terms={
                    "trust": learning.trust,
                    "planner_trust": learning.planner_trust,
                    "shortfall": learning.shortfall,
                },
            )
        )

    def _loaded(self) -> PlanAgent:
        if self._agent is None:
            self._agent = self._load()
        return self._agent

    def _load(self) -> PlanAgent:
        from backend.query_optimizer import CHECKPOINT_FILE, PlanAgent

        if (self._folder / CHECKPOINT_FILE).exists():
            try:
                return PlanAgent.load(self._folder, self._catalog)
            except CheckpointError as error:
                log.warning("the plan agent begins anew: %s", error.message)
        wanted = self._adapt(plan_agent_settings(self._section))
        return PlanAgent(self._catalog, self._seed, settings=wanted)
