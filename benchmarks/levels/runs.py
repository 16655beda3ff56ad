"""One run of one arm of the ablation, and what it came to; the truth is the simulated server's."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.demonstration import HARMFUL, INJECTED
from backend.domain.modes import LEVEL_1, TrialKind, Verdict
from backend.domain.policies import GenomeRecord
from backend.trials import Trial
from benchmarks.levels.demonstration import Demonstration
from benchmarks.levels.processes import memory_folder
from benchmarks.levels.server import USUAL
from benchmarks.results_file import JsonLine

ARMS = ("0", "0+1", "0+1+2")
"""Levels at work. Gate, probation and rechecks are in all of them: without them nothing stands."""
GOALS = (0.80, 0.95)
"""Shares of the gain of the usual workload that what is deployed shall have."""
HARMS = 1.10
"""A candidate that is truly slower than what stands by more than this factor is harmful."""
ROLLBACK = "rollback"
"""Kind of the event that tells of each undone deployment."""


@dataclass(frozen=True)
class Cell:
    """What a run was of.

    Args:
        arm: one of ``ARMS``.
        seed: of the server and of everything that is drawn by lot.
        days: simulated length.
        genome: when it was measured, in ISO 8601; "" for the arms without Level 2.
    """

    arm: str
    seed: int
    days: float
    genome: str = ""

    @property
    def key(self) -> str:
        """The same for the same run."""
        return f"{self.arm}|{self.seed}|{self.days:g}|{self.genome}"


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Args:
        trials: that came to a verdict.
        trials_to_80, trials_to_95: those before what was deployed had so much of the usual
            workload's gain for the first time; all of them where it never had.
        reached_80, reached_95: 1 where it had, else 0.
        final_share: of the gain that what stands has at the end.
        saved: of the true latency index, at the end.
        regret: share of the gain of the workload that was offered that was missing, averaged over
            the seconds until the final comparison, under what was really in force.
        harmful: probes and promotion trials of candidates that are truly slower than what stood by
            more than a tenth.
        promotions: accepted ones.
        wrong: accepted ones of what is truly no better than what stood.
        rollbacks: deployments that were undone, the injected one included.
        injected_s: seconds that the harmful change of the demonstration stood.
        policies: that Level 1 deployed.
        of_policies: accepted promotions of what Level 1's policy proposed.
        cpu_s: processor time.
    """

    trials: float
    trials_to_80: float
    trials_to_95: float
    reached_80: float
    reached_95: float
    final_share: float
    saved: float
    regret: float
    harmful: float
    promotions: float
    wrong: float
    rollbacks: float
    injected_s: float
    policies: float
    of_policies: float
    cpu_s: float


@dataclass(frozen=True)
class Kept(JsonLine):
    """A finished run."""

    cell: Cell
    result: Result

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> Kept:
        """The run behind what JSON made of it."""
        return cls(Cell(**fields["cell"]), Result(**fields["result"]))


class Watch:
    """Sees, second by second, what a run truly does to the clients.

    Args:
        demonstration: that runs.
    """

    def __init__(self, demonstration: Demonstration) -> None:
        self._run = demonstration
        self._server = demonstration.server
        self._missing: dict[tuple[Any, ...], float] = {}
        self._trial: Trial | None = None
        self._worse = False
        self._injected = {n: v for n, v in HARMFUL.items() if n in self._server.space}
        self._lacked: list[float] = []
        self.trials_to: dict[float, int] = {}
        self.harmful = self.wrong = self.injected_s = 0

    @property
    def regret(self) -> float:
        """Share of the gain that was missing, averaged over the seconds."""
        return math.fsum(self._lacked) / len(self._lacked)

    def second(self) -> None:
        """Look once."""
        server, loop = self._server, self._run.loop
        if not self._run.comparing:
            self._lacked.append(self._lack(server.offered, server.effective_config))
        lack = self._lack(USUAL, self._run.standing)
        for goal in GOALS:
            if lack <= 1.0 - goal and goal not in self.trials_to:
                self.trials_to[goal] = loop.verdicts.total()
        self.injected_s += self._injected.items() <= self._run.standing.items()
        if loop.trial is not self._trial:
            self._ended(self._trial)
            self._trial = loop.trial
            self._begun(loop.trial)

    def _begun(self, trial: Trial | None) -> None:
        if trial is None or trial.plan.kind not in (TrialKind.PROBE, TrialKind.PROMOTION):
            return
        truth, offered, standing = self._server.truth, self._server.offered, self._run.standing
        before = truth.index_in(offered, standing)
        after = truth.index_in(offered, {**standing, **trial.plan.after})
        self.harmful += after > HARMS * before
        self._worse = after >= before

    def _ended(self, trial: Trial | None) -> None:
        if trial is not None and trial.plan.kind is TrialKind.PROMOTION:
            self.wrong += self._worse and trial.verdict is Verdict.ACCEPT

    def _lack(self, workload: str, config: Mapping[str, Any]) -> float:
        key = (id(self._server.truth), workload, *sorted(config.items()))
        if key not in self._missing:
            self._missing[key] = self._server.truth.missing(workload, config)
        return self._missing[key]


def run(cell: Cell, genome: GenomeRecord | None) -> Result:
    """One whole demonstration in a folder of its own."""
    began_s = time.process_time()
    with tempfile.TemporaryDirectory(prefix="levels-", dir=memory_folder()) as folder:
        demonstration = Demonstration(
            Path(folder), cell.seed, cell.days, learns=cell.arm != ARMS[0], genome=genome
        )
        try:
            watch = Watch(demonstration)
            demonstration.run(watch.second)
            return _result(demonstration, watch, began_s)
        finally:
            demonstration.end()


def _result(demonstration: Demonstration, watch: Watch, began_s: float) -> Result:
    store, truth = demonstration.store, demonstration.server.truth
    trials = store.trials(limit=100_000)
    ours = [t for t in trials if t.kind is TrialKind.PROMOTION and t.proposer != INJECTED]
    accepted = [t for t in ours if t.verdict is Verdict.ACCEPT]
    total = demonstration.loop.verdicts.total()
    standing = demonstration.standing
    return Result(
        trials=total,
        trials_to_80=watch.trials_to.get(0.80, total),
        trials_to_95=watch.trials_to.get(0.95, total),
        reached_80=0.80 in watch.trials_to,
        reached_95=0.95 in watch.trials_to,
        final_share=1.0 - truth.missing(USUAL, standing),
        saved=1.0 - truth.index_in(USUAL, standing),
        regret=watch.regret,
        harmful=watch.harmful,
        promotions=len(accepted),
        wrong=watch.wrong,
        rollbacks=sum(event.kind == ROLLBACK for event in store.events(limit=100_000)),
        injected_s=watch.injected_s,
        policies=sum(update.deployed for update in store.policy_updates(limit=100_000)),
        of_policies=sum(t.proposer == LEVEL_1 for t in accepted),
        cpu_s=time.process_time() - began_s,
    )
