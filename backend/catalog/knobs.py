"""The knob catalogue: which PostgreSQL settings may be written, within which bounds.

Reads ``postgresql/knobs.yaml`` (its head explains the fields) and makes it concrete for one major
version and one machine.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from backend.catalog.never import never_reason, refuse_if_never
from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue
from backend.domain.quantities import parse_quantity, unit_size
from backend.domain.server import HostFacts
from backend.errors import CatalogError, KnobBoundsError, UnknownKnobError

OLDEST_MAJOR = 14
NEWEST_MAJOR = 18
ASSUMED_MEMORY_BYTES = 8 * 1024**3
ASSUMED_CPU_COUNT = 4.0
MANUAL_URL = "https://www.postgresql.org/docs/current/"
KNOBS_FILE = Path(__file__).parent / "postgresql" / "knobs.yaml"

_REQUIRED = {"name", "group", "kind", "default", "context", "risk", "tunable", "page",
             "description"}  # fmt: skip
_OPTIONAL = {"unit", "low", "high", "special", "scale", "choices", "settle_s", "versions", "since"}
_VOCABULARY = {
    "kind": ("integer", "real", "boolean", "categorical"),
    "scale": ("linear", "log"),
    "context": ("session", "reload", "restart"),
    "risk": ("low", "medium", "high"),
}
_BOUND_KEYS = {"memory_share", "cores", "min", "max"}


@dataclass(frozen=True)
class CatalogEntry:
    """A catalogued knob.

    Args:
        knob: the knob, with bounds for this machine.
        group: its family (``memory``, ``wal``, ...).
        tunable: whether the agent turns it by default; a human may set every catalogued knob.
    """

    knob: Knob
    group: str
    tunable: bool

    @property
    def name(self) -> str:
        """The setting's name."""
        return self.knob.name


@dataclass(frozen=True)
class KnobCatalog:
    """The writable knobs of one server version on one machine, in the file's order.

    Args:
        version: the server's major version.
        entries: the knobs.
        groups: group → what it is about.
    """

    version: int
    entries: tuple[CatalogEntry, ...]
    groups: Mapping[str, str]
    _by_name: Mapping[str, CatalogEntry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {entry.name: entry for entry in self.entries})

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @property
    def names(self) -> tuple[str, ...]:
        """The knobs' names, in order."""
        return tuple(entry.name for entry in self.entries)

    def knob(self, name: str) -> CatalogEntry:
        """Return the entry of that name.

        Raises:
            NeverKnobError: the setting is on the never-list.
            UnknownKnobError: it is not catalogued for this version.
        """
        entry = self._by_name.get(name)
        if entry is not None:
            return entry
        refuse_if_never(name)
        raise UnknownKnobError(
            f"{name!r:.80} is not one of the {len(self.entries)} writable knobs of "
            f"PostgreSQL {self.version}",
            remedy="only catalogued knobs are writable; docs/knobs.md lists them",
        )

    def check(self, name: str, value: object) -> KnobValue:
        """Return a requested value in the knob's native unit and type.

        Text may carry a unit (``64MB``); a whole number is rounded to as the server does it.

        Raises:
            NeverKnobError, UnknownKnobError, KnobBoundsError: the request is refused, and why.
        """
        knob = self.knob(name).knob
        if isinstance(value, str) and knob.kind in ("integer", "real"):
            return knob.validate(native_number(knob, value))
        return knob.validate(value)

    def check_all(self, values: Mapping[str, object]) -> KnobConfig:
        """Check several requested values; the first offence is raised."""
        return KnobConfig({name: self.check(name, value) for name, value in values.items()})

    def space(
        self,
        tunable_only: bool = True,
        include_restart: bool = False,
        families: Collection[str] | None = None,
        max_settle_s: float = math.inf,
    ) -> KnobSpace:
        """Return the knobs that a learner may turn.

        Args:
            tunable_only: leave out what only humans turn.
            include_restart: with the knobs that need a restart.
            families: only these groups; None for all.
            max_settle_s: leave out what takes longer to show its effect, restarts aside.

        Raises:
            CatalogError: no such family, or nothing is left.
        """
        unknown = set(families or ()) - set(self.groups)
        if unknown:
            raise CatalogError(
                f"no knob family named {', '.join(sorted(unknown))}",
                remedy=f"the families are {', '.join(self.groups)}",
            )
        chosen = [
            entry.knob
            for entry in self.entries
            if (entry.tunable or not tunable_only)
            and (entry.knob.context != "restart" or include_restart)
            and (families is None or entry.group in families)
            and (entry.knob.settle_s <= max_settle_s or entry.knob.context == "restart")
        ]
        if not chosen:
            raise CatalogError("this choice of knobs is empty")
        return KnobSpace(chosen)


def native_number(knob: Knob, text: str) -> float:
    """Read a number with or without a unit, as the server would, in the knob's native unit.

    Whole numbers are rounded half to even, as the server's ``rint`` does it.

    Raises:
        KnobBoundsError: the text is not a number of the knob's dimension.
    """
    try:
        number = parse_quantity(text, knob.unit)
    except ValueError as error:
        raise KnobBoundsError(
            f"{knob.name} = {text[:80]!r}: {error}"[:300],
            remedy=f"give a number in {knob.unit}" if knob.unit else "give a plain number",
        ) from None
    if not math.isfinite(number):
        raise KnobBoundsError(f"{knob.name} = {text[:80]!r} is not a finite number")
    return float(round(number)) if knob.kind == "integer" else number


def load_catalog(version: int, host: HostFacts) -> KnobCatalog:
    """Load the catalogue for a server.

    Args:
        version: the server's version, as ``server_version_num`` (170010) or as a major (17).
            A newer major than we know gets the newest that we know: good enough to look at,
            and nothing is written there (see ``db_connector``).
        host: the machine, for relative bounds. Where its size is not known (0: a server elsewhere)
            a middling one is assumed; the memory budget still holds.

    Raises:
        CatalogError: the file is malformed, or the version is older than 14.
    """
    major = version // 10000 if version >= 10000 else version
    if major < OLDEST_MAJOR:
        raise CatalogError(
            f"PostgreSQL {major} is older than the oldest catalogued version, {OLDEST_MAJOR}"
        )
    groups, raw = read_catalog(KNOBS_FILE)
    host = replace(
        host,
        memory_bytes=host.memory_bytes or ASSUMED_MEMORY_BYTES,
        cpu_count=host.cpu_count or ASSUMED_CPU_COUNT,
    )
    known = min(major, NEWEST_MAJOR)
    entries = tuple(
        _entry(_for_version(item, known), groups, host) for item in raw if _exists(item, known)
    )
    names = [entry.name for entry in entries]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise CatalogError(f"{KNOBS_FILE.name}: catalogued twice: {', '.join(doubled)}")
    return KnobCatalog(version=major, entries=entries, groups=groups)


@functools.lru_cache(maxsize=4)
def read_catalog(path: Path) -> tuple[Mapping[str, str], tuple[Mapping[str, Any], ...]]:
    """Read a catalogue file: its groups and its raw, checked entries.

    Raises:
        CatalogError: the file cannot be read or is malformed.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # nosec B506
        return parse_catalog(data)
    except (OSError, yaml.YAMLError) as error:
        raise CatalogError(f"cannot read the knob catalogue {path}: {error}") from error


def parse_catalog(data: Any) -> tuple[Mapping[str, str], tuple[Mapping[str, Any], ...]]:
    """Check the shape of the file's content; return its groups and its raw entries.

    Raises:
        CatalogError: what is wrong, and in which entry.
    """
    if not isinstance(data, dict) or set(data) != {"groups", "knobs"}:
        raise CatalogError("a knob catalogue holds the keys groups and knobs")
    groups, items = data["groups"], data["knobs"]
    if not isinstance(groups, dict) or not isinstance(items, list):
        raise CatalogError("groups is a mapping, knobs is a list")
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise CatalogError(f"not a knob with a name: {item!r:.80}")
        name = item["name"]
        missing, extra = _REQUIRED - set(item), set(item) - _REQUIRED - _OPTIONAL
        if missing or extra:
            raise CatalogError(
                f"knob {name}: missing {sorted(missing)}, unknown {sorted(extra)} fields"
            )
        if item["group"] not in groups:
            raise CatalogError(f"knob {name}: no group named {item['group']!r}")
        reason = never_reason(name)
        if reason is not None:
            raise CatalogError(f"knob {name} is on the never-list: {reason}")
        for variant in (item, *item.get("since", {}).values()):
            for key, allowed in _VOCABULARY.items():
                if key in variant and variant[key] not in allowed:
                    raise CatalogError(f"knob {name}: {key} = {variant[key]!r}, not of {allowed}")
    return groups, tuple(items)


def _exists(item: Mapping[str, Any], major: int) -> bool:
    versions = item.get("versions", [OLDEST_MAJOR])
    return bool(versions[0] <= major <= (versions[1] if len(versions) > 1 else NEWEST_MAJOR))


def _for_version(item: Mapping[str, Any], major: int) -> Mapping[str, Any]:
    merged = dict(item)
    for first, changes in sorted(item.get("since", {}).items()):
        if major >= first:
            merged.update(changes)
    return merged


def _entry(item: Mapping[str, Any], groups: Mapping[str, str], host: HostFacts) -> CatalogEntry:
    name = item["name"]
    low = _bound(item, "low", host)
    high = _bound(item, "high", host)
    default = item["default"]
    special = item.get("special", ())
    if low is not None and high is not None:
        high = max(high, 2 * low)  # a tiny machine must not turn the bounds around
        if default not in special:
            low, high = min(low, float(default)), max(high, float(default))
    try:
        knob = Knob(
            name=name,
            kind=item["kind"],
            low=low,
            high=high,
            scale=item.get("scale", "linear"),
            unit=item.get("unit"),
            default=default,
            choices=item.get("choices", ()),
            special=special,
            context=item["context"],
            risk=item["risk"],
            description=" ".join(item["description"].split()),
            doc_url=f"{MANUAL_URL}{item['page']}.html#GUC-{name.upper().replace('_', '-')}",
            settle_s=float(item.get("settle_s", 2.0)),
        )
    except KnobBoundsError as error:
        raise CatalogError(f"knob {name}: {error.message}") from error
    return CatalogEntry(knob=knob, group=item["group"], tunable=bool(item["tunable"]))


def _bound(item: Mapping[str, Any], key: str, host: HostFacts) -> float | None:
    raw = item.get(key)
    if raw is None or (isinstance(raw, (int, float)) and not isinstance(raw, bool)):
        return raw
    if not isinstance(raw, dict) or not set(raw) <= _BOUND_KEYS:
        raise CatalogError(f"knob {item['name']}: {key} = {raw!r} is not a bound")
    if "cores" in raw:
        bound = raw["cores"] * host.cpu_count
    elif "memory_share" in raw:
        bound = raw["memory_share"] * host.memory_bytes / _unit_bytes(item)
    else:
        raise CatalogError(f"knob {item['name']}: {key} = {raw!r} names neither a share nor cores")
    bound = min(max(bound, raw.get("min", bound)), raw.get("max", math.inf))
    return math.floor(bound) if item["kind"] == "integer" else float(bound)


def _unit_bytes(item: Mapping[str, Any]) -> float:
    try:
        dimension, size = unit_size(str(item.get("unit")))
    except ValueError as error:
        raise CatalogError(f"knob {item['name']}: {error}") from error
    if dimension != "bytes":
        raise CatalogError(f"knob {item['name']}: a share needs a unit of bytes")
    return size
