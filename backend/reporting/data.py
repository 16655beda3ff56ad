"""What the final report says: pure functions from what the store holds to one value."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from itertools import pairwise
from statistics import median
from typing import Any

from backend.demonstration import ACT
from backend.domain.deployed import deployed_windows
from backend.domain.modes import Arm, Phase, TrialKind, Verdict
from backend.domain.policies import PolicyVersionRecord
from backend.domain.records import EventRecord, TrialRecord, WindowRecord
from backend.protocols import TelemetryReader
from backend.reporting.levels import levels_section
from backend.reporting.measures import ClientTimes, Measured, mean, measure
from backend.reporting.steering import steering_section
from backend.telemetry.redaction import redact_deep

_ALL = 200_000
"""More records of a kind than a run can leave after retention."""

_EVENTS_A_LEVEL = 50
_TREND_POINTS = 300
_PHASES = (Phase.BASELINE, Phase.LEARNING, Phase.OPTIMISED, Phase.FINAL_COMPARISON)


@dataclass(frozen=True)
class FinalReport:
    """The whole report. The field names are the keys of final_report.json.

    ``improvement`` is the share of the latency index that the final configuration saves against
    the initial one (1 minus the ratio of the indices) with the interval [``ci_low``,
    ``ci_high``] at ``confidence``, from the interleaved final comparison; None without one.
    ``compared`` says what ``baseline`` and ``final`` are: the arms of the ``final comparison``,
    else the ``phases`` baseline and optimised, which the load's swings tell apart as well.
    ``phases`` and ``index_trend`` (seconds, latency index) tell of the deployed configuration
    alone: windows in which another was tried are left out. ``units`` holds the native unit of
    each knob, ``steering`` what `reporting.steering.steering_section` returns, ``levels`` what
    `reporting.levels.levels_section` does. ``by_load``: the windows of ``phases`` once more, as the
    ``busier`` and the ``quieter`` half by statements a second, which a daily swing makes day and
    night. ``acts``: the stretches between the acts of a demonstration, each with its ``title``,
    bounds and what was ``measured``.
    """

    generated_at: datetime
    started_at: datetime | None
    server: Mapping[str, object]
    workload: Mapping[str, object]
    compared: str
    baseline: Measured
    final: Measured
    improvement: float | None
    ci_low: float | None
    ci_high: float | None
    confidence: float | None
    comparison: Mapping[str, object] | None
    configuration: Mapping[str, Mapping[str, object]]
    trials: Mapping[str, object]
    phases: Mapping[str, Measured]
    by_load: Mapping[str, Measured]
    acts: Sequence[Mapping[str, object]]
    levels: Mapping[str, object]
    query_classes: Sequence[Mapping[str, object]]
    policy_versions: Sequence[Mapping[str, object]]
    changes: Sequence[Mapping[str, object]]
    events: Mapping[str, Mapping[str, object]]
    index_trend: Sequence[tuple[float, float]] = ()
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    steering: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def as_json(self) -> str:
        """Return the report as strict JSON: numbers that are not finite are null."""
        return json.dumps(_plain(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


# -- building -------------------------------------------------------------------------------


def build_report(reader: TelemetryReader, *, workload: Mapping[str, object]) -> FinalReport:
    """Gather the report of the newest run (since the status says that it started).

    Args:
        reader: the store.
        workload: what ran, for people: name, scale, seed, duration, schedule.

    Raises:
        StoreError: the store cannot be read.
    """
    status = reader.status()
    started_at = status.started_at if status else None
    trials = [t for t in reader.trials(limit=_ALL) if _since(t.created_at, started_at)]
    final_comparison = _final_comparison(trials)
    windows = deployed_windows(reader.windows(since=started_at, limit=_ALL), trials)
    clients = ClientTimes(reader.client_intervals(since=started_at, limit=_ALL))
    phases = {
        phase.value: measure([w for w in windows if w.phase is phase], clients) for phase in _PHASES
    }
    compared, baseline, final = _sides(reader, final_comparison, phases, clients)
    versions = reader.policy_versions(limit=_ALL)
    events = [e for e in reader.events(limit=_ALL) if _since(e.at, started_at)]
    effect = final_comparison.effect if final_comparison else None
    return FinalReport(
        generated_at=datetime.now(timezone.utc),
        started_at=started_at,
        server={
            "address": status.server if status else "",
            "version": status.server_version if status else "",
            "mode": status.mode.value if status else "",
        },
        workload=redact_deep(dict(workload)),
        compared=compared,
        baseline=baseline,
        final=final,
        improvement=_negative(effect),
        ci_low=_negative(final_comparison.ci_high) if final_comparison else None,
        ci_high=_negative(final_comparison.ci_low) if final_comparison else None,
        confidence=final_comparison.confidence if final_comparison else None,
        comparison=_trial(final_comparison) if final_comparison else None,
        configuration=_configuration(reader, final_comparison, versions),
        trials=_trials(trials),
        phases=phases,
        by_load=_by_load(windows, clients),
        acts=_acts(events, windows, clients),
        levels=_plain(levels_section(reader, trials, events, started_at)),
        query_classes=_query_classes(reader, final_comparison),
        policy_versions=[
            _version(v) for v in versions if v.active or _since(v.created_at, started_at)
        ],
        changes=[_plain(c) for c in reader.changes(limit=_ALL) if _since(c.created_at, started_at)],
        events=_events(events),
        index_trend=_trend(windows),
        units={knob.name: knob.unit for knob in reader.knob_statuses() if knob.unit},
        steering=steering_section(reader, started_at),
    )


def _since(at: datetime, start: datetime | None) -> bool:
    return start is None or at >= start


def _final_comparison(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The newest trial of the final (candidate) against the initial configuration (incumbent).

    None where there was none that came to its end: one that was aborted claims nothing.
    """
    ended = [
        trial
        for trial in trials
        if trial.kind is TrialKind.FINAL and trial.verdict not in (None, Verdict.ABORTED)
    ]
    return ended[-1] if ended else None


def _negative(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else 0.0 - value


def _sides(
    reader: TelemetryReader,
    trial: TrialRecord | None,
    phases: Mapping[str, Measured],
    clients: ClientTimes,
) -> tuple[str, Measured, Measured]:
    if trial is not None and trial.id is not None:
        windows = reader.windows(trial_id=trial.id, limit=_ALL)
        before = measure([w for w in windows if w.arm is Arm.INCUMBENT], clients)
        after = measure([w for w in windows if w.arm is Arm.CANDIDATE], clients)
        if before.windows and after.windows:
            return "final comparison", before, after
    before, after = phases[Phase.BASELINE.value], phases[Phase.OPTIMISED.value]
    return ("phases" if before.windows and after.windows else "nothing"), before, after


def _by_load(windows: Sequence[WindowRecord], clients: ClientTimes) -> dict[str, Measured]:
    """Measure the busier and the quieter half of the windows; a tie is quieter."""
    if not windows:
        return {}
    middle = median(w.calls_per_s for w in windows)
    return {
        "busier": measure([w for w in windows if w.calls_per_s > middle], clients),
        "quieter": measure([w for w in windows if w.calls_per_s <= middle], clients),
    }


def _acts(
    events: Sequence[EventRecord], windows: Sequence[WindowRecord], clients: ClientTimes
) -> list[dict[str, object]]:
    """Measure each stretch between two acts of a demonstration; none where there was no act."""
    acts = sorted((e for e in events if e.kind == ACT), key=lambda act: act.at)
    if not acts or not windows:
        return []
    moments = [windows[0].started_at, *(act.at for act in acts), windows[-1].ended_at]
    titles = ["before anything happened", *(act.message for act in acts)]
    return [
        {
            "title": title,
            "started_at": begin.isoformat(),
            "ended_at": end.isoformat(),
            "measured": _plain(
                measure([w for w in windows if begin <= w.started_at < end], clients)
            ),
        }
        for title, (begin, end) in zip(titles, pairwise(moments), strict=True)
    ]


def _configuration(
    reader: TelemetryReader, trial: TrialRecord | None, versions: Sequence[PolicyVersionRecord]
) -> dict[str, dict[str, object]]:
    """Return the final configuration: the knobs that differ from the server's own."""
    active = [version for version in versions if version.active]
    config = trial.after if trial is not None else active[-1].config if active else {}
    before = trial.before if trial is not None else {}
    knobs = {knob.name: knob for knob in reader.knob_statuses()}
    return {
        name: {
            "value": value,
            "default": knobs[name].default if name in knobs else None,
            "unit": knobs[name].unit if name in knobs else None,
            "initial": before.get(name),
        }
        for name, value in sorted(config.items())
    }


def _trial(trial: TrialRecord) -> dict[str, object]:
    plain: dict[str, object] = _plain(trial)
    return plain


def _version(version: PolicyVersionRecord) -> dict[str, object]:
    """A version with what it serves by name: the evidence is in the section on steering."""
    plain: dict[str, object] = _plain(dataclasses.replace(version, steering=()))
    served = version.steering
    return plain | {
        "steering": [
            {"fingerprint": hint.key.fingerprint, "hint_set": hint.evidence.hint_set}
            for hint in served
        ]
    }


def _trials(trials: Sequence[TrialRecord]) -> dict[str, object]:
    by_both: dict[str, Counter[str]] = defaultdict(Counter)
    for trial in trials:
        by_both[trial.kind.value][_outcome(trial)] += 1
    return {
        "total": len(trials),
        "by_kind": dict(Counter(t.kind.value for t in trials)),
        "by_verdict": dict(Counter(_outcome(t) for t in trials)),
        "by_kind_and_verdict": {kind: dict(counts) for kind, counts in by_both.items()},
        "list": [_trial(t) for t in trials],
    }


def _outcome(trial: TrialRecord) -> str:
    return trial.verdict.value if trial.verdict else "unfinished"


def _query_classes(reader: TelemetryReader, trial: TrialRecord | None) -> list[dict[str, object]]:
    if trial is None:
        return []
    known = reader.query_classes()
    classes: list[dict[str, object]] = [
        {
            "key": key,
            "text": known[key].text if key in known else "",
            **{name: _finite(effect.get(name)) for name in _CLASS_FIELDS},
        }
        for key, effect in trial.class_effects.items()
    ]
    return sorted(classes, key=lambda c: _sort_key(c["effect"]))


_CLASS_FIELDS = ("effect", "ci_low", "ci_high", "incumbent_ms", "candidate_ms")


def _sort_key(effect: object) -> float:
    return effect if isinstance(effect, float) else math.inf


def _events(events: Sequence[EventRecord]) -> dict[str, dict[str, object]]:
    """Count events by level and keep the newest of each."""
    levels: dict[str, list[EventRecord]] = {"info": [], "warning": [], "error": []}
    for event in events:
        levels.setdefault(event.level, []).append(event)
    return {
        level: {"count": len(some), "newest": [_plain(e) for e in some[-_EVENTS_A_LEVEL:]]}
        for level, some in levels.items()
    }


def _trend(windows: Sequence[WindowRecord]) -> list[tuple[float, float]]:
    """Return (seconds since the first window, index), thinned by averaging."""
    shown = [w for w in windows if w.index is not None]
    step = max(1, math.ceil(len(shown) / _TREND_POINTS))
    points = []
    for start in range(0, len(shown), step):
        some = shown[start : start + step]
        value = mean(some, lambda w: w.index)
        if value is not None:
            points.append(((some[0].ended_at - shown[0].ended_at).total_seconds(), value))
    return points


# -- plain values ---------------------------------------------------------------------------


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _plain(value: Any) -> Any:
    """Turn records into what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return _finite(value)
    return value if isinstance(value, (str, int, type(None))) else str(value)
