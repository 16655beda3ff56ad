"""The live steering benchmark on a real server, in very little time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import ServerConnectionError
from benchmarks import steering_live
from benchmarks.live_steering import search
from tests.integration.conftest import open_folder

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SCALE = 0.005
CLASSES = ["week_by_category", "never_bought", "order_by_id"]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as name:
        yield Path(name)
        EmbeddedPostgres(Path(name) / f"scale-{SCALE:g}").destroy()


@pytest.fixture
def command(folder: Path) -> list[str]:
    return [
        "--scale", str(SCALE), "--classes", ",".join(CLASSES), "--minutes", "0.25", "--share", "1",
        "--blocks", "2", "--unseen", "--halves", "1",
        "--out", str(folder / "pieces.jsonl"), "--data-dir", str(folder),
    ]  # fmt: skip


def pieces(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "pieces.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line]


def test_it_goes_on_where_it_was_broken_off(
    folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    found: list[str] = []
    whole = search.search_class

    def interrupted(bench: object, name: str) -> search.ClassOptimum:
        if found:
            raise KeyboardInterrupt
        found.append(name)
        return whole(bench, name)  # type: ignore[arg-type]

    monkeypatch.setattr(search, "search_class", interrupted)
    assert steering_live.main(command) == 130
    assert not EmbeddedPostgres(folder / f"scale-{SCALE:g}").is_running()
    assert [piece["cell"]["subject"] for piece in pieces(folder)] == found  # type: ignore[index]

    monkeypatch.setattr(search, "search_class", whole)
    assert steering_live.main(command) == 0
    stages = [piece["cell"]["stage"] for piece in pieces(folder)]  # type: ignore[index]
    assert {stage: stages.count(stage) for stage in stages} == {
        "search": 3, "single": 1, "greedy": 1, "ours": 1, "compare": 6, "unseen": 1,
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "ours by class" in said
    assert "first guesses for classes never seen" in said


def test_what_was_measured_is_consistent_and_not_measured_again(
    folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert steering_live.main(command) == 0
    by_stage = {piece["cell"]["stage"]: piece["found"] for piece in pieces(folder)}  # type: ignore[index]
    explored = by_stage["ours"]
    assert set(explored["served"]) == set(CLASSES)
    assert explored["probes"] > 0
    assert 0 < explored["spent_s"] <= explored["real_s"]
    proven = {name: hint_set for _, name, hint_set in explored["found"]}
    assert {n: h for n, h in explored["served"].items() if h != "default"}.items() <= proven.items()
    for piece in pieces(folder):
        if piece["cell"]["stage"] == "compare":  # type: ignore[index]
            assert piece["found"]["stopped"] == piece["found"]["other"] == []  # type: ignore[index]
            assert min(piece["found"]["seconds"].values()) > 0  # type: ignore[index]
    before = pieces(folder)

    def fail(*_: object) -> None:
        raise ServerConnectionError("nothing is to be measured")

    monkeypatch.setattr("benchmarks.live_steering.bench.StatementRunner.run", fail)
    assert steering_live.main(command) == 0
    assert pieces(folder) == before
