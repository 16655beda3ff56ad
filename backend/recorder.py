"""Turns measured windows into stored records, with their published index and quality."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import fmean

from backend.domain.knobs import KnobValue
from backend.domain.load import SampleQuality
from backend.domain.metrics import MetricsWindow, QueryKey
from backend.domain.modes import Arm, Phase
from backend.domain.records import QueryClassRecord, QueryWindowRecord, WindowRecord
from backend.protocols import Clock, Store, TargetDatabase
from backend.sample_filter import IndexChain

RECENT_WINDOWS = 6
"""The present index is the mean over so many windows of the deployed configuration."""
MIN_COVERAGE = 0.5
"""Below this coverage a window has no published index."""
MIN_QUALITY = 0.3
"""Below this quality a window does not count towards the present index."""
TOP_CLASSES = 100
"""Query classes stored a window, by total time; a page shows no more."""
_MOST_KNOWN = 50_000


class Recorder:
    """Writes windows and query texts to the store and keeps the present index."""

    def __init__(self, store: Store, target: TargetDatabase, clock: Clock) -> None:
        self._store, self._target, self._clock = store, target, clock
        self._known: set[QueryKey] = set()
        self._recent: deque[float] = deque(maxlen=RECENT_WINDOWS)

    @property
    def present_index(self) -> float | None:
        """The latency index of the deployed configuration now, against the start."""
        return fmean(self._recent) if self._recent else None

    def forget_recent(self) -> None:
        """The configuration changed: earlier windows no longer tell about the present."""
        self._recent.clear()

    def record(
        self,
        window: MetricsWindow,
        quality: SampleQuality,
        *,
        phase: Phase,
        config: Mapping[str, KnobValue],
        chain: IndexChain | None,
        deployed: bool = True,
        arm: Arm | None = None,
        trial_id: int | None = None,
    ) -> None:
        """Store one window. ``deployed`` tells whether it shows the deployed configuration."""
        index = chain.publish([window]) if chain else None
        coverage = index.coverage if index else 0.0
        if index is not None and coverage < MIN_COVERAGE:
            index = None
        if index is not None and deployed and quality.value >= MIN_QUALITY:
            self._recent.append(index.value)
        top = sorted(window.queries.values(), key=lambda q: q.exec_time_ms, reverse=True)
        self._store.add_window(
            WindowRecord(
                started_at=window.started_at,
                ended_at=window.ended_at,
                duration_s=window.duration_s,
                phase=phase,
                config=dict(config),
                arm=arm,
                trial_id=trial_id,
                index=index.value if index else None,
                coverage=coverage,
                quality=quality.value,
                quality_reasons=quality.reasons,
                calls_per_s=window.calls / window.duration_s,
                mean_ms=window.mean_ms,
                rates=dict(window.rates),
                gauges=dict(window.gauges),
                queries=tuple(
                    QueryWindowRecord(
                        key=str(q.key),
                        calls=q.calls,
                        mean_ms=q.mean_ms,
                        rows=q.rows,
                        shared_blocks_hit=q.shared_blocks_hit,
                        shared_blocks_read=q.shared_blocks_read,
                        temp_blocks_written=q.temp_blocks_written,
                    )
                    for q in top[:TOP_CLASSES]
                    if q.calls > 0
                ),
            )
        )
        self._learn_texts(window)

    def _learn_texts(self, window: MetricsWindow) -> None:
        unknown = [key for key in window.queries if key not in self._known]
        if not unknown:
            return
        texts = self._target.query_texts(unknown)
        now = self._clock.now()
        self._store.add_query_classes(
            [QueryClassRecord(str(key), text, now) for key, text in texts.items()]
        )
        self._known.update(unknown)
        if len(self._known) > _MOST_KNOWN:
            # Asking again costs one statement; remembering every class ever seen has no end.
            self._known = set(window.queries)
