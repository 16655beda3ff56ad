"""The comparison of tuners under noise: same luck for all, exact scores, chosen settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.domain.knobs import Knob, KnobSpace, KnobValue
from backend.evolution.problems import ModelProblem
from backend.training_data import TrainingData
from benchmarks.knob_noise import (
    Cell,
    Run,
    Teacher,
    main,
    parse,
    problems,
    run_cell,
    table,
)


class Slope:
    """The log index rises with the only knob from -1 to 1; the default is in the middle."""

    name, noise, gain, priors = "slope", 0.0, 1.0, ()
    space = KnobSpace([Knob("a", "real", -1.0, 1.0, default=0.0)])

    def log_index(self, config: Mapping[str, KnobValue]) -> float:
        return float(config["a"])

    def state(self, rng: np.random.Generator) -> NDArray[np.float64]:
        return rng.normal(size=3)


def cell(method: str = "random", **changes: object) -> Cell:
    fields = {"problem": "slope", "gain": 1.0, "method": method, "seed": 3, "evaluations": 8,
              "noise": 0.2}  # fmt: skip
    return Cell(**{**fields, **changes})  # type: ignore[arg-type]


def test_all_methods_and_all_noises_meet_the_same_luck() -> None:
    pytest.importorskip("optuna")
    runs = [run_cell(cell(), Slope()), run_cell(cell("tpe"), Slope())]
    off = [np.subtract(run.measured, run.exact) for run in runs]
    assert off[0] == pytest.approx(off[1])
    assert 0.05 < off[0].std() < 0.4
    louder = run_cell(cell(noise=0.4), Slope())
    assert np.subtract(louder.measured, louder.exact) == pytest.approx(2 * off[0])
    assert run_cell(cell(), Slope()) == runs[0]


def test_scores_by_hand() -> None:
    run = Run(cell(), exact=[-0.1, -0.5, 0.3, 2.0], measured=[-0.6, -0.4, 0.0, 2.0])
    assert run.left == pytest.approx(1 - math.exp(-0.1))  # looked best
    assert run.found == pytest.approx(1 - math.exp(-0.5))
    assert run.cost == pytest.approx(np.mean([*np.exp([-0.1, -0.5, 0.3]), 2.0]))
    assert run.harmful == 2
    unlucky = Run(cell(), exact=[-0.1], measured=[0.05])
    assert unlucky.left == 0.0  # the defaults stay
    assert Run.of_line(run.line()) == run


def test_what_was_lucky_once_is_found_out_by_measuring_again() -> None:
    lucky, good = -0.1, -0.4
    run = Run(
        cell("ours", evaluations=6, again=3),
        exact=[lucky, good, 0.2, lucky, good, lucky],
        measured=[-0.9, -0.3, 0.1, 0.1, -0.5, -0.3],
    )
    assert run.left == pytest.approx(1 - math.exp(good))  # -0.5 against a mean of -0.1
    assert run.early == pytest.approx(1 - math.exp(lucky))
    hopeless = Run(cell("ours", evaluations=2, again=1), exact=[0.1], measured=[0.2])
    assert hopeless.left == 0.0  # nothing worth a second look


def test_the_best_are_measured_again_in_turn() -> None:
    run = run_cell(cell("random", evaluations=12, noise=0.0, again=4), Slope())
    order = sorted(value for value in run.exact[:8] if value < 0.0)[:4]
    assert order
    assert run.exact[8:] == [order[turn % len(order)] for turn in range(4)]


def test_outliers_are_more_of_the_same_luck() -> None:
    plain, spoilt = (run_cell(cell(outliers=share), Slope()) for share in (0.0, 1.0))
    assert spoilt.exact == plain.exact
    assert np.abs(np.subtract(spoilt.measured, plain.measured)).min() > 0.0


def test_an_agent_is_taught_by_all_other_workloads(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[object] = []

    class Pupil:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def pretrain(self, episodes: object, updates: int) -> None:
            learnt.append(episodes)

        def pretrained(self) -> int:
            return len(learnt)

    monkeypatch.setattr("benchmarks.knob_noise.KnobAgent", Pupil)
    data = TrainingData(Slope.space, ["one", "two", "three"], ["a", "b", "a"], {})  # type: ignore[arg-type]
    teacher = Teacher(data)
    assert [teacher.without(name) for name in ("a", "b", "a")] == [1, 2, 1]
    assert learnt == [["two"], ["one", "three"]]


def test_the_table_compares_what_every_method_has() -> None:
    def run(method: str, seed: int, exact: float) -> Run:
        return Run(cell(method, seed=seed), [exact], [exact])

    runs = [run("ours", 0, -0.5), run("tpe", 0, -0.2), run("ours", 1, -0.1)]
    made = table(runs, ["tpe", "ours"])
    assert made.title == "1 runs of each method on 1 problems"
    cells = [list(column.cells) for column in made.columns]
    assert cells[0] == ["tpe", "ours"]
    assert cells[1] == cells[2] == ["0.181", "0.393"]
    assert cells[6][0].startswith("+0.212")
    assert cells[6][1] == ""


def test_settings_are_chosen_on_other_problems_than_they_are_judged_on() -> None:
    names = [{problem.name for problem in problems(None, half)} for half in (0, 1)]
    assert names[0]
    assert names[1]
    assert not names[0] & names[1]


def test_a_variant_is_ours_with_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    given = parse(["--variant", "timid:trust_start=0.2,moved_knobs=1", "--out", "x.jsonl"])
    assert given.variant == [("timid", {"trust_start": 0.2, "moved_knobs": 1})]
    for wrong in ("tpe:trust_start=0.2", "x:trust_start=9", "x:nothing=1", "x:trust_start", "x"):
        with pytest.raises(SystemExit):
            parse(["--variant", wrong, "--out", "x.jsonl"])
    with pytest.raises(SystemExit):
        parse(["--methods", "tpe,best", "--out", "x.jsonl"])
    assert "unknown: ['best']" in capsys.readouterr().err
    for wrong in (["--methods", "ours-warm"], ["--again", "40"], ["--outliers", "1.5"]):
        with pytest.raises(SystemExit):
            parse([*wrong, "--out", "x.jsonl"])
    assert parse(["--out", "x.jsonl"]).again == 8
    with pytest.raises(SystemExit) as told:
        parse(["--help"])
    assert told.value.code == 0
    assert "a share of 0.2" in " ".join(capsys.readouterr().out.split())


def test_finished_runs_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.knob_noise.problems", lambda data, half: [Slope()])
    out = tmp_path / "out.jsonl"
    options = ["--methods", "random", "--evaluations", "3", "--seeds", "2", "--out", str(out)]
    main(options)
    first = out.read_text(encoding="utf-8")
    main(options)
    assert out.read_text(encoding="utf-8") == first
    assert first.count('"cell"') == 2
    assert "2 runs of each method on 1 problems" in capsys.readouterr().out


def test_ours_gets_the_rules_and_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, object] = {}

    class Agent:
        def __init__(self, space: KnobSpace, seed: int, **options: object) -> None:
            made.update(options)
            self.space = space

        def ask(self, state: NDArray[np.float64]) -> Mapping[str, KnobValue]:
            return self.space.default_config()

        def tell(self, *_: object) -> None:
            pass

    monkeypatch.setattr("benchmarks.knob_noise.KnobAgent", Agent)
    problem = ModelProblem(Slope.space, 3)
    run = run_cell(cell("bold", settings={"moved_knobs": 7}), problem)
    assert run.exact == [0.0] * 8
    assert made["settings"].moved_knobs == 7  # type: ignore[attr-defined]
    assert made["settings"].far_knobs == 0  # type: ignore[attr-defined]
    assert made["priors"] == []
