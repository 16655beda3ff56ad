"""The ablation by level: its servers' truth, which genome is judged, what the table says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from backend.demonstration import HARMFUL, acts_of
from backend.domain.policies import GenomeRecord
from backend.domain.records import EventRecord
from backend.telemetry import open_store
from benchmarks.level_ablation import cells_of, missing_cells, students, table
from benchmarks.levels import evolution
from benchmarks.levels.runs import ARMS, Cell, Kept, Result
from benchmarks.levels.server import OTHER, USUAL, DemonstrationServer, response
from benchmarks.results_file import ResultsFile
from tests.contracts import records as full

RESULT = Result(
    trials=40, trials_to_80=10, trials_to_95=40, reached_80=1, reached_95=0, final_share=0.9,
    saved=0.36, regret=0.4, harmful=8, promotions=2, wrong=0, rollbacks=1, injected_s=30,
    policies=1, of_policies=0, cpu_s=20,
)  # fmt: skip


class TestServer:
    def test_each_workload_has_a_best_answer_of_its_own(self) -> None:
        model = response(1)
        default = model.space.default_config()
        for workload, foreign in ((USUAL, OTHER), (OTHER, USUAL)):
            best = model.best_of(workload)
            assert model.missing(workload, default) == pytest.approx(1.0)
            assert model.missing(workload, best) == pytest.approx(0.0)
            assert model.index_in(workload, best) < 0.8
            assert model.missing(workload, model.best_of(foreign)) > 0.05

    def test_the_injected_change_truly_harms(self) -> None:
        for seed in range(3):
            model = response(seed)
            harmful = {name: value for name, value in HARMFUL.items() if name in model.space}
            assert model.index_in(USUAL, harmful) >= 1.1

    def test_same_seed_same_server(self) -> None:
        assert response(4).best_of(USUAL) == response(4).best_of(USUAL)
        assert response(4).best_of(USUAL) != response(5).best_of(USUAL)

    def test_clients_turn_to_other_work_and_back(self) -> None:
        acts = {act.name: act for act in acts_of(2.0)}
        server = DemonstrationServer(1, acts, duration_s=1000.0)
        offered = []
        for _ in range(4):
            offered.append(server.offered)
            server.clock.advance(150.0)  # type: ignore[attr-defined]
        assert offered == [USUAL, USUAL, OTHER, USUAL]

    def test_growth_slows_what_reads_much_and_nothing_else(self) -> None:
        server = DemonstrationServer(1, {}, duration_s=1000.0)
        default = server.space.default_config()
        before = server.truth.service_ms(default)
        server.grow(0.25)
        slower = server.truth.service_ms(default) / before
        assert set(slower.round(9)) == {1.0, 1.25}


class TestGenome:
    @pytest.fixture
    def store_of(self, tmp_path: Path) -> Callable[..., Path]:
        def written(*records: GenomeRecord) -> Path:
            path = tmp_path / "telemetry.db"
            store = open_store(f"sqlite:///{path}")
            for record in records:
                store.add_genome(record)
            store.close()
            return path

        return written

    def test_a_deployed_one_comes_first(self, store_of: Callable[..., Path]) -> None:
        challenger = replace(full.GENOME, deployed=False, genes={"gamma": 0.1})
        path = store_of(full.GENOME, challenger)
        genome, told = evolution.chosen(path)
        assert genome is not None
        assert genome.genes == full.GENOME.genes
        assert genome.profile == {}  # used whatever the workload looks like
        assert "deployed" in told

    def test_then_the_last_challenger(self, store_of: Callable[..., Path]) -> None:
        challengers = [
            replace(full.GENOME, deployed=False, genes={"gamma": gamma}) for gamma in (0.1, 0.2)
        ]
        genome, told = evolution.chosen(store_of(*challengers))
        assert genome is not None
        assert genome.genes == {"gamma": 0.2}
        assert genome.deployed  # in the run that is to use it
        assert "not deployed" in told

    def test_then_the_fastest_in_training(self, store_of: Callable[..., Path]) -> None:
        def measured(origin: str, regret: float) -> GenomeRecord:
            return replace(
                full.GENOME, deployed=False, comparison={}, origin=origin,
                fitness={"regret": regret}, genes={"gamma": regret},
            )  # fmt: skip

        path = store_of(
            measured("default", 0.5), measured("evolved", 0.3), measured("evolved", 0.6)
        )
        genome, told = evolution.chosen(path)
        assert genome is not None
        assert genome.genes == {"gamma": 0.3}
        assert "never compared" in told

    def test_none_where_the_default_is_the_fastest(self, store_of: Callable[..., Path]) -> None:
        default = replace(
            full.GENOME, deployed=False, comparison={}, origin="default", fitness={"regret": 0.2}
        )
        genome, _ = evolution.chosen(store_of(default, replace(default, origin="evolved")))
        assert genome is None

    def test_an_evolution_that_ended_is_not_made_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(evolution, "in_own_process", lambda *_: pytest.fail("recorded again"))
        store = open_store(f"sqlite:///{tmp_path}/telemetry.db")
        store.add_event(EventRecord(full.NOW, "info", "evolution", "nothing better was found"))
        store.close()
        assert evolution.evolved(tmp_path, 1.0, Console()) == tmp_path / "telemetry.db"


class TestRuns:
    def test_arms_without_a_genome(self) -> None:
        assert [cell.arm for cell in cells_of([1, 2], 14.0, "")] == [*ARMS[:2], *ARMS[:2]]
        with_it = cells_of([1], 14.0, "2026-01-01")
        assert [cell.genome for cell in with_it] == ["", "", "2026-01-01"]

    def test_finished_runs_are_not_made_again(self, tmp_path: Path) -> None:
        results = ResultsFile(tmp_path / "runs.jsonl", Kept.of_line)
        cells = cells_of([1, 2], 14.0, "")
        results.append(Kept(cells[0], RESULT))
        results.append(Kept(Cell("0+1", 1, 2.0), RESULT))  # of another length
        assert results.read()[cells[0].key].result == RESULT
        assert missing_cells(cells, results.read()) == cells[1:]


class TestTable:
    def test_levels_are_compared_seed_by_seed(self) -> None:
        results = {
            "0": {1: RESULT, 2: replace(RESULT, final_share=0.5), 3: RESULT},
            "0+1": {
                1: replace(RESULT, final_share=1.0), 2: replace(RESULT, final_share=0.6),
            },
        }  # fmt: skip
        shown = table(results, "14 simulated days")
        assert shown is not None
        console = Console(width=170)
        with console.capture() as text:
            console.print(shown)
        (line,) = (line for line in text.get().splitlines() if "final true gain" in line)
        assert "70.0 ± 28.3" in line  # the third seed is not whole
        assert "80.0 ± 28.3" in line
        assert "+10.0 [+10.0, +10.0]" in line

    def test_the_interval_is_students(self) -> None:
        found = students([1.0, 2.0, 3.0])
        assert (found.value, found.high) == pytest.approx((2.0, 2.0 + 4.302653 / 3**0.5))

    def test_one_seed_is_too_few(self) -> None:
        assert table({"0": {1: RESULT}, "0+1": {1: RESULT}}, "") is None
