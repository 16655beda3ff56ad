"""All that the advice rests on: the server, its machine, its settings, and what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backend.advice.observation import Observation
from backend.catalog.knobs import KnobCatalog
from backend.domain.knobs import KnobValue
from backend.domain.metrics import QueryKey
from backend.domain.server import HostFacts, KnobReading, ServerInfo
from backend.expert_rules import TYPICAL_CLIENTS
from backend.targets.postgresql_lookup import Rights, TableState


@dataclass(frozen=True)
class Facts:
    """What the advice rests on.

    Args:
        info: the server.
        host: its machine; what nobody knows is 0 or None. ``stated``: what the user said of it.
        catalog: the knobs that exist there.
        readings: how they stand.
        rights: what may be set.
        observation: what was seen.
        tables: those with the most dead or changed rows.
        roles: names of the roles in ``observation.queries``, by their id.
        texts: normalised statements of its heaviest query classes.
        file_errors: what is wrong in the server's configuration files.
        unseen: what could not be read, and why.
    """

    info: ServerInfo
    host: HostFacts
    catalog: KnobCatalog
    readings: Mapping[str, KnobReading]
    rights: Rights
    observation: Observation
    stated: tuple[str, ...] = ()
    tables: tuple[TableState, ...] = ()
    roles: Mapping[int, str] = field(default_factory=dict)
    texts: Mapping[QueryKey, str] = field(default_factory=dict)
    file_errors: tuple[str, ...] = ()
    unseen: Mapping[str, str] = field(default_factory=dict)

    @property
    def present(self) -> Mapping[str, KnobValue]:
        """The values in force."""
        return {name: reading.value for name, reading in self.readings.items()}

    def number(self, knob: str) -> float | None:
        """A knob's value as a number, in its native unit; None where it is none."""
        reading = self.readings.get(knob)
        value = reading.value if reading is not None else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        return float(value)

    @property
    def clients(self) -> int:
        """Statements that may run at once: the most that were seen, and not fewer than usual."""
        return max(round(self.observation.peak("connections_active")), TYPICAL_CLIENTS)

    @property
    def busiest_role(self) -> str:
        """The role whose statements took most of the time; empty where nobody knows."""
        spent_ms: dict[int, float] = {}
        for key, query in self.observation.queries.items():
            spent_ms[key.userid] = spent_ms.get(key.userid, 0.0) + query.exec_time_ms
        known = [userid for userid in spent_ms if userid in self.roles]
        return self.roles[max(known, key=lambda userid: spent_ms[userid])] if known else ""
