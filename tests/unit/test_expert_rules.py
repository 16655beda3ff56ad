"""Expert rules: sound values in native units, inside the space, explained."""

from __future__ import annotations

import pytest

from backend.catalog.knobs import load_catalog
from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue
from backend.domain.server import HostFacts
from backend.expert_rules import expert_proposals

GIB = 1024**3
SMALL = HostFacts(24 * GIB, 2.0, 200 * GIB)


def space(*, restart: bool = False, host: HostFacts = SMALL) -> KnobSpace:
    return load_catalog(17, host).space(include_restart=restart)


def changes(knobs: KnobSpace, config: KnobConfig) -> dict[str, KnobValue]:
    """What a configuration sets apart from the defaults."""
    defaults = knobs.default_config()
    return {name: value for name, value in config.items() if value != defaults[name]}


def test_the_joint_proposal_over_reloadable_knobs_comes_first() -> None:
    knobs = space(restart=True)
    first, *others = expert_proposals(knobs, SMALL, knobs.default_config())
    changed = changes(knobs, first.config)
    assert first.name == "all families"
    assert changed["work_mem"] == 64 * 1024
    assert changed["random_page_cost"] == 1.1
    assert changed["effective_cache_size"] == 18 * GIB // 8192
    assert changed["max_parallel_workers_per_gather"] == 0
    assert changed["max_wal_size"] == 4096
    assert changed["checkpoint_timeout"] == 900
    assert all(knobs[name].context != "restart" for name in changed)
    assert others[-1].name == "all families with restart"
    assert others[-1].config["shared_buffers"] == 6 * GIB // 8192


def test_families_change_few_knobs_each_and_no_proposal_repeats() -> None:
    knobs = space()
    proposals = expert_proposals(knobs, SMALL, knobs.default_config())
    assert {p.name for p in proposals} > {"memory", "planner costs", "parallelism", "autovacuum"}
    assert len({p.config for p in proposals}) == len(proposals)
    for proposal in proposals[1:]:
        assert 1 <= len(changes(knobs, proposal.config)) <= 6


@pytest.mark.parametrize(
    "host",
    [
        HostFacts(1 * GIB, 1.0, 5 * GIB),
        SMALL,
        HostFacts(512 * GIB, 96.0, None),
    ],
)
def test_every_proposal_is_a_valid_configuration_of_the_space(host: HostFacts) -> None:
    knobs = space(restart=True, host=host)
    proposals = expert_proposals(knobs, host, knobs.default_config(), clients=40)
    assert proposals
    for proposal in proposals:
        assert knobs.validate(proposal.config) == proposal.config
        assert set(proposal.config) == set(knobs.names)


def test_each_proposal_says_why_with_a_page_of_the_manual() -> None:
    knobs = space()
    proposals = expert_proposals(knobs, SMALL, knobs.default_config())
    assert proposals
    for proposal in proposals:
        assert "https://www.postgresql.org/docs/current/" in proposal.why


def test_what_the_rules_leave_alone_stands_as_it_stood() -> None:
    knobs = space()
    present = knobs.default_config().replace({"cpu_tuple_cost": 0.02, "work_mem": 65536})
    proposals = expert_proposals(knobs, SMALL, present)
    assert proposals
    for proposal in proposals:
        assert proposal.config["cpu_tuple_cost"] == 0.02
        assert proposal.config["work_mem"] == 65536


def test_nothing_is_proposed_where_everything_stands_so_already() -> None:
    knobs = space().subset(["work_mem", "random_page_cost"])
    settled = expert_proposals(knobs, SMALL, {})[0].config
    names = [p.name for p in expert_proposals(knobs, SMALL, settled)]
    assert names == []


def test_values_are_converted_through_the_knobs_own_unit() -> None:
    knobs = KnobSpace(
        [
            Knob("work_mem", "integer", 1, 100000, "log", "MB", 4),
            Knob("checkpoint_timeout", "real", 1, 60, unit="min", default=5.0),
            Knob("max_wal_size", "integer", 1, 1000, unit="s", default=10),
        ]
    )
    config = expert_proposals(knobs, SMALL, {})[0].config
    assert config["work_mem"] == 64
    assert config["checkpoint_timeout"] == 15.0
    assert config["max_wal_size"] == 10  # bytes do not fit a knob in seconds


def test_choices_fall_back_to_what_the_knob_offers() -> None:
    modern = Knob("wal_compression", "categorical", choices=("off", "pglz"), default="off")
    boolean = Knob("wal_compression", "boolean", default=False)
    for knob, expected in ((modern, "pglz"), (boolean, True)):
        proposals = expert_proposals(KnobSpace([knob]), SMALL, {})
        assert proposals[0].config["wal_compression"] == expected


def test_an_unknown_machine_yields_no_rule_about_its_size() -> None:
    knobs = space()
    unknown = HostFacts(0, 0.0, None, is_local=False)
    proposals = expert_proposals(knobs, unknown, {})
    assert proposals
    for proposal in proposals:
        changed = changes(knobs, proposal.config)
        assert not {"work_mem", "effective_cache_size", "max_parallel_workers"} & set(changed)


def test_many_cores_and_few_clients_get_parallel_workers() -> None:
    host = HostFacts(64 * GIB, 32.0, None)
    knobs = space(host=host)
    few = expert_proposals(knobs, host, {}, clients=4)[0].config
    many = expert_proposals(knobs, host, {}, clients=64)[0].config
    assert few["max_parallel_workers_per_gather"] == 4
    assert many["max_parallel_workers_per_gather"] == 1
