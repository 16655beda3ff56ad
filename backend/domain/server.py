"""What a target tells about itself and its knobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from backend.domain.knobs import KnobValue


@dataclass(frozen=True)
class HostFacts:
    """The machine under the server; limits come from cgroups where there are any."""

    memory_bytes: int
    cpu_count: float
    free_disk_bytes: int | None = None
    is_local: bool = True


@dataclass(frozen=True)
class ServerInfo:
    """Identity and capabilities of a server.

    ``server_id`` is stable over restarts (PostgreSQL's system identifier) and never a secret.
    ``capabilities`` maps a capability's name (``alter_system``, ``reload``, ``restart``,
    ``statement_statistics``, ``read_all_stats``, ``terminate``) to whether we have it;
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

    def can(self, capability: str) -> bool:
        """Whether the server and our role offer the capability."""
        return self.capabilities.get(capability, False)


@dataclass(frozen=True)
class KnobReading:
    """A knob as the server reports it, in native units.

    ``entry`` is the text in postgresql.auto.conf, None where there is no entry. ``override``
    names what would win over our entry (command line, database or role setting), if anything.
    """

    name: str
    value: KnobValue
    source: str
    pending_restart: bool = False
    entry: str | None = None
    override: str | None = None
