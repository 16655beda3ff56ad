"""How large the demo store is at a given scale, as pure numbers.

The loader, the verifier and the parameter generators of the statements all read the same
shape, so that a statement never asks for a customer who does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from backend.errors import WorkloadError

DATA_END = datetime(2026, 1, 1, tzinfo=timezone.utc)
"""The newest moment in the loaded data; rows written by the workload are newer."""

DATA_DAYS = 730
"""How many days of history the loaded data spans."""

MIN_SCALE = 0.001
MAX_SCALE = 100.0

DEMO_SCALE = 0.25
"""The scale of the bundled demo: about 2.5 million rows."""

REGIONS = 48
CARRIERS = 12
PAYMENT_METHODS = 8
WAREHOUSES = 60
SUPPLIERS = 300
BRANDS = 600
TOP_CATEGORIES = 12
LEAF_CATEGORIES = 120
CITIES_PER_REGION = 20


@dataclass(frozen=True)
class StoreShape:
    """Row counts of the scaled tables (orders' lines are random, about 2.6 per order)."""

    scale: float
    customers: int
    products: int
    orders: int
    reviews: int
    events: int

    @classmethod
    def at_scale(cls, scale: float) -> StoreShape:
        """Return the shape at ``scale`` (1.0 is about 10 million rows in all).

        Raises:
            WorkloadError: when the scale lies outside [0.001, 100].
        """
        if not MIN_SCALE <= scale <= MAX_SCALE:
            raise WorkloadError(
                f"the demo store's scale {scale!r} is outside [{MIN_SCALE}, {MAX_SCALE}]",
                remedy=f"choose a scale inside, for example {DEMO_SCALE}",
            )
        return cls(
            scale=scale,
            customers=round(400_000 * scale),
            products=round(100_000 * scale),
            orders=round(1_600_000 * scale),
            reviews=round(500_000 * scale),
            events=round(3_200_000 * scale),
        )

    @property
    def expected_order_items(self) -> float:
        """The expected number of order lines."""
        return self.orders * 2.616


def day_before_end(days: float) -> datetime:
    """Return the moment ``days`` days before the end of the loaded data."""
    return DATA_END - timedelta(days=days)
