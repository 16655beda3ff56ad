"""A run of the ablation by level: the truth that it sees is that of the whole demonstration."""

from __future__ import annotations

import math

import pytest

from benchmarks.levels.demonstration import Demonstration
from benchmarks.levels.runs import ARMS, Cell, run

pytestmark = pytest.mark.slow


def test_a_run_with_all_its_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[bool] = []
    lived = Demonstration.__init__

    def noted(self: Demonstration, *args: object, learns: bool, **more: object) -> None:
        learnt.append(learns)
        lived(self, *args, learns=learns, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Demonstration, "__init__", noted)
    result = run(Cell(ARMS[0], seed=1, days=2.0), None)
    assert learnt == [False]
    assert result.trials > 5
    assert result.trials_to_80 <= result.trials_to_95 <= result.trials
    assert 0 <= result.harmful < result.trials
    # The injected change stood for a while, and no longer.
    assert 0 < result.injected_s < 600
    assert result.rollbacks >= 1
    # What was found is a matter of luck, what there is to find is not.
    assert 0.0 < result.regret < math.inf
    assert result.final_share <= 1.0
    assert result.saved <= 0.42
    assert (result.final_share > 0) == (result.saved > 0)
    assert (result.policies, result.of_policies) == (0, 0)
    assert result.cpu_s > 0
