"""Plain DDPG with CDBTune's reward: the published way of tuning knobs by reinforcement learning.

Zhang et al. 2019, "An end-to-end automatic cloud database tuning system using deep reinforcement
learning", SIGMOD: one actor, one critic, target networks, Ornstein-Uhlenbeck noise, discount
0.99, two updates after each measurement, networks of the paper's widths. Uniform replay, and
neither batch normalisation nor dropout, since batches repeat few samples. Its rates are the
paper's 0.001; with those of the authors' code (0.00001, for millions of steps) it would stay
where it started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.agent.lazy_tensorflow import import_tensorflow
from backend.agent.normalisation import RunningNormaliser
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from benchmarks.tuners.peer import Peer, State

GAMMA = 0.99
LEARNING_RATE = 1e-3
TAU = 0.01
BATCH_SIZE = 16
UPDATES_PER_TELL = 2
NOISE_THETA, NOISE_SIGMA = 0.15, 0.2
"""Ornstein-Uhlenbeck noise in encoded units (a knob's range is 2)."""


def cdbtune_reward(objective: float, first: float, previous: float) -> float:
    """CDBTune's reward from the change against the first and against the previous measurement.

    With the relative improvements ``d0 = (first - objective) / |first|`` and
    ``dt = (previous - objective) / |previous|``: ``((1 + d0)^2 - 1) |1 + dt|`` where ``d0 > 0``,
    but 0 where it got worse since the last step; ``-((1 - d0)^2 - 1) |1 - dt|`` otherwise
    (equation 6 of the paper).
    """
    against_first = (first - objective) / max(abs(first), 1e-12)
    against_previous = (previous - objective) / max(abs(previous), 1e-12)
    if against_first > 0.0:
        gain = ((1.0 + against_first) ** 2 - 1.0) * abs(1.0 + against_previous)
        return gain if against_previous >= 0.0 else 0.0
    return -((1.0 - against_first) ** 2 - 1.0) * abs(1.0 - against_previous)


class PlainDdpg(Peer):
    """DDPG after CDBTune.

    Args:
        state_width: length of the state vector; 0 plays with a constant state.
    """

    def __init__(
        self,
        space: KnobSpace,
        seed: int,
        priors: Sequence[Mapping[str, KnobValue]] = (),
        *,
        state_width: int = 0,
    ) -> None:
        super().__init__(space, priors)
        self._rng = np.random.default_rng(seed)
        self._states = RunningNormaliser(max(state_width, 1))
        self._constant = state_width == 0
        self._networks = _Networks(max(state_width, 1), space.width, seed)
        self._noise = np.zeros(space.width)
        self._objectives: list[float] = []
        self._replay: dict[str, list[Any]] = {"state": [], "action": [], "reward": [], "next": []}

    def propose(self, state: State | None) -> KnobConfig:
        """The actor's action and some noise."""
        raw = self._state(state)
        if self._replay["next"]:
            self._replay["next"][-1] = raw
        self._noise = (
            self._noise
            - NOISE_THETA * self._noise
            + NOISE_SIGMA * self._rng.standard_normal(self.space.width)
        )
        return self.space.decode(self._networks.act(self._states(raw)) + self._noise)

    def learn(self, config: KnobConfig, objective: float, state: State | None) -> None:
        """Store the transition and update twice."""
        raw = self._state(state)
        self._states.update(raw)
        self._objectives.append(objective)
        first, previous = self._objectives[0], self._objectives[max(len(self._objectives) - 2, 0)]
        replay = self._replay
        replay["state"].append(raw)
        replay["action"].append(self.space.encode(config))
        replay["reward"].append(cdbtune_reward(objective, first, previous))
        replay["next"].append(raw)  # until the next ask knows better
        if len(replay["reward"]) < BATCH_SIZE:
            return
        for _ in range(UPDATES_PER_TELL):
            rows = self._rng.integers(len(replay["reward"]), size=BATCH_SIZE)
            batch = {name: np.array([column[i] for i in rows]) for name, column in replay.items()}
            self._networks.update(
                self._states(batch["state"]),
                batch["action"],
                batch["reward"],
                self._states(batch["next"]),
            )

    def _state(self, state: State | None) -> State:
        if state is None or self._constant:
            return self._states.mean.copy()
        return np.asarray(state, dtype=np.float64)


class _Networks:
    """Actor 128-128-64, critic (128 | 128)-256-64, and their slow copies."""

    def __init__(self, state_width: int, action_width: int, seed: int) -> None:
        self._tf = tf = import_tensorflow()
        keras = tf.keras
        starts = np.random.default_rng(seed).integers(2**31, size=16).tolist()

        def dense(units: int, activation: Any = None, spread: float = 1.0) -> Any:
            start = keras.initializers.VarianceScaling(spread, "fan_avg", seed=starts.pop())
            return keras.layers.Dense(units, activation=activation, kernel_initializer=start)

        state = keras.Input((state_width,))
        hidden = dense(64, "tanh")(dense(128, "tanh")(dense(128, "leaky_relu")(state)))
        self._actor = keras.Model(state, dense(action_width, "tanh", spread=1e-2)(hidden))
        state, action = keras.Input((state_width,)), keras.Input((action_width,))
        both = [dense(128, "tanh")(state), dense(128, "tanh")(action)]
        joined = keras.layers.Concatenate()(both)
        value = dense(1)(dense(64, "tanh")(dense(256, "leaky_relu")(joined)))
        self._critic = keras.Model([state, action], value)
        self._slow_actor = keras.models.clone_model(self._actor)
        self._slow_critic = keras.models.clone_model(self._critic)
        self._slow_actor.set_weights(self._actor.get_weights())
        self._slow_critic.set_weights(self._critic.get_weights())
        self._actor_adam = keras.optimizers.Adam(LEARNING_RATE)
        self._critic_adam = keras.optimizers.Adam(LEARNING_RATE)
        self._actor_adam.build(self._actor.trainable_variables)
        self._critic_adam.build(self._critic.trainable_variables)

        def rows(*shape: int) -> Any:
            return tf.TensorSpec((BATCH_SIZE, *shape), tf.float32)

        self._update = tf.function(
            self._update_step,
            input_signature=[rows(state_width), rows(action_width), rows(), rows(state_width)],
        )
        self._act = tf.function(
            lambda states: self._actor(states),
            input_signature=[tf.TensorSpec((1, state_width), tf.float32)],
        )

    def _update_step(self, states: Any, actions: Any, rewards: Any, next_states: Any) -> None:
        tf = self._tf
        future = self._slow_critic([next_states, self._slow_actor(next_states)])[:, 0]
        wanted = rewards + GAMMA * future
        with tf.GradientTape() as tape:
            error = self._critic([states, actions])[:, 0] - wanted
            loss = tf.reduce_mean(tf.square(error))
        weights = self._critic.trainable_variables
        self._critic_adam.apply(tape.gradient(loss, weights), weights)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self._critic([states, self._actor(states)]))
        weights = self._actor.trainable_variables
        self._actor_adam.apply(tape.gradient(loss, weights), weights)
        for slow, fast in ((self._slow_actor, self._actor), (self._slow_critic, self._critic)):
            for follower, leader in zip(slow.variables, fast.variables, strict=True):
                follower.assign(follower + TAU * (leader - follower))

    def act(self, state: State) -> NDArray[np.float64]:
        """The actor's action for one normalised state."""
        return np.asarray(self._act(state[None].astype(np.float32))[0], np.float64)

    def update(self, *arrays: NDArray[np.float64]) -> None:
        """One update of critic, actor and targets: states, actions, rewards, next states."""
        self._update(*(array.astype(np.float32) for array in arrays))
