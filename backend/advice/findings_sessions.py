"""Findings about connections, locks, the load, and the machine."""

from __future__ import annotations

from backend.advice.facts import Facts
from backend.advice.finding import Finding, Rule, Severity, count, size
from backend.telemetry.wording import duration, milliseconds, number, percent

NEAR_LIMIT, AT_LIMIT = 0.8, 0.95
MANY_NEW_SESSIONS_PER_S = 5.0
IDLE_IN_TRANSACTION = 1.0
LOCK_WAITERS, LOCK_CROWD = 0.5, 3.0
MANY_ROLLBACKS, MIN_TRANSACTIONS = 0.05, 100
BUSY_CPU, STOLEN_CPU, WAITING_CPU = 85.0, 5.0, 20.0
SWAPPED_BYTES = 100 * 1024.0**2
HEAVY_SHARE = 0.3
_MB = 1024.0**2


def connections(facts: Facts) -> Finding | None:
    """The server comes near its limit of connections."""
    seen = facts.observation
    most, limit = seen.peak("connections_total"), seen.newest("connections_max")
    if limit <= 0 or most < NEAR_LIMIT * limit:
        return None
    return Finding(
        key="connections",
        severity=Severity.CRITICAL if most >= AT_LIMIT * limit else Severity.WARNING,
        title="Connections come near their limit",
        evidence=(
            f"up to {count(most)} of {count(limit)} connections were open",
            f"{number(seen.mean('connections_active'))} ran a statement in this database, on "
            "average",
        ),
        meaning="New clients are refused at the limit. A connection pool lets few sessions serve "
        "many clients; a higher max_connections takes memory and a restart, and is never "
        "proposed here.",
        page="runtime-config-connection.html#GUC-MAX-CONNECTIONS",
    )


def short_sessions(facts: Facts) -> Finding | None:
    """Clients open a session for a few statements."""
    seen = facts.observation
    if seen.rate("sessions") < MANY_NEW_SESSIONS_PER_S:
        return None
    return Finding(
        key="short-sessions",
        severity=Severity.NOTE,
        title="Many sessions are opened for little work",
        evidence=(
            f"{number(seen.rate('sessions'))} new sessions a second, "
            f"{number(seen.calls / seen.total('sessions'))} statements each",
        ),
        meaning="Each session is a new process with caches to fill. A connection pool saves that.",
        page="connect-estab.html",
    )


def idle_in_transaction(facts: Facts) -> Finding | None:
    """Sessions idle inside transactions."""
    seen = facts.observation
    idle = seen.mean("connections_idle_in_transaction")
    if idle < IDLE_IN_TRANSACTION:
        return None
    return Finding(
        key="idle-in-transaction",
        severity=Severity.WARNING,
        title="Sessions idle inside transactions",
        evidence=(
            f"{number(idle)} sessions on average, up to "
            f"{count(seen.peak('connections_idle_in_transaction'))}",
        ),
        meaning="They keep their locks and hold vacuum back: the application does something else "
        "before it commits.",
        page="runtime-config-client.html#GUC-IDLE-IN-TRANSACTION-SESSION-TIMEOUT",
    )


def locks(facts: Facts) -> Finding | None:
    """Statements wait for each other's locks."""
    seen = facts.observation
    mean, most = seen.mean("waits_lock"), seen.peak("waits_lock")
    deadlocks = seen.total("deadlocks")
    if mean < LOCK_WAITERS and most < LOCK_CROWD and deadlocks < 1:
        return None
    return Finding(
        key="locks",
        severity=Severity.WARNING,
        title="Statements wait for each other's locks",
        evidence=(
            f"{number(mean)} statements waited on average, up to {count(most)}",
            f"{count(deadlocks)} deadlocks in {duration(seen.observed_s)}",
        ),
        meaning="That is the application's order of work, not a setting: shorter transactions, "
        "rows taken in one order, no schema changes at busy hours.",
        page="explicit-locking.html",
    )


def rollbacks(facts: Facts) -> Finding | None:
    """Many transactions are rolled back."""
    seen = facts.observation
    undone = seen.total("xact_rollback")
    all_of_them = undone + seen.total("xact_commit")
    if all_of_them < MIN_TRANSACTIONS or undone < MANY_ROLLBACKS * all_of_them:
        return None
    return Finding(
        key="rollbacks",
        severity=Severity.NOTE,
        title="Many transactions are rolled back",
        evidence=(f"{count(undone)} of {count(all_of_them)} ({percent(undone / all_of_them)})",),
        meaning="Errors, or an application that rolls back on purpose: the server's log tells.",
        page="monitoring-stats.html#MONITORING-PG-STAT-DATABASE-VIEW",
    )


def heaviest_statement(facts: Facts) -> Finding | None:
    """One statement takes much of the time."""
    seen = facts.observation
    if seen.exec_time_ms <= 0:
        return None
    heaviest = max(seen.queries.values(), key=lambda query: query.exec_time_ms)
    share = heaviest.exec_time_ms / seen.exec_time_ms
    if share < HEAVY_SHARE:
        return None
    return Finding(
        key="heaviest-statement",
        severity=Severity.NOTE,
        title="One statement takes much of the time",
        evidence=(
            f"{percent(share)} of the execution time of {len(seen.queries)} statements",
            f"{count(heaviest.calls)} calls of {milliseconds(heaviest.mean_ms)} each, on average",
        ),
        meaning="What makes it faster, an index or another plan, helps more than any setting. It "
        "stands first among the statements below.",
        page="using-explain.html",
    )


def machine(facts: Facts) -> Finding | None:
    """The machine has no room left."""
    seen = facts.observation
    evidence = []
    cpu, stolen = seen.mean("host_cpu_percent"), seen.mean("host_steal_percent")
    waiting, swap = seen.mean("host_iowait_percent"), seen.newest("host_swap_used_bytes")
    if cpu >= BUSY_CPU:
        others = seen.mean("other_cpu_percent")
        evidence.append(f"{number(cpu)} % of the CPU in use, {number(others)} % by other programs")
    if stolen >= STOLEN_CPU:
        evidence.append(f"{number(stolen)} % of the CPU was given to other virtual machines")
    if waiting >= WAITING_CPU:
        evidence.append(f"{number(waiting)} % of the CPU waited for I/O")
    if swap >= SWAPPED_BYTES:
        evidence.append(f"{size(swap)} are swapped out")
    if not evidence:
        return None
    return Finding(
        key="machine",
        severity=Severity.WARNING,
        title="The machine is short of something",
        evidence=tuple(evidence),
        meaning="Settings shift the load between CPU, memory and disk; they do not make it go.",
        page="runtime-config-resource.html",
    )


def disk(facts: Facts) -> Finding | None:
    """The disk may fill up."""
    seen = facts.observation
    free, wal_mb = seen.last.get("host_disk_free_bytes"), facts.number("max_wal_size")
    if free is None or wal_mb is None or free >= 2 * wal_mb * _MB:
        return None
    return Finding(
        key="disk",
        severity=Severity.CRITICAL,
        title="Little disk space is left",
        evidence=(f"{size(free)} are free, max_wal_size is {size(wal_mb * _MB)}",),
        meaning="A server whose WAL finds no room stops.",
        page="disk-full.html",
    )


RULES: tuple[Rule, ...] = (
    connections,
    short_sessions,
    idle_in_transaction,
    locks,
    rollbacks,
    heaviest_statement,
    machine,
    disk,
)
