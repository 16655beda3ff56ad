"""Setting an earlier run aside: nothing lost, nothing foreign touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.commands.fresh_start import KEPT_RUNS, set_aside
from backend.config import Settings
from backend.errors import StoreError
from backend.lease import holder_name
from backend.telemetry import open_store


def _settings(root: Path, database: str = "telemetry.db") -> Settings:
    return Settings.model_validate(
        {
            "paths": {
                "data_dir": str(root),
                "logs_dir": str(root / "logs"),
                "policies_dir": str(root / "policies"),
                "steering_dir": str(root / "steering"),
                "telemetry_db": str(root / database),
            }
        }
    )


def _write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_with_nothing_there_nothing_is_made(tmp_path):
    root = tmp_path / "data"
    assert set_aside(_settings(root)) is None
    assert not root.exists()


def test_store_checkpoints_and_reports_go_to_the_shelf(tmp_path):
    moved = {
        "telemetry.db", "telemetry.db-wal", "telemetry.db-shm",
        "policies/knob/actor.keras", "final_report.json", "final_report.html",
        "steering/kept-samples.json",
    }  # fmt: skip
    stay = {"logs/optimizer.log", "postgres/PG_VERSION"}
    for name in moved | stay:
        _write(tmp_path / name, name)
    folder = set_aside(_settings(tmp_path))
    assert folder.parent == tmp_path / "earlier"
    assert _files(folder) == moved
    assert {name for name in _files(tmp_path) if not name.startswith("earlier")} == stay
    assert (folder / "telemetry.db-wal").read_text(encoding="utf-8") == "telemetry.db-wal"


@pytest.mark.parametrize("database", ["t", "p", "e", "telemetry", "[a-z]", "l*"])
def test_files_that_only_begin_like_the_store_stay(tmp_path, database):
    """A short or odd name of the store must not sweep up what lies beside it."""
    names = {
        "telemetry.db.backup", "template.txt", "postgres/PG_VERSION", "logs/optimizer.log",
        "earlier/kept/telemetry.db", "taxes.ods", "a",
    }  # fmt: skip
    for name in names:
        _write(tmp_path / name)
    store = _write(tmp_path / database)
    folder = set_aside(_settings(tmp_path, database))
    assert _files(folder) == {store.name}
    assert names <= _files(tmp_path)


def test_a_store_that_a_living_tuner_uses_stays(tmp_path):
    settings = _settings(tmp_path)
    store = open_store(settings.store_url)
    epoch = store.acquire_lease(holder_name(), 60.0)
    report = _write(tmp_path / "final_report.txt")
    with pytest.raises(StoreError, match="a run is under way") as raised:
        set_aside(settings)
    assert "Ctrl-C" in raised.value.remedy
    assert report.exists()
    assert not (tmp_path / "earlier").exists()
    store.release_lease(epoch)
    store.close()
    folder = set_aside(settings)
    assert (folder / "telemetry.db").exists()
    assert not (tmp_path / "telemetry.db").exists()


def test_only_the_newest_runs_are_kept(tmp_path):
    settings = _settings(tmp_path)
    folders = []
    for run in range(KEPT_RUNS + 3):
        _write(tmp_path / "telemetry.db", str(run))
        folders.append(set_aside(settings))
    shelf = sorted((tmp_path / "earlier").iterdir())
    assert shelf == folders[-KEPT_RUNS:]
    texts = [(folder / "telemetry.db").read_text(encoding="utf-8") for folder in shelf]
    assert texts == [str(run) for run in range(3, KEPT_RUNS + 3)]


def test_what_a_human_put_on_the_shelf_stays(tmp_path):
    settings = _settings(tmp_path)
    mine = {"earlier/a-good-run/telemetry.db", "earlier/README.txt"}
    for name in mine:
        _write(tmp_path / name)
    for _ in range(KEPT_RUNS + 2):
        _write(tmp_path / "telemetry.db")
        set_aside(settings)
    assert mine <= _files(tmp_path)
    assert len(list((tmp_path / "earlier").iterdir())) == KEPT_RUNS + 2


def test_a_store_in_postgresql_is_refused_without_its_password(tmp_path):
    settings = Settings.model_validate(
        {"paths": {"data_dir": str(tmp_path), "telemetry_db": "postgresql://u:s3cret@h/store"}}
    )
    with pytest.raises(StoreError, match="PostgreSQL URL") as raised:
        set_aside(settings)
    assert "s3cret" not in str(raised.value)
    assert raised.value.remedy


def test_a_store_in_memory_has_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "None")
    _write(tmp_path / ":memory:")
    for url in ("sqlite://", "sqlite:///:memory:"):
        settings = Settings.model_validate(
            {
                "paths": {
                    "data_dir": "data", "policies_dir": "data/policies", "telemetry_db": url,
                }
            }
        )  # fmt: skip
        assert set_aside(settings) is None
    assert _files(tmp_path) == {"None", ":memory:"}
