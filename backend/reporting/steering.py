"""The final report's section on the steering of single queries."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from backend.domain.modes import Mode
from backend.domain.service_latency import ClassService, service_latency
from backend.domain.steering import SteeredClassRecord, SteeringState
from backend.protocols import TelemetryReader

_MOST_TIMINGS = 200_000


def steering_section(reader: TelemetryReader, since: datetime | None) -> dict[str, object]:
    """Gather what is known of single queries' plans.

    Args:
        reader: the store.
        since: when the run began; what classes did in service counts from then on.

    Returns:
        empty where no class is known, else ``states`` (classes by state), ``steered`` (how many are
        now), ``explored_s`` (the server's time that trying took) and ``classes``: those of which a
        hint set was ever proven faster, the greatest proven gain first.
    """
    records = reader.steered_classes()
    if not records:
        return {}
    status = reader.status()
    mode = status.mode if status is not None else Mode.OBSERVE
    service = service_latency(reader.service_timings(since=since, limit=_MOST_TIMINGS))
    proven = [record for record in records if record.evidence is not None]
    return {
        "states": dict(Counter(record.state.value for record in records)),
        "steered": sum(record.is_served(mode) for record in records),
        "explored_s": sum(record.explored_s for record in records),
        "classes": [
            _class(record, mode, service.get(record.key))
            for record in sorted(proven, key=lambda r: r.evidence.effect if r.evidence else 0.0)
        ],
    }


def _class(
    record: SteeredClassRecord, mode: Mode, service: ClassService | None
) -> dict[str, object]:
    evidence = record.evidence
    assert evidence is not None  # chosen so
    current = service if service is not None and service.hint_set == evidence.hint_set else None
    ratio = current.ratio if current is not None else None
    return {
        "fingerprint": record.key.fingerprint,
        "search_path": record.key.search_path,
        "text": record.text,
        "state": record.state.value,
        "mode": record.mode.value,
        "steered": record.is_served(mode),
        "withdrawn_because": record.reason if record.state is SteeringState.WITHDRAWN else "",
        "hint_set": evidence.hint_set,
        "settings": dict(evidence.settings),
        "effect": evidence.effect,
        "ci_low": evidence.ci_low,
        "ci_high": evidence.ci_high,
        "confidence": evidence.confidence,
        "default_ms": evidence.default_ms,
        "steered_ms": evidence.steered_ms,
        "service_executions": current.steered.executions if current is not None else 0,
        "service_effect": ratio.effect if ratio is not None else None,
        "service_low": ratio.low if ratio is not None else None,
        "service_high": ratio.high if ratio is not None else None,
        "service_hindrance": current.hindrance if current is not None else "not executed steered",
    }
