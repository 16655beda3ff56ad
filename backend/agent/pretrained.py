"""What an agent learnt offline, in a small file that other agents start from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from backend.agent.checkpoint import damaged, read_checkpoint, write_checkpoint
from backend.domain.knobs import KnobSpace
from backend.domain.transition import Transition
from backend.errors import CheckpointError

FORMAT = 1
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Pretrained:
    """Networks, normalisation and transitions of an agent, apart from any one server.

    Args:
        shape_fingerprint: of the knob space (``KnobSpace.shape_fingerprint``): bounds may
            differ, since they follow the machine.
        state_width: length of the states.
        settings: of the agent that was trained.
        weights: the networks'.
        normaliser: the states' mean and spread.
        transitions: by field of :attr:`FIELDS`, each with one row a transition.
        state_layout: digest of what the state's coordinates mean; empty where nobody said.
    """

    FIELDS: ClassVar[tuple[str, ...]] = (
        "states",
        "actions",
        "rewards",
        "qualities",
        "censored",
        "episodes",
    )

    shape_fingerprint: str
    state_width: int
    settings: Mapping[str, Any]
    weights: Arrays
    normaliser: Arrays
    transitions: Arrays
    state_layout: str = ""

    def check(self, space: KnobSpace, state_layout: str = "") -> None:
        """Whether it fits.

        Raises:
            CheckpointError: the space's shape, or the layout of the states, is another.
        """
        for what, own, wanted in (
            ("knob space", self.shape_fingerprint, space.shape_fingerprint),
            ("state layout", self.state_layout, state_layout or self.state_layout),
        ):
            if own != wanted:
                raise CheckpointError(
                    f"the pre-trained agent is for {what} {own}, this is {wanted}",
                    remedy="train one for it: python run.py train",
                )

    def replayed(self) -> Iterator[tuple[int, Transition]]:
        """Each transition with the number of its episode, from 1."""
        rows = {name: np.asarray(self.transitions[name], np.float64) for name in self.FIELDS}
        # An agent's own measurements become one more recorded episode.
        own = rows["episodes"].max(initial=0.0) + 1.0
        for i, episode in enumerate(np.where(rows["episodes"] == 0, own, rows["episodes"])):
            reward = float(rows["rewards"][i])
            yield (
                int(episode),
                Transition(
                    state=rows["states"][i],
                    action=rows["actions"][i],
                    reward=reward,
                    next_state=rows["states"][i],
                    objective=-reward,
                    quality=float(rows["qualities"][i]),
                    censored=bool(rows["censored"][i]),
                ),
            )

    def write(self, path: Path | str) -> None:
        """Write one file, small enough to ship: half precision for weights, single for data."""
        about = {
            "format": FORMAT,
            "shape_fingerprint": self.shape_fingerprint,
            "state_width": self.state_width,
            "state_layout": self.state_layout,
            "settings": dict(self.settings),
        }
        arrays: dict[str, NDArray[np.generic]] = {}
        for part, values, kind in (
            ("weights", self.weights, np.float16),
            ("normaliser", self.normaliser, np.float64),
            ("transitions", self.transitions, np.float32),
        ):
            arrays.update({f"{part}.{n}": np.asarray(a).astype(kind) for n, a in values.items()})
        write_checkpoint(Path(path), about, arrays)

    @classmethod
    def read(cls, path: Path | str) -> Pretrained:
        """Read back what :meth:`write` wrote.

        Raises:
            CheckpointError: there is none, it is damaged, or of another format.
        """
        about, arrays = read_checkpoint(Path(path))
        if about.pop("format", None) != FORMAT:
            raise damaged(Path(path), ValueError(f"not of format {FORMAT}"))

        def part(name: str) -> Arrays:
            start = len(name) + 1
            return {n[start:]: a for n, a in arrays.items() if n.startswith(f"{name}.")}

        try:
            read = cls(
                **about,
                weights=part("weights"),
                normaliser=part("normaliser"),
                transitions=part("transitions"),
            )
            missing = set(cls.FIELDS) - set(read.transitions)
        except TypeError as error:
            raise damaged(Path(path), error) from error
        if missing:
            raise damaged(Path(path), KeyError(", ".join(sorted(missing))))
        return read
