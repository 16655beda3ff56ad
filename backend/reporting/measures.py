"""What a set of windows showed, for the final report."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from backend.domain.records import ClientIntervalRecord, WindowRecord
from backend.telemetry.downsampling import weighted_mean


@dataclass(frozen=True)
class Measured:
    """What a set of windows showed; None where nothing tells.

    ``latency_index`` and the other means are weighted by duration; ``latency_index_p50`` and
    ``latency_index_p95`` are quantiles over the windows, each counting once. ``mean_ms`` is the
    mean over all statements as the server counts them. ``client_*`` are the clients' own timings,
    from the scheduled arrival on; their percentiles are means of the percentiles of intervals of a
    few seconds, weighted by completed requests. ``throughput_per_s`` counts completed requests of
    the clients, or statements where the clients are not known; ``statements_per_s`` always the
    latter.
    """

    windows: int = 0
    seconds: float = 0.0
    latency_index: float | None = None
    latency_index_p50: float | None = None
    latency_index_p95: float | None = None
    mean_ms: float | None = None
    client_mean_ms: float | None = None
    client_p50_ms: float | None = None
    client_p95_ms: float | None = None
    client_p99_ms: float | None = None
    throughput_per_s: float | None = None
    statements_per_s: float | None = None
    cpu_percent: float | None = None
    quality: float | None = None
    errors: int = 0
    timeouts: int = 0


class ClientTimes:
    """Finds the clients' intervals that lie in given windows (by their middle)."""

    def __init__(self, intervals: Sequence[ClientIntervalRecord]) -> None:
        middles = [(i.started_at + (i.ended_at - i.started_at) / 2, i) for i in intervals]
        middles.sort(key=lambda pair: pair[0])
        self._times = [at for at, _ in middles]
        self._intervals = [interval for _, interval in middles]

    def inside(self, windows: Iterable[WindowRecord]) -> list[ClientIntervalRecord]:
        """The intervals of which the middle lies in one of the windows."""
        chosen: dict[int, ClientIntervalRecord] = {}
        for window in windows:
            first = bisect.bisect_left(self._times, window.started_at)
            last = bisect.bisect_left(self._times, window.ended_at)
            chosen.update((n, self._intervals[n]) for n in range(first, last))
        return list(chosen.values())


def measure(windows: Sequence[WindowRecord], clients: ClientTimes) -> Measured:
    """Add windows up, with what the clients saw in them."""
    intervals = clients.inside(windows)
    indices = [w.index for w in windows if w.index is not None]
    statements = mean(windows, lambda w: w.calls_per_s)
    client_seconds = sum((i.ended_at - i.started_at).total_seconds() for i in intervals)
    completed = sum(i.completed for i in intervals)

    def client_mean(name: str) -> float | None:
        return weighted_mean((getattr(i, name), i.completed) for i in intervals)

    return Measured(
        windows=len(windows),
        seconds=sum(w.duration_s for w in windows),
        latency_index=mean(windows, lambda w: w.index),
        latency_index_p50=_quantile(indices, 0.5),
        latency_index_p95=_quantile(indices, 0.95),
        mean_ms=weighted_mean((w.mean_ms, w.calls_per_s * w.duration_s) for w in windows),
        client_mean_ms=client_mean("mean_ms"),
        client_p50_ms=client_mean("p50_ms"),
        client_p95_ms=client_mean("p95_ms"),
        client_p99_ms=client_mean("p99_ms"),
        throughput_per_s=completed / client_seconds if client_seconds > 0 else statements,
        statements_per_s=statements,
        cpu_percent=mean(windows, lambda w: w.gauges.get("host_cpu_percent")),
        quality=mean(windows, lambda w: w.quality),
        errors=sum(i.errors for i in intervals),
        timeouts=sum(i.timeouts for i in intervals),
    )


def mean(
    windows: Sequence[WindowRecord], value: Callable[[WindowRecord], float | None]
) -> float | None:
    """Mean of a value, weighted by the windows' lengths."""
    return weighted_mean((value(w), w.duration_s) for w in windows)


def _quantile(values: Sequence[float], share: float) -> float | None:
    """Linear between the two nearest values; None where there is none."""
    return float(np.quantile(values, share)) if values else None
