"""The knob catalogue agrees with real servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backend.catalog import load_catalog, never_reason
from backend.catalog.entries import same_value
from tests.integration.tuned_servers import HOST, Tuner

pytestmark = pytest.mark.integration
LEFT_OUT = {"lz4", "zstd", "io_uring"}
"""Choices that depend on how the server was built."""


def test_every_entry_agrees_with_pg_settings(
    tuner: Tuner, human: Callable[..., list[tuple[Any, ...]]]
) -> None:
    rows = human(
        "SELECT name, vartype, coalesce(unit, ''), min_val, max_val, boot_val, context, enumvals "
        "FROM pg_settings"
    )
    settings = {row[0]: row[1:] for row in rows}
    kinds = {"bool": "boolean", "enum": "categorical"}
    contexts = {"postmaster": "restart", "sighup": "reload"}
    for entry in load_catalog(tuner.target.describe().version, HOST):
        knob = entry.knob
        assert knob.name in settings, f"{knob.name}: no such setting"
        vartype, unit, low, high, boot, context, choices = settings[knob.name]
        assert knob.kind == kinds.get(vartype, vartype), knob.name
        assert (knob.unit or "") == unit, knob.name
        assert knob.context == contexts.get(context, "session"), knob.name
        if context not in contexts:
            assert context in ("user", "superuser"), knob.name
        if knob.kind in ("integer", "real"):
            assert float(low) <= knob.bounds[0] < knob.bounds[1] <= float(high), knob.name
            assert all(float(low) <= float(s) <= float(high) for s in knob.special), knob.name
            assert same_value(float(boot), float(knob.default or 0)), knob.name
        elif knob.kind == "categorical":
            assert set(knob.choices) - set(choices) <= LEFT_OUT, knob.name
            assert knob.default == boot, knob.name
        else:
            assert knob.default is (boot == "on"), knob.name


def test_the_never_list_names_what_the_servers_have(
    human: Callable[..., list[tuple[Any, ...]]],
) -> None:
    names = [row[0] for row in human("SELECT name FROM pg_settings WHERE context <> 'internal'")]
    never = {name for name in names if never_reason(name)}
    assert {"fsync", "full_page_writes", "autovacuum", "max_connections", "port"} <= never
    assert len(never) > 150
