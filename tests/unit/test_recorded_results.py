"""What the project measured on live servers is kept as it was written, and the page quotes it."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.filter_experiment.live import read_trials
from benchmarks.live.methods import OURS_WARM
from benchmarks.live.records import Results
from benchmarks.live.report import ALL, cells, lines

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
LIVE = sorted(RESULTS.glob("knob_live*.jsonl"))
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").replace("**", "")


def test_there_are_live_results() -> None:
    assert LIVE


@pytest.fixture(scope="module", params=LIVE, ids=lambda path: path.stem)
def live(request: pytest.FixtureRequest) -> Results:
    results = Results(request.param)
    assert results.damaged_lines == 0
    return results


def test_the_page_tells_how_far_ours_is_from_the_best_peer_in_every_cell(live: Results) -> None:
    told = [line for line in lines(live) if line.method.startswith(f"{OURS_WARM} - best peer")]
    assert {line.seed for line in told}
    missing = [line for line in told if line.gain not in PAGE]
    assert not missing


def test_the_page_has_the_row_of_every_tuner(live: Results) -> None:
    kept = cells(live)
    rows = []
    for line in lines(live):
        cell = kept.get((line.workload, int(line.seed))) if line.seed != ALL else None
        if cell is None or not (part := cell.parts.get(line.method)) or not part.evaluations:
            continue
        indexes = [evaluation.objective for evaluation in part.evaluations]
        first = f"{indexes[0]:.3f} | {fmean(indexes[:10]):.3f}"
        found = (line.trials, line.gain, line.regret, line.mean_index, first, line.harmful)
        rows.append(f"| {' | '.join(found)} | {line.worst} |")
    assert rows
    assert [row for row in rows if row not in PAGE] == []


def test_no_live_trial_passed_the_memory_budget_or_touched_durability(live: Results) -> None:
    for record in (*live.parts.values(), *live.comparisons.values()):
        assert (list(record.violations), list(record.durability)) == ([], [])


def test_every_compared_cell_has_its_parts(live: Results) -> None:
    assert set(cells(live)) == set(live.comparisons)


def test_no_live_trial_of_two_equal_configurations_was_promoted() -> None:
    trials = read_trials(RESULTS / "sample_filter_live.jsonl")
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.verdict for trial in trials} <= {"reject", "inconclusive"}
