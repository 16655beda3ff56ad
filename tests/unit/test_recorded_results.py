"""What the project measured on live servers is kept as it was written, and the page quotes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.live.methods import OURS_WARM
from benchmarks.live.records import Results
from benchmarks.live.report import cells, lines

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "benchmarks" / "results"
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def live() -> Results:
    results = Results(KEPT / "knob_live.jsonl")
    assert results.damaged_lines == 0
    return results


def test_the_page_tells_how_far_ours_is_from_the_best_peer_in_every_cell(live: Results) -> None:
    told = [line for line in lines(live) if line.method.startswith(f"{OURS_WARM} - best peer")]
    assert {line.seed for line in told}
    missing = [line for line in told if line.gain not in PAGE]
    assert not missing


def test_no_live_trial_passed_the_memory_budget_or_touched_durability(live: Results) -> None:
    for record in (*live.parts.values(), *live.comparisons.values()):
        assert (list(record.violations), list(record.durability)) == ([], [])


def test_every_compared_cell_has_its_parts(live: Results) -> None:
    assert set(cells(live)) == set(live.comparisons)
