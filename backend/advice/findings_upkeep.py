"""Findings about vacuum, statistics, replication, and the settings themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backend.advice.facts import Facts
from backend.advice.finding import Direction, Finding, Rule, Severity, count, size
from backend.advice.quoting import sql_identifier
from backend.memory_budget import HOST_SHARE, memory_parts
from backend.targets.postgresql_lookup import TableState
from backend.telemetry.wording import duration, knob_text, moment, number, percent

MANY_DEAD = 0.2
MIN_DEAD_ROWS = 10_000
STALE_SHARE = 0.1
MIN_STALE_ROWS = 10_000
MIN_ANALYZED_ROWS = 1_000
"""A smaller table may do without statistics."""
XID_WARNING, XID_CRITICAL = 500_000_000, 1_500_000_000
"""Of the 2 billion at which the server stops taking writes."""
LONG_TRANSACTION_S = 600.0
OLD_SNAPSHOT_XIDS = 1_000_000
RETAINED_BYTES = 1024.0**3
LAG_BYTES = 256 * 1024.0**2
_SHOWN_TABLES = 5


def dead_rows(facts: Facts) -> Finding | None:
    """Vacuum is behind with dead rows."""
    found = [
        table
        for table in facts.tables
        if table.dead_rows >= MIN_DEAD_ROWS and table.dead_share >= MANY_DEAD
    ]
    if not found:
        return None
    found.sort(key=lambda table: -table.dead_rows)
    return Finding(
        key="dead-rows",
        severity=Severity.WARNING,
        title=f"Dead rows pile up in {_tables(len(found))}",
        evidence=tuple(
            f"{table.schema}.{table.name}: {count(table.dead_rows)} dead rows "
            f"({percent(table.dead_share)}), {_last('vacuumed', table.vacuumed_at)}"
            for table in found[:_SHOWN_TABLES]
        ),
        meaning="Every scan reads them. Autovacuum begins when the dead rows pass "
        "autovacuum_vacuum_scale_factor of the table; a long transaction keeps it from removing "
        "them.",
        page="routine-vacuuming.html",
        calls_for={"autovacuum_vacuum_scale_factor": Direction.LOWER},
        statements=tuple(f"VACUUM (ANALYZE) {_quoted(t)};" for t in found[:_SHOWN_TABLES]),
    )


def stale_statistics(facts: Facts) -> Finding | None:
    """The planner's statistics are old or missing."""
    stale = [
        table
        for table in facts.tables
        if table.modified_rows >= max(MIN_STALE_ROWS, STALE_SHARE * table.live_rows)
    ]
    never = [
        table
        for table in facts.tables
        if table.analyzed_at is None and table.live_rows >= MIN_ANALYZED_ROWS
    ]
    found = [*never, *(table for table in stale if table not in never)]
    if not found:
        return None
    return Finding(
        key="stale-statistics",
        severity=Severity.WARNING if never else Severity.NOTE,
        title=f"The planner's statistics are old or missing for {_tables(len(found))}",
        evidence=tuple(
            f"{table.schema}.{table.name}: {count(table.modified_rows)} of "
            f"{count(table.live_rows)} rows changed since; {_last('analysed', table.analyzed_at)}"
            for table in found[:_SHOWN_TABLES]
        ),
        meaning="Plans are chosen by numbers of rows that are not so any more.",
        page="routine-vacuuming.html#VACUUM-FOR-STATISTICS",
        calls_for={"autovacuum_analyze_scale_factor": Direction.LOWER} if stale else {},
        statements=tuple(f"ANALYZE {_quoted(table)};" for table in found[:_SHOWN_TABLES]),
    )


def busy_autovacuum(facts: Facts) -> Finding | None:
    """All autovacuum workers are busy all the time."""
    workers = facts.observation.mean("autovacuum_workers")
    most = facts.number("autovacuum_max_workers")
    if not most or workers < 0.9 * most:
        return None
    return Finding(
        key="busy-autovacuum",
        severity=Severity.WARNING,
        title="All autovacuum workers are busy all the time",
        evidence=(f"{number(workers)} of {count(most)} workers ran, on average",),
        meaning="Tables wait for their turn. More workers share the same limit on I/O, so let "
        "them pause less first.",
        page="runtime-config-vacuum.html",
        calls_for={"autovacuum_vacuum_cost_delay": Direction.LOWER},
    )


def wraparound(facts: Facts) -> Finding | None:
    """Transaction numbers are used up faster than they are freed."""
    age = facts.observation.newest("xid_age")
    if age < XID_WARNING:
        return None
    return Finding(
        key="wraparound",
        severity=Severity.CRITICAL if age >= XID_CRITICAL else Severity.WARNING,
        title="The oldest transaction number is very old",
        evidence=(f"{count(age)} transactions; the server stops writing at about 2,150,000,000",),
        meaning="Vacuum does not get to freeze old rows: look for long transactions, forgotten "
        "prepared transactions and replication slots, then vacuum the oldest tables.",
        page="routine-vacuuming.html#VACUUM-FOR-WRAPAROUND",
    )


def held_back_vacuum(facts: Facts) -> Finding | None:
    """A long transaction keeps vacuum from its work."""
    seen = facts.observation
    longest_s, snapshot = seen.peak("longest_transaction_s"), seen.newest("oldest_snapshot_xids")
    if longest_s < LONG_TRANSACTION_S and snapshot < OLD_SNAPSHOT_XIDS:
        return None
    return Finding(
        key="long-transactions",
        severity=Severity.WARNING,
        title="Long transactions keep vacuum from its work",
        evidence=(
            f"the oldest transaction was open for {duration(longest_s)}",
            f"the oldest snapshot holds back {count(snapshot)} transactions",
        ),
        meaning="Rows deleted since then cannot be removed. End transactions sooner, or set "
        "idle_in_transaction_session_timeout for the role that leaves them open.",
        page="routine-vacuuming.html#VACUUM-FOR-SPACE-RECOVERY",
    )


def replication(facts: Facts) -> Finding | None:
    """Stand-bys, slots or the archive are behind."""
    seen = facts.observation
    kept, lag = seen.newest("slots_retained_bytes"), seen.newest("replication_lag_bytes")
    failures = seen.total("archive_failures")
    evidence = []
    if kept >= RETAINED_BYTES:
        evidence.append(f"a replication slot holds back {size(kept)} of WAL")
    if lag >= LAG_BYTES:
        evidence.append(f"the slowest stand-by is {size(lag)} behind")
    if failures >= 1:
        evidence.append(f"{count(failures)} WAL files could not be archived")
    if not evidence:
        return None
    return Finding(
        key="replication",
        severity=Severity.CRITICAL if failures >= 1 else Severity.WARNING,
        title="WAL piles up behind archive or replication",
        evidence=tuple(evidence),
        meaning="The WAL stays on this server's disk until it is taken. Mend the receiver, or drop "
        "a slot that nobody uses any more.",
        page="warm-standby.html#STREAMING-REPLICATION-SLOTS",
    )


def checksum_failures(facts: Facts) -> Finding | None:
    """Blocks on disk are damaged."""
    failures = facts.observation.ever.get("checksum_failures", 0.0)
    if failures < 1:
        return None
    return Finding(
        key="checksum-failures",
        severity=Severity.CRITICAL,
        title="Blocks on disk were found damaged",
        evidence=(f"{count(failures)} checksums were wrong since the counters were reset",),
        meaning="Look at the server's log and the storage now, and check your backups, before "
        "anything else.",
        page="checksums.html",
    )


def settings_in_waiting(facts: Facts) -> Finding | None:
    """Settings were written that are not in force."""
    waiting = [name for name, reading in facts.readings.items() if reading.pending_restart]
    evidence = [f"{name} waits for a restart" for name in waiting]
    evidence += [f"in a configuration file: {error}" for error in facts.file_errors]
    if not evidence:
        return None
    return Finding(
        key="settings-not-in-force",
        severity=Severity.WARNING,
        title="Settings were written that are not in force",
        evidence=tuple(evidence[:10]),
        meaning="The server runs with other values than its files say, and the next restart "
        "changes its behaviour.",
        page="config-setting.html#CONFIG-SETTING-CONFIGURATION-FILE",
    )


def memory_overcommitted(facts: Facts) -> Finding | None:
    """The memory knobs allow more than the machine has."""
    if facts.host.memory_bytes <= 0:
        return None
    parts = memory_parts(facts.present, facts.clients)
    total, limit = sum(parts.values()), HOST_SHARE * facts.host.memory_bytes
    if total <= limit:
        return None
    largest = sorted(parts.items(), key=lambda part: -part[1])[:3]
    return Finding(
        key="memory-overcommitted",
        severity=Severity.WARNING,
        title="The memory settings allow more than the machine should give",
        evidence=(
            f"{size(total)} could be used at a busy moment, of {size(facts.host.memory_bytes)}",
            *(f"{name}: {size(amount)}" for name, amount in largest),
            f"work_mem is {knob_text(facts.present.get('work_mem'), 'kB')}",
        ),
        meaning="Reckoned from the settings, not seen: each client with its workers sorts and "
        "hashes once. At such a moment the machine swaps, or the system ends the server.",
        page="runtime-config-resource.html#RUNTIME-CONFIG-RESOURCE-MEMORY",
    )


def _tables(count: int) -> str:
    return "one table" if count == 1 else f"{count} tables"


def _last(done: str, at: datetime | None) -> str:
    return f"never {done}" if at is None else f"last {done} {moment(at)}"


def _quoted(table: TableState) -> str:
    return f"{sql_identifier(table.schema)}.{sql_identifier(table.name)}"


RULES: Sequence[Rule] = (
    dead_rows,
    stale_statistics,
    busy_autovacuum,
    wraparound,
    held_back_vacuum,
    replication,
    checksum_failures,
    settings_in_waiting,
    memory_overcommitted,
)
