"""What the store holds, in plain words: ``run.py report`` and ``SqlStore.print_summary``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from backend.domain.modes import Mode, Verdict
from backend.domain.records import FreezeRecord, StatusRecord, TrialRecord
from backend.domain.steering import SteeredClassRecord
from backend.protocols import TelemetryReader
from backend.telemetry.wording import interval, knob_text, milliseconds, moment, number, percent

_TRIALS = 100_000
_LAST = 5


def summary_text(reader: TelemetryReader) -> str:
    """Return state, windows, trials, what is deployed and the last warnings as plain lines."""
    status = reader.status()
    return "\n".join(
        [
            *_state(status, reader.freeze()),
            "",
            *_measured(reader),
            "",
            *_trials(reader.trials(limit=_TRIALS)),
            "",
            *_deployed(reader),
            *_steering(reader.steered_classes(), Mode.OBSERVE if status is None else status.mode),
            "",
            *_events(reader),
        ]
    )


def _state(status: StatusRecord | None, freeze: FreezeRecord | None) -> Iterable[str]:
    if status is None:
        yield "State: no tuner has run yet."
        return
    frozen = freeze.frozen if freeze is not None else status.frozen
    flags = [name for name, on in (("paused", status.paused), ("frozen", frozen)) if on]
    yield f"State at {moment(status.at)}: {', '.join([status.phase.value, *flags])}"
    yield f"  server         {status.server or 'unknown'} {status.server_version}".rstrip()
    yield f"  mode           {status.mode.value}"
    yield f"  safety         {status.safety.value}" + "".join(
        f"\n                 {reason}" for reason in status.safety_reasons
    )
    index = "not known yet" if status.index is None else f"{number(status.index)} (1 at the start)"
    yield f"  latency index  {index}"
    if status.fault:
        yield f"  fault          {status.fault}"


def _measured(reader: TelemetryReader) -> Iterable[str]:
    windows = reader.windows(limit=1)
    if not windows:
        yield "Measurements: none yet."
        return
    newest = windows[-1]
    yield f"Newest window, {moment(newest.ended_at)} ({number(newest.duration_s)} s):"
    yield f"  statements     {number(newest.calls_per_s)} a second"
    yield f"  mean           {milliseconds(newest.mean_ms)}"
    yield f"  quality        {number(newest.quality)}" + "".join(
        f", {reason}" for reason in newest.quality_reasons
    )
    intervals = reader.client_intervals(limit=1)
    if intervals:
        client = intervals[-1]
        yield (
            f"  clients        p50 {milliseconds(client.p50_ms)}, p95 "
            f"{milliseconds(client.p95_ms)}, p99 {milliseconds(client.p99_ms)}"
        )


def _trials(trials: Sequence[TrialRecord]) -> Iterable[str]:
    by_kind: dict[str, Counter[str]] = {}
    for trial in trials:
        outcome = trial.verdict.value if trial.verdict else "running"
        by_kind.setdefault(trial.kind.value, Counter())[outcome] += 1
    if not by_kind:
        yield "Trials: none yet."
        return
    yield "Trials:"
    for kind, outcomes in by_kind.items():
        counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        yield f"  {kind:<14} {counted}"
    accepted = [t for t in trials if t.verdict is Verdict.ACCEPT and t.kind.value != "probe"]
    for trial in accepted[-_LAST:]:
        effect = percent(trial.effect, signed=True)
        bounds = interval(trial.ci_low, trial.ci_high, signed=True)
        yield f"  {trial.kind.value} {trial.id}: {effect} latency index ({bounds})"


def _deployed(reader: TelemetryReader) -> Iterable[str]:
    active = [version for version in reader.policy_versions() if version.active]
    if not active or not active[-1].config:
        yield "Deployed: the server's own configuration."
        return
    knobs = {knob.name: knob for knob in reader.knob_statuses()}
    yield f"Deployed: policy version {active[-1].id} of {moment(active[-1].created_at)}"
    for name, value in sorted(active[-1].config.items()):
        knob = knobs.get(name)
        default = f"  (default {knob_text(knob.default, knob.unit)})" if knob else ""
        yield f"  {name} = {knob_text(value, knob.unit if knob else None)}{default}"


def _steering(classes: Sequence[SteeredClassRecord], mode: Mode) -> Iterable[str]:
    if classes:
        served = sum(record.is_served(mode) for record in classes)
        states = Counter(record.state.value for record in classes)
        counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        yield f"Steering: {served} of {len(classes)} query classes are steered now ({counted})."


def _events(reader: TelemetryReader) -> Iterable[str]:
    events = [e for level in ("warning", "error") for e in reader.events(level=level, limit=_LAST)]
    if not events:
        yield "Warnings and errors: none."
        return
    yield "Latest warnings and errors:"
    for event in sorted(events, key=lambda e: e.at)[-_LAST:]:
        yield f"  {moment(event.at)} {event.level}: {event.message}"
