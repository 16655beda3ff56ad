"""Checks of a loaded demo store: counts, keys, skew and correlations."""

# The SQL below is put together from this package's own constants and from numbers alone.
# ruff: noqa: S608

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.workload import keys
from backend.workload.shape import DATA_END, StoreShape


@dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it holds, and the figures behind it."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class RangeCheck:
    """A figure that must lie in [low, high]; ``sql`` returns one number."""

    name: str
    sql: str
    low: float
    high: float

    def run(self, cursor: Any) -> CheckResult:
        """Run the check on an open cursor."""
        cursor.execute(self.sql)
        value = cursor.fetchone()[0]
        if value is None:
            return CheckResult(self.name, False, "no rows")
        ok = self.low <= float(value) <= self.high
        bounds = f"[{self.low:.6g}, {self.high:.6g}]"
        return CheckResult(self.name, ok, f"{float(value):.6g} {'in' if ok else 'not in'} {bounds}")


def _count_checks(shape: StoreShape) -> list[RangeCheck]:
    # The workload adds rows to the written tables and never deletes, so those have no upper bound.
    unbounded = float("inf")
    lines = shape.expected_order_items
    return [
        RangeCheck("customers", "SELECT count(*) FROM shop.customers", *[shape.customers] * 2),
        RangeCheck("products", "SELECT count(*) FROM shop.products", *[shape.products] * 2),
        RangeCheck("orders", "SELECT count(*) FROM shop.orders", shape.orders, unbounded),
        RangeCheck("reviews", "SELECT count(*) FROM shop.reviews", shape.reviews, unbounded),
        RangeCheck("events", "SELECT count(*) FROM shop.events", shape.events, unbounded),
        RangeCheck(
            "order items of the load",
            f"SELECT count(*) FROM shop.order_items WHERE order_id <= {shape.orders}",
            lines * 0.95,
            lines * 1.05,
        ),
    ]


def _key_checks(shape: StoreShape) -> list[RangeCheck]:
    return [
        RangeCheck(
            "valid foreign keys",
            "SELECT count(*) FROM pg_constraint WHERE connamespace = 'shop'::regnamespace"
            " AND contype = 'f' AND convalidated",
            *[len(keys.FOREIGN_KEYS)] * 2,
        ),
        RangeCheck(
            "valid indexes",
            "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE c.relnamespace = 'shop'::regnamespace AND i.indisvalid",
            *[len(keys.INDEXES)] * 2,
        ),
        RangeCheck(
            "orders without lines",
            "SELECT count(*) FROM shop.orders o WHERE NOT EXISTS"
            " (SELECT FROM shop.order_items i WHERE i.order_id = o.order_id)",
            0,
            0,
        ),
        RangeCheck(
            "loaded orders whose total is not the sum of their lines",
            "SELECT count(*) FROM shop.orders o JOIN (SELECT order_id,"
            " sum(round(quantity * unit_price * (1 - discount), 2)) AS total"
            " FROM shop.order_items GROUP BY order_id) t USING (order_id)"
            f" WHERE o.total <> t.total AND o.order_id <= {shape.orders}",
            0,
            0,
        ),
    ]


def _distribution_checks(shape: StoreShape) -> list[RangeCheck]:
    loaded = f"order_id <= {shape.orders}"
    end = DATA_END.isoformat()
    return [
        RangeCheck(
            "share of the lines that the best 1 % of the products sell",
            f"SELECT sum(n) FILTER (WHERE r <= {max(1, shape.products // 100)}) / sum(n) FROM"
            " (SELECT count(*) AS n, row_number() OVER (ORDER BY count(*) DESC) AS r"
            f" FROM shop.order_items WHERE {loaded} GROUP BY product_id) p",
            0.10,
            0.45,
        ),
        RangeCheck(
            "share of the orders that the busiest 10 % of the customers place",
            f"SELECT sum(n) FILTER (WHERE r <= {max(1, shape.customers // 10)}) / sum(n) FROM"
            " (SELECT count(*) AS n, row_number() OVER (ORDER BY count(*) DESC) AS r"
            f" FROM shop.orders WHERE {loaded} GROUP BY customer_id) c",
            0.25,
            0.55,
        ),
        RangeCheck(
            "share of the products in their brand's main category",
            "SELECT sum(top) / sum(n) FROM (SELECT max(n) AS top, sum(n) AS n FROM"
            " (SELECT brand_id, count(*) AS n FROM shop.products GROUP BY brand_id, category_id) b"
            " GROUP BY brand_id) s",
            0.75,
            1.0,
        ),
        RangeCheck(
            "share of delivered, cancelled or returned among orders older than 30 days",
            "SELECT avg((status IN ('delivered', 'cancelled', 'returned'))::int) FROM shop.orders"
            f" WHERE {loaded} AND placed_at < timestamptz '{end}' - interval '30 days'",
            0.98,
            1.0,
        ),
        RangeCheck(
            "share of open orders among those of the last day",
            "SELECT avg((status IN ('pending', 'paid', 'shipped'))::int) FROM shop.orders"
            f" WHERE {loaded} AND placed_at > timestamptz '{end}' - interval '1 day'",
            0.3,
            1.0,
        ),
        RangeCheck(
            "share of the orders that go to the buyer's own region",
            "SELECT avg((o.region_id = c.region_id)::int) FROM shop.orders o"
            f" JOIN shop.customers c USING (customer_id) WHERE {loaded}",
            0.90,
            0.99,
        ),
        RangeCheck(
            "cities that lie in more than one region",
            "SELECT count(*) FROM (SELECT city FROM shop.customers GROUP BY city"
            " HAVING count(DISTINCT region_id) > 1) c",
            0,
            0,
        ),
    ]


def run_checks(cursor: Any, shape: StoreShape) -> list[CheckResult]:
    """Run every check of the store at ``shape`` and return the results in order."""
    checks = [*_count_checks(shape), *_key_checks(shape), *_distribution_checks(shape)]
    return [check.run(cursor) for check in checks]
