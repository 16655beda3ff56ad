"""The sample-aware filter: load profile, latency index and sample quality. Pure functions.

After Li, Tu, Ma, "A Sample-Aware Database Tuning System With Deep Reinforcement Learning"
(2024): samples that swings of the client load spoilt must not teach the agent anything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from backend.domain.load import LatencyIndex, LoadProfile, SampleQuality
from backend.domain.metrics import MetricsWindow, QueryKey, QueryWindow

MIN_CALLS = 3
"""A class with fewer calls on one side of a comparison says nothing about its mean."""
LOAD_SHARPNESS = 16.0
"""How fast quality falls with the distance of loads: 8 % more than chance explains leave 0.28.

On a busy server latency moves faster than the load: on the simulated one, 8 % more load make the
statements 2 to 9 % slower, about what a good candidate gains. At 4.0 pairs of up to 1.35 times the
load would pass and double the spread of blocks (benchmarks/sample_filter.py).
"""
COMPARABLE = 0.8
"""Load factor of the sample quality below which the load may explain a slower window."""


@dataclass(frozen=True)
class Reference:
    """What a latency index compares with: call shares ``w_q`` and mean times ``t_q0`` (ms).

    ``per_class`` maps a query class to ``(call share, mean time in ms)``.
    """

    per_class: Mapping[QueryKey, tuple[float, float]]

    @property
    def exec_time_ms(self) -> float:
        """Reference execution time of one average statement, in ms."""
        return sum(share * mean_ms for share, mean_ms in self.per_class.values())

    @property
    def costs_ms(self) -> Mapping[QueryKey, float]:
        """What one statement of each class costs, in ms: weights of the offered work."""
        return {key: mean_ms for key, (_, mean_ms) in self.per_class.items()}

    def time_share(self, key: QueryKey) -> float:
        """The share of the reference's execution time that a class holds, in [0, 1]."""
        total = self.exec_time_ms
        share, mean_ms = self.per_class.get(key, (0.0, 0.0))
        return share * mean_ms / total if total > 0 else 0.0

    @classmethod
    def from_windows(
        cls, windows: Iterable[MetricsWindow], min_calls: int = MIN_CALLS
    ) -> Reference:
        """Build the reference from the windows' sums; classes below ``min_calls`` are left out."""
        merged = {
            key: query for key, query in merge_queries(windows).items() if query.calls >= min_calls
        }
        calls = sum(query.calls for query in merged.values())
        return cls({key: (q.calls / calls, q.mean_ms) for key, q in merged.items()})


@dataclass(frozen=True)
class IndexChain:
    """The published latency index: chain-linked from trial to trial, like a price index.

    ``factor`` is the product of all promotions' effects since the start; ``reference`` belongs to
    the newest link. A window's published index is ``factor * index(window, reference)``.
    """

    reference: Reference
    factor: float = 1.0

    def publish(self, windows: Sequence[MetricsWindow]) -> LatencyIndex | None:
        """The index of these windows against the start; None when nothing can be compared."""
        index = latency_index(windows, self.reference)
        if index is None:
            return None
        return LatencyIndex(index.value * self.factor, index.coverage, index.classes)

    def link(self, log_ratio: float, windows: Sequence[MetricsWindow]) -> IndexChain:
        """The chain after a promotion with that mean log ratio, measured in ``windows``."""
        reference = Reference.from_windows(windows)
        return IndexChain(
            reference if reference.per_class else self.reference, self.factor * math.exp(log_ratio)
        )


def merge_queries(windows: Iterable[MetricsWindow]) -> dict[QueryKey, QueryWindow]:
    """Add up calls, times and blocks of each class over several windows."""
    merged: dict[QueryKey, QueryWindow] = {}
    for window in windows:
        for key, query in window.queries.items():
            before = merged.get(key)
            merged[key] = query if before is None else _add(before, query)
    return merged


def _add(a: QueryWindow, b: QueryWindow) -> QueryWindow:
    return QueryWindow(
        key=a.key,
        calls=a.calls + b.calls,
        exec_time_ms=a.exec_time_ms + b.exec_time_ms,
        rows=a.rows + b.rows,
        shared_blocks_hit=a.shared_blocks_hit + b.shared_blocks_hit,
        shared_blocks_read=a.shared_blocks_read + b.shared_blocks_read,
        temp_blocks_written=a.temp_blocks_written + b.temp_blocks_written,
        wal_bytes=a.wal_bytes + b.wal_bytes,
    )


def latency_index(
    windows: Iterable[MetricsWindow], reference: Reference, min_calls: int = MIN_CALLS
) -> LatencyIndex | None:
    """``sum(w_q * t_q) / sum(w_q * t_q0)`` over the classes seen often enough in both.

    Returns None when no class can be compared. A change of composition alone does not move it.
    """
    merged = merge_queries(windows)
    now = base = 0.0
    compared = 0
    for key, (share, mean_ms) in reference.per_class.items():
        query = merged.get(key)
        if query is None or query.calls < min_calls:
            continue
        now += share * query.mean_ms
        base += share * mean_ms
        compared += 1
    if base <= 0:
        return None
    return LatencyIndex(
        value=now / base, coverage=min(base / reference.exec_time_ms, 1.0), classes=compared
    )


def common_share(windows: Sequence[MetricsWindow], reference: Reference) -> float:
    """How much a load and a reference have in common, in [0, 1]: the lower of two shares of time.

    Of the reference's time, what classes hold that ran at all; of the windows' time, what classes
    of the reference hold. Chance is left out of both: a class that was to be expected in fewer than
    MIN_CALLS of these statements and did not run, and one that ran too seldom for a reference.
    """
    merged = merge_queries(windows)
    calls = sum(query.calls for query in merged.values())
    ran_ms = missing_ms = 0.0
    for key, (share, mean_ms) in reference.per_class.items():
        if key in merged and merged[key].calls > 0:
            ran_ms += share * mean_ms
        elif share * calls >= MIN_CALLS:
            missing_ms += share * mean_ms
    often = [query for query in merged.values() if query.calls >= MIN_CALLS]
    known_ms = sum(query.exec_time_ms for query in often if query.key in reference.per_class)
    new_ms = sum(query.exec_time_ms for query in often) - known_ms
    return min(_share(ran_ms, missing_ms), _share(known_ms, new_ms))


def _share(there: float, not_there: float) -> float:
    """``there`` as a share of both, in [0, 1]; 1 where there is nothing at all."""
    total = there + not_there
    return min(max(there / total, 0.0), 1.0) if total > 0 else 1.0


def paired_log_ratio(
    candidate: Sequence[MetricsWindow],
    incumbent: Sequence[MetricsWindow],
    shares: Reference,
    min_calls: int = MIN_CALLS,
) -> tuple[float, float] | None:
    """``(log ratio, coverage)`` of the latency index of two arms of the same block.

    The class set and the call shares come from ``shares`` (fixed before the trial), the
    reference times from the block's own incumbent windows. None when nothing can be compared.
    """
    own = Reference.from_windows(incumbent, min_calls)
    fixed = Reference(
        {
            key: (share, own.per_class[key][1])
            for key, (share, _) in shares.per_class.items()
            if key in own.per_class
        }
    )
    index = latency_index(candidate, fixed, min_calls)
    if index is None or not 0 < index.value < math.inf:
        return None
    compared = sum(
        shares.time_share(key) for key in fixed.per_class if _calls(candidate, key) >= min_calls
    )
    return math.log(index.value), min(compared, 1.0)


def _calls(windows: Sequence[MetricsWindow], key: QueryKey) -> int:
    return sum(w.queries[key].calls for w in windows if key in w.queries)


def class_log_ratios(
    candidate: Sequence[MetricsWindow],
    incumbent: Sequence[MetricsWindow],
    keys: Iterable[QueryKey],
    min_calls: int = MIN_CALLS,
) -> dict[QueryKey, float]:
    """log(mean time under the candidate / under the incumbent) of each class, where known."""
    ours, theirs = merge_queries(candidate), merge_queries(incumbent)
    ratios: dict[QueryKey, float] = {}
    for key in keys:
        a, b = ours.get(key), theirs.get(key)
        if a and b and min(a.calls, b.calls) >= min_calls and a.mean_ms > 0 and b.mean_ms > 0:
            ratios[key] = math.log(a.mean_ms / b.mean_ms)
    return ratios


UNFILTERED = SampleQuality(1.0)
"""The quality of every window where the filter is off (``level1.sample_filter``)."""


def window_noise(
    windows: Sequence[MetricsWindow], reference: Reference, *, comparable_only: bool
) -> float | None:
    """Standard deviation of a window's log index against a neighbour's; None below three pairs.

    Trials compare neighbours, so what counts is how far two of them lie apart under the same
    configuration: the root mean square of their differences, over sqrt(2). With
    ``comparable_only`` pairs of different loads are left out, as trials leave them out.
    """
    costs_ms = reference.costs_ms
    squares = []
    for a, b in itertools.pairwise(windows):
        distance = load_distance(load_profile(a), load_profile(b), b.duration_s, costs_ms)
        if comparable_only and load_factor(distance) < COMPARABLE:
            continue
        found = [latency_index([window], reference) for window in (a, b)]
        values = [index.value for index in found if index is not None and index.value > 0]
        if len(values) == 2:
            squares.append(math.log(values[0] / values[1]) ** 2)
    return math.sqrt(sum(squares) / len(squares) / 2) if len(squares) >= 3 else None


def load_profile(window: MetricsWindow) -> LoadProfile:
    """Offered load and what the server did about it, from one window."""
    calls = window.calls
    gauges, rates = window.gauges, window.rates
    return LoadProfile(
        calls_per_s=calls / window.duration_s,
        mix={key: q.calls / calls for key, q in window.queries.items()} if calls else {},
        mean_ms={key: q.mean_ms for key, q in window.queries.items()},
        clients=sum(
            gauges.get(name, 0.0)
            for name in (
                "connections_active",
                "connections_idle",
                "connections_idle_in_transaction",
            )
        ),
        active_sessions=gauges.get("connections_active", 0.0),
        cpu_percent=gauges.get("host_cpu_percent", 0.0),
        memory_percent=gauges.get("host_memory_percent", 0.0),
        io_bytes_per_s=rates.get("host_read_bytes", 0.0) + rates.get("host_write_bytes", 0.0),
        checkpoints=(rates.get("checkpoints_timed", 0.0) + rates.get("checkpoints_requested", 0.0))
        * window.duration_s,
    )


def load_distance(
    a: LoadProfile,
    b: LoadProfile,
    duration_s: float,
    costs_ms: Mapping[QueryKey, float] | None = None,
) -> float:
    """How far two offered loads lie apart, 0 for the same up to chance.

    The sum of |log ratio| of the volumes and the total variation distance of the mixes, each less
    what Poisson arrivals alone would show over ``duration_s``. The volume is the arrival rate or,
    where ``costs_ms`` tell what a statement of each class costs, the offered work if that lies
    further apart: a batch job of few heavy statements hardly shows among the arrivals. Infinite
    when one of the two is idle.
    """
    if a.calls_per_s <= 0 or b.calls_per_s <= 0:
        return 0.0 if a.calls_per_s == b.calls_per_s else math.inf
    calls = min(a.calls_per_s, b.calls_per_s) * duration_s
    # Two standard deviations of the log ratio of two Poisson counts.
    volume = max(abs(math.log(a.calls_per_s / b.calls_per_s)) - 2 * math.sqrt(2 / calls), 0.0)
    if costs_ms is not None:
        volume = max(volume, _work_distance(a, b, duration_s, costs_ms))
    keys = set(a.mix) | set(b.mix)
    apart = 0.5 * sum(abs(a.mix.get(k, 0.0) - b.mix.get(k, 0.0)) for k in keys)
    # Expected distance of two samples of the same multinomial: 0.5 * sum sqrt(4 p / (pi n)).
    chance = 0.5 * sum(
        math.sqrt(4 * (a.mix.get(k, 0.0) + b.mix.get(k, 0.0)) / 2 / (math.pi * calls)) for k in keys
    )
    return volume + max(apart - 1.5 * chance, 0.0)


def _work_distance(
    a: LoadProfile, b: LoadProfile, duration_s: float, costs_ms: Mapping[QueryKey, float]
) -> float:
    """|log ratio| of the offered work, less two standard deviations of chance.

    Work is calls times what a statement of the class costs in the reference, so how slow the
    server was does not enter. A class that the reference does not know costs what it took here.
    """
    (work_a, spread_a), (work_b, spread_b) = (
        _work(profile, other, costs_ms, duration_s) for profile, other in ((a, b), (b, a))
    )
    if work_a <= 0 or work_b <= 0:
        return 0.0
    return max(abs(math.log(work_a / work_b)) - 2 * math.sqrt(spread_a + spread_b), 0.0)


def _work(
    profile: LoadProfile,
    other: LoadProfile,
    costs_ms: Mapping[QueryKey, float],
    duration_s: float,
) -> tuple[float, float]:
    """Offered work in ms a second, and the squared coefficient of variation that chance gives."""
    mean = variance = 0.0
    for key, share in profile.mix.items():
        rate = share * profile.calls_per_s
        unknown_ms = max(profile.mean_ms.get(key, 0.0), other.mean_ms.get(key, 0.0))
        cost_ms = costs_ms.get(key, unknown_ms)
        mean += rate * cost_ms
        variance += rate * cost_ms**2 / duration_s
    return mean, variance / mean**2 if mean > 0 else math.inf


def offers_more(now: LoadProfile, before: LoadProfile, costs_ms: Mapping[QueryKey, float]) -> bool:
    """Whether more statements, or statements of more work, were asked for than before.

    A slow server cannot cause either: clients that wait for answers ask for less.
    """
    if now.calls_per_s > before.calls_per_s:
        return True
    return _work(now, before, costs_ms, 1.0)[0] > _work(before, now, costs_ms, 1.0)[0]


def load_factor(distance: float) -> float:
    """The quality, in [0, 1], that loads so far apart (see :func:`load_distance`) leave."""
    return math.exp(-LOAD_SHARPNESS * distance)


def outside_events(window: MetricsWindow) -> tuple[str, ...]:
    """What, other than clients and knobs, disturbed the window; empty when nothing did."""
    found = []
    if window.gauges.get("maintenance_running", 0.0) > 0:
        found.append("maintenance (vacuum full, index build, backup, ...) was running")
    steal = window.gauges.get("host_steal_percent", 0.0)
    if steal > 5:
        found.append(f"other machines on the host took {steal:.0f} % of the CPU")
    return tuple(found)


def sample_quality(
    window: MetricsWindow,
    *,
    coverage: float,
    paired: LoadProfile | None = None,
    halves: tuple[MetricsWindow, MetricsWindow] | None = None,
    min_coverage: float = 0.7,
    costs_ms: Mapping[QueryKey, float] | None = None,
) -> SampleQuality:
    """Quality in [0, 1] with its reasons; a product of four factors.

    *Coverage*: linear from 0 to ``min_coverage``. *Distance* of the offered load from the paired
    reference: :func:`load_factor`. *Steadiness*: the same distance between the window's two halves.
    *Outside events*: 0.3 where there were any. ``costs_ms``: see :func:`load_distance`.
    """
    factors: dict[str, float] = {}
    reasons: list[str] = []
    if window.calls == 0:
        return SampleQuality(0.0, ("no statement ran in the window",), {"coverage": 0.0})
    factors["coverage"] = min(coverage / min_coverage, 1.0) if min_coverage > 0 else 1.0
    if factors["coverage"] < 1:
        reasons.append(
            f"compared classes hold {coverage:.0%} of the reference time, {min_coverage:.0%} wanted"
        )
    profile = load_profile(window)
    if paired is not None:
        distance = load_distance(profile, paired, window.duration_s, costs_ms)
        factors["load"] = load_factor(distance)
        if factors["load"] < 0.8:
            reasons.append(
                f"offered load {profile.calls_per_s:.1f}/s against {paired.calls_per_s:.1f}/s "
                f"of its paired reference (distance {distance:.2f})"
            )
    if halves is not None:
        first, second = (load_profile(half) for half in halves)
        distance = load_distance(first, second, min(h.duration_s for h in halves), costs_ms)
        factors["steadiness"] = load_factor(distance)
        if factors["steadiness"] < 0.8:
            reasons.append(
                f"load moved inside the window: {first.calls_per_s:.1f}/s, then "
                f"{second.calls_per_s:.1f}/s"
            )
    events = outside_events(window)
    factors["outside"] = 0.3 if events else 1.0
    reasons.extend(events)
    return SampleQuality(math.prod(factors.values()), tuple(reasons), factors)
