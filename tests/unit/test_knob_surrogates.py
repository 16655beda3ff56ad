"""The surrogate benchmarks: reading, forests, masks, scores, and that nothing is run twice."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from backend.agent.settings import KnobAgentSettings
from backend.domain.knobs import KnobSpace
from backend.errors import ConfigError
from benchmarks.knob_ablation import ABLATIONS, check_settings
from benchmarks.surrogates.command import data_of, parser_of, plan, run_benchmark
from benchmarks.surrogates.forest import Forest, fit_surrogate
from benchmarks.surrogates.problem import Problem, Score
from benchmarks.surrogates.recording import Recording, read_recording
from benchmarks.surrogates.runs import Cell, Results, Run, run_cell
from benchmarks.surrogates.tables import Row, gaps, lead, mean_rows, print_tables

HEADER = "index,buffer,ratio,persist,method,pages,constant,latency"
ROWS = 40


def write(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    lines = [HEADER]
    for row in range(ROWS):
        buffer = int(10 ** rng.uniform(0, 6)) if row else 1000
        ratio, pages = rng.uniform(0.25, 4.0), int(rng.integers(-5, 100))
        persist, method = rng.choice(["ON", "OFF"]), rng.choice(["zstd", "lz4", "none"])
        latency = 20 - 2 * np.log10(buffer) + ratio + 3 * (persist == "ON") + (method == "none")
        lines.append(f"{row},{buffer}.0,{ratio},{persist},{method},{pages},7,{latency}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return read_recording(write(tmp_path / "tiny.csv"))


def problem(recording: Recording, goal: str = "min", **options: object) -> Problem:
    pytest.importorskip("sklearn")
    surrogate = fit_surrogate(recording, trees=5)
    return Problem(recording, surrogate, goal, **options)  # type: ignore[arg-type]


# -- reading ----------------------------------------------------------------------------------


def test_columns_become_knobs(recording: Recording) -> None:
    space = recording.space
    assert space.names == ("buffer", "ratio", "persist", "method", "pages")  # no constant
    assert [k.kind for k in space] == ["integer", "real", "boolean", "categorical", "integer"]
    assert [k.scale for k in space] == ["log", "linear", "linear", "linear", "linear"]
    assert space["method"].choices == ("lz4", "none", "zstd")
    assert space.default_config()["buffer"] == 1000


def test_the_default_configuration_is_the_first_row(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.csv", seed=4)
    first = path.read_text(encoding="utf-8").splitlines()[1].split(",")
    config = read_recording(path).space.default_config()
    assert config["ratio"] == float(first[2])
    assert config["persist"] is (first[3] == "ON")
    assert config["method"] == first[4]


def test_features_are_scaled_between_the_extremes(recording: Recording) -> None:
    assert recording.features.shape == (ROWS, 5)
    assert recording.features.min(axis=0) == pytest.approx(np.zeros(5))
    assert recording.features.max(axis=0) == pytest.approx(np.ones(5))
    assert set(np.round(recording.features[:, 3], 6)) == {0.0, 0.5, 1.0}
    low, high = recording.space["buffer"].bounds
    expected = (np.log(1000) - np.log(low)) / (np.log(high) - np.log(low))
    assert recording.features[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "0 columns"),
        (f"{HEADER}\n0,1,1,ON,lz4,1,7,1\n", "1 rows"),
        ("i,a,t\n" + "0,1,2\n" * 10, "nothing to tune"),
        ("i,a,t\n" + "0,1,2\n" * 10 + "0,1\n", "line 12"),
        ("i,a,a,t\n" + "0,1,2,3\n" * 10, "name of its own"),
        ("i,a,t\n" + "0,1,2\n" * 10 + "0,3,nan\n", "finite number"),
        ("i,a,t\n" + "".join(f"0,v{n},{n}\n" for n in range(70)), "at most 64 choices"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_recording(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could not be read"):
        read_recording(tmp_path / "none.csv")


# -- the forest -------------------------------------------------------------------------------


def test_the_flat_forest_predicts_what_scikit_learn_does(recording: Recording) -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    model = ensemble.RandomForestRegressor(7, random_state=0)
    model.fit(recording.features, recording.targets)
    rows = np.random.default_rng(1).uniform(-0.1, 1.1, (300, 5))
    assert Forest.of(model).predict(rows) == pytest.approx(model.predict(rows), rel=1e-12)


def test_a_forest_from_the_cache_is_the_same(recording: Recording, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    fresh = fit_surrogate(recording, tmp_path / "cache", trees=5)
    cached = fit_surrogate(recording, tmp_path / "cache", trees=5)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]
    rows = np.random.default_rng(1).uniform(0, 1, (20, 5))
    assert (cached.forest.predict(rows) == fresh.forest.predict(rows)).all()
    assert (cached.fitted == fresh.fitted).all()


# -- problems ---------------------------------------------------------------------------------


def test_zero_is_the_first_row_and_one_the_best_row(recording: Recording) -> None:
    low = problem(recording)
    fitted = fit_surrogate(recording, trees=5).fitted
    assert low.default_objective == pytest.approx(fitted[0])
    assert low.best_objective == fitted.min()
    high = problem(recording, "max")
    assert high.default_objective == pytest.approx(-fitted[0])
    assert high.best_objective == -fitted.max()
    assert high.in_file_units(high.best_objective) == fitted.max()


def shape_of(space: KnobSpace) -> list[tuple[object, ...]]:
    return sorted((k.kind, k.low or 0, k.high or 0, k.scale, len(k.choices)) for k in space)


def test_a_masked_space_is_the_same_up_to_names_and_order(recording: Recording) -> None:
    plain = problem(recording)
    orders = set()
    for seed in range(4):
        masked = problem(recording, mask_seed=seed)
        assert masked.space.names == ("x0", "x1", "x2", "x3", "x4")
        assert shape_of(masked.space) == shape_of(plain.space)
        orders.add(tuple(knob.kind for knob in masked.space))
        (method,) = (knob for knob in masked.space if knob.kind == "categorical")
        assert method.choices == ("c0", "c1", "c2")
        assert masked.default_objective == pytest.approx(plain.default_objective)
        assert masked.best_objective == plain.best_objective
    assert len(orders) > 1


def test_a_masked_configuration_means_the_same(recording: Recording) -> None:
    plain, masked = problem(recording), problem(recording, mask_seed=1)
    partner = {
        seen.name: true
        for seen in masked.space
        for true in plain.space
        if (seen.kind, seen.low, seen.high) == (true.kind, true.low, true.high)
    }
    rng = np.random.default_rng(2)
    differing = set()
    for _ in range(20):
        config = masked.space.decode(rng.uniform(-1, 1, masked.space.width))
        values = {partner[name].name: value for name, value in config.items()}
        same = [
            plain({**values, "method": choice}) == pytest.approx(masked(config))
            for choice in plain.space["method"].choices
        ]
        assert any(same)
        differing.add(masked(config))
    assert len(differing) > 10


def test_a_fixed_knob_is_held(recording: Recording) -> None:
    plain = problem(recording)
    off, on = (problem(recording, fix={"persist": value}) for value in ("OFF", "ON"))
    assert "persist" not in off.space
    assert len(off.space) == 4
    config = plain.space.decode(np.full(plain.space.width, 0.3))
    for held, value in ((off, False), (on, True)):
        others = {name: config[name] for name in held.space.names}
        assert held(others) == pytest.approx(plain(config.replace({"persist": value})))
    assert min(off.best_objective, on.best_objective) == plain.best_objective
    assert off.best_objective != on.best_objective
    with pytest.raises(ConfigError, match="no row"):
        problem(recording, fix={"ratio": "1.0"})


def test_a_goal_that_cannot_be_is_refused(tmp_path: Path) -> None:
    lines = ["i,a,t", *(f"{row},{row},{row + 1}" for row in range(20))]
    path = tmp_path / "rising.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    recording = read_recording(path)
    assert problem(recording, "max").best_objective < -1.0
    flat = Recording("flat", "0", recording.space, recording.features, np.ones(20))
    with pytest.raises(ConfigError, match="no row better"):
        problem(flat, "max")


# -- scores -----------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    score = Score(np.array([10.0, 12.0, 8.0, 4.0]), default=10.0, best=5.0)
    assert [score.share_at(n) for n in (1, 2, 3, 4, 9)] == pytest.approx([0, 0, 0.4, 1.2, 1.2])
    assert score.worse == 1  # 12 is 20 % worse
    assert score.regret == pytest.approx(1.0 + 1.4 + 0.6 - 0.2)


def test_throughput_is_scored_as_its_negative() -> None:
    score = Score(np.array([-100.0, -85.0, -95.0, -150.0]), default=-100.0, best=-200.0)
    assert score.worse == 1
    assert score.share_at(4) == pytest.approx(0.5)


def test_means_over_data_sets_take_finished_seeds_only() -> None:
    def row(share: float) -> Row:
        return Row((share,), 0.0, 0.0, 0.0)

    by_data = {
        "one": {"tpe": {0: row(0.2), 1: row(0.9)}, "random": {0: row(0.1)}},
        "two": {"tpe": {0: row(0.6)}},
    }
    assert [mean.shares for mean in mean_rows(by_data, "tpe")] == [pytest.approx((0.4,))]
    assert mean_rows(by_data, "random") == []


def test_what_a_part_buys_is_told_seed_by_seed() -> None:
    def row(share: float, regret: float) -> Row:
        return Row((share, share), 3.0, regret, 1.0)

    by_data = {
        "one": {
            "ours": {0: row(0.5, 8.0), 1: row(0.9, 6.0), 2: row(0.1, 1.0)},
            "no actor": {1: row(0.7, 9.0), 0: row(0.1, 8.0), 3: row(0.3, 2.0)},
        },
        "two": {
            "ours": {0: row(0.7, 4.0), 1: row(0.9, 6.0), 2: row(0.2, 1.0)},
            "no actor": {0: row(0.3, 6.0), 1: row(0.7, 9.0), 3: row(0.3, 2.0)},
        },
    }
    found = gaps(by_data, "no actor")
    assert [gap.numbers for gap in found] == [
        pytest.approx((0.4, 0.4, 0.0, -1.0, 0.0)),
        pytest.approx((0.2, 0.2, 0.0, -3.0, 0.0)),
    ]
    assert gaps(by_data, "not run yet") == []


def test_an_ablation_prints_what_each_part_buys(capsys: pytest.CaptureFixture[str]) -> None:
    def run(method: str, seed: int, last: float) -> Run:
        cell = Cell("tiny", "digest", "min", method, seed, 2)
        return Run(cell, default=10.0, best=6.0, objectives=[10.0, last], ask_tell_cpu_s=[0.0])

    runs = [run("ours", 0, 8.0), run("ours", 1, 7.0), run("no actor", 0, 9.0)]
    runs.append(run("no actor", 1, 9.0))
    print_tables(runs, ["ours", "no actor"], [2], Console(width=150))
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if "ours less: no actor" in line)
    assert "0.375 ± 0.125" in row
    print_tables(runs[:2], ["ours"], [2], Console(width=150))
    assert "ours less" not in capsys.readouterr().out


def test_the_lead_is_over_the_best_peer() -> None:
    def rows(*shares: float) -> list[Row]:
        return [Row((share,), 0.0, 0.0, 0.0) for share in shares]

    seen = {
        "ours": rows(0.8, 0.9),
        "tpe": rows(0.6, 0.6),
        "random": rows(0.1, 0.3),
        "smac3": [],
        "no design": rows(1),
    }
    peer, ahead, error = lead(seen, "ours", 0)
    assert peer == "tpe"
    assert ahead == pytest.approx(0.25)
    assert error == pytest.approx(0.05)


# -- runs -------------------------------------------------------------------------------------


def cell(recording: Recording, **changes: object) -> Cell:
    fields = {
        "data": recording.name, "digest": recording.digest, "goal": "min",
        "method": "random", "seed": 0, "evaluations": 6, "trees": 5,
    }  # fmt: skip
    return Cell(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_run_starts_at_the_default_and_can_be_repeated(
    recording: Recording, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    path = tmp_path / "tiny.csv"
    run, again = (run_cell(cell(recording), path) for _ in range(2))
    assert run.objectives[0] == run.default
    assert run.score.share_at(1) == 0.0
    assert run.objectives == again.objectives
    assert len(run.ask_tell_cpu_s) == 5
    masked = run_cell(cell(recording, mask=True), path)
    assert masked.default == pytest.approx(run.default)
    assert Run.of_line(run.line()) == run


def test_under_noise_what_looks_best_counts_with_its_exact_value(
    recording: Recording, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    path = tmp_path / "tiny.csv"
    exact, noisy = (run_cell(cell(recording, evaluations=30, noise=sd), path) for sd in (0.0, 0.5))
    assert exact.measured == []
    assert noisy.objectives == exact.objectives  # random search learns nothing of what it is told
    off = np.log(np.array(noisy.measured) / noisy.objectives)
    assert off[0] == 0.0
    assert 0.3 < off[1:].std() < 0.7
    again = run_cell(cell(recording, evaluations=30, noise=0.5, method="tpe"), path)
    assert np.log(np.array(again.measured) / again.objectives) == pytest.approx(off)  # same luck
    looks_best = int(np.argmin(noisy.measured))
    share = (noisy.default - noisy.objectives[looks_best]) / (noisy.default - noisy.best)
    assert noisy.score.share_at(30) == pytest.approx(share)
    assert noisy.score.share_at(30) < exact.score.share_at(30)
    assert Run.of_line(noisy.line()) == noisy


def test_noise_is_a_number_from_0_on(recording: Recording, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    for wrong in ("-0.1", "nan", "inf"):
        with pytest.raises(ConfigError, match="from 0 on"):
            plan(arguments(tmp_path, "--noise", wrong), {"random": {}}, tmp_path)
    planned = plan(arguments(tmp_path, "--noise", "0.15"), {"random": {}}, tmp_path)
    assert {one.noise for one, _ in planned} == {0.15}


def test_results_survive_a_torn_line_and_the_last_run_counts(
    recording: Recording, tmp_path: Path
) -> None:
    results = Results(tmp_path / "out.jsonl")
    assert results.read() == {}
    one = Run(cell(recording), 10.0, 5.0, [10.0, 7.0], [0.1])
    results.append(one)
    with results.path.open("a", encoding="utf-8") as file:
        file.write('{"cell": {"data": "ti')
    other = Run(cell(recording, seed=1), 10.0, 5.0, [10.0, 6.0], [0.1])
    newer = Run(cell(recording), 10.0, 5.0, [10.0, 5.0], [0.1])
    results.append(other)
    results.append(newer)
    assert results.read() == {one.cell.key: newer, other.cell.key: other}


def arguments(tmp_path: Path, *more: str) -> argparse.Namespace:
    data = f"{tmp_path / 'tiny.csv'}:min"
    out = str(tmp_path / "out.jsonl")
    common = ["--data", data, "--out", out, "--evaluations", "4", "--at", "2,4", "--seeds", "2"]
    return parser_of("knob_surrogates", "").parse_args([*common, *more])


def test_finished_runs_are_not_run_again(
    recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    out = Results(tmp_path / "out.jsonl")
    run_benchmark(arguments(tmp_path), {"random": {}})
    first = out.read()
    assert len(first) == 2
    run_benchmark(arguments(tmp_path, "--seeds", "3"), {"random": {}})
    assert len(out.read()) == 3
    assert {key: run for key, run in out.read().items() if key in first} == first
    written = out.path.read_text(encoding="utf-8").count('"cell"')
    assert written == 3
    run_benchmark(arguments(tmp_path), {"random": {}})
    assert out.path.read_text(encoding="utf-8").count('"cell"') == written
    run_benchmark(arguments(tmp_path, "--redo", "random"), {"random": {}})
    assert out.path.read_text(encoding="utf-8").count('"cell"') == written + 2
    shown = capsys.readouterr().out
    assert "share of the recorded best gain" in shown
    assert "3 runs, 2 of them finished before" in shown


def test_cells_are_planned_seed_by_seed(recording: Recording, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    methods = {"random": {}, "one critic": {"ensemble_size": 1}}
    planned = plan(arguments(tmp_path, "--fix", "persist=OFF", "--mask"), methods, tmp_path)
    assert [(c.seed, c.method) for c, _ in planned] == [
        (0, "random"), (0, "one critic"), (1, "random"), (1, "one critic"),
    ]  # fmt: skip
    assert planned[0][0].fix == {"persist": "OFF"}
    assert planned[1][0].settings == {"ensemble_size": 1}
    assert len({c.key for c, _ in planned}) == 4
    with pytest.raises(ConfigError, match="no file has a knob named durable"):
        plan(arguments(tmp_path, "--fix", "durable=1"), methods, tmp_path)


def test_every_file_has_a_goal() -> None:
    def goals(files: list[str], given: list[str]) -> list[str]:
        return [data.goal for data in data_of(files, given)]  # type: ignore[arg-type]

    assert goals(["a.csv:max", "b.csv:min"], []) == ["max", "min"]
    assert goals(["a.csv", "b.csv"], ["max", "min"]) == ["max", "min"]
    assert goals(["a.csv", "b.csv", "c.csv:max"], ["min"]) == ["min", "min", "max"]
    with pytest.raises(ConfigError, match="2 files without a goal"):
        goals(["a.csv", "b.csv"], [])


def test_the_help_says_where_the_data_are() -> None:
    assert "PKU-DAIR/DBTune" in " ".join(parser_of("knob_surrogates", "").format_help().split())


def test_every_ablation_switches_something() -> None:
    check_settings(ABLATIONS)
    with pytest.raises(ConfigError, match="has no setting"):
        check_settings({"typo": {"optimisim": 0}})
    with pytest.raises(ConfigError, match="own value"):
        check_settings({"nothing": {"gamma": KnobAgentSettings().gamma}})
