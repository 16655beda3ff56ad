"""What the shipped agent is trained on: workloads unlike the judged ones, legal configurations."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from backend.catalog.knobs import load_catalog
from backend.domain.server import HostFacts
from backend.workload.mixes import MIXES
from backend.workload.schedule import ArrivalSchedule
from backend.workload.shape import DEMO_SCALE
from backend.workload.statements import STATEMENTS
from benchmarks.recording.designs import HALF_WIDTH, ORDER, Design
from benchmarks.recording.workloads import (
    GROUPS,
    LEAST_DISTANCE,
    SCALES,
    TYPICAL_MS,
    distance,
    training_workload,
)

SPACE = load_catalog(17, HostFacts(memory_bytes=2**34, cpu_count=4.0)).space()
RULES = {"random_page_cost": 1.1, "jit": False, "work_mem": 65536}


def test_workloads_are_unlike_those_that_are_judged_on() -> None:
    assert DEMO_SCALE not in SCALES
    workloads = [training_workload(0, number) for number in range(40)]
    for workload in workloads:
        for mix in MIXES.values():
            assert distance(workload.weights, mix) >= LEAST_DISTANCE
        assert set(workload.weights) <= set(STATEMENTS)
        assert workload.guessed_ms() > 0
    assert {workload.scale for workload in workloads} == set(SCALES)
    assert len({workload.name for workload in workloads}) == 40
    # Between them they ask for every class.
    assert set().union(*(workload.weights for workload in workloads)) == set(STATEMENTS)


def test_a_mix_is_at_no_distance_from_itself() -> None:
    for mix in MIXES.values():
        assert distance(mix.shares(0.5), mix) == pytest.approx(0.0)


def test_the_same_seed_gives_the_same_workload_and_another_another() -> None:
    assert training_workload(3, 5) == training_workload(3, 5)
    assert training_workload(3, 5).weights != training_workload(4, 5).weights


def test_every_kind_of_statement_has_a_group_and_a_guess() -> None:
    kinds = {statement.kind for statement in STATEMENTS.values()}
    assert kinds == set(TYPICAL_MS) == {kind for group in GROUPS for kind in group}


def test_a_workload_can_be_offered() -> None:
    workload = training_workload(0, 0)
    schedule = ArrivalSchedule(workload.mix(50.0), seed=1)
    assert schedule.rate_per_s == 50.0
    assert {arrival.class_name for arrival in islice(schedule, 200)} <= set(workload.weights)


def test_designs_are_legal_reproducible_and_near_their_centres() -> None:
    defaults = SPACE.default_config()
    first = list(islice(Design(SPACE, RULES, [0, 1]), 3 * len(ORDER)))
    again = list(islice(Design(SPACE, RULES, [0, 1]), 3 * len(ORDER)))
    assert first == again
    assert [kind for kind, _ in first] == 3 * list(ORDER)
    centres = {"near the rules": defaults.replace(RULES), "near the defaults": defaults}
    for kind, config in first:
        if kind == "ask":
            assert config is None
            continue
        assert config is not None
        SPACE.validate(config)
        if kind == "part of the rules":
            assert {n for n, v in config.items() if v != defaults[n]} <= set(RULES)
            continue
        for knob in SPACE:
            if knob.kind in ("integer", "real"):
                moved = knob.encode(config[knob.name]) - knob.encode(centres[kind][knob.name])
                # An integer knob of few values is rounded to the nearest of them.
                assert np.abs(moved[0]) <= HALF_WIDTH + 0.5
    configs = [config for _, config in first if config is not None]
    assert len(set(configs)) >= len(configs) - 1
