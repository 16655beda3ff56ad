"""Write docs/configuration.md from the settings.

``python -m backend.settings.document > docs/configuration.md``
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from backend.config import Settings
from backend.settings.loading import ENV_PREFIX
from backend.settings.section import is_section

_HEAD = f"""# The settings

This page is made from `backend/config.py` by `python -m backend.settings.document`; a test fails
when it is out of date. `python -m backend.config` prints the same as config.yaml.example.

Settings come from, each winning over the one before:

1. the defaults of this page;
2. `config.yaml` in the working directory, or the file that `--config` names;
3. the environment: `{ENV_PREFIX}<SECTION>__<KEY>`, so `safety.query_timeout` is
   `{ENV_PREFIX}SAFETY__QUERY_TIMEOUT`; lists and mappings as JSON; empty means "not set";
4. `DATABASE_URL` (or `--dsn`), for the server to tune: `postgresql://user@host:5432/dbname`.
   Options after a `?` are refused; set `PGSSLMODE` and the like in the environment instead;
5. the other options of the command line.

A key that is not on this page is refused, and so is a value out of its range; of the environment,
variables whose section is unknown are left alone. Times are in seconds unless the key says
otherwise. The password is never shown, logged or stored.
"""


def render() -> str:
    """Return the page as Markdown."""
    return _HEAD + "".join(_section(Settings, ""))


def _section(model: type[BaseModel], path: str) -> Iterator[str]:
    plain: list[tuple[str, FieldInfo]] = []
    nested: list[tuple[str, FieldInfo]] = []
    for name, info in model.model_fields.items():
        (nested if is_section(info) else plain).append((name, info))
    if path:
        yield f"\n## `{path}`\n\n{(model.__doc__ or '').strip().splitlines()[0]}\n"
    if plain:
        yield "\n| Key | Default | Range | Meaning |\n|---|---|---|---|\n"
    for name, info in plain:
        key = f"{path}.{name}" if path else name
        yield f"| `{key}` | {_default(info)} | {_range(info)} | {info.description} |\n"
    for name, info in nested:
        yield from _section(_model(info), f"{path}.{name}" if path else name)


def _model(info: FieldInfo) -> type[BaseModel]:
    assert isinstance(info.annotation, type)  # is_section has looked
    return info.annotation


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None:
        return "none"
    return f"`{json.dumps(value, default=str)}`" if not isinstance(value, Path) else f"`{value}`"


def _range(info: FieldInfo) -> str:
    choices = _choices(info.annotation)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    low = high = ""
    for bound in info.metadata:
        if getattr(bound, "ge", None) is not None:
            low = f"{_number(bound.ge)}"
        if getattr(bound, "gt", None) is not None:
            low = f"above {_number(bound.gt)}"
        if getattr(bound, "le", None) is not None:
            high = f"to {_number(bound.le)}"
        if getattr(bound, "lt", None) is not None:
            high = f"to below {_number(bound.lt)}"
    if low and not high:
        return low if low.startswith("above") else f"from {low}"
    return f"{low} {high}".strip()


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _choices(annotation: Any) -> tuple[str, ...]:
    if annotation is bool:
        return ("true", "false")
    if get_origin(annotation) is Literal:
        return tuple(str(choice) for choice in get_args(annotation))
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, Enum):
            return tuple(str(member.value) for member in part)
    return ()


if __name__ == "__main__":
    sys.stdout.write(render())
