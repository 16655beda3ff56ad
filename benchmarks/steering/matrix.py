"""Recorded latencies, query × hint set: read from a file, made up, or a part of either."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.errors import ConfigError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LatencyMatrix:
    """Seconds of every query (row) under every hint set (column); column 0 is the default.

    Args:
        name: of the file, or how it was made.
        digest: of the file's bytes, or of the numbers.
        latency_s: shape ``(queries, hint sets)``, positive.
    """

    name: str
    digest: str
    latency_s: FloatArray

    @property
    def default_total_s(self) -> float:
        """All queries once under their default plans."""
        return float(self.latency_s[:, 0].sum())

    @property
    def oracle_total_s(self) -> float:
        """All queries once, each under its fastest hint set."""
        return float(self.latency_s.min(axis=1).sum())

    def part(self, queries: float, hint_sets: float, seed: int) -> LatencyMatrix:
        """A random share of the queries and of the hint sets; the default stays."""
        rng = np.random.default_rng(seed)
        rows, columns = self.latency_s.shape
        kept = np.sort(rng.permutation(rows)[: max(1, round(queries * rows))])
        others = np.sort(rng.permutation(columns - 1)[: round(hint_sets * (columns - 1))] + 1)
        return LatencyMatrix(self.name, self.digest, self.latency_s[np.ix_(kept, [0, *others])])


def read_matrix(path: Path) -> LatencyMatrix:
    """Read a CSV file: a header, the query's name, then the seconds under each hint set.

    Raises:
        ConfigError: the file is missing or malformed; the message names the line.
    """
    try:
        content = path.read_bytes()
        lines = list(csv.reader(content.decode("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} could not be read as CSV: {error}") from error
    if len(lines) < 2 or len(lines[0]) < 3:
        raise ConfigError(
            f"{path} holds no matrix",
            remedy="a header and rows are needed: a query's name, then seconds",
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(lines[0]):
            raise ConfigError(f"{path}, line {number}: {len(line)} fields, not {len(lines[0])}")
        try:
            rows.append([float(text) for text in line[1:]])
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
    latency_s = np.array(rows)
    if not np.all(np.isfinite(latency_s) & (latency_s > 0.0)):
        bad = int(np.argmin(np.all(np.isfinite(latency_s) & (latency_s > 0.0), axis=1))) + 2
        raise ConfigError(f"{path}, line {bad}: latencies must be finite and above 0 seconds")
    return LatencyMatrix(path.stem, hashlib.sha256(content).hexdigest()[:12], latency_s)


def synthetic_matrix(queries: int, hint_sets: int, seed: int = 0) -> LatencyMatrix:
    """A made-up workload: low rank, heavy tails, many hint sets without effect.

    Half of the queries answer weakly to hint sets, some strongly; three cells in ten run the
    default plan (with 1 % noise), and the cells' own deviations follow Student's t with 3 degrees
    of freedom.
    """
    rng = np.random.default_rng(seed)
    rank = 4
    log_default = rng.normal(-0.5, 1.6, queries)
    strength = rng.choice([0.3, 1.0, 2.0], size=(queries, 1), p=[0.5, 0.35, 0.15])
    factors = rng.normal(size=(queries, rank)) * strength
    loadings = 0.4 * rng.normal(size=(hint_sets, rank))
    level = 0.5 * np.abs(rng.normal(size=hint_sets))
    slope = -0.15 * np.abs(rng.normal(size=hint_sets))
    log_ratio = level + np.outer(log_default - log_default.mean(), slope) + factors @ loadings.T
    log_ratio += 0.2 * rng.standard_t(3, size=log_ratio.shape)
    same = rng.random(log_ratio.shape) < 0.3
    log_ratio = np.where(same, 0.01 * rng.normal(size=log_ratio.shape), log_ratio.clip(-5, 6))
    log_ratio[:, 0] = 0.0
    latency_s = np.exp(log_default[:, None] + log_ratio)
    digest = hashlib.sha256(latency_s.tobytes()).hexdigest()[:12]
    return LatencyMatrix(f"synthetic-{queries}x{hint_sets}-{seed}", digest, latency_s)
