"""One learning run: the real knob agent and the real gate tune a problem from its defaults.

The tuning loop in small, in windows in place of seconds. The agent is asked; a *probe* of three
windows (incumbent, candidate, incumbent) is measured and told; a promising one goes through a
*promotion* in blocks of four windows, which the gate judges; an accepted candidate is deployed.
What the clients get is the deployed configuration, so that is what counts.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from backend.domain.knobs import KnobValue
from backend.domain.modes import Verdict
from backend.evolution.genome import LIVE_KNOB, Genome
from backend.evolution.problems import Problem
from backend.gate import GateSettings, judge_probe, judge_promotion, trial_alpha
from backend.rl_agent import KnobAgent
from backend.state_features import OFFERED_COLUMNS, STATE_WIDTH

WINDOWS = 120
"""Of a run: some fifteen to twenty trials, half an hour with all that surrounds a window."""
PROBE_WINDOWS, BLOCK_WINDOWS = 3, 4
DISTURBED_SHARE, DISTURBANCE = 0.15, 4.0
"""Share of the trials in which the load swings, and how much noisier they are."""
HARMFUL = math.log(1.10)
"""A proposal slower than what stands by more than this is harmful."""
DAILY_ALPHA = 0.2


@dataclass(frozen=True)
class LearningRun:
    """What came of one run.

    Args:
        problem, seed: what it was of.
        trials_to_95: windows until what is deployed has 95 % of the problem's gain, in probes'
            worth of three windows; the length of the run where that was not reached.
        regret: share of the gain that is missing, averaged over the windows: 1 is no gain at
            all, below 0 is better than what was recorded.
        final_regret: the share that is missing at the end.
        harmful: share of the proposals that were harmful.
        proposals: how many there were.
        reached: whether 95 % were reached.
        cpu_s: processor time.
        memory_bytes: of the agent's networks and replay.
    """

    problem: str
    seed: int
    trials_to_95: float
    regret: float
    final_regret: float
    harmful: float
    proposals: int
    reached: bool
    cpu_s: float
    memory_bytes: float


@dataclass
class _Standing:
    """What is deployed, and what it is believed to be worth."""

    config: Mapping[str, KnobValue]
    log_index: float = 0.0
    believed: float = 0.0


def learn(
    problem: Problem,
    genome: Genome,
    seed: int,
    windows: int = WINDOWS,
    on_trial: Callable[[], None] = lambda: None,
) -> LearningRun:
    """Tune a problem once, under a genome.

    Noise, states and disturbances are drawn from problem and seed window by window, so that two
    genomes with the same seed meet the same luck, and a lucky seed is not lucky on each problem.
    ``on_trial`` is called before each trial; what it raises ends the run.

    Raises:
        ValueError: the genes contradict each other.
    """
    began_s = time.process_time()
    luck_seed = crc32(f"{problem.name}/{seed}".encode())
    knob = dataclasses.replace(LIVE_KNOB, recall_columns=OFFERED_COLUMNS)
    gate = genome.gate_settings(GateSettings(alpha=0.005))
    agent = KnobAgent(
        problem.space,
        luck_seed,
        settings=genome.knob_settings(knob),
        priors=problem.priors,
        state_width=STATE_WIDTH,
    )
    standing = _Standing(problem.space.default_config())
    gaps: list[float] = []
    used = proposals = harmful = promotions = 0
    while used < windows:
        on_trial()
        luck = np.random.default_rng([luck_seed, used])
        state = problem.state(luck)
        config = agent.ask(state)
        log_index = problem.log_index(config)
        proposals += 1
        harmful += log_index - standing.log_index > HARMFUL
        disturbed = luck.random() < DISTURBED_SHARE
        noise = problem.noise * (DISTURBANCE if disturbed else 1.0)
        quality = float(luck.uniform(0.05, 0.6) if disturbed else luck.uniform(0.8, 1.0))
        difference = log_index - standing.log_index
        measured = difference + noise * math.sqrt(1.5) * float(luck.standard_normal())
        agent.tell(config, math.exp(standing.believed + measured), state, quality)
        spent = PROBE_WINDOWS
        promising = judge_probe(measured, -max(gate.min_improvement, problem.noise)).verdict
        accepted: float | None = None
        if promising is Verdict.ACCEPT and not disturbed:
            promotions += 1
            alpha = trial_alpha(promotions, gate.alpha, DAILY_ALPHA)
            blocks, effect, verdict = _promote(
                difference, problem.noise, dataclasses.replace(gate, alpha=alpha), luck
            )
            spent += BLOCK_WINDOWS * blocks
            agent.tell(config, math.exp(standing.believed + effect), state)
            accepted = effect if verdict is Verdict.ACCEPT else None
        gaps.extend([problem.gain + standing.log_index] * spent)
        used += spent
        if accepted is not None:
            standing = _Standing(config, log_index, standing.believed + accepted)
    missing = np.array(gaps[:windows]) / problem.gain
    there = np.flatnonzero(missing <= 0.05)
    known = agent.pretrained()
    return LearningRun(
        problem=problem.name,
        seed=seed,
        trials_to_95=float(there[0] if len(there) else windows) / PROBE_WINDOWS,
        regret=float(missing.mean()),
        final_regret=float(missing[-1]),
        harmful=harmful / proposals,
        proposals=proposals,
        reached=len(there) > 0,
        cpu_s=time.process_time() - began_s,
        memory_bytes=float(
            sum(array.nbytes for part in (known.weights, known.transitions)
                for array in part.values())
        ),
    )  # fmt: skip


def _promote(
    difference: float, noise: float, gate: GateSettings, luck: np.random.Generator
) -> tuple[int, float, Verdict]:
    """Blocks until the gate has a verdict: how many, the measured effect, the verdict."""
    blocks: list[float] = []
    pairs: list[float] = []
    while True:
        two = difference + noise * math.sqrt(2.0) * luck.standard_normal(2)
        pairs.extend(map(float, two))
        blocks.append(float(two.mean()))
        judgement = judge_promotion(blocks, {"all": blocks}, {"all": 1.0}, 1.0, gate, pairs)
        if judgement.verdict is not None:
            return len(blocks), float(np.mean(blocks)), judgement.verdict
