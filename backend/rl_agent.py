"""The knob agent: DDPG in TensorFlow, made for a few hundred expensive and noisy measurements.

Deep deterministic policy gradient (Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971) has
an actor that maps a state to an action, a critic that judges state and action, slow target
copies of both, a replay and exploration noise. Turning knobs is close to a contextual bandit, so
here the discount is near 0; the critic is a small bootstrapped ensemble (its spread says what is
not known yet); rewards are rank-normalised; and the actor's proposals compete with mutations of
the best known configurations before the critics, inside a trust region (after TuRBO, Eriksson et
al. 2019, https://arxiv.org/abs/1910.01739). docs/knob-agent.md defines every logged quantity and
lists each deviation from the paper.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from backend.agent.action_grid import ActionGrid
from backend.agent.checkpoint import REMEDY, damaged, read_checkpoint, write_checkpoint
from backend.agent.native_values import NativeValues
from backend.agent.networks import ActorCritic
from backend.agent.normalisation import RunningNormaliser
from backend.agent.pretrained import Pretrained
from backend.agent.replay import Replay
from backend.agent.reward import reward
from backend.agent.settings import KnobAgentSettings
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.transition import Transition
from backend.errors import CheckpointError, KnobError

__all__ = ["KnobAgent", "KnobAgentSettings", "LearningStep", "Pretrained", "reward"]

FloatArray = NDArray[np.float64]
CHECKPOINT_FILE = "knob_agent.npz"
FORMAT = 2
RECALL_FROM = 8
"""Recall needs so many measurements of its own."""
RECALL_SHIFT = 4.0
"""The state has moved when it is so many times further from the last ones (squared distances) than
neighbouring ones usually are."""
RECALL_NEAR = 0.5
"""States like the present one are within this share of the (squared) distance moved."""
TRUST_FAILURES = 6
"""After so many asks in a row without a new best the trust region shrinks."""
NETWORK_SETTINGS = ("hidden_layers", "ensemble_size")
"""Settings that the networks' shapes depend on."""


@dataclasses.dataclass(frozen=True)
class LearningStep:
    """What the last tell changed; losses are None while there is too little to learn from."""

    step: int
    reward: float
    reward_terms: Mapping[str, float]
    critic_loss: float | None
    actor_loss: float | None
    noise: float
    replay_size: int
    quality: float
    trust_half_width: float


class KnobAgent:
    """Proposes configurations and learns from what became of them.

    Args:
        space: the knobs to turn.
        seed: same seed and same tells, same asks.
        settings: see :class:`KnobAgentSettings`.
        priors: configurations to try first (expert rules); absent knobs count as default. With
            none the default configuration is tried first.
        state_width: length of the state vector; 0 takes the length of the first one given.
    """

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
        self.last_learning: LearningStep | None = None
        self._rng = np.random.default_rng(seed)
        self._grid = ActionGrid(space)
        defaults = space.default_config()
        full = [defaults.replace(space.validate(prior)) for prior in priors]
        self._natives = NativeValues(space)
        for config in [*full, defaults]:
            self._natives.remember(config)
        self._queue: list[KnobConfig] = list(dict.fromkeys(full or [defaults]))
        self._design_left = max(0, self.settings.design_size - len(self._queue))
        self._asked: set[KnobConfig] = set()
        self._tells = 0
        self._trust = self.settings.trust_start
        self._failures = 0
        self._successes = 0
        self._best_reward = -math.inf
        self._recalled_after = -1
        self._build(state_width)

    def _build(self, state_width: int) -> None:
        s = self.settings
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

    # -- ask --------------------------------------------------------------------------------

    def ask(self, state: NDArray[np.float64] | None = None) -> KnobConfig:
        """The configuration to try next, every knob named, values native.

        When the state has moved to where it has been before, the best configuration measured
        there comes first: a workload that comes back is answered at once.

        Args:
            state: what is known now, shape ``(state_width,)``; None stands for the mean state.

        Raises:
            ValueError: the state has another length, or is not finite.
        """
        raw = self._state(state)
        self._replay.link_next_state(raw)
        config = self._recalled(raw)
        if config is None:
            config = self._next_config(self._states(raw))
        self._asked.add(config)
        return config

    def _recalled(self, raw: FloatArray) -> KnobConfig | None:
        """After the state has moved: the best configuration measured in states like this one.

        Once for each move: what is told of it, or of anything else, brings the last states here.
        """
        replay, own = self._replay, self._replay.own_rows()
        if len(own) < RECALL_FROM or self.state_width == 0 or self._recalled_after == self._tells:
            return None
        states, now = self._states(replay["states"][own]), self._states(raw)
        usual = np.median(((states[1:] - states[:-1]) ** 2).sum(axis=1))
        gap = ((states[-2:] - now) ** 2).sum(axis=1).min()
        if gap <= RECALL_SHIFT * usual:
            return None  # still the same workload
        # Medians of three neighbours in time: one odd reading does not hide a sample.
        calm = states.copy()
        calm[1:-1] = np.median([states[:-2], states[1:-1], states[2:]], axis=0)
        near = ((calm - now) ** 2).sum(axis=1) < RECALL_NEAR * gap
        known = own[near & (replay["censored"][own] == 0.0)]
        if len(known) == 0:
            return None  # not seen before
        self._recalled_after = self._tells
        actions, targets = replay["actions"][known], replay.targets()[known]
        same = (actions[:, None] == actions[None]).all(axis=2)
        means = (same * targets).sum(axis=1) / same.sum(axis=1)
        return self._natives.decode(actions[int(np.argmax(means))])

    def _next_config(self, state: FloatArray) -> KnobConfig:
        self._queue = [config for config in self._queue if config not in self._asked]
        if self._queue and self._replay.online.all():
            return self._queue.pop(0)  # the expert rules, or the default configuration
        if self._replay.size == 0 or self._design_left > 0:
            self._design_left -= 1
            return self._design_point()
        if self.settings.candidates == 0:
            noise = self.noise * self._rng.standard_normal((1, self.space.width))
            return self._natives.decode(self._grid.snap(self._networks.act(state) + noise)[0])
        ranked = self._ranked_candidates(state)
        if self._queue:  # a trained agent may know better than the rules, or which comes first
            rules = np.array([self.space.encode(config) for config in self._queue])
            scores = self._score(state, np.concatenate([ranked[:1], rules]), 0.0)
            if (first := int(np.argmax(scores))) > 0:
                return self._queue.pop(first - 1)
        seen = {row.tobytes() for row in self._replay["actions"].round(6)}
        for vector in ranked:
            if (key := vector.round(6).tobytes()) in seen:
                continue
            seen.add(key)
            config = self._natives.decode(vector)
            if config not in self._asked:
                return config
        return self._natives.decode(ranked[0])  # a small space, all of it tried: measure again

    def _design_point(self) -> KnobConfig:
        """A space-filling point of the trust region around the best known configuration."""
        sobol = qmc.Sobol(self.space.width, scramble=True, rng=np.random.default_rng(self.seed))
        sobol.fast_forward(len(self._asked))
        point = 2.0 * sobol.random(1) - 1.0
        centre = self.space.encode(self.space.default_config())
        if self._replay.size:
            centre = self._replay["actions"][int(np.argmax(self._replay.targets()))]
        return self._natives.decode(self._near(point, centre)[0])

    def _near(self, points: FloatArray, centre: FloatArray) -> FloatArray:
        """The points drawn into the trust region around ``centre``, and legal."""
        near = self._grid.snap(self._grid.within(points, centre, self._trust))
        most = self.settings.moved_knobs
        return self._grid.sparse(near, centre, most, self._rng) if most else near

    def _ranked_candidates(self, state: FloatArray) -> FloatArray:
        """The proposals that the critics like most, best first."""
        best = self._best_actions(state)
        pool = self._proposals(state, best)
        # Now and then much bolder than on average: else a value that was only ever tried in bad
        # company would never be tried again.
        optimism = self.settings.optimism * self._rng.exponential()
        scores = self._score(state, pool, optimism)
        # The best of the pool are mutated and judged once more.
        elite = pool[np.argsort(-scores, kind="stable")[:16]]
        parents = np.repeat(elite, self.settings.candidates // 32, axis=0)
        moved = self._rng.integers(1, 4, size=len(parents)).astype(np.float64)
        children = self._grid.mutate(parents, moved, self._trust / 4.0, self._rng)
        children = self._near(children, best[0])
        pool = np.concatenate([pool, children])
        scores = np.concatenate([scores, self._score(state, children, optimism)])
        return np.asarray(pool[np.argsort(-scores, kind="stable")])

    def _proposals(self, state: FloatArray, best: FloatArray) -> FloatArray:
        """Candidates inside the trust region around ``best[0]``, the best known action.

        A share follows the actor, a half mutates the best known actions, the rest is drawn
        anywhere.
        """
        rng, width, knobs = self._rng, self.space.width, len(self.space)
        half = self.settings.candidates // 2
        following = round(self.settings.candidates * self.settings.actor_share)
        # mu(s) + noise, in all knobs or, more often, only in some.
        noisy = self._networks.act(state) + self.noise * rng.standard_normal((following, width))
        share = rng.random((following, 1)) ** 2
        followed = (rng.random((following, knobs)) < share)[:, self._grid.knob_of]
        actor = np.where(followed, noisy, best[0])
        # A few knobs at a time more often than many: from 1 to all, uniform in the logarithm.
        parents = best[rng.integers(len(best), size=half)]
        moved = knobs ** rng.random(len(parents))
        mutants = self._grid.mutate(parents, moved, self._trust / 2.0, rng)
        pool = np.concatenate([actor, mutants, self._grid.anywhere(half - following, rng)])
        return self._near(pool, best[0])

    def _score(self, state: FloatArray, actions: FloatArray, optimism: float) -> FloatArray:
        """Mean of the critics plus some optimism about what they do not agree on."""
        values = self._networks.values(np.tile(state, (len(actions), 1)), actions)
        score = values.mean(axis=0) + optimism * values.std(axis=0)
        return np.asarray(score)

    def _best_actions(self, state: FloatArray, count: int = 5) -> FloatArray:
        """The best measured actions for this state, best first.

        The critics' mean smooths the noise of a single measurement; half of a sample's own
        residual is added where it was taken in a similar state.
        """
        replay = self._replay
        states, actions = self._states(replay["states"]), replay["actions"]
        here = self._networks.values(np.tile(state, (replay.size, 1)), actions).mean(axis=0)
        there = self._networks.values(states, actions).mean(axis=0)
        distance = ((states - state) ** 2).sum(axis=1) / max(self.state_width, 1)
        residual = replay["qualities"] * np.exp(-2.0 * distance) * (replay.targets() - there)
        score = here + 0.5 * residual - 1e3 * replay["censored"]
        return actions[np.argsort(-score, kind="stable")[:count]]

    # -- tell -------------------------------------------------------------------------------

    def tell(
        self,
        config: Mapping[str, KnobValue],
        objective: float,
        state: NDArray[np.float64] | None = None,
        quality: float = 1.0,
        censored: bool = False,
        *,
        reward_terms: Mapping[str, float] | None = None,
    ) -> None:
        """Learn from a measurement.

        Args:
            config: what was tried; absent knobs count as default. It need not have been asked.
            objective: lower is better. May be infinite where ``censored``.
            state: what was known when it was tried.
            quality: in [0, 1]; below the floor the measurement trains nothing.
            censored: the objective is only a lower bound (time-out, crash).
            reward_terms: the terms of :func:`reward`; without them the reward is
                ``-objective`` (only the order of rewards matters to the critics).

        Raises:
            ValueError: a number is out of its range; UnknownKnobError, KnobBoundsError.
        """
        objective, quality = float(objective), float(quality)
        if math.isnan(objective) or (math.isinf(objective) and not (censored and objective > 0)):
            raise ValueError(f"objective = {objective} must be finite unless it is a bound")
        if not 0.0 <= quality <= 1.0:
            raise ValueError(f"quality = {quality} must lie in [0, 1]")
        known = self.space.default_config().replace(self.space.validate(config))
        raw = self._state(state)
        given = {"objective": -objective} if reward_terms is None else reward_terms
        terms = {name: float(term) for name, term in given.items()}
        total = sum(terms.values())
        if math.isnan(total) or total == math.inf:
            raise ValueError(f"reward terms {terms} do not add up to a number")
        self._asked.add(known)
        self._natives.remember(known)
        self._tells += 1
        losses: tuple[float | None, float | None] = (None, None)
        if quality >= self.settings.quality_floor:
            self._states.update(raw)
            action = self.space.encode(known)
            self._replay.add(
                Transition(raw, action, total, raw, objective, quality, censored, terms),
                self._rng,
            )
            if self._design_left <= 0 and not self._queue:
                self._adapt_trust(total, censored)
            elif not censored:
                self._best_reward = max(self._best_reward, total)
            losses = self._learn(self.settings.updates_per_tell)
        self.last_learning = LearningStep(
            self._tells, total, terms, *losses, self.noise, self._replay.size, quality, self._trust
        )

    def _learn(self, updates: int) -> tuple[float | None, float | None]:
        """Some updates of critics, actor and targets on batches from the replay."""
        replay = self._replay
        if replay.size < 2 or updates == 0:
            return None, None
        batches = replay.draw(updates, self.settings.batch_size, self._rng)
        return self._networks.train(
            states=self._states(replay["states"]),
            actions=replay["actions"],
            rewards=replay.targets(),
            next_states=self._states(replay["next_states"]),
            weights=np.sqrt(replay["qualities"]),
            censored=replay["censored"],
            masks=replay["masks"].T,
            batches=batches,
        )

    def _adapt_trust(self, total: float, censored: bool) -> None:
        """Widen the trust region after successes in a row, narrow it after failures."""
        s = self.settings
        if not censored and total > self._best_reward:
            self._best_reward = total
            self._successes, self._failures = self._successes + 1, 0
        else:
            self._successes, self._failures = 0, self._failures + 1
        if self._successes >= 2:
            self._trust, self._successes = min(s.trust_max, 1.5 * self._trust), 0
        elif self._failures >= TRUST_FAILURES:
            self._trust, self._failures = self._trust / 1.5, 0
            if self._trust < s.trust_min:
                self._trust = s.trust_start

    @property
    def noise(self) -> float:
        """Standard deviation of the exploration noise now, in encoded units."""
        s = self.settings
        progress = min(1.0, self._tells / s.noise_samples)
        return float(s.noise_start * (s.noise_end / s.noise_start) ** progress)

    def _state(self, state: NDArray[np.float64] | None) -> FloatArray:
        if state is None:
            return self._states.mean.copy()
        vector = np.asarray(state, dtype=np.float64)
        if self.state_width == 0 and self._tells == 0 and vector.ndim == 1 and vector.size:
            self._build(vector.size)
        if vector.shape != (self.state_width,) or not np.isfinite(vector).all():
            raise ValueError(
                f"expected a finite state of shape ({self.state_width},), got {vector.shape}"
            )
        return vector

    # -- offline training -------------------------------------------------------------------

    def pretrain(self, episodes: Sequence[Sequence[Transition]], updates: int = 2000) -> None:
        """Learn from recorded transitions, before or between tells.

        Args:
            episodes: one per recorded run; rewards are compared within their episode only.
                States as ``tell`` takes them, actions encoded with this space.
            updates: of critics, actor and targets, after all episodes are in the replay.

        Raises:
            ValueError: a state or an action is of another length than this agent's.
        """
        first = 1 + int(self._replay["episodes"].max(initial=0))
        for number, episode in enumerate(episodes, start=first):
            for transition in episode:
                state = self._state(transition.state)
                if transition.action.shape != (self.space.width,):
                    raise ValueError(
                        f"expected an action of shape ({self.space.width},), "
                        f"got {transition.action.shape}"
                    )
                if transition.quality >= self.settings.quality_floor:
                    self._states.update(state)
                    self._replay.add(transition, self._rng, number)
        self._learn(updates)

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
        cls,
        pretrained: Pretrained,
        space: KnobSpace,
        seed: int = 0,
        *,
        settings: KnobAgentSettings | None = None,
        priors: Sequence[Mapping[str, KnobValue]] = (),
    ) -> KnobAgent:
        """A new agent that starts from what another one learnt elsewhere.

        It keeps the networks' sizes of the other one. Its priors compete with its own
        proposals before the critics instead of coming first.

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
        cls,
        pretrained: Pretrained,
        space: KnobSpace,
        seed: int,
        settings: KnobAgentSettings,
        priors: Sequence[Mapping[str, KnobValue]],
    ) -> KnobAgent:
        sizes = {name: pretrained.settings[name] for name in NETWORK_SETTINGS}
        settings = dataclasses.replace(settings, **sizes)
        agent = cls(
            space, seed, settings=settings, priors=priors, state_width=pretrained.state_width
        )
        agent._networks.restore_weights(pretrained.weights)
        agent._states.restore(pretrained.normaliser)
        for episode, transition in pretrained.replayed():
            agent._replay.add(transition, agent._rng, episode)
        agent._design_left = 0
        return agent

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
            "asked": [dict(config) for config in sorted(self._asked, key=repr)],
            "natives": self._natives.pairs(),
            "counters": {name: getattr(self, name) for name in _COUNTERS},
        }
        arrays: dict[str, NDArray[np.generic]] = {}
        for part, owner in self._parts().items():
            arrays.update({f"{part}.{name}": array for name, array in owner.arrays().items()})
        write_checkpoint(Path(folder) / CHECKPOINT_FILE, about, arrays)

    @classmethod
    def load(cls, folder: Path | str, space: KnobSpace) -> KnobAgent:
        """Restore what :meth:`save` wrote.

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
            settings = KnobAgentSettings(**about["settings"])
            agent = cls(space, about["seed"], settings=settings, state_width=about["state_width"])
            agent._rng.bit_generator.state = about["rng"]
            agent._queue = [space.validate(config) for config in about["queue"]]
            agent._asked = {space.validate(config) for config in about["asked"]}
            agent._natives.restore(about["natives"])
            for name, kind in _COUNTERS.items():
                setattr(agent, name, kind(about["counters"][name]))
            for part, owner in agent._parts().items():
                start = len(part) + 1
                owner.restore({n[start:]: a for n, a in arrays.items() if n.startswith(f"{part}.")})
        except (ValueError, KeyError, TypeError, AttributeError, KnobError) as error:
            raise damaged(path, error) from error
        return agent

    def _parts(self) -> dict[str, ActorCritic | Replay | RunningNormaliser]:
        return {"networks": self._networks, "replay": self._replay, "states": self._states}


_COUNTERS: Mapping[str, type] = {
    "_design_left": int,
    "_tells": int,
    "_recalled_after": int,
    "_trust": float,
    "_failures": int,
    "_successes": int,
    "_best_reward": float,
}
