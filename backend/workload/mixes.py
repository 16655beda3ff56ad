"""The mixes: which share of the statements each class has, by day and by night."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from backend.errors import WorkloadError
from backend.workload.statements import STATEMENTS


@dataclass(frozen=True)
class Mix:
    """A named mix of statement classes.

    Attributes:
        name: what the command line calls it.
        description: one line for a person.
        day: weight of each class at the day's peak; weights are relative.
        night_factor: by what the weight of a class is multiplied at night (1 where not named).
        default_rate_per_s: mean statements per real second over a day, unless told otherwise.
        swing: relative amplitude of the day/night swing of volume; at 1/3 the night has half the
            volume of the day.
    """

    name: str
    description: str
    day: Mapping[str, float]
    default_rate_per_s: float
    night_factor: Mapping[str, float]
    swing: float = 1 / 3

    def __post_init__(self) -> None:
        """Check the names and the weights."""
        unknown = sorted((set(self.day) | set(self.night_factor)) - set(STATEMENTS))
        if unknown:
            raise WorkloadError(f"mix {self.name!r} names unknown statement classes: {unknown}")
        if not self.day or min(self.day.values()) <= 0:
            raise WorkloadError(f"mix {self.name!r} needs classes with weights above 0")
        if not 0 <= self.swing < 1:
            raise WorkloadError(f"mix {self.name!r}: swing {self.swing} is outside [0, 1)")

    def shares(self, daylight: float) -> dict[str, float]:
        """Return each class's share (summing to 1) at ``daylight``: 0 is night, 1 is day."""
        weights = {
            name: weight * (daylight + (1 - daylight) * self.night_factor.get(name, 1.0))
            for name, weight in self.day.items()
        }
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def with_weights(self, weights: Mapping[str, float]) -> Mix:
        """Return the mix with these classes' weights replaced; a weight of 0 leaves a class out.

        Raises:
            WorkloadError: an unknown class, a negative weight, or nothing left.
        """
        day = {name: weight for name, weight in {**self.day, **weights}.items() if weight != 0}
        return replace(self, day=day) if weights else self


_REPORTS_AT_NIGHT = {
    name: 1.25 for name, s in STATEMENTS.items() if s.kind in ("analytical", "aggregation")
}

_PAGES = {
    "product_by_id": 9.0,
    "customer_by_id": 5.0,
    "order_by_id": 4.0,
    "customer_by_email": 5.0,
    "customer_orders": 6.0,
    "order_lines": 5.0,
    "product_reviews": 6.0,
}

_WRITES = {
    "place_order": 4.0,
    "record_event": 7.0,
    "update_order": 4.0,
    "adjust_stock": 4.0,
    "add_review": 1.0,
}

_REPORTS = {
    "city_returns": 4.0,
    "category_views": 3.0,
    "bought_together": 3.0,
    "week_by_category": 4.0,
    "city_basket": 3.0,
    "region_brands": 3.0,
    "brand_buyers": 2.5,
    "supplier_shipments": 2.5,
    "daily_revenue": 5.0,
    "cart_funnel": 3.0,
    "region_customers": 2.5,
    "never_bought": 2.0,
    "product_pairs": 2.0,
    "segment_revenue": 1.5,
    "lapsed_customers": 1.5,
    "regional_ranking": 2.0,
}

MIXES: dict[str, Mix] = {
    mix.name: mix
    for mix in (
        Mix(
            name="mixed",
            description="pages, reports and writes of one shop on one server",
            day={**_PAGES, **_WRITES, **_REPORTS},
            night_factor=_REPORTS_AT_NIGHT,
            default_rate_per_s=32.0,
        ),
        Mix(
            name="oltp",
            description="pages and many writes: the till on a busy day",
            day={**_PAGES, **{name: 3 * weight for name, weight in _WRITES.items()}},
            night_factor={},
            default_rate_per_s=400.0,
        ),
        Mix(
            name="analytical",
            description="reports and dashboards alone",
            day=_REPORTS,
            night_factor=_REPORTS_AT_NIGHT,
            default_rate_per_s=14.0,
        ),
        Mix(
            name="simple",
            description="single rows by primary key: there is nothing to gain",
            day={"product_by_id": 4.0, "customer_by_id": 3.0, "order_by_id": 3.0},
            night_factor={},
            default_rate_per_s=200.0,
        ),
    )
}


def mix_named(name: str) -> Mix:
    """Return a mix by its name.

    Raises:
        WorkloadError: when there is none of that name.
    """
    try:
        return MIXES[name]
    except KeyError:
        raise WorkloadError(
            f"there is no workload mix {name!r}", remedy=f"choose one of {', '.join(sorted(MIXES))}"
        ) from None
