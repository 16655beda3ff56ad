"""What genomes learn on: simulated targets, some fitted to recorded transitions.

A problem answers a configuration with its exact log latency index (0 is the default
configuration, lower is better), a noise and a state, as a server does through a window. Its
*gain* is what a search has found before: the best recorded configuration, or the best of
:data:`DRAWS` random ones where nothing is recorded. Better ones may exist.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.server import HostFacts
from backend.domain.transition import Transition
from backend.evolution.profile import Profile, profile_of
from backend.evolution.regression import Regression
from backend.expert_rules import expert_proposals
from backend.state_features import STATE_WIDTH
from backend.targets.simulated_model import DEFAULT_SPACE, ResponseModel
from backend.training_data import TrainingData

FloatArray = NDArray[np.float64]
DRAWS = 25
"""As many as a recorded workload has."""
MOST_TRAINING = 4
"""Recorded workloads that every individual learns on."""
LEAST_ROWS = 8
"""Transitions of a workload that a problem is fitted to, at least."""
MOST_ROWS = 400
"""Newest transitions that one regression takes in: its time grows with their cube."""
LEAST_GAIN = 0.05
"""Log gain that a problem must have to offer: where there is none nothing can be learnt."""
HOST = HostFacts(memory_bytes=8 << 30, cpu_count=4.0)
"""A middling machine, for the expert rules that a knob agent begins with."""
LEAST_NOISE, MOST_NOISE = 0.02, 0.06
"""Of a window. A fit's residuals also hold what it misses: recorded repetitions of one
configuration differ by some 5 %."""


class Problem(Protocol):
    """A target to learn on."""

    name: str
    space: KnobSpace
    noise: float
    gain: float
    priors: Sequence[KnobConfig]

    def log_index(self, config: Mapping[str, KnobValue]) -> float:
        """Exact, 0 at the default configuration, lower is better."""

    def state(self, rng: np.random.Generator) -> FloatArray:
        """What a window shows of the workload."""


@dataclass
class FittedProblem:
    """A workload as a regression of its recorded transitions.

    Args:
        name: of the workload.
        space: its knobs.
        regression, group: which workload of which fit.
        states: recorded, shape ``(rows, STATE_WIDTH)``.
        tried: recorded actions.
    """

    name: str
    space: KnobSpace
    regression: Regression
    group: int
    states: FloatArray
    tried: FloatArray
    noise: float = field(init=False)
    gain: float = field(init=False)
    priors: Sequence[KnobConfig] = field(init=False)

    def __post_init__(self) -> None:
        default = self.space.default_config()
        encoded = self.space.encode(default)[None]
        self._zero = float(self.regression.predict(encoded, self.group)[0])
        self.noise = min(max(LEAST_NOISE, self.regression.noise), MOST_NOISE)
        self.priors = [proposal.config for proposal in expert_proposals(self.space, HOST, default)]
        self.gain = self._zero - float(self.regression.predict(self.tried, self.group).min())

    def log_index(self, config: Mapping[str, KnobValue]) -> float:
        """What the regression expects against the default configuration."""
        action = self.space.encode(config)[None]
        return float(self.regression.predict(action, self.group)[0]) - self._zero

    def state(self, rng: np.random.Generator) -> FloatArray:
        """One of the recorded ones."""
        return np.asarray(self.states[rng.integers(len(self.states))], dtype=np.float64)


@dataclass
class ModelProblem:
    """A response model with its own optimum, for what no recorded workload shows.

    No expert rule knows it: its priors are none.
    """

    space: KnobSpace
    seed: int
    name: str = field(init=False)
    noise: float = field(init=False)
    gain: float = field(init=False)
    priors: Sequence[KnobConfig] = ()

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 5])
        self.name = f"model {self.seed}"
        self.noise = float(rng.uniform(LEAST_NOISE, MOST_NOISE))
        self._model = ResponseModel(self.space, gain=rng.uniform(0.2, 0.5), seed=self.seed)
        self._mean = rng.normal(size=STATE_WIDTH)
        draws = rng.uniform(-1.0, 1.0, (DRAWS, self.space.width))
        self.gain = max(LEAST_GAIN, -min(self.log_index(self.space.decode(row)) for row in draws))

    def log_index(self, config: Mapping[str, KnobValue]) -> float:
        """Exact."""
        return math.log(self._model.index_of(config))

    def state(self, rng: np.random.Generator) -> FloatArray:
        """Steady, but for some noise."""
        return np.asarray(self._mean + 0.05 * rng.normal(size=STATE_WIDTH))


@dataclass(frozen=True)
class Curriculum:
    """Problems that genomes are evolved on, and others that judge the winner.

    Args:
        training, held_out: no workload and no model is in both, nor in the fit of both.
        profile: of the recorded workloads; {} where there are none.
        digest: of everything that a fitness depends on.
    """

    training: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    profile: Profile
    digest: str


def curriculum(data: TrainingData | None, models: int = 1, seed: int = 0) -> Curriculum:
    """Problems from what was recorded, and response models.

    Args:
        data: recorded transitions; None for response models alone.
        models: response models in training, and as many held out.
        seed: which workloads are held out, and which models there are.
    """
    workloads = by_workload(data) if data is not None else {}
    names = sorted(workloads)
    np.random.default_rng(seed).shuffle(names)
    # A third judges the winner. Of one workload alone nothing can be held out but the models.
    held = set(names[: len(names) // 3])
    # Every individual learns on all of training: more than a few workloads would take too long.
    left_out = set(names[len(held) + MOST_TRAINING :])
    space = data.space if data is not None else KnobSpace(DEFAULT_SPACE.knobs)
    groups = [
        {name: workloads[name] for name in names if name in chosen}
        for chosen in (set(names) - held - left_out, held)
    ]
    fitted = [fit(space, group) for group in groups]
    made = [
        [ModelProblem(space, 1000 * seed + 100 * part + number) for number in range(models)]
        for part in (1, 2)
    ]
    states = [step.state for steps in workloads.values() for step in steps]
    text = repr((seed, models, space.fingerprint, [_digest(group) for group in groups]))
    return Curriculum(
        training=(*fitted[0], *made[0]),
        held_out=(*fitted[1], *made[1]),
        profile=profile_of(states),
        digest=hashlib.sha256(text.encode()).hexdigest()[:12],
    )


def fit(
    space: KnobSpace, workloads: Mapping[str, Sequence[Transition]]
) -> tuple[FittedProblem, ...]:
    """A problem for each workload that has something to gain, all fitted together."""
    share = MOST_ROWS // max(len(workloads), 1)
    rows = {name: list(steps)[-max(share, LEAST_ROWS) :] for name, steps in workloads.items()}
    if not rows:
        return ()
    regression = Regression(
        np.array([step.action for steps in rows.values() for step in steps]),
        np.repeat(np.arange(len(rows)), [len(steps) for steps in rows.values()]),
        np.array([math.log(step.objective) for steps in rows.values() for step in steps]),
    )
    problems = [
        FittedProblem(
            name=name,
            space=space,
            regression=regression,
            group=group,
            states=np.array([step.state for step in steps]),
            tried=np.array([step.action for step in steps]),
        )
        for group, (name, steps) in enumerate(rows.items())
    ]
    return tuple(problem for problem in problems if problem.gain >= LEAST_GAIN)


def by_workload(data: TrainingData) -> dict[str, list[Transition]]:
    """Measured transitions of each workload that has enough; bounds say too little to fit."""
    found: dict[str, list[Transition]] = {}
    for workload, episode in zip(data.workloads, data.episodes, strict=True):
        measured = [
            step for step in episode if not step.censored and 0.0 < step.objective < math.inf
        ]
        found.setdefault(workload, []).extend(measured)
    return {name: steps for name, steps in found.items() if len(steps) >= LEAST_ROWS}


def _digest(group: Mapping[str, Sequence[Transition]]) -> str:
    digest = hashlib.sha256()
    for name, steps in sorted(group.items()):
        digest.update(name.encode())
        for step in steps:
            digest.update(step.action.tobytes() + step.state.tobytes())
            digest.update(np.float64(step.objective).tobytes())
    return digest.hexdigest()
