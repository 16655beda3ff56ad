"""Latency histograms: fixed logarithmic buckets, so that intervals can be added up."""

from __future__ import annotations

import math

FIRST_BOUND_MS = 0.05
GROWTH = 1.1
BUCKETS = 160
"""Bucket k holds latencies up to ``0.05 ms * 1.1^k``; the last one ends beyond 170 s."""

_LOG_GROWTH = math.log(GROWTH)


class LatencyHistogram:
    """Counts of latencies in ms; a percentile is exact to the width of its bucket (10 %)."""

    __slots__ = ("count", "counts", "max_ms", "sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.count = 0
        self.sum_ms = 0.0
        self.max_ms = 0.0

    def add(self, latency_ms: float) -> None:
        """Count one latency (at least 0)."""
        bucket = 0
        if latency_ms > FIRST_BOUND_MS:
            bucket = min(
                BUCKETS - 1, math.ceil(math.log(latency_ms / FIRST_BOUND_MS) / _LOG_GROWTH)
            )
        self.counts[bucket] += 1
        self.count += 1
        self.sum_ms += latency_ms
        self.max_ms = max(self.max_ms, latency_ms)

    def merge(self, other: LatencyHistogram) -> None:
        """Add another histogram's counts to this one."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.count += other.count
        self.sum_ms += other.sum_ms
        self.max_ms = max(self.max_ms, other.max_ms)

    @property
    def mean_ms(self) -> float | None:
        """The exact mean, or None without any latency."""
        return self.sum_ms / self.count if self.count else None

    def percentile_ms(self, share: float) -> float | None:
        """Return the latency that the ``share`` (0 to 1] of the counted ones do not pass.

        Inside a bucket the value is interpolated geometrically; None without any latency.
        """
        if not self.count:
            return None
        wanted = share * self.count
        seen = 0
        for bucket, n in enumerate(self.counts):
            if n and seen + n >= wanted:
                inside = (wanted - seen) / n
                return min(self.max_ms, FIRST_BOUND_MS * math.pow(GROWTH, bucket - 1 + inside))
            seen += n
        return self.max_ms
