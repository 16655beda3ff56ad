"""The knob agent: DDPG in TensorFlow, made for a few hundred expensive and noisy measurements.

Deep deterministic policy gradient (Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971) has
an actor that maps a state to an action, a critic that judges state and action, slow target
copies of both, a replay and exploration noise. Turning knobs is close to a contextual bandit, so
here the discount is near 0; the critic is a small bootstrapped ensemble (its spread says what is
not known yet); rewards are rank-normalised; and the actor's proposals compete with mutations of
the best known configurations before the critics, inside a trust region (after TuRBO, Eriksson et
al. 2019, https://arxiv.org/abs/1910.01739). docs/knob-agent.md defines every logged quantity and
lists each deviation from the paper. What the agent holds, checkpoints and warm starts are in
:mod:`backend.agent.parts`; recall is in :mod:`backend.agent.recall`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from backend.agent.parts import CHECKPOINT_FILE, AgentParts
from backend.agent.pretrained import Pretrained
from backend.agent.recall import recalled_action
from backend.agent.reward import reward
from backend.agent.settings import KnobAgentSettings
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.transition import Transition

__all__ = [
    "CHECKPOINT_FILE",
    "KnobAgent",
    "KnobAgentSettings",
    "LearningStep",
    "Pretrained",
    "reward",
]

FloatArray = NDArray[np.float64]
FAR_FAILURES = 2
"""After so many asks in a row without a new best, some proposals may leave the trust region."""
TRUST_FAILURES = 6
"""After so many asks in a row without a new best the trust region shrinks."""


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


class KnobAgent(AgentParts):
    """Proposes configurations and learns from what became of them.

    Args:
        space: the knobs to turn.
        seed: same seed and same tells, same asks.
        settings: see :class:`KnobAgentSettings`.
        priors: configurations to try first (expert rules); absent knobs count as default. With
            none the default configuration is tried first.
        state_width: length of the state vector; 0 takes the length of the first one given.

    Attributes:
        last_learning: what the last tell changed; None before the first one.
    """

    last_learning: LearningStep | None = None

    # -- ask --------------------------------------------------------------------------------

    def ask(self, state: NDArray[np.float64] | None = None) -> KnobConfig:
        """The configuration to try next, every knob named, values native.

        When the load has shifted to one seen before, the best configuration measured under it
        comes first: a workload that comes back is answered at once.

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
        self._note_asked(config)
        return config

    def _recalled(self, raw: FloatArray) -> KnobConfig | None:
        """What was best when this load was here before; asked for once after each shift."""
        if self._recalled_after == self._tells:
            return None
        columns = self.settings.recall_columns
        action = recalled_action(self._replay, self._states, raw, columns)
        if action is None:
            return None
        self._recalled_after = self._tells
        return self._natives.decode(action)

    def _next_config(self, state: FloatArray) -> KnobConfig:
        self._due = sum(config not in self._asked for config in self._queue[: self._due])
        self._queue = [config for config in self._queue if config not in self._asked]
        if self._due:
            self._due -= 1
            return self._queue.pop(0)  # the expert rules, or the default configuration
        if self._replay.size == 0 or self._design_left > 0:
            self._design_left -= 1
            return self._design_point()
        if self.settings.candidates == 0:
            noise = self.noise * self._rng.standard_normal((1, self.space.width))
            return self._natives.decode(self._grid.snap(self._networks.act(state) + noise)[0])
        if (excursion := self._excursion(state)) is not None:
            return excursion
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

    def _excursion(self, state: FloatArray) -> KnobConfig | None:
        """Every other time that asks fail: the best known configuration with one knob far away.

        It goes where no good configuration has had it, to the end or the choice that the critics
        like most. What they think of a value that was only ever tried in bad company is worth
        little, and small steps do not reach it. None when it is not the time, or all was seen.
        """
        s = self.settings
        if not s.far_knobs or self._failures < FAR_FAILURES or self._tells % 2:
            return None
        good = self._replay["actions"][self._replay.targets() > 0.0]
        points = self._grid.excursions(self._best_actions(state)[0], good)
        if len(points) == 0:
            return None
        scores = self._score(state, points, s.optimism * self._rng.exponential())
        configs = map(self._natives.decode, points[np.argsort(-scores, kind="stable")])
        return next((config for config in configs if config not in self._asked), None)

    def _near(self, points: FloatArray, centre: FloatArray) -> FloatArray:
        """The points drawn into the trust region around ``centre``, and legal.

        When small steps fail, those that move few knobs may go far with them: a value at the far
        end of a range, or one that pays only in the company of another, is out of their reach.
        """
        s, points = self.settings, self._grid.snap(points)
        near = self._grid.snap(self._grid.within(points, centre, self._trust))
        if s.far_knobs and self._failures >= FAR_FAILURES:
            few = self._grid.moved(points, centre) <= s.far_knobs
            near = np.where(few[:, None], points, near)
        return self._grid.sparse(near, centre, s.moved_knobs, self._rng) if s.moved_knobs else near

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
        self._note_asked(known)
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
        self._due = 0
        self._learn(updates)
