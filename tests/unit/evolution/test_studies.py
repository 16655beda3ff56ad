"""Studies of earlier evolutions: the newest are kept."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from backend.evolution import preparation
from backend.evolution.preparation import forget_old_studies, study_file


def test_the_newest_studies_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "STUDIES_KEPT", 2)
    url = study_file(tmp_path / "evolution.db")
    forget_old_studies(url)  # there are none yet
    storage = optuna.storages.RDBStorage(str(url))
    for name in ("c", "a", "b"):
        study = optuna.create_study(storage=storage, study_name=name)
        study.tell(study.ask(), 1.0)
    forget_old_studies(url)
    assert set(optuna.get_all_study_names(storage)) == {"a", "b"}
    assert len(optuna.load_study(study_name="b", storage=storage).trials) == 1
    storage.engine.dispose()
