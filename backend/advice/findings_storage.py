"""Findings about cache, temporary files, checkpoints and the write-ahead log."""

from __future__ import annotations

from backend.advice.facts import Facts
from backend.advice.finding import Direction, Finding, Rule, Severity, count, size
from backend.telemetry.wording import duration, milliseconds, percent

LOW_HIT_RATIO = 0.95
MIN_BLOCKS_READ_PER_S = 100.0
"""Less than this asked of the operating system costs nothing, whatever the ratio."""
CACHED_READ_MS = 0.1
"""A block that arrives faster came from the operating system's cache, not from a disk."""
HEAVY_SPILL_BYTES_PER_S = 1024.0**2
MIN_CHECKPOINTS = 10
"""Fewer, since the statistics were reset, show no habit."""
MANY_REQUESTED = 0.3
MANY_FULL_PAGES = 0.5
MIN_WAL_BYTES_PER_S = 1024.0**2
"""Less costs nobody anything, whatever it is made of."""
MIN_BUFFERS_FULL_PER_S = 0.1
SLOW_SYNC_MS = 10.0

_BLOCK = 8192.0


def cache_misses(facts: Facts) -> Finding | None:
    """Too few of the blocks are found in shared buffers."""
    seen = facts.observation
    hits, reads = seen.total("blocks_hit"), seen.total("blocks_read")
    if hits + reads <= 0 or seen.rate("blocks_read") < MIN_BLOCKS_READ_PER_S:
        return None
    ratio = hits / (hits + reads)
    if ratio >= LOW_HIT_RATIO:
        return None
    read_ms = seen.total("read_time_ms") / reads
    evidence = [
        f"{percent(ratio)} of {count(hits + reads)} blocks were found in shared buffers",
        f"{size(seen.rate('blocks_read') * _BLOCK)} a second were asked of the operating system",
    ]
    from_cache = 0 < read_ms < CACHED_READ_MS
    if read_ms > 0:
        evidence.append(f"{milliseconds(read_ms)} to read a block, on average")
    if "database_size_bytes" in seen.last:
        evidence.append(f"the database holds {size(seen.newest('database_size_bytes'))}")
    source = (
        "The blocks came so fast that most were in the operating system's cache."
        if from_cache
        else "Whether the operating system had them in its cache does not show"
        f"{' (track_io_timing is off)' if read_ms == 0 else ''}."
    )
    return Finding(
        key="cache-misses",
        severity=Severity.NOTE if from_cache else Severity.WARNING,
        title=f"{percent(1 - ratio)} of the blocks are not in shared buffers",
        evidence=tuple(evidence),
        meaning=f"{source} Larger shared buffers hold more of what is used often; a statement that "
        "reads whole tables needs an index, not memory.",
        page="runtime-config-resource.html#GUC-SHARED-BUFFERS",
        calls_for={"shared_buffers": Direction.RAISE},
    )


def spills(facts: Facts) -> Finding | None:
    """Statements write temporary files."""
    seen = facts.observation
    if seen.total("temp_bytes") <= 0:
        return None
    evidence = [
        f"{count(seen.total('temp_files'))} temporary files, "
        f"{size(seen.total('temp_bytes'))} in {duration(seen.observed_s)}"
    ]
    spilling = [query for query in seen.queries.values() if query.temp_blocks_written > 0]
    if spilling:
        evidence.append(
            f"{len(spilling)} of {len(seen.queries)} statements wrote some; the heaviest "
            f"{size(max(q.temp_blocks_written / q.calls for q in spilling) * _BLOCK)} a call"
        )
    heavy = seen.rate("temp_bytes") >= HEAVY_SPILL_BYTES_PER_S
    return Finding(
        key="temporary-files",
        severity=Severity.WARNING if heavy else Severity.NOTE,
        title="Sorts and hashes spill to temporary files",
        evidence=tuple(evidence),
        meaning="They need more than work_mem allows. Where few statements spill, raise it for the "
        "role that runs them rather than for all.",
        page="runtime-config-resource.html#GUC-WORK-MEM",
        calls_for={"work_mem": Direction.RAISE},
    )


def requested_checkpoints(facts: Facts) -> Finding | None:
    """Checkpoints come before their time."""
    seen = facts.observation
    requested, timed = seen.total("checkpoints_requested"), seen.total("checkpoints_timed")
    ever_requested = seen.ever.get("checkpoints_requested", 0.0)
    ever = ever_requested + seen.ever.get("checkpoints_timed", 0.0)
    habit = ever >= MIN_CHECKPOINTS and ever_requested / ever > MANY_REQUESTED
    if requested < 2 and not habit:
        return None
    evidence = [
        f"{count(requested)} requested, {count(timed)} timed in {duration(seen.observed_s)}"
    ]
    if ever:
        evidence.append(
            f"{count(ever_requested)} of {count(ever)} ({percent(ever_requested / ever)}) since "
            "the counters were reset"
        )
    evidence.append(f"{size(seen.rate('wal_bytes'))} of WAL a second")
    return Finding(
        key="requested-checkpoints",
        severity=Severity.WARNING if requested >= 2 else Severity.NOTE,
        title="Checkpoints are begun before their time",
        evidence=tuple(evidence),
        meaning="max_wal_size is reached before checkpoint_timeout is over, so pages are written, "
        "and full pages go into the WAL, more often than need be. Base backups, bulk loads and "
        "CHECKPOINT count as requests too.",
        page="wal-configuration.html",
        calls_for={"max_wal_size": Direction.RAISE},
    )


def full_pages(facts: Facts) -> Finding | None:
    """Most of the WAL is full pages."""
    seen = facts.observation
    wal = seen.total("wal_bytes")
    images = seen.total("wal_full_page_images") * _BLOCK
    if seen.rate("wal_bytes") < MIN_WAL_BYTES_PER_S or images < MANY_FULL_PAGES * wal:
        return None
    return Finding(
        key="full-page-images",
        severity=Severity.NOTE,
        title="Much of the WAL is full pages",
        evidence=(
            f"{count(seen.total('wal_full_page_images'))} pages in {size(wal)} of WAL: up to "
            f"{percent(min(images / wal, 1.0))} of it",
        ),
        meaning="The first change of a page after a checkpoint writes the whole page. Rarer "
        "checkpoints write fewer, compression makes them smaller for some CPU time.",
        page="wal-configuration.html",
        calls_for={
            "wal_compression": Direction.SET,
            "checkpoint_timeout": Direction.RAISE,
        },
    )


def full_wal_buffers(facts: Facts) -> Finding | None:
    """Sessions write WAL because its buffers are full."""
    seen = facts.observation
    if seen.rate("wal_buffers_full") < MIN_BUFFERS_FULL_PER_S:
        return None
    return Finding(
        key="wal-buffers-full",
        severity=Severity.NOTE,
        title="WAL buffers fill up between commits",
        evidence=(
            f"{count(seen.total('wal_buffers_full'))} times in {duration(seen.observed_s)} a "
            "session had to write WAL out to go on",
        ),
        meaning="Larger WAL buffers let big transactions go on without waiting for a write.",
        page="runtime-config-wal.html#GUC-WAL-BUFFERS",
        calls_for={"wal_buffers": Direction.RAISE},
    )


def slow_wal_syncs(facts: Facts) -> Finding | None:
    """Commits wait long for the disk."""
    seen = facts.observation
    syncs, spent_ms = seen.total("wal_syncs"), seen.total("wal_sync_time_ms")
    if syncs <= 0 or spent_ms / syncs < SLOW_SYNC_MS:
        return None
    return Finding(
        key="slow-wal-syncs",
        severity=Severity.WARNING,
        title="Commits wait long for the disk",
        evidence=(f"{count(syncs)} WAL syncs took {milliseconds(spent_ms / syncs)} each",),
        meaning="No setting mends that without risking committed data: it is the storage's "
        "latency. Fewer, larger transactions wait less often.",
        page="wal-configuration.html",
    )


def background_writer(facts: Facts) -> Finding | None:
    """The background writer gives up, or sessions call fsync themselves."""
    seen = facts.observation
    stops, syncs = seen.total("maxwritten_clean"), seen.total("buffers_backend_fsync")
    if stops < 1 and syncs < 1:
        return None
    evidence = []
    if stops >= 1:
        evidence.append(
            f"{count(stops)} rounds were broken off at bgwriter_lru_maxpages in "
            f"{duration(seen.observed_s)}"
        )
    if syncs >= 1:
        evidence.append(f"{count(syncs)} times a session had to call fsync itself")
    return Finding(
        key="background-writer",
        severity=Severity.WARNING if syncs >= 1 else Severity.NOTE,
        title="The background writer does not keep up",
        evidence=tuple(evidence),
        meaning="Sessions that need a free buffer then write dirty ones out themselves.",
        page="runtime-config-resource.html#RUNTIME-CONFIG-RESOURCE-BACKGROUND-WRITER",
        calls_for={"bgwriter_lru_maxpages": Direction.RAISE} if stops >= 1 else {},
    )


RULES: tuple[Rule, ...] = (
    cache_misses,
    spills,
    requested_checkpoints,
    full_pages,
    full_wal_buffers,
    slow_wal_syncs,
    background_writer,
)
