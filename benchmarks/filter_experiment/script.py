"""A scripted proposer: a frozen sequence of candidates whose true effects are known.

It takes the place of the agent's search, whose luck hides what verdicts cost. The way from the
default to the best configuration is cut into steps of different sizes, which lie shuffled among
decoys. A candidate is an effect on what stands then, so every step keeps its size, in whatever
order the steps are deployed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from backend.domain.knobs import KnobConfig
from backend.targets.simulated_model import ResponseModel

STEPS = NOTHINGS = HARMS = 6
STEP_WEIGHTS = (0.5, 2.0)
"""A step's share of the whole way, in log index, is drawn evenly from here, then normalised."""
NOTHING = 5e-4
"""Log effect of a decoy that does nothing: 0.05 %."""
HARM = (0.03, 0.25)
"""Log effects of harmful decoys, drawn evenly."""
FARTHEST = 4.0
"""Longest move of a decoy; each knob's encoded range is 2 wide."""


class Effect(str, Enum):
    """What a candidate truly does."""

    GAIN = "gain"
    NOTHING = "nothing"
    HARM = "harm"


@dataclass(frozen=True)
class Candidate:
    """A change of what stands: its log index changes by ``log_effect``, from the seed ``way``."""

    effect: Effect
    log_effect: float
    way: int


class Script:
    """The candidates still to come.

    Rejected steps and whatever ended without a verdict come again after the rest; what was
    deployed, and decoys that were rejected, do not. A harmful decoy that was deployed adds a step
    of its size: the way has become longer.

    Args:
        model: the server's response, which knows the best configuration.
        seed: of sizes, order and ways.
    """

    def __init__(self, model: ResponseModel, seed: int) -> None:
        self._model = model
        self._seed = seed
        rng = np.random.default_rng([seed, 2])
        weights = rng.uniform(*STEP_WEIGHTS, STEPS)
        steps = math.log(model.index_of(model.best_config)) * weights / weights.sum()
        drawn = [(Effect.GAIN, float(step)) for step in steps]
        drawn += [(Effect.NOTHING, NOTHING)] * NOTHINGS
        drawn += [(Effect.HARM, float(harm)) for harm in rng.uniform(*HARM, HARMS)]
        self._queue = deque(
            Candidate(effect, log_effect, way)
            for way, (effect, log_effect) in enumerate(
                drawn[number] for number in rng.permutation(len(drawn))
            )
        )
        self._open: Candidate | None = None

    @property
    def to_come(self) -> tuple[Candidate, ...]:
        """The candidates in the queue, the next one first."""
        return tuple(self._queue)

    @property
    def trying(self) -> Candidate:
        """The candidate that was asked for last and has no end yet.

        Raises:
            ValueError: there is none.
        """
        if self._open is None:
            raise ValueError("no candidate is being tried")
        return self._open

    def ask(self, present: KnobConfig) -> KnobConfig:
        """The next candidate's configuration; one that is still open comes again later.

        Raises:
            ValueError: none is left.
        """
        if self._open is not None:
            self.unclear()
        if not self._queue:
            raise ValueError("every candidate is deployed or rejected for good")
        self._open = self._queue.popleft()
        if self._open.effect is Effect.GAIN:
            return towards_best(self._model, present, self._open.log_effect)
        rng = np.random.default_rng([self._seed, 3, self._open.way])
        return away(self._model, present, self._open.log_effect, rng)

    def deployed(self) -> None:
        """The candidate stands."""
        done = self._close()
        if done.effect is Effect.HARM:
            self._queue.append(Candidate(Effect.GAIN, -done.log_effect, done.way))

    def rejected(self) -> None:
        """The candidate was found to be no better."""
        done = self._close()
        if done.effect is Effect.GAIN:
            self._queue.append(done)

    def unclear(self) -> None:
        """The candidate's trial ended without a verdict."""
        self._queue.append(self._close())

    def _close(self) -> Candidate:
        done, self._open = self.trying, None
        return done


def towards_best(model: ResponseModel, present: KnobConfig, log_effect: float) -> KnobConfig:
    """The point on the straight way to the best configuration with this log effect (below 0).

    Every class of statements gains all along that way. The best one itself where the way is
    shorter.
    """
    here, best = _encoded(model, present), _encoded(model, model.best_config)
    if log_effect <= math.log(model.index_of(model.best_config) / _index(model, present)):
        return model.best_config
    effect = _effect_along(model, present, here, best - here)
    reach = _crossing(lambda t: effect(t) <= log_effect, 1.0)
    return _decoded(model, here + reach * (best - here))


def away(
    model: ResponseModel, present: KnobConfig, log_effect: float, rng: np.random.Generator
) -> KnobConfig:
    """A point with this log effect (above 0) uphill in a direction drawn by lot.

    Raises:
        ValueError: no direction leads so far up.
    """
    here = _encoded(model, present)
    for _ in range(1000):
        way = rng.normal(size=here.size)
        way /= np.linalg.norm(way)
        effect = _effect_along(model, present, here, way)
        if effect(1e-3) > 0 and effect(FARTHEST) >= log_effect:
            break
    else:
        raise ValueError(f"no way leads to a log effect of {log_effect:g}")
    return _decoded(model, here + _crossing(lambda t: effect(t) >= log_effect, FARTHEST) * way)


def _effect_along(
    model: ResponseModel, present: KnobConfig, here: NDArray[np.float64], way: NDArray[np.float64]
) -> Callable[[float], float]:
    stands = _index(model, present)
    return lambda t: math.log(model.index_of(_decoded(model, here + t * way)) / stands)


def _crossing(passed: Callable[[float], bool], far: float) -> float:
    """Where, in [0, far], a condition begins to hold; by bisection."""
    near = 0.0
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (near, middle) if passed(middle) else (middle, far)
    return far


def _index(model: ResponseModel, config: KnobConfig) -> float:
    return model.index_of({name: config[name] for name in model.space.names})


def _encoded(model: ResponseModel, config: KnobConfig) -> NDArray[np.float64]:
    return model.space.encode(KnobConfig({name: config[name] for name in model.space.names}))


def _decoded(model: ResponseModel, vector: NDArray[np.float64]) -> KnobConfig:
    return model.space.decode(np.clip(vector, -1.0, 1.0))
