"""The settings of the demo's workload."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, field_validator

from backend.domain.workload import check_parameter_range, check_statement_class
from backend.settings.section import Section


class WorkloadSection(Section):
    """The demo's workload."""

    name: Literal["mixed", "oltp", "analytical", "simple"] = Field(
        "mixed",
        description="Mix of statements: mixed, oltp, analytical or simple (nothing to gain).",
    )
    queries_per_hour: int | None = Field(
        None,
        ge=1,
        description="Mean statements a simulated hour over a day; empty: the mix's own.",
    )
    data_scale_factor: float = Field(
        0.25, gt=0, le=10, description="Size of the demo store; 1.0 is about 10 million rows."
    )
    query_distribution: dict[
        Annotated[str, AfterValidator(check_statement_class)], NonNegativeFloat
    ] = Field(
        default_factory=dict,
        description="Weights of statement classes that replace those of the mix, by class name.",
    )
    parameter_ranges: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="Bounds of statement parameters, by parameter name."
    )
    seed: int = Field(0, ge=0, description="Seed of the data, the arrivals and the parameters.")
    max_concurrency: int = Field(8, ge=1, le=200, description="Connections of the generator.")
    statement_timeout: float = Field(
        30, gt=0, description="Seconds after which the generator's own statements are cancelled."
    )

    @field_validator("parameter_ranges")
    @classmethod
    def _ranges_are_known(
        cls, ranges: dict[str, tuple[float, float]]
    ) -> dict[str, tuple[float, float]]:
        for name, (low, high) in ranges.items():
            check_parameter_range(name, low, high)
        return ranges
