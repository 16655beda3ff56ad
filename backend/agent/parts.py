"""What a knob agent is made of, and how it is kept: checkpoints, and what others start from.

The algorithm itself is in :mod:`backend.rl_agent`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from backend.agent.action_grid import ActionGrid
from backend.agent.checkpoint import REMEDY, damaged, read_checkpoint, write_checkpoint
from backend.agent.native_values import NativeValues
from backend.agent.networks import ActorCritic
from backend.agent.normalisation import RunningNormaliser
from backend.agent.pretrained import Pretrained
from backend.agent.replay import Replay
from backend.agent.settings import KnobAgentSettings
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.errors import CheckpointError, KnobError

CHECKPOINT_FILE = "knob_agent.npz"
FORMAT = 3
NETWORK_SETTINGS = ("hidden_layers", "ensemble_size")
"""Settings that the networks' shapes depend on."""
BUILT = (*NETWORK_SETTINGS, "buffer_size", "rank_rewards", "recall_columns")
"""Settings that what an agent has learnt so far depends on."""
COUNTERS: Mapping[str, type] = {
    "_due": int,
    "_design_left": int,
    "_tells": int,
    "_recalled_after": int,
    "_trust": float,
    "_failures": int,
    "_successes": int,
    "_best_reward": float,
}
"""The numbers of :class:`AgentParts` that a checkpoint holds."""

_ASKING = ("_queue", "_asked", "_due", "_design_left", "_recalled_after")
"""What changes when an agent is asked, besides its luck."""

Agent = TypeVar("Agent", bound="AgentParts")


class AgentParts:
    """Everything that a knob agent knows; arguments as :class:`backend.rl_agent.KnobAgent`'s."""

    def __init__(
        self,
        space: KnobSpace,
        seed: int = 0,
        *,
        settings: KnobAgentSettings | None = None,
        priors: Sequence[Mapping[str, KnobValue]] = (),
        state_width: int = 0,
    ) -> None:
        self.space = space
        self.settings = settings or KnobAgentSettings()
        self.seed = seed
        self._rng = np.random.default_rng(seed)
        self._grid = ActionGrid(space)
        defaults = space.default_config()
        full = [defaults.replace(space.validate(prior)) for prior in priors]
        self._natives = NativeValues(space)
        for config in [*full, defaults]:
            self._natives.remember(config)
        # What is tried before the critics choose: these, then points of a design.
        self._queue: list[KnobConfig] = list(dict.fromkeys(full or [defaults]))
        self._due = len(self._queue)  # so many of them; what is left then competes
        self._design_left = max(0, self.settings.design_size - len(self._queue))
        self._asked: dict[KnobConfig, None] = {}  # the newest last, `buffer_size` at most
        self._tells = 0
        # Half-width of the trust region, and what its changes depend on.
        self._trust = self.settings.trust_start
        self._failures = 0
        self._successes = 0
        self._best_reward = -math.inf
        self._recalled_after = -1  # number of tells at the last recall
        self._build(state_width)

    def _build(self, state_width: int) -> None:
        """Everything that depends on the length of the states."""
        s = self.settings
        if 0 < state_width <= max(s.recall_columns, default=-1):
            raise ValueError(
                f"recall_columns = {s.recall_columns} do not fit states of length {state_width}"
            )
        self.state_width = state_width
        self._states = RunningNormaliser(state_width)
        self._replay = Replay(
            s.buffer_size, state_width, self.space.width, s.ensemble_size, ranked=s.rank_rewards
        )
        self._networks = ActorCritic(
            state_width,
            self.space.width,
            hidden_layers=s.hidden_layers,
            members=s.ensemble_size,
            actor_rate=s.learning_rate,
            critic_rate=s.critic_learning_rate,
            gamma=s.gamma,
            tau=s.tau,
            seed=self.seed,
        )

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """What is asked inside counts as not asked: the next ask answers as if it had not been."""
        kept = {name: copy.copy(getattr(self, name)) for name in _ASKING}
        luck = copy.deepcopy(self._rng.bit_generator.state)
        try:
            yield
        finally:
            for name, value in kept.items():
                setattr(self, name, value)
            self._rng.bit_generator.state = luck

    def _note_asked(self, config: KnobConfig) -> None:
        """It is not asked for again, as long as the replay would remember it."""
        self._asked.pop(config, None)
        self._asked[config] = None
        if len(self._asked) > self.settings.buffer_size:
            del self._asked[next(iter(self._asked))]

    # -- checkpoints ------------------------------------------------------------------------

    def save(self, folder: Path | str) -> None:
        """Write everything that :meth:`load` needs to go on as if nothing had happened.

        One file, replaced in one step; no pickle in it.
        """
        about = {
            "format": FORMAT,
            "fingerprint": self.space.fingerprint,
            "seed": self.seed,
            "state_width": self.state_width,
            "settings": dataclasses.asdict(self.settings),
            "rng": self._rng.bit_generator.state,
            "queue": [dict(config) for config in self._queue],
            "asked": [dict(config) for config in self._asked],
            "natives": self._natives.pairs(),
            "counters": {name: getattr(self, name) for name in COUNTERS},
        }
        arrays: dict[str, NDArray[np.generic]] = {}
        for part, owner in self._owners().items():
            arrays.update({f"{part}.{name}": array for name, array in owner.arrays().items()})
        write_checkpoint(Path(folder) / CHECKPOINT_FILE, about, arrays)

    @classmethod
    def load(
        cls: type[Agent],
        folder: Path | str,
        space: KnobSpace,
        settings: KnobAgentSettings | None = None,
    ) -> Agent:
        """Restore what :meth:`save` wrote.

        Args:
            folder: where the checkpoint is.
            space: the knobs to turn.
            settings: to go on with, in place of those that it was saved with; what it has built
                (:data:`BUILT`) stays as it is.

        Raises:
            CheckpointError: there is none, it is damaged, or it belongs to another knob space.
        """
        path = Path(folder) / CHECKPOINT_FILE
        about, arrays = read_checkpoint(path)
        found = (about.get("format"), about.get("fingerprint"))
        if found != (FORMAT, space.fingerprint):
            raise CheckpointError(
                f"{path} has format {found[0]} and knob space {found[1]}, "
                f"expected {FORMAT} and {space.fingerprint}",
                remedy=REMEDY,
            )
        try:
            saved = KnobAgentSettings(**about["settings"])
            built = {name: getattr(saved, name) for name in BUILT}
            wanted = dataclasses.replace(settings or saved, **built)
            agent = cls(space, about["seed"], settings=wanted, state_width=about["state_width"])
            agent._rng.bit_generator.state = about["rng"]
            agent._queue = [space.validate(config) for config in about["queue"]]
            agent._asked = dict.fromkeys(space.validate(config) for config in about["asked"])
            agent._natives.restore(about["natives"])
            for name, kind in COUNTERS.items():
                setattr(agent, name, kind(about["counters"][name]))
            for part, owner in agent._owners().items():
                start = len(part) + 1
                owner.restore({n[start:]: a for n, a in arrays.items() if n.startswith(f"{part}.")})
            scaled = agent._trust * wanted.trust_start / saved.trust_start
            agent._trust = min(max(scaled, wanted.trust_min), wanted.trust_max)
        except (ValueError, KeyError, TypeError, AttributeError, KnobError) as error:
            raise damaged(path, error) from error
        return agent

    def _owners(self) -> dict[str, ActorCritic | Replay | RunningNormaliser]:
        """Who holds a checkpoint's arrays, by the part of their names before the dot."""
        return {"networks": self._networks, "replay": self._replay, "states": self._states}

    # -- what others start from -------------------------------------------------------------

    def pretrained(self) -> Pretrained:
        """What this agent knows, to start others from (:meth:`warm`)."""
        replay = self._replay
        return Pretrained(
            shape_fingerprint=self.space.shape_fingerprint,
            state_width=self.state_width,
            settings=dataclasses.asdict(self.settings),
            weights=self._networks.weights(),
            normaliser=self._states.arrays(),
            transitions={name: replay[name] for name in Pretrained.FIELDS},
        )

    @classmethod
    def warm(
        cls: type[Agent],
        pretrained: Pretrained,
        space: KnobSpace,
        seed: int = 0,
        *,
        settings: KnobAgentSettings | None = None,
        priors: Sequence[Mapping[str, KnobValue]] = (),
    ) -> Agent:
        """A new agent that starts from what another one learnt elsewhere.

        It keeps the networks' sizes of the other one. The first prior is tried first, whatever
        was learnt: a load unlike all those seen before may make the critics wrong, and then it
        is where to start from. The others compete with the agent's own proposals before the
        critics.

        Raises:
            CheckpointError: the knowledge is of a space of another shape, or damaged.
        """
        pretrained.check(space)
        try:
            return cls._warm(pretrained, space, seed, settings or KnobAgentSettings(), priors)
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"the trained agent is damaged or of another version: {error}"[:500],
                remedy="train anew: python run.py train",
            ) from error

    @classmethod
    def _warm(
        cls: type[Agent],
        pretrained: Pretrained,
        space: KnobSpace,
        seed: int,
        settings: KnobAgentSettings,
        priors: Sequence[Mapping[str, KnobValue]],
    ) -> Agent:
        sizes = {name: pretrained.settings[name] for name in NETWORK_SETTINGS}
        settings = dataclasses.replace(settings, **sizes)
        agent = cls(
            space, seed, settings=settings, priors=priors, state_width=pretrained.state_width
        )
        agent._networks.restore_weights(pretrained.weights)
        agent._states.restore(pretrained.normaliser)
        for episode, transition in pretrained.replayed():
            agent._replay.add(transition, agent._rng, episode)
        agent._due = 1 if priors else 0
        agent._design_left = 0
        return agent
