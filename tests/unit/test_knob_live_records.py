"""The results file of the live comparison: what is read back, refused and gone on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.errors import ConfigError
from benchmarks.live.records import Results
from tests.live_comparison import PROTOCOL, compared, evaluation, part


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written = Results(path)
    done = part("tpe", (1.2, 0.8), {"work_mem": 1002, "jit": False, "random_page_cost": 1.1})
    for trial in done.evaluations:
        written.add_evaluation("run", trial)
    written.add_part("run", done)
    both = compared({"tpe": [0.8, 0.82], "defaults": [1.0, 1.0]}, tpe=done.final)
    written.add_comparison(both)

    found = Results(path)
    assert found.parts == {("mixed", 0, "tpe"): done}
    assert found.comparisons == {("mixed", 0): both}


def test_trials_of_a_part_that_was_cut_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    cut = Results(path)
    cut.add_evaluation("first", evaluation(1, 0.5))
    again = Results(path)
    again.add_evaluation("second", evaluation(1, 0.9))
    again.add_part("second", part("tpe", (0.9,)))
    [found] = Results(path).parts.values()
    assert [e.objective for e in found.evaluations] == [0.9]


def test_a_line_that_was_cut_is_left_out_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results = Results(path)
    results.add_part("a", part("defaults"))
    with path.open("a") as file:
        file.write('{"kind": "part", "method": "tp')
    reopened = Results(path)
    assert reopened.damaged_lines == 1
    reopened.add_part("b", part("pgtune"))
    found = Results(path)
    assert {key[2] for key in found.parts} == {"defaults", "pgtune"}
    assert found.damaged_lines == 1


@pytest.mark.parametrize("text", ['{"kind": "recipe"}', "[1]", '{"kind": "part", "run": "x"}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError, match=r"no results file"):
        Results(path)


def test_other_rules_are_refused_and_named(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.add_part("a", part("defaults"))
    results.check_protocol(PROTOCOL, "mixed")
    other = replace(PROTOCOL, minutes=20.0)
    results.check_protocol(other, "oltp")  # nothing of this workload is there yet
    with pytest.raises(ConfigError, match=r"minutes 1.0 instead of 20.0"):
        results.check_protocol(other, "mixed")


def test_a_comparison_is_stale_when_a_final_changes_or_a_method_joins() -> None:
    ours = part("ours", (0.8,), {"work_mem": 5})
    found = compared({"ours": [0.8] * 6}, ours={"work_mem": 5})
    assert found.covers({"ours": ours}, 6)
    assert not found.covers({"ours": ours}, 7)
    assert not found.covers({"ours": replace(ours, final={"work_mem": 6})}, 6)
    assert not found.covers({"ours": ours, "tpe": part("tpe")}, 6)


def test_parts_of_another_trained_agent_are_not_joined(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.add_part("a", part("tpe", (0.9,)))
    results.add_part("b", part("ours-warm", (0.9,), seed=1))  # of before: nobody said
    results.check_agent("0123", "mixed")
    results.add_part("c", replace(part("ours-warm", (0.9,)), agent="0123"))
    again = Results(results.path)
    again.check_agent("0123", "mixed")
    again.check_agent("4567", "oltp")
    with pytest.raises(ConfigError, match="trained agent 0123 instead of 4567"):
        again.check_agent("4567", "mixed")
