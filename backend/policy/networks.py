"""Small networks, many copies at once: learnt with TensorFlow, evaluated with numpy alone.

A *stack* is a multilayer perceptron whose matrices have a leading axis of copies: the folds of a
cross-validation, the members of an ensemble. One batched product then trains them all, each with
its own weights of the samples (0: never seen). A deployed policy needs no TensorFlow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.agent.lazy_tensorflow import import_tensorflow, on_one_device
from backend.agent.networks import silu

FloatArray = NDArray[np.float64]
BATCH = 128
STEPS_AT_ONCE = 25
"""Between two of these whoever waits for the learner may stop it: some hundredths of a second."""


class LearningStoppedError(Exception):
    """Whoever waits for the learner stopped it; nothing was kept."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Learnt networks: ``tanh`` at the end where ``squashed``.

    Args:
        layers: weights ``(copies, inputs, outputs)`` and biases ``(copies, 1, outputs)`` in turn.
    """

    layers: tuple[FloatArray, ...]
    squashed: bool = False

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """The outputs for ``(n, inputs)`` or ``(copies, n, inputs)``: ``(copies, n, outputs)``."""
        values = inputs if inputs.ndim == 3 else inputs[None]
        for depth in range(0, len(self.layers), 2):
            values = values @ self.layers[depth] + self.layers[depth + 1]
            if depth < len(self.layers) - 2:
                values = values / (1.0 + np.exp(-np.clip(values, -60.0, 60.0)))
        return np.tanh(values) if self.squashed else values

    def copies(self, chosen: slice) -> Stack:
        """A stack of some of the copies."""
        return Stack(tuple(layer[chosen] for layer in self.layers), self.squashed)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that :meth:`restored` needs."""
        return {f"layer_{i}": layer for i, layer in enumerate(self.layers)}

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[np.generic]], squashed: bool) -> Stack:
        """From what :meth:`arrays` gave.

        Raises:
            ValueError: the layers do not follow on each other, or are not finite.
        """
        names = sorted((n for n in arrays if n.startswith("layer_")), key=lambda n: int(n[6:]))
        layers = tuple(np.asarray(arrays[name], dtype=np.float64) for name in names)
        if not layers or len(layers) % 2 or any(layer.ndim != 3 for layer in layers):
            raise ValueError(f"{len(layers)} layers of a stack")
        for weights, biases in zip(layers[::2], layers[1::2], strict=True):
            if biases.shape != (len(weights), 1, weights.shape[2]):
                raise ValueError(f"biases of shape {biases.shape} for {weights.shape}")
        for before, after in itertools.pairwise(layers[::2]):
            if before.shape[::2] != after.shape[:2]:
                raise ValueError(f"weights of shape {after.shape} after {before.shape}")
        if not all(np.isfinite(layer).all() for layer in layers):
            raise ValueError("weights that are no numbers")
        return cls(layers, squashed)


def fit(
    inputs: FloatArray,
    targets: FloatArray,
    weights: FloatArray,
    *,
    bounds: NDArray[np.bool_],
    hidden: Sequence[int],
    steps: int,
    seed: int,
    squashed: bool = False,
    learning_rate: float = 0.01,
    weight_decay: float = 0.5,
    stopped: Callable[[], bool] = lambda: False,
) -> Stack:
    """Regress by weighted least squares (AdamW, batches of all samples alike).

    Args:
        inputs: shape ``(n, width)``.
        targets: shape ``(copies or 1, n, outputs)``.
        weights: of the samples in each copy, shape ``(copies, n)``.
        bounds: samples whose target is only an upper bound: predicting less is no error.
        hidden: widths of the hidden layers.
        steps: updates.
        seed: of initial weights and batches.
        squashed: whether outputs lie in (-1, 1).
        stopped: asked now and then.

    Raises:
        LearningStoppedError: ``stopped`` said so.
    """
    tf = import_tensorflow()
    rng = np.random.default_rng(seed)
    copies = len(weights)
    widths = [inputs.shape[1], *hidden, targets.shape[2]]
    layers: list[Any] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        start = rng.normal(0.0, fan_in**-0.5, (copies, fan_in, fan_out))
        layers.append(tf.Variable(start.astype(np.float32)))
        layers.append(tf.Variable(np.zeros((copies, 1, fan_out), dtype=np.float32)))
    adam = on_one_device(tf.keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay))
    adam.build(layers)
    known = [tf.constant(array, dtype=tf.float32) for array in (inputs, targets, weights)]
    one_sided = tf.constant(bounds)

    def error(rows: Any) -> Any:
        values = tf.gather(known[0], rows)[None]
        for depth in range(0, len(layers), 2):
            values = tf.matmul(values, layers[depth]) + layers[depth + 1]
            if depth < len(layers) - 2:
                values = silu(values)
        short = (tf.tanh(values) if squashed else values) - tf.gather(known[1], rows, axis=1)
        bound = tf.gather(one_sided, rows)[None, :, None]
        squares = tf.reduce_sum(tf.square(tf.where(bound, tf.nn.relu(short), short)), axis=2)
        # Summed over copies: none of them takes part in another's gradient.
        return tf.reduce_sum(tf.gather(known[2], rows, axis=1) * squares) / BATCH

    def update(batches: Any) -> None:
        def one(step: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = error(batches[step])
            adam.apply(tape.gradient(loss, layers), layers)
            return step + 1

        tf.while_loop(lambda step: step < tf.shape(batches)[0], one, (tf.constant(0),))

    # autograph=False: there is no Python control flow to rewrite. Traced once, by hand: a fit has
    # a graph of its own, and TensorFlow would warn of what it takes for careless retracing.
    shape = tf.TensorSpec((None, BATCH), tf.int64)
    compiled = tf.function(update, autograph=False).get_concrete_function(shape)
    for done in range(0, steps, STEPS_AT_ONCE):
        if stopped():
            raise LearningStoppedError
        count = min(STEPS_AT_ONCE, steps - done)
        compiled(tf.constant(rng.integers(len(inputs), size=(count, BATCH))))
    return Stack(tuple(np.asarray(layer, dtype=np.float64) for layer in layers), squashed)
