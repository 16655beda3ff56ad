"""The knob agent at work: where it starts from, expert rules, checkpoint, learning records.

TensorFlow is imported when the learner is loaded, not before, so that pages and the watchdog
start at once.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.config import Settings
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.metrics import MetricsWindow
from backend.domain.records import (
    EventRecord,
    KnobSpaceRecord,
    LearningRecord,
    TransitionRecord,
)
from backend.domain.server import HostFacts
from backend.errors import CheckpointError
from backend.expert_rules import expert_proposals
from backend.memory_budget import MemoryBudget
from backend.protocols import Clock, Store
from backend.settings.level0 import KnobAgentSection
from backend.state_features import OFFERED_COLUMNS, STATE_LAYOUT, STATE_WIDTH

if TYPE_CHECKING:
    from backend.rl_agent import KnobAgent, KnobAgentSettings

log = logging.getLogger(__name__)

AGENT = "knob agent (DDPG)"
LIVE_TRUST = 0.4
"""Half-width of the first trust region on a live server, in encoded units: proposals stay near
what is known to be good (the agent's own default is for offline problems)."""
LIVE_MOVED_KNOBS = 4
"""A proposal differs from the best one known in so many knobs at most: moving all of some forty
knobs at once, each a little, was stopped by the safety monitor as often as not."""
TRAINED_FILE = "pretrained.npz"
"""What offline training writes, in the folder of the agent's checkpoint or in another one."""
SHIPPED = Path(__file__).parent / "agent" / "pretrained"
"""The folder of the trained agent that comes with the project."""


def agent_folder(settings: Settings) -> Path:
    """The folder of the knob agent's checkpoint."""
    return Path(settings.paths.policies_dir) / "knob_agent"


def pretrained_folder(section: KnobAgentSection) -> Path | None:
    """The folder of the trained agent that a first run starts from; None where rules alone do."""
    chosen = section.pretrained
    if isinstance(chosen, bool):
        return SHIPPED if chosen else None
    return Path(chosen)


def agent_settings(section: KnobAgentSection) -> KnobAgentSettings:
    """The agent's settings on a live server."""
    from backend.rl_agent import KnobAgentSettings

    return KnobAgentSettings(
        learning_rate=section.learning_rate,
        gamma=section.gamma,
        tau=section.target_update,
        batch_size=section.batch_size,
        buffer_size=section.buffer_size,
        hidden_layers=section.hidden_layers,
        noise_start=section.exploration_start,
        noise_end=section.exploration_end,
        noise_samples=section.exploration_samples,
        quality_floor=section.quality_floor,
        trust_start=LIVE_TRUST,
        far_knobs=0,
        moved_knobs=LIVE_MOVED_KNOBS,
        recall_columns=OFFERED_COLUMNS,
    )


class Learner:
    """The knob agent with everything around it that is not the algorithm.

    Args:
        settings: sections level0.knob and paths.
        space: the knobs to tune.
        host: the machine, for the expert rules.
        budget: the joint memory budget.
        store: learning records and transitions go there.
        clock: time.
        adapt: puts the hyper-parameters of Level 2's genome in place of the settings'.

    Attributes:
        proposer: where the last proposal came from, for people.
        workload: what transitions are labelled with: the demo's workload, or the database.
    """

    def __init__(
        self,
        settings: Settings,
        space: KnobSpace,
        host: HostFacts,
        budget: MemoryBudget,
        store: Store,
        clock: Clock,
        adapt: Callable[[KnobAgentSettings], KnobAgentSettings] = lambda settings: settings,
    ) -> None:
        self._section, self._adapt = settings.level0.knob, adapt
        self._folder = agent_folder(settings)
        self._space, self._host, self._budget = space, host, budget
        self._store, self._clock = store, clock
        self._seed = settings.workload.seed
        self._agent: KnobAgent | None = None
        self._rules: dict[KnobConfig, tuple[str, Mapping[str, KnobValue]]] = {}
        self._run = uuid.uuid4().hex
        self.proposer = AGENT
        self.workload: str = (
            settings.workload.name if settings.is_embedded else settings.database.dbname
        )

    def load(self, present: KnobConfig) -> None:
        """Make the agent ready; what it starts from is the first of these that can be used.

        The checkpoint of earlier runs; what ``run.py train`` has written beside it; the trained
        agent of setting ``level0.knob.pretrained``; nothing but the expert rules for ``present``,
        which are among the first samples of a trained agent too.
        """
        from backend.rl_agent import CHECKPOINT_FILE, KnobAgent

        self._read_rules(present)
        self._store.add_knob_space(KnobSpaceRecord.of(self._space))
        attempts: list[tuple[Path, Callable[[Path], KnobAgent]]] = [
            (self._folder / CHECKPOINT_FILE, lambda path: self._own(path.parent)),
            (self._folder / TRAINED_FILE, self._warm),
        ]
        folder = pretrained_folder(self._section)
        if folder is not None:
            attempts.append((folder / TRAINED_FILE, self._warm))
        for path, open_agent in attempts:
            if not path.exists():
                if path.parent == folder:
                    self._event("warning", f"level0.knob.pretrained: there is no {path}")
                continue
            try:
                self._agent = open_agent(path)
            except CheckpointError as error:
                self._event("warning", f"checkpoint not used: {path}: {error.message}")
                if path.name == CHECKPOINT_FILE:  # the next one would be written over it
                    aside = path.replace(path.with_suffix(".not-used.npz"))
                    self._event("info", f"it is kept as {aside}")
                continue
            self._event("info", f"the knob agent starts from {path}")
            return
        self._agent = KnobAgent(
            self._space,
            seed=self._seed,
            settings=self._adapt(agent_settings(self._section)),
            priors=list(self._rules),
            state_width=STATE_WIDTH,
        )

    def adopt(self, adapt: Callable[[KnobAgentSettings], KnobAgentSettings]) -> None:
        """Go on with other hyper-parameters: what was learnt, and the networks' sizes, stay.

        Args:
            adapt: as the constructor's.
        """
        self._adapt = adapt
        if self._agent is not None:
            self._agent.save(self._folder)
            self._agent = self._own(self._folder)

    def _own(self, folder: Path) -> KnobAgent:
        from backend.rl_agent import KnobAgent

        wanted = self._adapt(agent_settings(self._section))
        agent = KnobAgent.load(folder, self._space, wanted)
        if agent.state_width != STATE_WIDTH:
            raise CheckpointError(
                f"the checkpoint in {folder} takes states of length {agent.state_width}, "
                f"this version measures {STATE_WIDTH}",
                remedy="train from what the store has recorded: python run.py train",
            )
        return agent

    def _warm(self, path: Path) -> KnobAgent:
        from backend.rl_agent import KnobAgent, Pretrained

        known = Pretrained.read(path)
        known.check(self._space, STATE_LAYOUT)
        settings = self._adapt(agent_settings(self._section))
        return KnobAgent.warm(
            known, self._space, self._seed, settings=settings, priors=list(self._rules)
        )

    def _read_rules(self, present: KnobConfig) -> None:
        """Each rule's configuration, with its name and what it changes in ``present``."""
        base = self._completed(present)
        for proposal in expert_proposals(self._space, self._host, present):
            wanted = self._completed(proposal.config)
            changes = {name: value for name, value in wanted.items() if value != base[name]}
            tried = self._completed(self.clamp(wanted))
            self._rules[tried] = (f"expert rule: {proposal.name}", changes)

    def _completed(self, config: Mapping[str, KnobValue]) -> KnobConfig:
        return self._space.default_config().replace(
            {name: value for name, value in config.items() if name in self._space}
        )

    def ask(self, state: NDArray[np.float64] | None, present: KnobConfig) -> KnobConfig:
        """The configuration to try next, not yet clamped; ``proposer`` names where it came from.

        A rule changes its own knobs in what is deployed now (``present``), whatever has been
        promoted since it was made: it never takes back what was proven. Asked for once more, its
        configuration is one that was measured, and is meant as a whole.
        """
        config = self._loaded().ask(state)
        self.proposer, changes = self._rules.pop(config, (AGENT, config))
        return present.replace(changes)

    def advise(
        self, state: NDArray[np.float64] | None, present: KnobConfig
    ) -> Mapping[str, KnobValue]:
        """What would be tried next; nothing is used up by looking."""
        agent = self._loaded()
        with agent.looking():
            config = agent.ask(state)
        _, changes = self._rules.get(config, (AGENT, config))
        return present.replace(changes)

    def clamp(self, config: Mapping[str, KnobValue]) -> KnobConfig:
        """Shrink memory knobs until they pass the joint budget."""
        return self._budget.clamp(config)

    def fit(self, config: Mapping[str, KnobValue]) -> KnobConfig:
        """The configuration as it may be tried.

        Raises:
            MemoryBudgetError: it cannot be shrunk far enough.
        """
        clamped = self.clamp(config)
        self._budget.check(clamped)
        return clamped

    def tell(
        self,
        config: KnobConfig,
        objective: float,
        state: NDArray[np.float64] | None,
        quality: float,
        window: MetricsWindow | None,
        *,
        censored: bool = False,
    ) -> None:
        """Learn from a measurement, record what was learnt, keep a checkpoint.

        The reward weighs latency, resource use and errors; ``window`` supplies the last two.
        """
        from backend.rl_agent import reward

        _, terms = reward(
            objective,
            resource_use(window),
            error_rate(window),
            {
                "latency": 1.0,
                "cpu": self._section.weight_resources,
                "memory": self._section.weight_resources,
                "errors": self._section.weight_errors,
            },
        )
        agent = self._loaded()
        agent.tell(config, objective, state, quality, censored, reward_terms=terms)
        self._store.add_transition(
            TransitionRecord(
                at=self._clock.now(),
                run=self._run,
                workload=self.workload,
                knob_space=self._space.fingerprint,
                state_layout=STATE_LAYOUT,
                state=() if state is None else tuple(map(float, state)),
                config=dict(self._completed(config)),
                objective=objective,
                quality=quality,
                censored=censored,
                reward_terms=dict(terms),
            )
        )
        step = agent.last_learning
        if step is not None:
            self._store.add_learning(
                LearningRecord(
                    at=self._clock.now(),
                    agent="knob",
                    step=step.step,
                    reward=step.reward,
                    critic_loss=step.critic_loss,
                    actor_loss=step.actor_loss,
                    noise=step.noise,
                    replay_size=step.replay_size,
                    quality=quality,
                    reward_terms=dict(step.reward_terms),
                )
            )
        agent.save(self._folder)

    def _loaded(self) -> KnobAgent:
        if self._agent is None:
            raise CheckpointError("the learner was not loaded", remedy="call load() first")
        return self._agent

    def _event(self, level: str, message: str) -> None:
        self._store.add_event(EventRecord(self._clock.now(), level, "learning", message))


def resource_use(window: MetricsWindow | None) -> dict[str, float]:
    """Shares of the host's CPU and memory in use, in [0, 1]."""
    if window is None:
        return {"cpu": 0.0, "memory": 0.0}
    return {
        "cpu": min(window.gauges.get("host_cpu_percent", 0.0) / 100, 1.0),
        "memory": min(window.gauges.get("host_memory_percent", 0.0) / 100, 1.0),
    }


def error_rate(window: MetricsWindow | None) -> float:
    """Rolled back transactions as a share of all, in [0, 1]."""
    if window is None:
        return 0.0
    failed = window.rates.get("xact_rollback", 0.0)
    total = failed + window.rates.get("xact_commit", 0.0)
    return failed / total if total > 0 else 0.0
