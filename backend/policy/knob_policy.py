"""The knob policy: a state in, a configuration out, learnt by advantage-weighted regression.

Peng, Kumar, Zhang, Levine 2019 (https://arxiv.org/abs/1910.00177): imitate what was done, each
sample with the weight exp(advantage / temperature). The advantage is half measured, half what
critics expect of it (Wang et al. 2020, "CRR", https://arxiv.org/abs/2006.15134): one measurement
is noisy and a critic is biased. docs/policy-learning.md has every formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.agent.action_grid import ActionGrid
from backend.domain.knobs import KnobSpace
from backend.errors import CheckpointError
from backend.policy.networks import Stack, fit
from backend.policy.recorded_trials import FloatArray, IntArray, RecordedTrials

FORMAT = 1
HIDDEN = (32,)
MEMBERS = 8
"""Critics of each fold: their mean is what is expected, their spread what is not known."""
CRITIC_STEPS = 150
ACTOR_STEPS = 300
TEMPERATURE = 0.5
"""In standard deviations of the advantages: a sample one above the mean weighs as e**2."""
MAX_WEIGHT = 20.0
LEAST_MOVE = 0.1
"""A knob that would move by less, in encoded units, stays as it is."""
CLIP = 5.0
FAMILIAR = 0.5
"""A state is familiar so near, in standard deviations a coordinate, to one that was learnt from."""
LEAST_SPREAD = 0.5
"""A standard deviation counts as so much at least: a rate within 28 % is always familiar."""


@dataclass(frozen=True, eq=False)
class States:
    """How states are seen: normalised over all that was recorded.

    Args:
        mean, spread: of each coordinate.
        shares: what each coordinate counts for, in [0, 1].
    """

    mean: FloatArray
    spread: FloatArray
    shares: FloatArray

    @classmethod
    def of(cls, states: FloatArray, episodes: IntArray | None = None) -> States:
        """Mean and standard deviation; what hardly varies counts for nothing.

        Args:
            states: raw, shape ``(n, width)``.
            episodes: of each state; a coordinate then counts for the share of its variance that
                lies between episodes, as far as chance does not put it there: what swings within
                one workload tells nothing of which one it is. None: all count alike.
        """
        mean, spread = states.mean(axis=0), states.std(axis=0)
        varies = spread > 1e-9 * (1.0 + np.abs(mean))
        shares = varies.astype(np.float64)
        if episodes is not None:
            counts = np.bincount(episodes)
            means = np.array([states[episodes == one].mean(axis=0) for one in range(len(counts))])
            within = np.square(states - means[episodes]).mean(axis=0)
            between = np.square(spread) - within
            chance = within * (len(counts) - 1) / max(len(states) - len(counts), 1)
            shares *= np.clip((between - chance) / np.where(varies, spread, 1.0) ** 2, 0.0, 1.0)
        return cls(mean, np.where(varies, spread, 1.0), shares)

    def __call__(self, states: FloatArray) -> FloatArray:
        """Normalised, clipped, and scaled so that all coordinates together weigh like one."""
        normal = np.clip((states - self.mean) / self.spread, -CLIP, CLIP)
        return np.asarray(normal * self.shares / max(states.shape[-1], 1) ** 0.5)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that :meth:`restored` needs."""
        return {"mean": self.mean, "spread": self.spread, "shares": self.shares}

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[np.generic]], width: int) -> States:
        """From what :meth:`arrays` gave.

        Raises:
            ValueError: they are of another width; KeyError: one is missing.
        """
        parts = [np.asarray(arrays[name], np.float64) for name in ("mean", "spread", "shares")]
        if any(part.shape != (width,) or not np.isfinite(part).all() for part in parts):
            raise ValueError(f"states of shape {parts[0].shape}, the network takes {width}")
        return cls(*parts)


@dataclass(frozen=True, eq=False)
class Critics:
    """What configurations are expected to gain, by networks that never saw the fold.

    Args:
        states: how states are seen.
        networks: ``MEMBERS`` copies for each fold, then as many that saw everything.
    """

    states: States
    networks: Stack

    def gains(self, states: FloatArray, actions: FloatArray) -> FloatArray:
        """What each critic expects, ``(folds + 1, MEMBERS, n)``; only differences mean anything."""
        values = self.networks(np.concatenate([self.states(states), actions], axis=-1))[..., 0]
        return np.asarray(values.reshape(-1, MEMBERS, len(states)))


@dataclass(frozen=True, eq=False)
class KnobPolicy:
    """A deployable policy.

    Args:
        space: the knobs.
        states: how states are seen.
        network: one copy; state in, encoded configuration out.
        doubt: how far the configurations that it imitates lie from its answers, on the root mean
            square, in each coordinate.
        known: the states it was learnt from, raw, in the coordinates ``columns``.
        columns: those that tell which load it is.
    """

    space: KnobSpace
    states: States
    network: Stack
    doubt: FloatArray
    known: FloatArray
    columns: tuple[int, ...]

    def actions(self, states: FloatArray, standing: FloatArray) -> FloatArray:
        """Encoded legal configurations for raw states, in place of what stands: ``(n, width)``."""
        return self.moved(self.answers(states), standing)

    def answers(self, states: FloatArray) -> FloatArray:
        """The mean of what it imitates in these states, not yet a legal configuration."""
        return np.asarray(self.network(self.states(states))[0])

    def moved(self, answers: FloatArray, standing: FloatArray) -> FloatArray:
        """What stands, with those knobs changed that the answer is sure of.

        A knob that good configurations had here and there alike does not matter: it stays.
        """
        grid = ActionGrid(self.space)
        clear = self.differs(answers, standing)
        starts = np.flatnonzero(np.diff(grid.knob_of, prepend=-1))
        moves = np.maximum.reduceat(clear, starts, axis=1)[:, grid.knob_of]
        return np.asarray(np.where(moves, grid.snap(answers), standing))

    def differs(self, left: FloatArray, right: FloatArray) -> NDArray[np.bool_]:
        """Which coordinates of answers or configurations differ by more than the doubt."""
        return np.asarray(np.abs(left - right) > np.maximum(self.doubt, LEAST_MOVE))

    def familiar(self, state: FloatArray) -> bool:
        """Whether the load of this state is like one that it was learnt from."""
        columns = list(self.columns)
        spread = np.maximum(self.states.spread[columns], LEAST_SPREAD)
        away = (self.known - state[columns]) / spread
        return bool((np.square(away).mean(axis=1) <= FAMILIAR**2).any())

    def file(self, layout: str) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """All that :meth:`restored` needs, for a file of weights."""
        about = {
            "format": FORMAT,
            "policy": "knob",
            "shape": self.space.shape_fingerprint,
            "state_layout": layout,
        }
        return about, {
            **self.network.arrays(),
            **self.states.arrays(),
            "doubt": self.doubt,
            "known": self.known,
        }

    @classmethod
    def restored(
        cls,
        about: Mapping[str, Any],
        arrays: Mapping[str, NDArray[np.generic]],
        space: KnobSpace,
        layout: str,
        columns: Sequence[int],
    ) -> KnobPolicy:
        """From what :meth:`file` gave, for this server's knobs.

        Raises:
            CheckpointError: it is damaged, or of other knobs or states.
        """
        try:
            if (about["format"], about["policy"]) != (FORMAT, "knob"):
                raise ValueError("not a knob policy of this version")
            if (about["shape"], about["state_layout"]) != (space.shape_fingerprint, layout):
                raise ValueError("of other knobs, or other states")
            doubt, known = (np.asarray(arrays[name], np.float64) for name in ("doubt", "known"))
            network = Stack.restored(arrays, squashed=True)
            width = network.layers[0].shape[1]
            if network.layers[-1].shape != (1, 1, space.width) or doubt.shape != (space.width,):
                raise ValueError(f"answers of shape {network.layers[-1].shape}")
            states = States.restored(arrays, width)
            if known.ndim != 2 or known.shape[1] != len(columns):
                raise ValueError(f"known states of shape {known.shape}")
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"a knob policy cannot be used: {error}"[:500]) from error
        return cls(space, states, network, doubt, known, tuple(columns))


def learn_critics(
    data: RecordedTrials,
    seen: NDArray[np.bool_],
    *,
    seed: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Critics:
    """Regress gains, centred within each episode, on states and configurations.

    Args:
        data: what was recorded.
        seen: which rows each fold's critics learn from, shape ``(folds + 1, n)``.
        seed: same seed and same data, same critics.
        stopped: asked now and then.
    """
    states = States.of(data.states, data.episodes)
    # The Bayesian bootstrap (Rubin 1981): each member weighs each trial differently.
    trials = data.trials()
    lots = np.random.default_rng(seed).exponential(size=(MEMBERS, int(trials.max()) + 1))
    weights = ((seen * data.qualities)[:, None] * lots[:, trials]).reshape(-1, len(data))
    targets = np.repeat(centred(data, seen), MEMBERS, axis=0)[..., None]
    networks = fit(
        np.concatenate([states(data.states), data.actions], axis=1),
        targets,
        weights,
        bounds=data.censored,
        hidden=HIDDEN,
        steps=CRITIC_STEPS,
        seed=seed,
        stopped=stopped,
    )
    return Critics(states, networks)


def centred(data: RecordedTrials, seen: NDArray[np.bool_]) -> FloatArray:
    """Gains less the mean of those seen of the episode, 0 where not seen, ``(folds + 1, n)``."""
    weights = seen * data.qualities * ~data.censored
    counts = np.eye(int(data.episodes.max()) + 1)[data.episodes]
    total, mass = (weights * data.gains) @ counts, weights @ counts
    means = np.divide(total, mass, out=np.zeros_like(total), where=mass > 0.0)
    known = seen & (mass > 0.0)[:, data.episodes]
    return np.asarray(np.where(known, data.gains - means[:, data.episodes], 0.0))


def advantage_weights(
    data: RecordedTrials, critics: Critics, seen: NDArray[np.bool_]
) -> FloatArray:
    """Weights of the samples in each fold's regression, shape ``(folds + 1, n)``.

    A bound vouches for nothing: censored samples are not imitated. Within an episode the weights
    have the mean of its qualities, so that none outshouts the others.
    """
    measured = seen & ~data.censored
    expected = critics.gains(data.states, data.actions).mean(axis=1)
    weights = np.zeros(expected.shape)
    gains = centred(data, seen)
    for fold, rows in enumerate(measured):
        advantages = 0.5 * gains[fold] + 0.5 * _less_mean(data, expected[fold], rows)
        spread = advantages[rows].std()
        scaled = advantages / (TEMPERATURE * spread) if spread > 0.0 else advantages
        weight = np.minimum(np.exp(np.minimum(scaled, 50.0)), MAX_WEIGHT) * data.qualities
        for episode in np.unique(data.episodes[rows]):
            own = rows & (data.episodes == episode)
            total = weight[own].sum()
            if total > 0.0:
                weights[fold, own] = weight[own] * data.qualities[own].sum() / total
    return np.asarray(weights)


def _less_mean(data: RecordedTrials, values: FloatArray, rows: NDArray[np.bool_]) -> FloatArray:
    """Values less their episode's mean over ``rows``."""
    weights = rows * data.qualities
    mass = np.bincount(data.episodes, weights)
    means = np.bincount(data.episodes, weights * values) / np.where(mass > 0.0, mass, 1.0)
    return np.asarray(values - means[data.episodes])


def learn_knob_policies(
    data: RecordedTrials,
    weights: FloatArray,
    columns: Sequence[int],
    *,
    seed: int,
    stopped: Callable[[], bool] = lambda: False,
) -> list[KnobPolicy]:
    """A policy for each row of weights: the folds', then the one that saw everything."""
    states = States.of(data.states, data.episodes)
    network = fit(
        states(data.states),
        data.actions[None],
        weights,
        bounds=np.zeros(len(data), dtype=np.bool_),
        hidden=HIDDEN,
        steps=ACTOR_STEPS,
        seed=seed,
        squashed=True,
        stopped=stopped,
    )
    imitated = network(states(data.states))
    return [
        KnobPolicy(
            data.space,
            states,
            network.copies(slice(copy, copy + 1)),
            _spread(data.actions - imitated[copy], weight),
            data.states[weight > 0.0][:, list(columns)],
            tuple(columns),
        )
        for copy, weight in enumerate(weights)
    ]


def _spread(missed: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted root mean square of each coordinate."""
    return np.asarray(np.sqrt(weights @ np.square(missed) / max(weights.sum(), 1e-9)))
