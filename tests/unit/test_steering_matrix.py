"""The steering benchmark: reading matrices, what a probe costs, budgets, and what is kept."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from backend.errors import ConfigError
from backend.steering.explorer import Probe
from benchmarks.steering import runs
from benchmarks.steering.matrix import LatencyMatrix, read_matrix, synthetic_matrix
from benchmarks.steering.peers import GreedyExplorer, LowRankExplorer
from benchmarks.steering.runs import Cell, Results, Run, Spent, run_cell
from benchmarks.steering_matrix import parser, plan, run_benchmark

TINY = "name,0,1,2\nq1,4.0,1.0,9.0\nq2,2.0,3.0,0.5\n"


def write(path: Path, text: str = TINY) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# -- reading ------------------------------------------------------------------------------------


def test_a_file_becomes_a_matrix(tmp_path: Path) -> None:
    matrix = read_matrix(write(tmp_path / "tiny.csv"))
    assert matrix.name == "tiny"
    assert matrix.latency_s.tolist() == [[4.0, 1.0, 9.0], [2.0, 3.0, 0.5]]
    assert (matrix.default_total_s, matrix.oracle_total_s) == (6.0, 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no matrix"),
        ("name,0\nq1,1\n", "no matrix"),
        ("name,0,1\nq1,1.0\n", "line 2: 2 fields, not 3"),
        ("name,0,1\nq1,1.0,x\n", "line 2"),
        ("name,0,1\nq1,1.0,2.0\nq2,1.0,0.0\n", "line 3: latencies must be"),
        ("name,0,1\nq1,nan,2.0\n", "line 2: latencies must be"),
    ],
)
def test_a_malformed_file_is_told_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_matrix(write(tmp_path / "bad.csv", text))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could not be read"):
        read_matrix(tmp_path / "none.csv")


def test_a_part_keeps_the_default_and_differs_by_seed() -> None:
    matrix = synthetic_matrix(40, 11)
    part = matrix.part(0.5, 0.5, seed=0)
    assert part.latency_s.shape == (20, 6)
    assert set(part.latency_s[:, 0]) <= set(matrix.latency_s[:, 0])
    assert not np.array_equal(part.latency_s, matrix.part(0.5, 0.5, seed=1).latency_s)


# -- playing ------------------------------------------------------------------------------------


class Scripted:
    """Asks for given probes."""

    def __init__(self, probes: list[Probe]) -> None:
        self.probes, self.told, self.served = list(probes), [], {}

    def ask(self) -> Probe | None:
        return self.probes[0] if self.probes else None

    def tell(self, probe: Probe, latency_s: float | None = None, timed_out: bool = False) -> None:
        self.probes.remove(probe)
        self.told.append((probe.query, probe.hint_set, latency_s, timed_out))
        if not timed_out:
            self.served[probe.query] = probe.hint_set

    def serve(self, query: int) -> int:
        return self.served.get(query, 0)


MATRIX = LatencyMatrix("tiny", "0", np.array([[4.0, 1.0, 9.0], [2.0, 3.0, 0.5]]))


def scripted(monkeypatch: pytest.MonkeyPatch, probes: list[Probe]) -> Scripted:
    explorer = Scripted(probes)
    monkeypatch.setattr(runs, "make_explorer", lambda *_: explorer)
    return explorer


def test_a_probe_costs_what_it_ran_and_tells_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = scripted(monkeypatch, [Probe(0, 2, 3.0), Probe(0, 1, 3.0), Probe(1, 2, 1.0)])
    run = run_cell(Cell("tiny", "0", "ours", 0, (2.9, 3.0, 4.0, 100.0)), MATRIX)
    assert explorer.told == [(0, 2, 3.0, True), (0, 1, 1.0, False), (1, 2, 0.5, False)]
    assert [mark.total_s for mark in run.spent] == [6.0, 6.0, 3.0, 1.5]
    assert [mark.probes for mark in run.spent] == [0, 1, 2, 3]
    assert [mark.timed_out for mark in run.spent] == [0, 1, 1, 1]
    assert [run.reached(budget) for budget in range(4)] == pytest.approx([0, 0, 3 / 4.5, 1])


def test_a_probe_that_would_pass_the_last_budget_is_not_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    explorer = scripted(monkeypatch, [Probe(0, 2, 3.0)])
    run_cell(Cell("tiny", "0", "ours", 0, (2.0,)), MATRIX)
    assert explorer.told == []


def test_a_part_gets_its_share_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [])
    run = run_cell(Cell("tiny", "0", "ours", 0, (3.0,), queries=0.5), MATRIX)
    assert run.default_s in (4.0, 2.0)
    assert run.spent == [Spent(run.default_s, 0, 0, run.spent[0].thinking_s)]


# -- peers --------------------------------------------------------------------------------------


def test_greedy_takes_the_longest_queries_first() -> None:
    explorer = GreedyExplorer(np.array([1.0, 9.0, 5.0]), 4, seed=0)
    asked = []
    for _ in range(3):
        probe = explorer.ask()
        assert probe is not None
        asked.append(probe.query)
        explorer.tell(probe, timed_out=True)
    assert asked == [1, 2, 0]


def test_low_rank_completion_fills_a_matrix_of_rank_one() -> None:
    rows, columns = np.linspace(1.0, 3.0, 40), np.linspace(1.0, 2.0, 6)
    latency_s = np.expm1(np.outer(rows, columns))
    explorer = LowRankExplorer(latency_s[:, 0], 6, seed=0)
    held_out = (7, 4)
    for query in range(40):
        for hint_set in range(1, 6):
            if (query, hint_set) != held_out:
                explorer.tell(Probe(query, hint_set, 1e9), float(latency_s[query, hint_set]))
    completed = np.expm1(explorer._completed())
    assert completed[held_out] == pytest.approx(latency_s[held_out], rel=0.2)


# -- the command --------------------------------------------------------------------------------


def arguments(*texts: str) -> argparse.Namespace:
    return parser().parse_args(texts)


def test_finished_runs_are_not_run_again(tmp_path: Path) -> None:
    out = tmp_path / "runs.jsonl"
    given = arguments(
        "--synthetic", "12x5", "--budgets", "2,8", "--seeds", "2", "--methods", "random,ours",
        "--out", str(out),
    )  # fmt: skip
    cells = plan(given)
    results = Results(out)
    for cell, matrix in cells:
        results.append(run_cell(cell, matrix))
    with out.open("a") as file:
        file.write('\n{"cell": unfinished')
    shown = Console(width=150, file=io.StringIO())
    run_benchmark(given, shown)
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "4 runs, 4 of them finished before" in text
    assert "synthetic-12x5-0" in text
    assert "random" in text
    assert "ours" in text


def test_a_line_of_json_holds_the_run() -> None:
    run = Run(Cell("m", "d", "ours", 1, (2.0, 3.0)), 5.0, 1.0, [Spent(4.0, 1, 0, 0.1)] * 2)
    assert Run.of_line(run.line()) == run


@pytest.mark.parametrize(
    "texts",
    [
        ("--budgets", "1", "--out", "x"),
        ("--synthetic", "9x5", "--budgets", "1", "--seeds", "0", "--out", "x"),
        ("--synthetic", "9x5", "--budgets", "1", "--budgets", "2", "--out", "x"),
    ],
)
def test_contradictions_are_told(texts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        plan(arguments(*texts))


@pytest.mark.parametrize(
    "texts",
    [
        ("--budgets", "0"),
        ("--budgets", "1", "--methods", "magic"),
        ("--budgets", "1", "--queries", "1.5"),
        ("--budgets", "1", "--synthetic", "1x5"),
    ],
)
def test_wrong_options_are_refused(
    texts: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        arguments(*texts, "--out", "x")
    assert "error" in capsys.readouterr().err
