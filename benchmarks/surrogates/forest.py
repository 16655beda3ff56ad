"""A random forest as flat arrays: fitted by scikit-learn, evaluated a row at a time by numpy.

scikit-learn spends milliseconds on each call for one row; a tuner asks for thousands of single
rows. Walking down all trees at once is one short loop over the depth.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.surrogates.recording import FloatArray, Recording
from benchmarks.tuners.peer import required

TREES = 300
CHUNK_ROWS = 256


@dataclass(frozen=True)
class Forest:
    """All trees in one table of nodes; a leaf is its own child.

    Args:
        column, threshold: what an inner node compares; ``<=`` goes to ``left``.
        left, right: row numbers in the table.
        value: what a leaf predicts.
        roots: first node of every tree.
        depth: of the deepest tree.
    """

    column: NDArray[np.int64]
    threshold: FloatArray
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: FloatArray
    roots: NDArray[np.int64]
    depth: int

    @classmethod
    def of(cls, model: Any) -> Forest:
        """Flatten a fitted ``RandomForestRegressor``."""
        trees = [estimator.tree_ for estimator in model.estimators_]
        sizes = [tree.node_count for tree in trees]
        roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        left = np.concatenate([t.children_left + r for t, r in zip(trees, roots, strict=True)])
        right = np.concatenate([t.children_right + r for t, r in zip(trees, roots, strict=True)])
        leaf = np.concatenate([tree.children_left < 0 for tree in trees])
        here = np.arange(len(leaf))
        return cls(
            column=np.where(leaf, 0, np.concatenate([tree.feature for tree in trees])),
            threshold=np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees])),
            left=np.where(leaf, here, left),
            right=np.where(leaf, here, right),
            value=np.concatenate([tree.value[:, 0, 0] for tree in trees]),
            roots=roots,
            depth=max(tree.max_depth for tree in trees),
        )

    def predict(self, rows: FloatArray) -> FloatArray:
        """The forest's mean for each row of features, shape ``(rows,)``."""
        seen = rows.astype(np.float32).astype(np.float64)  # scikit-learn's trees see 32 bits
        parts = [self._walk(seen[at : at + CHUNK_ROWS]) for at in range(0, len(seen), CHUNK_ROWS)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _walk(self, rows: FloatArray) -> FloatArray:
        nodes = np.broadcast_to(self.roots, (len(rows), len(self.roots)))
        row = np.arange(len(rows))[:, None]
        for _ in range(self.depth):
            goes_left = rows[row, self.column[nodes]] <= self.threshold[nodes]
            nodes = np.where(goes_left, self.left[nodes], self.right[nodes])
        return np.asarray(self.value[nodes].mean(axis=1))


@dataclass(frozen=True)
class Surrogate:
    """A forest and what it says of the recorded rows it was fitted to, shape ``(rows,)``."""

    forest: Forest
    fitted: FloatArray


def fit_surrogate(
    recording: Recording, cache: Path | None = None, *, trees: int = TREES, jobs: int = 1
) -> Surrogate:
    """Fit a forest to a recording (``random_state`` 0), or take it from the cache folder.

    Raises:
        MissingPeerError: scikit-learn is not installed.
    """
    version = required("sklearn").__version__
    path = None if cache is None else cache / f"forest-{recording.digest}-{trees}-{version}.npz"
    if path is not None and path.exists():
        with np.load(path, allow_pickle=False) as arrays:
            fields = {name: arrays[name] for name in arrays.files}
        fitted, depth = fields.pop("fitted"), int(fields.pop("depth"))
        return Surrogate(Forest(**fields, depth=depth), fitted)
    model = required("sklearn.ensemble").RandomForestRegressor(trees, random_state=0, n_jobs=jobs)
    model.fit(recording.features, recording.targets)
    forest = Forest.of(model)
    surrogate = Surrogate(forest, forest.predict(recording.features))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.npz")
        np.savez_compressed(part, fitted=surrogate.fitted, **vars(forest))
        part.replace(path)
    return surrogate
