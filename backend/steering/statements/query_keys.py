"""Under which keys telemetry knows the query classes that steering knows by their fingerprints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from backend.domain.records import QueryClassRecord
from backend.domain.steering import SteeredClassRecord
from backend.steering.client.statements import fingerprint


def with_query_keys(
    classes: Sequence[SteeredClassRecord], queries: Mapping[str, QueryClassRecord]
) -> tuple[SteeredClassRecord, ...]:
    """Add the keys of telemetry to classes that have none yet, by the statements' fingerprints.

    A class that another one shares its fingerprint with (under another search path) is left as it
    is: which of the two a query of telemetry belongs to, nobody can tell.

    Args:
        classes: of one database.
        queries: of telemetry, by key.
    """
    shared = Counter(record.key.fingerprint for record in classes)
    wanted = {
        record.key.fingerprint
        for record in classes
        if not record.query_keys and shared[record.key.fingerprint] == 1
    }
    if not wanted:
        return tuple(classes)
    keys: dict[str, list[str]] = {}
    for key, query in queries.items():
        known = _fingerprint(query.text)
        if known in wanted:
            keys.setdefault(known, []).append(key)
    return tuple(
        replace(record, query_keys=tuple(keys[record.key.fingerprint]))
        if record.key.fingerprint in keys
        else record
        for record in classes
    )


@lru_cache(maxsize=4096)
def _fingerprint(text: str) -> str:
    try:
        return fingerprint(text)
    except Exception:  # pg_stat_statements cuts and normalises to what is no SQL any more
        return ""
