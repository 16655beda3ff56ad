"""The actor, the ensemble of critics and their compiled updates: all of TensorFlow is here.

Every network is a stack of matrices with a leading ensemble axis, so that all critics run in
one batched product instead of one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.agent.lazy_tensorflow import import_tensorflow, on_one_device

FloatArray = NDArray[np.float64]
PRIOR_SCALE = 1.0
ACTOR_BATCH = 16
"""States in an update of the actor: its gradient is exact for each, a few suffice."""


def silu(values: Any) -> Any:
    """x * sigmoid(x). TensorFlow's own enters the gradient of each graph that holds it into a
    registry that is never emptied: every agent ever made would stay in memory.
    """
    return values * import_tensorflow().sigmoid(values)


def run_stack(layers: Sequence[Any], inputs: Any) -> Any:
    """Run inputs ``(batch, n)`` through every copy of a network: ``(copies, batch, outputs)``.

    ``layers`` are weights and biases in turn, each with a leading axis of copies.
    """
    tf = import_tensorflow()
    values = inputs[None]
    for depth in range(0, len(layers), 2):
        values = tf.matmul(values, layers[depth]) + layers[depth + 1]
        if depth < len(layers) - 2:
            values = silu(values)
    return values


def restore_variables(
    variables: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]
) -> None:
    """Give each variable the array of its name.

    Raises:
        ValueError: a shape differs; KeyError: an array is missing.
    """
    for name, variable in variables.items():
        value = arrays[name]
        if tuple(value.shape) != tuple(variable.shape):
            raise ValueError(f"{name} has shape {value.shape}, expected {variable.shape}")
        variable.assign(value)


def filled_up(rows: FloatArray) -> FloatArray:
    """Add rows of zeros, that nobody looks at, up to a power of two.

    oneDNN compiles for each number of rows, and keeps that: a replay that grows row by row takes
    one to two megabytes more with each.
    """
    missing = (1 << (len(rows) - 1).bit_length()) - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]))])


class ActorCritic:
    """Actor, critics, their target networks and one compiled training loop.

    Args:
        state_width, action_width: lengths of the normalised state and of the encoded action.
        hidden_layers: widths of the hidden layers of actor and critics.
        members: critics in the ensemble.
        actor_rate, critic_rate: learning rates of Adam.
        gamma, tau: discount, and the share by which target networks follow per update.
        seed: of the initial weights.
    """

    def __init__(
        self,
        state_width: int,
        action_width: int,
        *,
        hidden_layers: Sequence[int],
        members: int,
        actor_rate: float,
        critic_rate: float,
        gamma: float,
        tau: float,
        seed: int,
    ) -> None:
        self._tf = tf = import_tensorflow()
        rng = np.random.default_rng(seed)
        self.gamma, self.tau = gamma, tau
        # Few samples must not drown in wide states: the state's inputs weigh together like four.
        self._state_scale = min(1.0, (4.0 / max(state_width, 1)) ** 0.5)

        def network(kind: str, copies: int, inputs: int, outputs: int) -> list[Any]:
            widths = [inputs, *hidden_layers, outputs]
            layers: list[Any] = []
            for depth, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
                scale = (2.0 / max(fan_in, 1)) ** 0.5
                if kind == "actor" and depth == len(hidden_layers):
                    scale *= 0.01  # start in the middle of the range, as in the DDPG paper
                for part, start in (
                    ("weights", rng.normal(0.0, scale, (copies, fan_in, fan_out))),
                    ("biases", np.zeros((copies, 1, fan_out))),
                ):
                    name = f"{kind}_{part}_{depth}"
                    layers.append(tf.Variable(start.astype(np.float32), name=name))
            return layers

        inputs = state_width + action_width
        self.critics = network("critic", members, inputs, 1)
        # Fixed random functions added to each critic keep them apart where there are no data
        # (Osband, Aslanides, Cassirer 2018, "Randomized prior functions for deep RL").
        self.priors = network("prior", members, inputs, 1)
        self.actor = network("actor", 1, state_width, action_width)
        self.target_critics = [tf.Variable(v) for v in self.critics]
        self.target_actor = [tf.Variable(v) for v in self.actor]
        adam = tf.keras.optimizers.Adam
        self._critic_adam = on_one_device(adam(critic_rate))
        self._actor_adam = on_one_device(adam(actor_rate))
        self._critic_adam.build(self.critics)
        self._actor_adam.build(self.actor)

        def rows(*shape: int | None) -> Any:
            return tf.TensorSpec(shape, tf.float32)

        # autograph=False: there is no Python control flow to rewrite, and autograph leaves
        # generated files behind in the temporary folder when a process is killed.
        self._train = tf.function(
            self._train_loop,
            autograph=False,
            input_signature=[
                rows(None, state_width),
                rows(None, action_width),
                rows(None),
                rows(None, state_width),
                rows(None),
                rows(None),
                rows(members, None),
                tf.TensorSpec((None, None), tf.int64),
            ],
        )
        self._values = tf.function(
            lambda states, actions: self._critic(self.critics, states, actions),
            autograph=False,
            input_signature=[rows(None, state_width), rows(None, action_width)],
        )
        self._act = tf.function(
            lambda states: self._policy(self.actor, states)[0],
            autograph=False,
            input_signature=[rows(None, state_width)],
        )

    # -- forward ----------------------------------------------------------------------------

    def _critic(self, layers: Sequence[Any], states: Any, actions: Any) -> Any:
        """Q of each member, shape ``(members, batch)``."""
        return self._learnt(layers, states, actions) + self._prior(states, actions)

    def _learnt(self, layers: Sequence[Any], states: Any, actions: Any) -> Any:
        inputs = self._tf.concat([states * self._state_scale, actions], axis=1)
        return run_stack(layers, inputs)[..., 0]

    def _prior(self, states: Any, actions: Any) -> Any:
        return PRIOR_SCALE * self._learnt(self.priors, states, actions)

    def _policy(self, layers: Sequence[Any], states: Any) -> tuple[Any, Any]:
        """The actor's action in (-1, 1) and its value before the tanh, ``(batch, width)``."""
        raw = run_stack(layers, states * self._state_scale)[0]
        return self._tf.tanh(raw), raw

    # -- training ---------------------------------------------------------------------------

    def _train_loop(
        self,
        states: Any,
        actions: Any,
        rewards: Any,
        next_states: Any,
        weights: Any,
        censored: Any,
        masks: Any,
        batches: Any,
    ) -> tuple[Any, Any]:
        """One update of critics and actor per row of ``batches``; the last losses."""
        tf = self._tf
        # y = r + gamma * mean_e Q'_e(s', mu'(s')), with the slow target networks.
        next_actions, _ = self._policy(self.target_actor, next_states)
        future = self._critic(self.target_critics, next_states, next_actions)
        returns = rewards + self.gamma * tf.reduce_mean(future, axis=0)
        # What the learnt part has to add to each member's prior, worked out once for all batches.
        wanted = returns[None] - self._prior(states, actions)

        def update(step: Any, *_: Any) -> tuple[Any, Any, Any]:
            rows = batches[step]
            state, action = tf.gather(states, rows), tf.gather(actions, rows)
            target = tf.gather(wanted, rows, axis=1)
            weight = tf.gather(weights, rows)
            bound = tf.gather(censored, rows)
            mask = tf.gather(masks, rows, axis=1)
            with tf.GradientTape() as tape:
                error = self._learnt(self.critics, state, action) - target
                # A censored reward is an upper bound: predicting less than it is no error.
                error = tf.where(bound[None] > 0.0, tf.nn.relu(error), error)
                losses = tf.reduce_mean(weight * mask * tf.square(error), axis=1)
                loss = tf.reduce_sum(losses)
            self._critic_adam.apply(tape.gradient(loss, self.critics), self.critics)
            with tf.GradientTape() as tape:
                few = state[:ACTOR_BATCH]
                proposal, raw = self._policy(self.actor, few)
                value = self._critic(self.critics, few, proposal)
                # The small penalty keeps tanh out of saturation, where its gradient dies.
                actor_loss = tf.reduce_mean(
                    -tf.reduce_mean(value, axis=0) + 1e-3 * tf.reduce_sum(tf.square(raw), axis=1)
                )
            self._actor_adam.apply(tape.gradient(actor_loss, self.actor), self.actor)
            return step + 1, tf.reduce_mean(losses), actor_loss

        updates = tf.shape(batches)[0]
        _, critic_loss, actor_loss = tf.while_loop(
            lambda step, *_: step < updates,
            update,
            (tf.constant(0), tf.constant(0.0), tf.constant(0.0)),
        )
        # The targets follow by tau an update, all updates of this call at once.
        follow = 1.0 - (1.0 - self.tau) ** tf.cast(updates, tf.float32)
        for slow, fast in zip(
            [*self.target_critics, *self.target_actor], [*self.critics, *self.actor], strict=True
        ):
            slow.assign_add(follow * (fast - slow))
        return critic_loss, actor_loss

    def train(
        self,
        *,
        states: FloatArray,
        actions: FloatArray,
        rewards: FloatArray,
        next_states: FloatArray,
        weights: FloatArray,
        censored: FloatArray,
        masks: FloatArray,
        batches: NDArray[np.int64],
    ) -> tuple[float, float]:
        """Update once per row of ``batches`` (row numbers); the last critic and actor loss.

        ``masks`` has shape ``(members, n)``, the others have ``n`` rows.
        """
        columns = (states, actions, rewards, next_states, weights, censored)
        critic_loss, actor_loss = self._train(
            *(self._tf.constant(filled_up(x), dtype=self._tf.float32) for x in columns),
            self._tf.constant(filled_up(masks.T).T, dtype=self._tf.float32),
            self._tf.constant(batches, dtype=self._tf.int64),
        )
        return float(critic_loss), float(actor_loss)

    def values(self, states: FloatArray, actions: FloatArray) -> FloatArray:
        """What each critic thinks of each pair, shape ``(members, n)``; higher is better."""
        inputs = (filled_up(rows).astype(np.float32) for rows in (states, actions))
        return np.asarray(self._values(*inputs), np.float64)[:, : len(states)]

    def act(self, state: FloatArray) -> FloatArray:
        """The actor's action for one normalised state, shape ``(action_width,)``."""
        return np.asarray(self._act(state[None].astype(np.float32))[0], np.float64)

    # -- checkpoints ------------------------------------------------------------------------

    def _variables(self) -> dict[str, Any]:
        groups = {
            "critic": self.critics,
            "prior": self.priors,
            "actor": self.actor,
            "target_critic": self.target_critics,
            "target_actor": self.target_actor,
            "critic_adam": self._critic_adam.variables,
            "actor_adam": self._actor_adam.variables,
        }
        return {f"{kind}_{i}": v for kind, vs in groups.items() for i, v in enumerate(vs)}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All weights and the optimisers' moments."""
        return {name: np.asarray(v) for name, v in self._variables().items()}

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """What the networks know, without target copies and the optimisers' moments."""
        parts = {"critic": self.critics, "prior": self.priors, "actor": self.actor}
        return {f"{k}_{i}": np.asarray(v) for k, vs in parts.items() for i, v in enumerate(vs)}

    def restore_weights(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Start from what :meth:`weights` gave, the targets as copies.

        Raises:
            ValueError: a shape differs; KeyError: an array is missing.
        """
        targets = {f"target_{n}": w for n, w in weights.items() if not n.startswith("prior")}
        self.restore({**self.arrays(), **weights, **targets})

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Continue from what :meth:`arrays` gave.

        Raises:
            ValueError: a shape differs; KeyError: an array is missing.
        """
        rates = [float(adam.learning_rate) for adam in (self._critic_adam, self._actor_adam)]
        restore_variables(self._variables(), arrays)
        # The optimisers' variables hold the rates of whoever wrote them; ours are those set here.
        self._critic_adam.learning_rate, self._actor_adam.learning_rate = rates
