"""Genomes: to settings and back, within safe bounds."""

from __future__ import annotations

import dataclasses

import pytest

from backend.agent.settings import KnobAgentSettings
from backend.config import Settings
from backend.errors import ConfigError
from backend.evolution.genome import GENES, LIVE_KNOB, Genome, bounds_of
from backend.evolution.present import default_genome
from backend.gate import GateSettings
from backend.learning import agent_settings
from backend.plan_agent.settings import PlanAgentSettings

DEFAULT = Genome.of()


def changed(**genes: float) -> Genome:
    return Genome({**DEFAULT.values, **genes})


def test_the_default_genome_changes_nothing() -> None:
    assert DEFAULT.knob_settings(LIVE_KNOB) == LIVE_KNOB
    assert DEFAULT.plan_settings(PlanAgentSettings()) == PlanAgentSettings()
    assert DEFAULT.gate_settings(GateSettings(alpha=0.005)) == GateSettings(alpha=0.005)


def test_the_genome_of_the_default_settings_is_the_default_one() -> None:
    assert default_genome(Settings()) == DEFAULT
    live = agent_settings(Settings().level0.knob)
    assert default_genome(Settings()).knob_settings(live) == live


def test_layers_of_unequal_widths_stay_as_they_were_set() -> None:
    odd = KnobAgentSettings(hidden_layers=(64, 32))
    assert Genome.of(odd).knob_settings(odd) == odd


def test_genes_become_settings() -> None:
    genome = changed(
        hidden_width=32, hidden_depth=3, updates_per_tell=15, optimism=0.5, plan_gamma=0.5
    )
    knob = genome.knob_settings()
    assert knob.hidden_layers == (32, 32, 32)
    assert (knob.updates_per_tell, knob.optimism) == (15, 0.5)
    assert isinstance(knob.updates_per_tell, int)
    assert genome.plan_settings(PlanAgentSettings()).gamma == 0.5
    assert Genome.of(knob).knob_settings() == knob


@pytest.mark.parametrize("name", ["hidden_width", "hidden_depth"])
def test_one_gene_of_the_layers_leaves_the_other(name: str) -> None:
    layers = changed(**{name: 1 if name == "hidden_depth" else 16}).knob_settings().hidden_layers
    assert layers == ((64,) if name == "hidden_depth" else (16, 16))


@pytest.mark.parametrize("bound", ["low", "high"])
def test_every_bound_makes_legal_settings(bound: str) -> None:
    genome = Genome({gene.name: getattr(gene, bound) for gene in GENES})
    genome.knob_settings()
    genome.plan_settings(PlanAgentSettings())
    gate = genome.gate_settings(GateSettings(alpha=0.005))
    assert 3 <= gate.min_blocks <= gate.max_blocks


def test_the_default_lies_inside_the_bounds() -> None:
    for gene in GENES:
        assert gene.low <= DEFAULT.values[gene.name] <= gene.high, gene.name


def test_what_the_gate_lets_through_by_chance_never_grows() -> None:
    strict = GateSettings(alpha=0.001)
    assert changed(alpha=0.005).gate_settings(strict).alpha == 0.001
    assert changed(alpha=0.001).gate_settings(GateSettings(alpha=0.005)).alpha == 0.001


def test_bounds_are_narrowed_and_never_widened() -> None:
    bounds = bounds_of({"gamma": (0.0, 0.2), "optimism": (0.5, 100.0)}, DEFAULT)
    assert bounds["gamma"] == (0.0, 0.2)
    assert bounds["optimism"] == (0.5, 3.0)
    assert "plan_gamma" not in bounds


def test_what_stands_lies_inside_its_bounds() -> None:
    by_hand = Genome.of(dataclasses.replace(LIVE_KNOB, gamma=0.9))
    assert bounds_of({}, by_hand)["gamma"] == (0.0, 0.9)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"speed": (0.0, 1.0)}, "speed is no gene"),
        ({"plan_gamma": (0.0, 1.0)}, "plan_gamma is no gene"),
        ({"gamma": (0.8, 0.9)}, "leaves nothing"),
        ({"gamma": (0.4, 0.1)}, "leaves nothing"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(
    overrides: dict[str, tuple[float, float]], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        bounds_of(overrides, DEFAULT)


def test_a_genome_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="gamma"):
        Genome({name: value for name, value in DEFAULT.values.items() if name != "gamma"})
    with pytest.raises(ConfigError, match="finite"):
        changed(gamma=float("nan"))
