"""A store in which every text that comes from outside is an attack on the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any

from tests.dashboard.fake_store import FakeStore

RUN = "window.__pwned=(window.__pwned||0)+1"
BELL, OVERRIDE, ZERO_WIDTH = "\x07", "\u202e", "\u200b"
ATTACK = (
    f"</script><script>{RUN}</script><img src=x onerror={RUN}><svg onload={RUN}>"
    f"<a href=javascript:{RUN}>a</a><a href='javascript:{RUN}'>b</a> "
    f'<a href="javascript:{RUN}">c</a><a href="https://evil.example/">d</a> '
    f"[md](javascript:{RUN}) ![m](x) **b** `c` "
    f"<iframe srcdoc='<script>{RUN}</script>'></iframe> {{{{7*7}}}} ${{7*7}} %s"
    f"{BELL}{OVERRIDE}kcatta{ZERO_WIDTH} \x1b[31mred\r\n"
)
FREE_TEXTS = frozenset(
    {
        "text", "quality_reasons", "reasons", "proposer", "actor", "detail", "message",
        "description",
        "source", "note", "server", "server_version", "safety_reasons", "activity", "fault",
        "hindrance", "reason", "default_plan", "steered_plan", "functions", "role", "author",
        "result", "group", "risk", "unit", "origin",
    }
)  # fmt: skip
LEVELS = ("info", "warning", "error")


def poisoned(value: Any, name: str = "") -> Any:
    """The record with an attack in every free text, and a script for every link."""
    if isinstance(value, Enum):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {
            f.name: poisoned(getattr(value, f.name), f.name)
            for f in dataclasses.fields(value)
            if f.init
        }
        return dataclasses.replace(value, **changes)
    if isinstance(value, str):
        if name == "doc_url":
            return f"javascript:{RUN}"
        return f"{value} {ATTACK}" if name in FREE_TEXTS and value else value
    if isinstance(value, (list, tuple)):
        return type(value)(poisoned(item, name) for item in value)
    if isinstance(value, Mapping):
        return {key: poisoned(item, key) for key, item in value.items()}
    return value


def hostile_store() -> FakeStore:
    """The store of a run whose database, clients and errors are all hostile."""
    store = FakeStore()
    for name, value in vars(store).items():
        if name.startswith("_") and value:
            setattr(store, name, poisoned(value))
    store._knobs = [
        dataclasses.replace(k, unit=original.unit)
        for k, original in zip(store._knobs, FakeStore()._knobs, strict=True)
    ]
    store.beat()
    return store
