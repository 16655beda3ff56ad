"""The workload's process: a store in trouble costs a record, never the load."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from backend.config import Settings
from backend.errors import StoreError
from backend.processes import workload
from backend.run_options import RunOptions


def test_a_locked_store_does_not_end_the_load(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorded: list[object] = []
    offered = SimpleNamespace(scale=0.0)

    class Store:
        locked = True

        def add_client_intervals(self, records: list[object]) -> None:
            if self.locked:
                raise StoreError("database is locked")
            recorded.append(records)

    store = Store()

    def run(_url: object, wanted: object, _stop: object, on_interval: Callable[[object], None]):
        offered.scale = wanted.scale  # type: ignore[attr-defined]
        on_interval(SimpleNamespace(classes=()))
        store.locked = False
        on_interval(SimpleNamespace(classes=()))

    monkeypatch.setattr(workload, "run_workload", run)
    monkeypatch.setattr(workload, "embedded_server", lambda _: SimpleNamespace(dsn=lambda: ""))
    settings = Settings.model_validate({"workload": {"data_scale_factor": 0.5}})
    stop = threading.Event()
    assert workload.workload(settings, RunOptions(), store, stop) == 0  # type: ignore[arg-type]
    assert recorded == [[]]
    assert offered.scale == 0.5
    assert "database is locked" in caplog.text
