"""The genome: hyper-parameters of the knob agent, the plan agent and the gate as flat numbers.

A gene is a number between two safe bounds. Settings may narrow the bounds (``level2.bounds``),
never widen them, and what a gate may let through by chance (``alpha``) is never evolved upwards.
Genes that no problem measures (those of the plan agent, the sizes of replays that a short run
never fills) are carried and not varied: without selection they would drift.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from backend.agent.settings import KnobAgentSettings
from backend.errors import ConfigError
from backend.gate import GateSettings
from backend.plan_agent.settings import PlanAgentSettings

Kind = Literal["real", "log", "integer", "log integer"]
Part = Literal["knob", "plan", "gate"]
SettingsT = TypeVar("SettingsT", KnobAgentSettings, PlanAgentSettings, GateSettings)


@dataclass(frozen=True)
class Gene:
    """One hyper-parameter.

    Args:
        name: unique; those of the plan agent begin with ``plan_``.
        part: whose it is.
        low, high: safe bounds, both included.
        kind: whole or not, spread evenly or over decades.
        varied: whether evolution changes it.
    """

    name: str
    part: Part
    low: float
    high: float
    kind: Kind = "real"
    varied: bool = True

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.kind in ("integer", "log integer")


GENES: tuple[Gene, ...] = (
    Gene("learning_rate", "knob", 3e-5, 3e-3, "log"),
    Gene("critic_learning_rate", "knob", 3e-4, 1e-2, "log"),
    Gene("gamma", "knob", 0.0, 0.5),
    Gene("tau", "knob", 0.002, 0.5, "log"),
    Gene("batch_size", "knob", 16, 128, "log integer"),
    Gene("buffer_size", "knob", 16, 1_000_000, "log integer", varied=False),
    Gene("hidden_width", "knob", 16, 128, "log integer"),
    Gene("hidden_depth", "knob", 1, 3, "integer"),
    Gene("ensemble_size", "knob", 3, 12, "integer"),
    Gene("updates_per_tell", "knob", 5, 120, "log integer"),
    Gene("noise_start", "knob", 0.1, 1.0, "log"),
    Gene("noise_end", "knob", 0.01, 0.1, "log"),
    Gene("optimism", "knob", 0.0, 3.0),
    Gene("design_size", "knob", 1, 12, "integer"),
    Gene("candidates", "knob", 200, 2000, "log integer"),
    Gene("actor_share", "knob", 0.0, 0.5),
    Gene("trust_start", "knob", 0.15, 1.0, "log"),
    Gene("trust_min", "knob", 0.05, 0.15, "log"),
    Gene("far_knobs", "knob", 0, 2, "integer"),
    Gene("moved_knobs", "knob", 1, 8, "integer"),
    Gene("quality_floor", "knob", 0.05, 0.6),
    Gene("alpha", "gate", 0.001, 0.005, "log"),
    Gene("futility_alpha", "gate", 0.02, 0.2, "log"),
    Gene("min_improvement", "gate", 0.01, 0.05, "log"),
    Gene("min_blocks", "gate", 4, 6, "integer"),
    Gene("max_blocks", "gate", 6, 12, "integer"),
    Gene("plan_learning_rate", "plan", 1e-4, 1e-2, "log", varied=False),
    Gene("plan_gamma", "plan", 0.0, 0.99, varied=False),
    Gene("plan_batch_size", "plan", 16, 128, "log integer", varied=False),
    Gene("plan_hidden_width", "plan", 16, 128, "log integer", varied=False),
    Gene("plan_hidden_depth", "plan", 1, 3, "integer", varied=False),
    Gene("plan_ensemble_size", "plan", 2, 12, "integer", varied=False),
    Gene("plan_caution", "plan", 0.0, 2.0, varied=False),
    Gene("plan_clear_gain", "plan", 0.02, 0.5, "log", varied=False),
)
BY_NAME: Mapping[str, Gene] = {gene.name: gene for gene in GENES}
LIVE_KNOB = KnobAgentSettings(trust_start=0.4, far_knobs=0, moved_knobs=4)
"""The knob agent as it starts on a live server without any settings."""


@dataclass(frozen=True)
class Genome:
    """One individual.

    Args:
        values: a number for every gene, by name, as they are stored.

    Raises:
        ConfigError: a gene is missing, unknown or not a finite number.
    """

    values: Mapping[str, float]

    def __post_init__(self) -> None:
        if wrong := set(self.values) ^ set(BY_NAME):
            raise ConfigError(
                f"a genome has exactly the genes of this version, not {', '.join(sorted(wrong))}",
                remedy="evolve anew: python run.py evolve",
            )
        if bad := [name for name, value in self.values.items() if not math.isfinite(value)]:
            raise ConfigError(f"gene {bad[0]} = {self.values[bad[0]]} must be a finite number")
        object.__setattr__(self, "values", {gene.name: self.values[gene.name] for gene in GENES})

    @classmethod
    def of(
        cls,
        knob: KnobAgentSettings = LIVE_KNOB,
        plan: PlanAgentSettings | None = None,
        gate: GateSettings | None = None,
    ) -> Genome:
        """The genome of settings: putting it into them changes nothing."""
        plan, gate = plan or PlanAgentSettings(), gate or GateSettings(alpha=0.005)
        parts: Mapping[Part, object] = {"knob": knob, "plan": plan, "gate": gate}
        return cls({gene.name: _read(parts[gene.part], _field(gene)) for gene in GENES})

    def __hash__(self) -> int:
        return hash(tuple(self.values.items()))

    # -- back to settings ---------------------------------------------------------------------

    def knob_settings(self, base: KnobAgentSettings = LIVE_KNOB) -> KnobAgentSettings:
        """``base`` with the genes of the knob agent.

        Raises:
            ValueError: the genes contradict each other.
        """
        return self._into(base, "knob")

    def plan_settings(self, base: PlanAgentSettings) -> PlanAgentSettings:
        """``base`` with the genes of the plan agent."""
        return self._into(base, "plan")

    def gate_settings(self, base: GateSettings) -> GateSettings:
        """``base`` with the genes of the gate; what may pass by chance never grows."""
        changed = self._into(base, "gate")
        return dataclasses.replace(changed, alpha=min(changed.alpha, base.alpha))

    def _into(self, base: SettingsT, part: Part) -> SettingsT:
        changes: dict[str, Any] = {}
        for gene in GENES:
            value, field = self.values[gene.name], _field(gene)
            # A gene that says what is set already leaves it: layers of unequal widths stay.
            if gene.part != part or value == _read(base, field):
                continue
            if field == "hidden_width":
                changes["hidden_layers"] = (int(value),) * self._depth(part)
            elif field == "hidden_depth":
                changes.setdefault(
                    "hidden_layers", (int(_read(base, "hidden_width")),) * int(value)
                )
            else:
                changes[field] = int(value) if gene.whole else value
        return dataclasses.replace(base, **changes)

    def _depth(self, part: Part) -> int:
        return int(self.values["plan_hidden_depth" if part == "plan" else "hidden_depth"])


def bounds_of(
    overrides: Mapping[str, tuple[float, float]], incumbent: Genome
) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each gene that is varied.

    What stands always lies inside, even where it was set by hand beyond the safe bounds.

    Args:
        overrides: narrower bounds by gene, from the settings.
        incumbent: the genome that stands.

    Raises:
        ConfigError: there is no such gene, or nothing of its safe bounds is left.
    """
    varied = {gene.name: (gene.low, gene.high) for gene in GENES if gene.varied}
    for name, (low, high) in overrides.items():
        if name not in varied:
            raise ConfigError(
                f"level2.bounds: {name} is no gene that is evolved",
                remedy=f"choose from {', '.join(varied)}",
            )
        safe_low, safe_high = varied[name]
        if not max(low, safe_low) <= min(high, safe_high):
            raise ConfigError(
                f"level2.bounds: {name} from {low:g} to {high:g} leaves nothing of the safe "
                f"{safe_low:g} to {safe_high:g}",
                remedy="name a lower and an upper bound inside it",
            )
        varied[name] = (max(low, safe_low), min(high, safe_high))
    return {
        name: (min(low, incumbent.values[name]), max(high, incumbent.values[name]))
        for name, (low, high) in varied.items()
    }


def _field(gene: Gene) -> str:
    return gene.name.removeprefix("plan_")


def _read(settings: object, field: str) -> float:
    if field == "hidden_width":
        return float(settings.hidden_layers[0])  # type: ignore[attr-defined]
    if field == "hidden_depth":
        return float(len(settings.hidden_layers))  # type: ignore[attr-defined]
    return float(getattr(settings, field))
