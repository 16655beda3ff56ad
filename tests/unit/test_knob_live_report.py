"""The table of the live comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import knob_live
from benchmarks.live.records import Pace, Results
from benchmarks.live.report import ALL, cells, lines, table
from tests.live_comparison import PROTOCOL, compared, part


def report_results(tmp_path: Path) -> Results:
    results = Results(tmp_path / "results.jsonl")
    for seed in (0, 1):
        ours, smac = {"work_mem": 8}, {"work_mem": 9}
        finished = (
            part("defaults", seed=seed),
            part("smac3", (1.5, 0.9, 0.7), smac, seed),
            part("ours", (0.8, 0.6), ours, seed),
        )
        for done in finished:
            results.add_part(done.method, done)
        ratios: dict[str, list[float | None]] = {
            "defaults": [1.0, 1.0, 1.0],
            "smac3": [0.70, 0.72, 0.74],
            "ours": [0.60, 0.62, 0.58],
        }
        results.add_comparison(compared(ratios, seed, ours=ours, smac3=smac))
    return results


def test_the_table_has_the_cells_numbers(tmp_path: Path) -> None:
    found = {(line.seed, line.method): line for line in lines(report_results(tmp_path))}
    ours, smac = found["0", "ours"], found["0", "smac3"]
    assert ours.gain.startswith("+0.400 [")
    assert smac.gain.startswith("+0.280 [")
    assert smac.regret == f"{(1.5 + 0.9 + 0.7) - 3 * 0.6:.2f}"
    assert ours.regret == f"{(0.8 + 0.6) - 2 * 0.6:.2f}"
    assert (smac.harmful, smac.worst, smac.trials) == ("1", "+0.50", "3")
    assert found["0", "defaults"].gain == "0 (reference)"
    assert found["0", "ours - best peer (smac3)"].gain.startswith("+0.120 [")


def test_the_table_ends_a_workload_with_all_its_seeds(tmp_path: Path) -> None:
    found = {line.method: line for line in lines(report_results(tmp_path)) if line.seed == ALL}
    assert found["ours"].gain.startswith("+0.400 [")
    assert found["ours"].gain.endswith("sd 0.000")
    assert found["smac3"].harmful == "2"
    assert found["ours - best peer (smac3)"].gain.startswith("+0.120 [")


def test_a_method_that_came_back_to_the_defaults_is_said_so(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.add_part("a", part("defaults"))
    results.add_part("b", part("tpe", (1.2,)))
    ratios: dict[str, list[float | None]] = {"defaults": [1.0, 1.0], "tpe": [1.0, 1.0]}
    results.add_comparison(compared(ratios))
    found = {line.method: line for line in lines(results)}
    assert found["tpe"].gain == "0 (the defaults)"
    assert found["tpe"].regret == "0.20"


def test_what_was_measured_again_is_told_apart(tmp_path: Path) -> None:
    results = report_results(tmp_path)
    ours = results.parts["mixed", 0, "ours"]
    again = tuple(replace(one, again=one.number > 1) for one in ours.evaluations)
    results.add_part("x", replace(ours, evaluations=again))
    found = {(line.seed, line.method): line for line in lines(results)}
    assert found["0", "ours"].trials == "1 + 1"
    assert found["0", "ours"].mean_index == "0.700"
    assert found["0", "smac3"].trials == "3"


def test_a_load_that_overran_the_defaults_is_shown(tmp_path: Path) -> None:
    results = report_results(tmp_path)
    results.add_part("x", replace(results.parts["mixed", 0, "smac3"], overrun=True))
    names = [line.method for line in lines(results) if line.seed == "0"]
    assert names[:3] == ["defaults", "smac3 (overrun)", "ours"]


def test_the_table_says_what_each_workload_is_and_who_offers_it(tmp_path: Path) -> None:
    results = report_results(tmp_path)
    for name in ("pgbench", "pgbench-select"):
        rate = replace(PROTOCOL, rate_per_s=150.0)
        results.add_part(name, replace(part("tpe"), workload=name, protocol=rate))
    caption = table(results).caption
    assert isinstance(caption, str)
    mixed, tpcb, select = caption.splitlines()
    assert mixed == "mixed: the demo store's statements, by our open-loop clients, 32/s"
    assert tpcb.startswith("pgbench: pgbench's own script tpcb-like, by the server's own pgbench")
    assert select.startswith("pgbench-select: pgbench's own script select-only")


def test_the_table_says_how_long_a_comparisons_windows_were(tmp_path: Path) -> None:
    results = report_results(tmp_path)
    fast = replace(results.comparisons["mixed", 1], pace=Pace(window_s=4.0, settle_s=1.0))
    results.add_comparison(fast)
    again = Results(results.path)  # as it is read back
    told = {line.seed: line.method for line in lines(again) if "comparison" in line.method}
    assert told["0"] == "(comparison, 3 blocks)"
    assert told["1"] == "(comparison, 3 blocks of 4 s)"


def test_a_comparison_on_the_trials_own_statements_is_told(tmp_path: Path) -> None:
    results = report_results(tmp_path)
    results.add_comparison(replace(results.comparisons["mixed", 1], arrivals=None))
    told = {line.seed: line.method for line in lines(results) if "comparison" in line.method}
    assert told["1"] == "(comparison, 3 blocks, the trials' statements)"


def test_a_cell_without_its_comparison_is_not_reported(tmp_path: Path) -> None:
    results = report_results(tmp_path)
    results.add_part("again", part("ours", (0.5,), {"work_mem": 77}, seed=1))
    assert list(cells(results)) == [("mixed", 0)]


def test_the_best_peer_may_be_the_defaults(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.add_part("a", part("defaults"))
    results.add_part("b", part("pgtune", final={"work_mem": 3}))
    results.add_part("c", part("ours", (0.9,), {"work_mem": 8}))
    ratios: dict[str, list[float | None]] = {
        "defaults": [1.0, 1.0],
        "pgtune": [1.3, 1.2],
        "ours": [0.9, 0.92],
    }
    results.add_comparison(compared(ratios, pgtune={"work_mem": 3}, ours={"work_mem": 8}))
    found = {line.method: line.gain for line in lines(results)}
    assert found["ours - best peer (defaults)"].startswith("+0.090 [")


def test_a_report_of_an_empty_file_is_an_empty_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert knob_live.main(["--report", "--results", str(tmp_path / "none.jsonl")]) == 0
    assert "0 finished cells" in capsys.readouterr().out


def test_results_are_plain_json(tmp_path: Path) -> None:
    results = report_results(tmp_path)
    records = [json.loads(line) for line in results.path.read_text().splitlines()]
    assert {record["kind"] for record in records} == {"part", "comparison"}
