"""Expert rules: what an experienced administrator would set first, from the machine alone.

Rules of thumb in the manner of PGTune, each with the page of the manual that it rests on. They
are the knob agent's first samples: hypotheses for the trials to prove, not settings to deploy.
Values are worked out in bytes and seconds and converted through each knob's own unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue
from backend.domain.quantities import unit_size
from backend.domain.server import HostFacts

MANUAL = "https://www.postgresql.org/docs/current/"
KIB, MIB, GIB = 1024.0, 1024.0**2, 1024.0**3
TYPICAL_CLIENTS = 8
"""Statements that run at once, where nobody says otherwise."""
ASSUMED_FREE_DISK_BYTES = 40 * GIB
"""Of a machine whose disk cannot be seen."""


@dataclass(frozen=True)
class Proposal:
    """A configuration worth trying first.

    Args:
        name: what it is about: a family of knobs, or all of them.
        config: every knob of the space; what the rules leave alone stands as it stood.
        why: the reasons, with links to the manual.
    """

    name: str
    config: KnobConfig
    why: str


@dataclass(frozen=True)
class Machine:
    """What the rules look at. A remote machine's memory and cores are unknown, and 0."""

    memory_bytes: float
    cores: float
    free_disk_bytes: float
    clients: int

    @property
    def few_cores(self) -> bool:
        """Whether clients outnumber the cores: then parallel workers only take turns."""
        return self.cores < 2 * self.clients


@dataclass(frozen=True)
class Rule:
    """One knob's value as a function of the machine.

    ``quantity`` is ``bytes``, ``seconds`` or empty (a plain number, a boolean, or choices in
    order of preference).
    """

    knob: str
    value: Callable[[Machine], float | bool | Sequence[str]]
    quantity: str = ""
    needs: str = ""

    def applies_to(self, machine: Machine) -> bool:
        """Whether what the rule ``needs`` (``memory``, ``cores``) is known."""
        known = {"memory": machine.memory_bytes > 0, "cores": machine.cores > 0}
        return known.get(self.needs, True)


@dataclass(frozen=True)
class Family:
    """Rules that belong together, with their reason and their page of the manual."""

    name: str
    page: str
    why: str
    rules: Sequence[Rule]
    joint: bool = True

    @property
    def reason(self) -> str:
        """The reason with its link."""
        return f"{self.why} ({MANUAL}{self.page})"


def _work_mem(machine: Machine) -> float:
    """A quarter of the memory, shared by all clients at a dozen work_mem units each.

    A statement of a few sorts and hashes (twice as dear with hash_mem_multiplier 2) takes about
    that much at its worst moment.
    """
    return min(max(machine.memory_bytes / 4 / (12 * machine.clients), 4 * MIB), 256 * MIB)


def _parallel_workers(machine: Machine) -> float:
    """No worker below four cores, one where clients keep the cores busy, else up to four."""
    if machine.cores < 4:
        return 0
    return 1 if machine.few_cores else min(4, machine.cores // 4)


def _wal_bytes(machine: Machine) -> float:
    return min(4 * GIB, max(machine.free_disk_bytes / 10, 1 * GIB))


FAMILIES: tuple[Family, ...] = (
    Family(
        "memory",
        "runtime-config-resource.html",
        "sorts and hashes in memory instead of temporary files, room for maintenance, and a "
        "planner that knows how much the system caches",
        (
            Rule("work_mem", _work_mem, "bytes", "memory"),
            Rule("hash_mem_multiplier", lambda m: 2.0),
            Rule(
                "maintenance_work_mem",
                lambda m: min(m.memory_bytes / 16, 1 * GIB),
                "bytes",
                "memory",
            ),
            Rule("effective_cache_size", lambda m: 0.75 * m.memory_bytes, "bytes", "memory"),
            Rule("shared_buffers", lambda m: 0.25 * m.memory_bytes, "bytes", "memory"),
        ),
    ),
    Family(
        "planner costs",
        "runtime-config-query.html",
        "on SSDs and cached data a random page costs hardly more than the next one; compiling "
        "statements of milliseconds costs more than it saves; longer join lists are searched",
        (
            Rule("random_page_cost", lambda m: 1.1),
            Rule("jit", lambda m: False),
            Rule("join_collapse_limit", lambda m: 12),
            Rule("from_collapse_limit", lambda m: 12),
            Rule("effective_cache_size", lambda m: 0.75 * m.memory_bytes, "bytes", "memory"),
        ),
    ),
    Family(
        "parallelism",
        "runtime-config-resource.html#GUC-MAX-PARALLEL-WORKERS-PER-GATHER",
        "with as many clients as cores, parallel workers wait for each other's cores",
        (
            Rule("max_parallel_workers_per_gather", _parallel_workers, needs="cores"),
            Rule("max_parallel_workers", lambda m: max(2, m.cores), needs="cores"),
        ),
    ),
    Family(
        "wal and checkpoints",
        "wal-configuration.html",
        "rarer checkpoints, spread over their interval, write fewer pages and fewer full-page "
        "images",
        (
            Rule("max_wal_size", _wal_bytes, "bytes"),
            Rule("min_wal_size", lambda m: _wal_bytes(m) / 4, "bytes"),
            Rule("checkpoint_timeout", lambda m: 900, "seconds"),
            Rule("checkpoint_completion_target", lambda m: 0.9),
            Rule("wal_compression", lambda m: ("lz4", "pglz", "on")),
            Rule("wal_buffers", lambda m: 16 * MIB, "bytes"),
        ),
    ),
    Family(
        "background writer",
        "runtime-config-resource.html#RUNTIME-CONFIG-RESOURCE-BACKGROUND-WRITER",
        "clean buffers stand ready before a statement has to write one out itself",
        (
            Rule("bgwriter_delay", lambda m: 0.1, "seconds"),
            Rule("bgwriter_lru_maxpages", lambda m: 400),
            Rule("bgwriter_lru_multiplier", lambda m: 4.0),
        ),
    ),
    Family(
        "autovacuum",
        "routine-vacuuming.html",
        "smaller and more frequent rounds keep tables compact and their statistics fresh",
        (
            Rule("autovacuum_vacuum_scale_factor", lambda m: 0.1),
            Rule("autovacuum_vacuum_insert_scale_factor", lambda m: 0.1),
            Rule("autovacuum_analyze_scale_factor", lambda m: 0.05),
        ),
    ),
    # Not in the joint proposal: it helps on disks that must be read and costs where all is cached.
    Family(
        "reading ahead",
        "runtime-config-resource.html#GUC-EFFECTIVE-IO-CONCURRENCY",
        "SSDs serve many requests at once, so more of them may be under way",
        (
            Rule("effective_io_concurrency", lambda m: 128),
            Rule("maintenance_io_concurrency", lambda m: 128),
        ),
        joint=False,
    ),
)


def expert_proposals(
    space: KnobSpace,
    host: HostFacts,
    present: Mapping[str, KnobValue],
    *,
    clients: int = TYPICAL_CLIENTS,
) -> tuple[Proposal, ...]:
    """Configurations to try first: the most promising joint one, then family by family.

    Args:
        space: only its knobs take part, inside their bounds.
        host: the server's machine.
        present: the values that stand now; absent knobs count as default.
        clients: statements that run at once.

    Returns:
        First all rules for knobs that need no restart together, then each family for itself,
        last all rules with the restart knobs, where there are any. No proposal equals
        ``present`` or an earlier one.
    """
    known = {name: value for name, value in present.items() if name in space}
    base = space.default_config().replace(space.validate(known))
    machine = _machine(host, clients)
    restart = {knob.name for knob in space if knob.context == "restart"}
    joint: dict[str, KnobValue] = {}
    reasons: list[str] = []
    proposals: list[Proposal] = []
    for family in FAMILIES:
        values = _values(family, space, machine)
        reloadable = {name: value for name, value in values.items() if name not in restart}
        if reloadable:
            proposals.append(Proposal(family.name, base.replace(reloadable), family.reason))
        if family.joint and values:
            joint.update(values)
            reasons.append(f"{family.name}: {family.reason}")
    why = "; ".join(reasons)
    without_restart = {name: value for name, value in joint.items() if name not in restart}
    candidates = [
        Proposal("all families", base.replace(without_restart), why),
        *proposals,
        Proposal("all families with restart", base.replace(joint), why),
    ]
    seen = {base}
    distinct: list[Proposal] = []
    for proposal in candidates:
        if proposal.config not in seen:
            seen.add(proposal.config)
            distinct.append(proposal)
    return tuple(distinct)


def rules_of_thumb(
    space: KnobSpace, host: HostFacts, *, clients: int = TYPICAL_CLIENTS
) -> Mapping[str, tuple[KnobValue, Family]]:
    """What the rules say of single knobs of the space, in native units, with the rules' family.

    Rules that need what is not known of the machine say nothing.
    """
    machine = _machine(host, clients)
    found: dict[str, tuple[KnobValue, Family]] = {}
    for family in FAMILIES:
        for name, value in _values(family, space, machine).items():
            found.setdefault(name, (value, family))
    return found


def unknown_needs(host: HostFacts) -> Mapping[str, str]:
    """The knobs whose rules need what is not known of the machine: ``memory`` or ``cores``."""
    machine = _machine(host, TYPICAL_CLIENTS)
    return {
        rule.knob: rule.needs
        for family in FAMILIES
        for rule in family.rules
        if not rule.applies_to(machine)
    }


def _machine(host: HostFacts, clients: int) -> Machine:
    return Machine(
        memory_bytes=float(host.memory_bytes),
        cores=host.cpu_count,
        free_disk_bytes=float(host.free_disk_bytes or ASSUMED_FREE_DISK_BYTES),
        clients=max(1, clients),
    )


def _values(family: Family, space: KnobSpace, machine: Machine) -> dict[str, KnobValue]:
    """What the family's rules say about the knobs of the space, in native units."""
    values: dict[str, KnobValue] = {}
    for rule in family.rules:
        if rule.knob in space and rule.applies_to(machine):
            value = _native(space[rule.knob], rule, machine)
            if value is not None:
                values[rule.knob] = value
    return values


def _native(knob: Knob, rule: Rule, machine: Machine) -> KnobValue | None:
    """The rule's value in the knob's unit and bounds; None where the two do not fit."""
    value = rule.value(machine)
    if isinstance(value, Sequence):
        if knob.kind == "boolean":
            return True
        return next((choice for choice in value if choice in knob.choices), None)
    if knob.kind == "boolean" or isinstance(value, bool):
        return value if knob.kind == "boolean" and isinstance(value, bool) else None
    if knob.kind == "categorical":
        return None
    if rule.quantity:
        if knob.unit is None:
            return None
        dimension, size = unit_size(knob.unit)
        if dimension != rule.quantity:
            return None
        value = value / size
    low, high = knob.bounds
    if knob.kind == "integer":
        value = round(value)
    return knob.validate(min(max(value, low), high))
