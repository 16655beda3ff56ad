"""What was seen and speaks against a rule of thumb: then it is not proposed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backend.advice.facts import Facts
from backend.advice.finding import all_cached, size
from backend.advice.findings_storage import MIN_CHECKPOINTS
from backend.telemetry.wording import duration, percent

MIN_OBSERVED_S = 60.0
"""A shorter observation says nothing by what it did not see."""
FEW_REQUESTED = 0.05
LITTLE_WAL_BYTES_PER_S = 10 * 1024.0

_Reason = Callable[[Facts], str]


def speaks_against(facts: Facts, knob: str) -> str:
    """Why a rule of thumb about this knob does not fit what was seen; empty where nothing does."""
    reason = _REASONS.get(knob)
    return reason(facts) if reason is not None else ""


def _all_cached(facts: Facts) -> str:
    cached = all_cached(facts.observation)
    if cached is None:
        return ""
    return f"{percent(cached)} of the blocks are found in shared buffers as it is"


def _nothing_spills(facts: Facts) -> str:
    if facts.observation.ever.get("temp_files", 1.0) > 0:
        return ""
    return "no statement has spilled to a temporary file since the counters were reset"


def _no_requests(facts: Facts) -> str:
    ever = facts.observation.ever
    requested = ever.get("checkpoints_requested", 0.0)
    total = requested + ever.get("checkpoints_timed", 0.0)
    if total < MIN_CHECKPOINTS or requested > FEW_REQUESTED * total:
        return ""
    return "checkpoints come in their time: the limit on WAL is hardly ever reached"


def _little_wal(facts: Facts) -> str:
    seen = facts.observation
    if "wal_bytes" not in seen.totals or seen.observed_s < MIN_OBSERVED_S:
        return ""
    rate = seen.rate("wal_bytes")
    return f"only {size(rate)} of WAL a second" if rate < LITTLE_WAL_BYTES_PER_S else ""


def _writer_keeps_up(facts: Facts) -> str:
    seen = facts.observation
    if "maxwritten_clean" not in seen.totals or seen.observed_s < MIN_OBSERVED_S:
        return ""
    if seen.total("maxwritten_clean") > 0:
        return ""
    return f"the background writer never reached its limit in {duration(seen.observed_s)}"


_REASONS: Mapping[str, _Reason] = {
    "shared_buffers": _all_cached,
    "effective_io_concurrency": _all_cached,
    "work_mem": _nothing_spills,
    "max_wal_size": _no_requests,
    "min_wal_size": _no_requests,
    "wal_buffers": _little_wal,
    "wal_compression": _little_wal,
    "bgwriter_delay": _writer_keeps_up,
    "bgwriter_lru_maxpages": _writer_keeps_up,
    "bgwriter_lru_multiplier": _writer_keeps_up,
}
