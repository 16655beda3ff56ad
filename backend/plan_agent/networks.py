"""The ensemble of Q-networks with its target copies and compiled double-DQN updates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.agent.lazy_tensorflow import import_tensorflow, on_one_device
from backend.agent.networks import filled_up, restore_variables, run_stack
from backend.plan_agent.replay import IntArray, Transitions
from backend.plan_agent.states import FloatArray

NEVER = -1e9


class QEnsemble:
    """Q(s, a) of each member, every network a stack of matrices with a leading member axis.

    Args:
        state_width, actions: width of a state, and how many actions there are.
        hidden_layers, members, learning_rate, gamma, weight_decay, prior_scale: see
            :class:`backend.plan_agent.settings.PlanAgentSettings`.
        seed: of the initial weights.
    """

    def __init__(
        self,
        state_width: int,
        actions: int,
        *,
        hidden_layers: Sequence[int],
        members: int,
        learning_rate: float,
        gamma: float,
        weight_decay: float,
        prior_scale: float,
        seed: int,
    ) -> None:
        self._tf = tf = import_tensorflow()
        rng = np.random.default_rng(seed)
        self.gamma, self.weight_decay, self.prior_scale = gamma, weight_decay, prior_scale

        def network(kind: str, last: float) -> list[Any]:
            widths = [state_width, *hidden_layers, actions]
            layers: list[Any] = []
            for depth, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
                scale = (2.0 / fan_in) ** 0.5 * (last if depth == len(hidden_layers) else 1.0)
                for part, start in (
                    ("weights", rng.normal(0.0, scale, (members, fan_in, fan_out))),
                    ("biases", np.zeros((members, 1, fan_out))),
                ):
                    name = f"{kind}_{part}_{depth}"
                    layers.append(tf.Variable(start.astype(np.float32), name=name))
            return layers

        # The learnt part starts at nearly 0: no plan is better than the default one until told so.
        self.online = network("online", last=0.01)
        self.target = [tf.Variable(v) for v in self.online]
        self.priors = network("prior", last=1.0)
        self._adam = on_one_device(tf.keras.optimizers.Adam(learning_rate))
        self._adam.build(self.online)
        numbers, rows = tf.TensorSpec((None, state_width), tf.float32), tf.TensorSpec((None,))
        indices = tf.TensorSpec((None,), tf.int64)
        self._train = tf.function(
            self._train_loop,
            autograph=False,
            input_signature=[
                numbers,
                tf.TensorSpec((None, actions), tf.bool),
                *[indices] * 3,
                *[rows] * 3,
                tf.TensorSpec((members, None), tf.float32),
                tf.TensorSpec((None, None), tf.int64),
            ],
        )
        self._values = tf.function(
            lambda states: run_stack(self.online, states) + self._prior(states),
            autograph=False,
            input_signature=[numbers],
        )

    # -- forward ----------------------------------------------------------------------------

    def _prior(self, states: Any) -> Any:
        """Fixed random functions (Osband, Aslanides, Cassirer 2018, randomized priors)."""
        return self.prior_scale * run_stack(self.priors, states)

    # -- training ---------------------------------------------------------------------------

    def _train_loop(
        self,
        states: Any,
        recorded: Any,
        origin: Any,
        target: Any,
        actions: Any,
        rewards: Any,
        stops: Any,
        censored: Any,
        weights: Any,
        batches: Any,
    ) -> Any:
        """One update per row of ``batches``; the target networks stand still meanwhile."""
        tf = self._tf
        prior = self._prior(states)
        slow = run_stack(self.target, states) + prior
        width = tf.shape(recorded)[1]

        def update(number: Any, _: Any) -> tuple[Any, Any]:
            rows = batches[number]
            here, there = tf.gather(origin, rows), tf.gather(target, rows)
            # Double DQN: the fast network chooses among what was recorded, the slow one judges.
            fast = run_stack(self.online, tf.gather(states, there))
            fast += tf.gather(prior, there, axis=1)
            choice = tf.argmax(tf.where(tf.gather(recorded, there)[None], fast, NEVER), axis=2)
            future = tf.gather(slow, there, axis=1)
            future = tf.reduce_sum(future * tf.one_hot(choice, width), axis=2)
            goes_on = 1.0 - tf.gather(stops, rows)
            wanted = tf.gather(rewards, rows)[None] + self.gamma * goes_on[None] * future
            taken = tf.one_hot(tf.gather(actions, rows), width)[None]
            bound = tf.gather(censored, rows)[None] > 0.0
            with tf.GradientTape() as tape:
                values = run_stack(self.online, tf.gather(states, here))
                values += tf.gather(prior, here, axis=1)
                error = tf.reduce_sum(values * taken, axis=2) - wanted
                # A timed-out run's gain is an upper bound: predicting less is no error.
                error = tf.where(bound, tf.nn.relu(error), error)
                size = tf.abs(error)  # Huber's loss, as in the DQN paper
                losses = tf.where(size < 1.0, 0.5 * tf.square(error), size - 0.5)
                loss = tf.reduce_mean(tf.gather(weights, rows, axis=1) * losses)
                decay = tf.add_n([tf.reduce_sum(tf.square(w)) for w in self.online[::2]])
                members = tf.cast(tf.shape(weights)[0], tf.float32)
                # Summed over members, so that each learns as if it were alone.
                total = members * loss + self.weight_decay * decay
            self._adam.apply(tape.gradient(total, self.online), self.online)
            return number + 1, loss

        _, loss = tf.while_loop(
            lambda number, _: number < tf.shape(batches)[0],
            update,
            (tf.constant(0), tf.constant(0.0)),
        )
        return loss

    def train(self, told: Transitions, batches: IntArray) -> float:
        """Update once per row of ``batches``, then copy into the target networks; the last loss."""
        tf = self._tf
        loss = self._train(
            tf.constant(filled_up(told.states), tf.float32),
            tf.constant(told.recorded),
            *(tf.constant(x, tf.int64) for x in (told.origin, told.target, told.actions)),
            *(tf.constant(x, tf.float32) for x in (told.rewards, told.stops, told.censored)),
            tf.constant(told.seen_by, tf.float32),
            tf.constant(batches, tf.int64),
        )
        for slow, fast in zip(self.target, self.online, strict=True):
            slow.assign(fast)
        return float(loss)

    def values(self, states: FloatArray) -> FloatArray:
        """Q of each member, shape ``(members, rows, actions)``."""
        inputs = filled_up(states).astype(np.float32)
        return np.asarray(self._values(inputs), np.float64)[:, : len(states)]

    # -- checkpoints ------------------------------------------------------------------------

    def _variables(self) -> dict[str, Any]:
        groups = {
            "online": self.online,
            "target": self.target,
            "prior": self.priors,
            "adam": self._adam.variables,
        }
        return {f"{kind}_{i}": v for kind, vs in groups.items() for i, v in enumerate(vs)}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All weights and the optimiser's moments."""
        return {name: np.asarray(v) for name, v in self._variables().items()}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Continue from what :meth:`arrays` gave.

        Raises:
            ValueError: a shape differs; KeyError: an array is missing.
        """
        restore_variables(self._variables(), arrays)
