"""Vectorised moves in the encoded knob space: snapping, mutating, trust regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.domain.knobs import Knob, KnobSpace

FloatArray = NDArray[np.float64]
MAX_LEVELS = 64
LANDMARKS = 0.2
"""So often a knob that may go anywhere goes to an end of its range, or back to its default:
ends are special more often than not (off, unlimited, as much as there is), as LlamaTune found
(Kanellis et al. 2022, https://www.vldb.org/pvldb/vol15/p2953-kanellis.pdf)."""


REACH = 0.25
"""A value of a numeric knob is known where one so near, in encoded units, has been tried."""


class ActionGrid:
    """The legal points of an encoded knob space, for thousands of candidates at once.

    ``KnobSpace`` encodes and decodes one configuration exactly; here whole matrices of shape
    ``(candidates, width)`` move. Booleans and one-hot groups always stay at -1 or 1, integer
    knobs with at most ``MAX_LEVELS`` values on their own levels.
    """

    def __init__(self, space: KnobSpace) -> None:
        self.width = space.width
        self.knob_of = np.repeat(np.arange(len(space)), [knob.width for knob in space])
        self.discrete = np.zeros(space.width, dtype=bool)
        self._groups: list[tuple[int, int]] = []
        self._levels: list[tuple[int, FloatArray]] = []
        start = 0
        for knob in space:
            stop = start + knob.width
            if knob.kind == "categorical":
                self.discrete[start:stop] = True
                self._groups.append((start, stop))
            elif knob.kind == "boolean":
                self.discrete[start] = True
            elif (levels := _levels(knob)) is not None:
                self._levels.append((start, levels))
            start = stop
        self._landmarks = np.array(
            [-np.ones(space.width), np.ones(space.width), space.encode(space.default_config())]
        )
        self._booleans = self.discrete.copy()
        for first, last in self._groups:
            self._booleans[first:last] = False
        self._stations = self._make_stations()

    def snap(self, points: FloatArray) -> FloatArray:
        """Move points of shape ``(n, width)`` to the nearest legal ones."""
        snapped = np.clip(points, -1.0, 1.0)
        snapped[:, self._booleans] = np.where(snapped[:, self._booleans] > 0.0, 1.0, -1.0)
        for first, last in self._groups:
            best = points[:, first:last].argmax(axis=1)
            snapped[:, first:last] = -1.0
            snapped[np.arange(len(points)), first + best] = 1.0
        for column, levels in self._levels:
            middles = (levels[1:] + levels[:-1]) / 2.0
            snapped[:, column] = levels[np.searchsorted(middles, snapped[:, column])]
        return snapped

    def anywhere(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Points over the whole space, shape ``(count, width)``, the knobs' landmarks favoured."""
        points = rng.uniform(-1.0, 1.0, (count, self.width))
        landmarks = self._landmarks[
            rng.integers(len(self._landmarks), size=points.shape), np.arange(self.width)
        ]
        at_landmark = (rng.random(points.shape) < LANDMARKS) & ~self.discrete
        return np.asarray(np.where(at_landmark, landmarks, points))

    def mutate(
        self, points: FloatArray, knobs_moved: FloatArray, step: float, rng: np.random.Generator
    ) -> FloatArray:
        """Move a few knobs of each point; at least one.

        Args:
            points: legal points, shape ``(n, width)``.
            knobs_moved: expected number of knobs to move, shape ``(n,)``.
            step: standard deviation of a numeric knob's move in encoded units. One move in five
                goes anywhere in the range instead. Discrete knobs take any value.
        """
        count, knobs = len(points), int(self.knob_of[-1]) + 1
        chosen = rng.random((count, knobs)) < (knobs_moved / knobs)[:, None]
        chosen[np.arange(count), rng.integers(knobs, size=count)] = True
        anywhere = self.anywhere(count, rng)
        near = points + step * rng.standard_normal(points.shape)
        far = (rng.random((count, knobs)) < 0.2)[:, self.knob_of] | self.discrete
        return self.snap(np.where(chosen[:, self.knob_of], np.where(far, anywhere, near), points))

    def within(self, points: FloatArray, centre: FloatArray, half_width: float) -> FloatArray:
        """Clip numeric knobs to ``centre`` plus or minus ``half_width``; discrete ones stay."""
        clipped = np.clip(points, centre - half_width, centre + half_width)
        return np.asarray(np.where(self.discrete, points, clipped), dtype=np.float64)

    def moved(self, points: FloatArray, centre: FloatArray) -> NDArray[np.int64]:
        """In how many knobs each point differs from ``centre``, shape ``(n,)``."""
        return np.asarray(self._differs(points, centre).sum(axis=1), dtype=np.int64)

    def sparse(
        self, points: FloatArray, centre: FloatArray, most: int, rng: np.random.Generator
    ) -> FloatArray:
        """Let each point differ from ``centre`` in at most ``most`` knobs, drawn among those
        in which it does; the others go back.
        """
        moved = self._differs(points, centre)
        lots = np.where(moved, rng.random(moved.shape), -1.0)
        if most < lots.shape[1]:
            cut = np.partition(lots, -most, axis=1)[:, -most][:, None]
            points = np.where((moved & (lots >= cut))[:, self.knob_of], points, centre)
        return points

    def excursions(self, centre: FloatArray, known: FloatArray) -> FloatArray:
        """Points that differ from ``centre`` in one knob, where none of ``known`` has been.

        The knob is at an end of its range, in the middle, or at another choice. Shape
        ``(n, width)``, n may be 0.
        """
        known = np.concatenate([known, centre[None]])
        points = [np.zeros((0, self.width))]
        for columns, value in self._stations:
            if (np.abs(known[:, columns] - value).max(axis=1) >= REACH).all():
                point = centre.copy()
                point[columns] = value
                points.append(point[None])
        return self.snap(np.concatenate(points))

    def _make_stations(self) -> list[tuple[slice, FloatArray]]:
        """Where one knob may go alone: its columns and their values."""
        stations = []
        for first, last in self._groups:
            choices = 2.0 * np.eye(last - first) - 1.0
            stations += [(slice(first, last), choice) for choice in choices]
        grouped = {column for first, last in self._groups for column in range(first, last)}
        for column in sorted(set(range(self.width)) - grouped):
            values = (-1.0, 1.0) if self._booleans[column] else (-1.0, 0.0, 1.0)
            stations += [(slice(column, column + 1), np.array([value])) for value in values]
        return stations

    def _differs(self, points: FloatArray, centre: FloatArray) -> NDArray[np.bool_]:
        """Whether each point differs from ``centre`` in each knob, shape ``(n, knobs)``."""
        starts = np.flatnonzero(np.diff(self.knob_of, prepend=-1))
        return np.logical_or.reduceat(np.abs(points - centre) > 1e-9, starts, axis=1)


def _levels(knob: Knob) -> FloatArray | None:
    """The encoded values of an integer knob with few of them; None for any other knob."""
    if knob.kind != "integer":
        return None
    low, high = (int(bound) for bound in knob.bounds)
    if high - low + 1 > MAX_LEVELS:
        return None
    return np.array([knob.encode(value)[0] for value in range(low, high + 1)])
