"""What the statements' parameters point into: the store's shape and the ranges asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from backend.domain.workload import check_parameter_range
from backend.errors import WorkloadError
from backend.workload.shape import StoreShape

PARAMETER_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "period_age_days": (0.0, 60.0),
        "customer_rank": (0.0, 1.0),
        "product_rank": (0.0, 1.0),
    }
)
"""The ranges that may be narrowed, with their defaults.

``period_age_days``: how many days before the newest data a report's period ends, up to 330.
``customer_rank``, ``product_rank``: which customers and products are asked for, as shares of the
ranking by popularity; (0, 0.1) asks for the best-selling tenth alone.
"""


@dataclass(frozen=True)
class Scope:
    """The store's shape, and the parameter ranges that differ from :data:`PARAMETER_RANGES`.

    Raises:
        WorkloadError: an unknown range, or one that is empty or out of bounds.
    """

    shape: StoreShape
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, (low, high) in self.ranges.items():
            try:
                check_parameter_range(name, low, high)
            except ValueError as error:
                raise WorkloadError(str(error)) from None

    def within(self, name: str, share: float) -> float:
        """Return the value at ``share`` in [0, 1] of the named range."""
        low, high = self.ranges.get(name, PARAMETER_RANGES[name])
        return low + (high - low) * share
