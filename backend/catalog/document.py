"""Write docs/knobs.md from the catalogue.

``python -m backend.catalog.document > docs/knobs.md``
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from backend.catalog.knobs import KNOBS_FILE, MANUAL_URL, NEWEST_MAJOR, OLDEST_MAJOR, read_catalog
from backend.catalog.never import NEVER
from backend.domain.quantities import format_quantity

_HEAD = f"""# The knobs

Every PostgreSQL setting that may be written at all, for versions {OLDEST_MAJOR} to {NEWEST_MAJOR}.
This page is made from `backend/catalog/postgresql/knobs.yaml` by
`python -m backend.catalog.document`; a test fails when it is out of date.

- **Range** is what we allow, inside the server's own limits. "of memory" and "per core" are of what
  the server's machine (or its cgroup) has; a range always includes the default. A value in brackets
  has a meaning of its own outside the range; the agent never proposes it.
- **Takes effect**: *session* and *reload* at once for all sessions that have not set their own,
  *restart* at the next start of the server.
- **Agent**: whether the knob agent turns it by default. A human may set every knob of this page.
- **Settle**: seconds after a change before measurements mean anything.
- Defaults are those of the newest version that differs; earlier ones follow in brackets.
"""

_FOOT = """
## Never touched

These are refused, whoever asks, with the reason. The names are patterns.

"""


def render() -> str:
    """Return the page as Markdown."""
    return _HEAD + "".join(_sections()) + _FOOT + "".join(_never())


def _sections() -> Iterator[str]:
    groups, items = read_catalog(KNOBS_FILE)
    for group, title in groups.items():
        yield f"\n## {title} (`{group}`)\n\n"
        yield "| Knob | Meaning | Default | Range | Takes effect | Risk | Agent | Settle |\n"
        yield "|---|---|---|---|---|---|---|---|\n"
        for item in items:
            if item["group"] == group:
                yield _row(item)


def _row(item: Mapping[str, Any]) -> str:
    name = item["name"]
    url = f"{MANUAL_URL}{item['page']}.html#GUC-{name.upper().replace('_', '-')}"
    cells = [
        f"[`{name}`]({url}){_versions(item)}",
        " ".join(item["description"].split()),
        _default(item),
        _range(item),
        _latest(item, "context"),
        item["risk"],
        "yes" if item["tunable"] else "no",
        f"{item.get('settle_s', 2):g} s",
    ]
    return "| " + " | ".join(cells) + " |\n"


def _versions(item: Mapping[str, Any]) -> str:
    versions = item.get("versions")
    if versions is None:
        return ""
    return f" (from {versions[0]})" if len(versions) == 1 else f" ({versions[0]} only)"


def _latest(item: Mapping[str, Any], key: str) -> str:
    text = str(item[key])
    for first, changes in sorted(item.get("since", {}).items()):
        if key in changes:
            text = f"{changes[key]} (before {first}: {text})"
    return text


def _default(item: Mapping[str, Any]) -> str:
    text = _value(item["default"], item)
    for first, changes in sorted(item.get("since", {}).items()):
        if "default" in changes:
            text = f"{_value(changes['default'], item)} (before {first}: {text})"
    return text


def _value(value: Any, item: Mapping[str, Any]) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str) or value in item.get("special", ()):
        return str(value)
    return format_quantity(value, item.get("unit"))


def _range(item: Mapping[str, Any]) -> str:
    if item["kind"] == "boolean":
        return "on, off"
    if item["kind"] == "categorical":
        return ", ".join(item["choices"])
    special = "".join(f" ({value})" for value in item.get("special", ()))
    return f"{_bound(item['low'], item)} to {_bound(item['high'], item)}{special}"


def _bound(bound: Any, item: Mapping[str, Any]) -> str:
    if not isinstance(bound, dict):
        return _value(bound, item)
    if "memory_share" in bound:
        text = f"{100 * bound['memory_share']:g} % of memory"
    else:
        text = f"{bound['cores']:g} per core"
    if "min" in bound:
        text += f", at least {_value(bound['min'], item)}"
    if "max" in bound:
        text += f", at most {_value(bound['max'], item)}"
    return text


def _never() -> Iterator[str]:
    for reason, patterns in NEVER.items():
        yield f"- **{reason[0].upper()}{reason[1:]}**: "
        yield ", ".join(f"`{pattern}`" for pattern in patterns) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
