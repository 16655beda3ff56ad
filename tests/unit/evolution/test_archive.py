"""Which genome stands for which workload, and what an evolution begins with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

import numpy as np

from backend.config import Settings
from backend.domain.knobs import Knob, KnobSpace
from backend.domain.policies import GenomeRecord
from backend.domain.records import KnobSpaceRecord, TransitionRecord
from backend.evolution.archive import (
    go_back,
    standing_genome,
    standing_record,
    starting_genomes,
)
from backend.evolution.genome import Genome
from backend.evolution.present import present_genome
from backend.evolution.profile import ALIKE, NAMES, distance, profile_of
from backend.state_features import FEATURES, STATE_LAYOUT, STATE_WIDTH
from backend.telemetry import SqlStore

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
DEFAULT = Genome.of()
SHOP = dict.fromkeys(NAMES, 5.0)
REPORTS = {**SHOP, "log_mean_ms": 12.0, "log_calls_per_s": 0.5}


def record(
    gamma: float,
    minutes: int,
    profile: Mapping[str, float] = SHOP,
    *,
    deployed: bool = True,
    regret: float = 0.3,
) -> GenomeRecord:
    return GenomeRecord(
        at=NOW + timedelta(minutes=minutes),
        study="s",
        generation=1,
        origin="evolved",
        genes={**DEFAULT.values, "gamma": gamma},
        fitness={"regret": regret},
        profile=profile,
        comparison={},
        deployed=deployed,
    )


def test_a_profile_is_the_median_of_named_features() -> None:
    states = np.zeros((3, STATE_WIDTH))
    column = [feature.name for feature in FEATURES].index("log_mean_ms")
    states[:, column] = [1.0, 2.0, 90.0]
    profile = profile_of(list(states))
    assert tuple(profile) == NAMES
    assert profile["log_mean_ms"] == 2.0
    assert profile_of([]) == {}


def test_workloads_of_another_character_are_far_apart() -> None:
    assert distance(SHOP, SHOP) == 0.0
    assert distance(SHOP, {**SHOP, "log_calls_per_s": 5.5}) < ALIKE < distance(SHOP, REPORTS)
    assert distance(SHOP, {}) == float("inf")


def test_the_newest_genome_of_the_nearest_workload_stands() -> None:
    records = [record(0.1, 1), record(0.2, 2), record(0.3, 3, REPORTS)]
    assert standing_record(records, SHOP) == records[1]
    assert standing_record(records, REPORTS) == records[2]
    far = {**SHOP, "mix_entropy": 30.0}
    assert standing_record(records, far) is None


def test_what_was_only_measured_does_not_stand() -> None:
    assert standing_record([record(0.1, 1, deployed=False)], SHOP) is None


def test_a_genome_of_another_version_does_not_stand() -> None:
    strange = record(0.1, 1)
    strange = GenomeRecord(**{**vars(strange), "genes": {"gamma": 0.1}})
    assert standing_record([strange], SHOP) is None


def test_genes_that_are_not_varied_are_those_of_the_settings(store: SqlStore) -> None:
    store.add_genome(record(0.2, 1))
    settings = Genome({**DEFAULT.values, "plan_gamma": 0.5})
    stands = standing_genome(store, SHOP, settings)
    assert (stands.values["gamma"], stands.values["plan_gamma"]) == (0.2, 0.5)
    assert standing_genome(store, REPORTS, settings) == settings


def test_going_back_brings_the_genome_before_it(store: SqlStore) -> None:
    for gamma, minutes in ((0.1, 1), (0.2, 2)):
        store.add_genome(record(gamma, minutes))
    later = NOW + timedelta(hours=1)
    stands = go_back(store, SHOP, DEFAULT, later)
    assert stands is not None
    assert stands.genes["gamma"] == 0.1
    assert standing_genome(store, SHOP, DEFAULT).values["gamma"] == 0.1


def test_back_from_the_first_genome_is_the_settings(store: SqlStore) -> None:
    assert go_back(store, SHOP, DEFAULT, NOW) is None
    store.add_genome(record(0.2, 1))
    go_back(store, SHOP, DEFAULT, NOW + timedelta(hours=1))
    assert standing_genome(store, SHOP, DEFAULT) == DEFAULT


def test_an_evolution_begins_with_what_was_deployed_and_what_was_fast() -> None:
    records = [
        record(0.1, 1, deployed=False, regret=0.5),
        record(0.2, 2, deployed=False, regret=0.2),
        record(0.3, 3, REPORTS, deployed=False, regret=0.1),
        record(0.4, 4, regret=0.9),
        record(0.2, 5, deployed=False, regret=0.2),
    ]
    gammas = [genome.values["gamma"] for genome in starting_genomes(records, SHOP, 3)]
    assert gammas == [0.4, 0.2, 0.1]


def test_the_present_genome_is_that_of_the_present_workload(store: SqlStore) -> None:
    column = {feature.name: number for number, feature in enumerate(FEATURES)}
    space = KnobSpace([Knob("work_mem", "integer", 64, 1048576, "log", "kB", 4096)])
    store.add_knob_space(KnobSpaceRecord.of(space))
    for workload, profile in (("shop", SHOP), ("reports", REPORTS)):
        state = np.zeros(STATE_WIDTH)
        for name, value in profile.items():
            state[column[name]] = value
        store.add_transition(
            TransitionRecord(
                at=NOW, run="r", workload=workload, knob_space=space.fingerprint,
                state_layout=STATE_LAYOUT, state=tuple(state), config={"work_mem": 64},
                objective=1.0, reward_terms={"latency": 0.0},
            )
        )  # fmt: skip
    store.add_genome(record(0.2, 1, SHOP))
    settings = Settings()
    assert present_genome(settings, store, "shop")[0].values["gamma"] == 0.2
    assert present_genome(settings, store, "reports") == (DEFAULT, None)
    assert present_genome(settings, store) == (DEFAULT, None)  # the newest are of the reports
    assert present_genome(settings, store, "unheard of")[0].values["gamma"] == 0.2
