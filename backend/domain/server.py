"""What a target tells about itself and its knobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from backend.domain.knobs import KnobValue
from backend.domain.modes import Mode


@dataclass(frozen=True)
class HostFacts:
    """The machine under the server; limits come from cgroups where there are any."""

    memory_bytes: int
    cpu_count: float
    free_disk_bytes: int | None = None
    is_local: bool = True


@dataclass(frozen=True)
class ServerIdentity:
    """Which server answers; its address does not tell, since a stand-by takes that over.

    ``timeline`` is ``system identifier/timeline`` as PostgreSQL has them: restarts keep it, a
    stand-by that is promoted begins a new one. A stand-by's ends in ``standby``; "": nobody knows.
    ``place`` is the address that the server itself gives.
    https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES
    """

    timeline: str = ""
    place: str = ""

    def is_not(self, timeline: str) -> bool:
        """Whether that timeline is known to be another server's than this one."""
        return bool(self.timeline and timeline) and self.timeline != timeline

    def __str__(self) -> str:
        """Return both, for people."""
        return f"{self.place} (timeline {self.timeline})"


@dataclass(frozen=True)
class ServerInfo:
    """Identity and capabilities of a server.

    ``server_id`` is stable over restarts (PostgreSQL's system identifier) and never a secret; a
    stand-by has its primary's, ``identity`` tells them apart.
    ``capabilities`` maps a capability's name (``alter_system``, ``reload``, ``restart``,
    ``statement_statistics``, ``read_all_stats``, ...) to whether we have it;
    ``missing`` holds, for each we lack, the reason and the SQL that would grant it.
    """

    server_id: str
    kind: str
    version: int
    version_text: str
    address: str
    started_at: datetime
    host: HostFacts
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    identity: ServerIdentity = ServerIdentity()

    def can(self, capability: str) -> bool:
        """Whether the server and our role offer the capability."""
        return self.capabilities.get(capability, False)

    def without(self, capability: str, reason: str) -> ServerInfo:
        """The same server, where the capability turned out to be of no use."""
        return replace(
            self,
            capabilities={**self.capabilities, capability: False},
            missing={**self.missing, capability: reason},
        )

    @property
    def best_mode(self) -> Mode:
        """The furthest mode that this server and our role make possible."""
        if not (self.can("statement_statistics") and self.can("read_all_stats")):
            return Mode.OBSERVE
        return Mode.AUTO if self.can("alter_system") else Mode.ADVISE

    def mode_for(self, wanted: Mode) -> Mode:
        """The wanted mode, or :attr:`best_mode` where that does not go so far."""
        return min(wanted, self.best_mode, key=list(Mode).index)

    @property
    def why_not_further(self) -> str:
        """What stands between :attr:`best_mode` and auto, with the remedy; or ""."""
        for capability, lost in (
            ("statement_statistics", "without pg_stat_statements nothing can be compared"),
            ("read_all_stats", "other roles' statements are hidden, so nothing can be compared"),
            ("alter_system", "nothing may be changed"),
        ):
            if not self.can(capability):
                return f"{lost}: {self.missing.get(capability, 'unknown')}"
        return ""


@dataclass(frozen=True)
class KnobReading:
    """A knob as the server reports it, in native units.

    ``entry`` is the text in postgresql.auto.conf, None where there is no entry. ``override``
    names what would win over our entry (command line, database or role setting), if anything.
    ``may_alter`` tells whether our role may set this knob. ``choices`` are the words that this
    build of the server takes (categorical knobs); empty where it does not tell.
    """

    name: str
    value: KnobValue
    source: str
    pending_restart: bool = False
    entry: str | None = None
    override: str | None = None
    may_alter: bool = True
    choices: tuple[str, ...] = ()
