"""The hint-set catalogue: which planner settings may be tried and served for one statement.

Reads ``postgresql/hint_sets.yaml`` (its head explains the fields) and makes it concrete for one
major version and one machine. A hint set can only hold settings that the knob catalogue has, with
context ``session``, inside the bounds that it gives them: any role may SET those.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from backend.catalog.entries import entry_text
from backend.catalog.knobs import NEWEST_MAJOR, KnobCatalog, load_catalog
from backend.domain.plans import DEFAULT_HINT_SET, HintSet
from backend.domain.server import HostFacts
from backend.errors import CatalogError, KnobBoundsError, KnobError, UnknownKnobError

HINT_SETS_FILE = Path(__file__).parent / "postgresql" / "hint_sets.yaml"

_SECTIONS = {
    "toggles": {"name", "group", "settings", "description"},
    "families": {"name", "description", "combine"},
}
_KNOB_GROUPS = ("planner-costs", "planner-methods", "parallelism", "memory")
# Big enough for every toggle of the file: what is out of bounds here is a mistake of the file.
_AMPLE_HOST = HostFacts(memory_bytes=1 << 42, cpu_count=256.0)


@dataclass(frozen=True)
class Toggle:
    """One step away from a plan: a few settings that belong together.

    Args:
        name: hint sets are named after it.
        group: ``joins``, ``scans``, ``memory``, ...
        settings: setting → value as SQL text.
        description: one line of meaning.
    """

    name: str
    group: str
    settings: Mapping[str, str]
    description: str


@dataclass(frozen=True)
class HintSetCatalog:
    """The hint sets of one server version on one machine.

    Args:
        version: the server's major version.
        toggles: the single steps by name, in the file's order.
        groups: group of toggles → what it is about.
        hint_sets: the arms, no two with the same settings; the first is the default plan.
        knobs: what bounds the settings.
    """

    version: int
    toggles: Mapping[str, Toggle]
    groups: Mapping[str, str]
    hint_sets: tuple[HintSet, ...]
    knobs: KnobCatalog

    def __iter__(self) -> Iterator[HintSet]:
        return iter(self.hint_sets)

    def __len__(self) -> int:
        return len(self.hint_sets)

    def combine(self, names: Sequence[str]) -> HintSet:
        """Return the hint set of these toggles together; of none the default plan.

        Raises:
            CatalogError: no such toggle, or two of them set one setting to different values.
        """
        unknown = [name for name in names if name not in self.toggles]
        if unknown:
            raise CatalogError(
                f"no toggle named {unknown[0]!r:.80} for PostgreSQL {self.version} here",
                remedy=f"the toggles are {', '.join(self.toggles)}",
            )
        return _combined([self.toggles[name] for name in names])

    def check(self, hint_set: HintSet) -> HintSet:
        """Return a hint set that came from elsewhere (a store, a person) if it may be used here.

        Raises:
            KnobError: it holds a setting that no toggle has, or a value out of bounds.
        """
        known = {setting for toggle in self.toggles.values() for setting in toggle.settings}
        for setting, value in hint_set.settings.items():
            if setting not in known:
                raise UnknownKnobError(
                    f"hint set {hint_set.name}: {setting} is in no hint set of PostgreSQL "
                    f"{self.version}",
                    remedy=f"the settings are {', '.join(sorted(known))}",
                )
            self.knobs.check(setting, value)
        return hint_set


def load_hint_sets(version: int, host: HostFacts) -> HintSetCatalog:
    """Load the catalogue for a server.

    Args:
        version: the server's version, as ``server_version_num`` (170010) or as a major (17); a
            newer major than we know gets the hint sets of the newest that we know.
        host: the machine, for bounds relative to it.

    Raises:
        CatalogError: the file is malformed, or the version is older than 14.
    """
    groups, every_toggle, combinations = read_hint_sets(HINT_SETS_FILE)
    knobs = load_catalog(version, host)
    toggles = {name: t for name, t in every_toggle.items() if _fits(t, knobs)}
    arms: dict[tuple[tuple[str, str], ...], HintSet] = {(): DEFAULT_HINT_SET}
    for names in combinations:
        if all(name in toggles for name in names):
            hint_set = _combined([toggles[name] for name in names])
            arms.setdefault(tuple(hint_set.settings.items()), hint_set)
    return HintSetCatalog(knobs.version, toggles, groups, tuple(arms.values()), knobs)


HintSetFile = tuple[Mapping[str, str], Mapping[str, Toggle], tuple[tuple[str, ...], ...]]


@functools.lru_cache(maxsize=4)
def read_hint_sets(path: Path) -> HintSetFile:
    """Read a catalogue file; see :func:`parse_hint_sets`.

    Raises:
        CatalogError: the file cannot be read or is malformed.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return parse_hint_sets(yaml.load(path.read_text(encoding="utf-8"), Loader=loader))  # nosec B506
    except (OSError, yaml.YAMLError) as error:
        raise CatalogError(f"cannot read the hint-set catalogue {path}: {error}") from error


def parse_hint_sets(data: Any) -> HintSetFile:
    """Check the file's content.

    Returns:
        The groups; all toggles by name; the toggles' names of each hint set.

    Raises:
        CatalogError: what is wrong, and in which entry.
    """
    if not isinstance(data, dict) or set(data) != {"groups", *_SECTIONS}:
        raise CatalogError("a hint-set catalogue holds the keys groups, toggles and families")
    groups = data["groups"]
    if not isinstance(groups, dict):
        raise CatalogError("groups is a mapping")
    knobs = load_catalog(NEWEST_MAJOR, _AMPLE_HOST)
    toggles: dict[str, Toggle] = {}
    for item in _items(data, "toggles"):
        if item["name"] in toggles or item["group"] not in groups:
            raise CatalogError(
                f"toggle {item['name']}: named twice, or no group named {item['group']!r}"
            )
        toggles[item["name"]] = _toggle(item, knobs)
    combinations: list[tuple[str, ...]] = []
    for item in _items(data, "families"):
        combinations += _combinations(item, toggles)
    return groups, toggles, tuple(combinations)


def _items(data: Mapping[str, Any], section: str) -> Iterator[Mapping[str, Any]]:
    if not isinstance(data[section], list):
        raise CatalogError(f"{section} is a list")
    for item in data[section]:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise CatalogError(f"{section}: not an entry with a name: {item!r:.80}")
        if set(item) != _SECTIONS[section]:
            raise CatalogError(
                f"{section}: {item['name']} has the fields {sorted(item)}, not "
                f"{sorted(_SECTIONS[section])}"
            )
        yield item


def _toggle(item: Mapping[str, Any], knobs: KnobCatalog) -> Toggle:
    name, settings = item["name"], item["settings"]
    if not isinstance(settings, dict) or not settings:
        raise CatalogError(f"toggle {name}: settings is a mapping with an entry or more")
    texts = {setting: entry_text(value) for setting, value in settings.items()}
    try:
        HintSet(name, texts)
        for setting, text in texts.items():
            knobs.check(setting, text)
            entry = knobs.knob(setting)
            if entry.group not in _KNOB_GROUPS or entry.knob.context != "session":
                raise CatalogError(f"toggle {name}: {setting} is no planner setting of a session")
    except KnobError as error:
        raise CatalogError(f"toggle {name}: {error.message}") from error
    return Toggle(name, item["group"], texts, " ".join(str(item["description"]).split()))


def _combinations(
    family: Mapping[str, Any], toggles: Mapping[str, Toggle]
) -> Iterator[tuple[str, ...]]:
    """Yield the toggles' names of each hint set of a family."""
    factors = family["combine"]
    lists = factors if isinstance(factors, list) else []
    if not lists or not all(isinstance(factor, list) and factor for factor in lists):
        raise CatalogError(f"family {family['name']}: combine is a list of lists")
    for chosen in itertools.product(*lists):
        names = tuple(n for part in chosen if part is not None for n in str(part).split("+"))
        unknown = [name for name in names if name not in toggles]
        if unknown or len(set(names)) != len(names):
            raise CatalogError(
                f"family {family['name']}: {'+'.join(names)} names what is no toggle, or one twice"
            )
        _combined([toggles[name] for name in names])
        yield names


def _fits(toggle: Toggle, knobs: KnobCatalog) -> bool:
    """Whether this version knows the settings and this machine is big enough for the values."""
    try:
        for setting, text in toggle.settings.items():
            knobs.check(setting, text)
    except (UnknownKnobError, KnobBoundsError):
        return False
    return True


def _combined(toggles: Sequence[Toggle]) -> HintSet:
    settings: dict[str, str] = {}
    for toggle in toggles:
        for setting, value in toggle.settings.items():
            if settings.setdefault(setting, value) != value:
                raise CatalogError(
                    f"{setting} cannot be both {settings[setting]} and {value} in "
                    f"{'+'.join(t.name for t in toggles)}"
                )
    return HintSet("+".join(t.name for t in toggles), settings) if toggles else DEFAULT_HINT_SET
