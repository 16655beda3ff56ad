"""The words that settings may use for the demo's workload; backend/workload gives them meaning."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

STATEMENT_CLASSES = (
    "product_by_id", "customer_by_id", "order_by_id", "customer_by_email",
    "customer_orders", "order_lines", "product_reviews", "city_returns", "category_views",
    "bought_together", "week_by_category", "city_basket", "region_brands", "brand_buyers",
    "supplier_shipments", "daily_revenue", "cart_funnel", "region_customers",
    "never_bought", "product_pairs", "segment_revenue", "lapsed_customers", "regional_ranking",
    "place_order", "record_event", "update_order", "adjust_stock", "add_review",
)  # fmt: skip
"""What the demo's clients may ask, by name; docs/demo-workload.md tells what each is."""

PARAMETER_LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"period_age_days": (0.0, 330.0), "customer_rank": (0.0, 1.0), "product_rank": (0.0, 1.0)}
)
"""The parameters whose range may be set, with the least and the highest value of a bound."""


def check_statement_class(name: str) -> str:
    """The name, as it is.

    Raises:
        ValueError: there is no such class; the choices are told.
    """
    if name not in STATEMENT_CLASSES:
        raise ValueError(
            f"there is no statement class of this name; choose among {', '.join(STATEMENT_CLASSES)}"
        )
    return name


def check_parameter_range(name: str, low: float, high: float) -> None:
    """See that a parameter's range may be set like this.

    Raises:
        ValueError: there is no such range, or it is empty or out of bounds; the bounds are told.
    """
    if name not in PARAMETER_LIMITS:
        raise ValueError(
            f"there is no parameter range {name!r}; choose among {', '.join(PARAMETER_LIMITS)}"
        )
    least, most = PARAMETER_LIMITS[name]
    if not least <= low <= high <= most:
        raise ValueError(
            f"the parameter range {name} = ({low:g}, {high:g}) is not inside "
            f"({least:g}, {most:g}), the lower bound first"
        )
