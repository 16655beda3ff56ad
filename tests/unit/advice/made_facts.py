"""Facts made of a few numbers: a server with its defaults, a machine of 16 GiB, a minute seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from backend.advice.advice import Advice, advise
from backend.advice.facts import Facts
from backend.advice.observation import Observation
from backend.catalog.knobs import KnobCatalog, load_catalog
from backend.domain.knobs import KnobValue
from backend.domain.metrics import QueryKey, QueryWindow
from backend.domain.server import HostFacts, KnobReading, ServerInfo
from backend.targets.postgresql_lookup import Rights, TableState

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
MINUTE_S = 60.0
MACHINE = HostFacts(memory_bytes=16 << 30, cpu_count=8.0, free_disk_bytes=500 << 30)
UNKNOWN = HostFacts(memory_bytes=0, cpu_count=0.0, is_local=False)
CATALOG: KnobCatalog = load_catalog(17, MACHINE)
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e\n\"'&"
SECRET = "Secret-Literal-9"
EVERYTHING = ("read_all_stats", "statement_statistics", "io_timing", "file_settings")


def observation(**given: Any) -> Observation:
    """What was seen in a minute; ``totals``, ``peaks`` and so on as they are given."""
    return Observation(START, START + timedelta(seconds=MINUTE_S), MINUTE_S, **given)


def query(
    number: int = 1, calls: int = 10, mean_ms: float = 5.0, **more: Any
) -> Mapping[QueryKey, QueryWindow]:
    """One query class of role 10."""
    key = QueryKey(10, 5, number)
    return {key: QueryWindow(key, calls, calls * mean_ms, **more)}


def facts(
    values: Mapping[str, KnobValue] | None = None,
    *,
    host: HostFacts = MACHINE,
    rights: Rights | None = None,
    tables: tuple[TableState, ...] = (),
    reading: Mapping[str, Any] | None = None,
    version: int = 170010,
    **seen: Any,
) -> Facts:
    """A server: knobs at their defaults but for ``values``; ``seen`` goes into the observation."""
    catalog = load_catalog(version, host)
    defaults = {entry.name: entry.knob.default for entry in catalog}
    present = {**defaults, **(values or {})}
    info = ServerInfo(
        server_id="7",
        kind="postgresql",
        version=version,
        version_text=f"PostgreSQL {version // 10000}",
        address="db.example:5432/shop",
        started_at=START,
        host=host,
        capabilities=dict.fromkeys(EVERYTHING, True),
    )
    return Facts(
        info=info,
        host=host,
        catalog=catalog,
        readings={
            name: KnobReading(name, value, "default", **(reading or {}))
            for name, value in present.items()
            if value is not None
        },
        rights=rights or Rights("autopilot", "shop", set_value=frozenset(catalog.names)),
        observation=observation(**seen),
        tables=tables,
        roles={10: "shop_app"},
    )


def table(**given: Any) -> TableState:
    """A healthy table but for what is given."""
    healthy = {
        "schema": "public", "name": "orders", "live_rows": 1_000_000, "dead_rows": 0,
        "modified_rows": 0, "vacuumed_at": START, "analyzed_at": START,
    }  # fmt: skip
    return TableState(**{**healthy, **given})


def hostile_advice() -> Advice:
    """Advice in which every name is hostile, and the text of a query holds a secret."""
    made = facts(
        rights=Rights(HOSTILE, HOSTILE),
        tables=(table(name=HOSTILE, schema=HOSTILE, dead_rows=400_000),),
        reading={"may_alter": False},
        queries=query(),
        totals={"temp_files": 3, "temp_bytes": 200e6},
        gaps={HOSTILE: 2},
    )
    made = replace(
        made,
        info=replace(made.info, address=HOSTILE),
        roles={10: HOSTILE},
        texts={QueryKey(10, 5, 1): f"SELECT '{SECRET}' /* {HOSTILE} */"},
        file_errors=(HOSTILE,),
        unseen={HOSTILE: HOSTILE},
    )
    return advise(made, START)
