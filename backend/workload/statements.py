"""The statements of the workload: what the shop's pages, reports and clerks ask.

Each class is one SQL text with plain parameters, as an ordinary application would send it. A
parameter generator turns a point of the unit cube and the scope into the parameters, so
that the schedule alone decides what is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backend.workload import shape as sh
from backend.workload.load_steps import customer_of_rank, product_of_rank
from backend.workload.scope import Scope

PARAMETER_DIMENSIONS = 3
"""How many uniform numbers in [0, 1) a parameter generator gets."""

KINDS = ("simple", "two-table join", "multi-join", "aggregation", "analytical", "write")

Parameters = tuple[Any, ...]
ParameterGenerator = Callable[[tuple[float, ...], Scope], Parameters]


@dataclass(frozen=True)
class StatementClass:
    """One class of statements: its name, one of :data:`KINDS`, its SQL and its parameters."""

    name: str
    kind: str
    sql: str
    parameters: ParameterGenerator


STATEMENTS: dict[str, StatementClass] = {}


def _statement(name: str, kind: str, sql: str, parameters: ParameterGenerator) -> None:
    STATEMENTS[name] = StatementClass(name, kind, " ".join(sql.split()), parameters)


def _between(u: float, low: int, high: int) -> int:
    """Return a whole number in [low, high], evenly spread over ``u`` in [0, 1)."""
    return low + min(high - low, math.floor(u * (high - low + 1)))


def _customer(u: float, scope: Scope) -> int:
    """Return a buyer, the active ones more often (Zipf, exponent 1/2)."""
    rank = scope.within("customer_rank", u**2) * scope.shape.customers
    return customer_of_rank(min(math.floor(rank), scope.shape.customers - 1), scope.shape)


def _product(u: float, scope: Scope) -> int:
    """Return a product, the popular ones more often (Zipf, exponent 2/3)."""
    rank = scope.within("product_rank", u**3) * scope.shape.products
    return product_of_rank(min(math.floor(rank), scope.shape.products - 1), scope.shape)


def _order(u: float, scope: Scope) -> int:
    """Return a loaded order; ``u`` near 0 is the newest."""
    return max(1, scope.shape.orders - math.floor(u * scope.shape.orders))


def _days(u: float, scope: Scope, length: float) -> tuple[Any, Any]:
    """Return a period of ``length`` days; how old its end is, the scope's range says."""
    newest = scope.within("period_age_days", u)
    return sh.day_before_end(newest + length), sh.day_before_end(newest)


def _city(region: int, number: int) -> str:
    return f"City {region * sh.CITIES_PER_REGION + number}"


# -- simple: one row by its key ---------------------------------------------------------------

_statement(
    "product_by_id",
    "simple",
    "SELECT * FROM shop.products WHERE product_id = %s",
    lambda u, s: (_product(u[0], s),),
)
_statement(
    "customer_by_id",
    "simple",
    "SELECT * FROM shop.customers WHERE customer_id = %s",
    lambda u, s: (_customer(u[0], s),),
)
_statement(
    "order_by_id",
    "simple",
    "SELECT * FROM shop.orders WHERE order_id = %s",
    lambda u, s: (_order(u[0] ** 2, s),),
)
_statement(
    "customer_by_email",
    "simple",
    "SELECT customer_id, full_name, segment FROM shop.customers WHERE email = %s",
    lambda u, s: (_email(_customer(u[0], s)),),
)


def _email(customer_id: int) -> str:
    return f"customer{customer_id}@example.{('com', 'org', 'net')[customer_id % 3]}"


# -- two-table joins: the pages ---------------------------------------------------------------

_statement(
    "customer_orders",
    "two-table join",
    """SELECT o.order_id, o.placed_at, o.status, o.total, c.name
       FROM shop.orders o JOIN shop.carriers c ON c.carrier_id = o.carrier_id
       WHERE o.customer_id = %s ORDER BY o.placed_at DESC LIMIT 20""",
    lambda u, s: (_customer(u[0], s),),
)
_statement(
    "order_lines",
    "two-table join",
    """SELECT i.line_no, i.quantity, i.unit_price, p.title, p.sku
       FROM shop.order_items i JOIN shop.products p ON p.product_id = i.product_id
       WHERE i.order_id = %s ORDER BY i.line_no""",
    lambda u, s: (_order(u[0] ** 2, s),),
)
_statement(
    "product_reviews",
    "two-table join",
    """SELECT r.rating, r.created_at, r.body, c.full_name
       FROM shop.reviews r JOIN shop.customers c ON c.customer_id = r.customer_id
       WHERE r.product_id = %s ORDER BY r.created_at DESC LIMIT 10""",
    lambda u, s: (_product(u[0], s),),
)
_statement(
    "city_returns",
    "two-table join",
    """SELECT o.order_id, o.placed_at, o.total, c.full_name
       FROM shop.customers c JOIN shop.orders o ON o.customer_id = c.customer_id
       WHERE c.city = %s AND o.status = 'returned' ORDER BY o.placed_at DESC LIMIT 50""",
    lambda u, s: (_city(_between(u[0], 2, 6), _between(u[1], 3, 12)),),
)
_statement(
    "category_views",
    "two-table join",
    """SELECT p.product_id, p.title,
              count(*) FILTER (WHERE e.event_type = 'view') AS views,
              count(*) FILTER (WHERE e.event_type = 'purchase') AS purchases
       FROM shop.products p JOIN shop.events e ON e.product_id = p.product_id
       WHERE p.category_id = %s GROUP BY p.product_id, p.title ORDER BY views DESC LIMIT 20""",
    lambda u, s: (sh.TOP_CATEGORIES + _between(u[0], 1, sh.LEAF_CATEGORIES),),
)

# -- multi-joins: the desks -------------------------------------------------------------------

_statement(
    "bought_together",
    "multi-join",
    """SELECT other.product_id, p.title, count(*) AS orders
       FROM shop.order_items bought
       JOIN shop.order_items other ON other.order_id = bought.order_id
                                  AND other.product_id <> bought.product_id
       JOIN shop.products p ON p.product_id = other.product_id
       WHERE bought.product_id = %s
       GROUP BY other.product_id, p.title ORDER BY orders DESC LIMIT 10""",
    lambda u, s: (product_of_rank(_between(u[0], 1, 5), s.shape),),
)
_statement(
    "week_by_category",
    "multi-join",
    """SELECT c.name, count(DISTINCT o.order_id) AS orders,
              sum(i.quantity * i.unit_price * (1 - i.discount)) AS revenue
       FROM shop.orders o
       JOIN shop.order_items i ON i.order_id = o.order_id
       JOIN shop.products p ON p.product_id = i.product_id
       JOIN shop.categories c ON c.category_id = p.category_id
       WHERE o.placed_at >= %s AND o.placed_at < %s
       GROUP BY c.name ORDER BY revenue DESC LIMIT 20""",
    lambda u, s: _days(u[0], s, 6),
)
_statement(
    "city_basket",
    "multi-join",
    """SELECT p.category_id, count(*) AS lines, sum(i.quantity * i.unit_price) AS revenue
       FROM shop.customers c
       JOIN shop.orders o ON o.customer_id = c.customer_id
       JOIN shop.order_items i ON i.order_id = o.order_id
       JOIN shop.products p ON p.product_id = i.product_id
       WHERE c.city = %s GROUP BY p.category_id ORDER BY revenue DESC LIMIT 10""",
    lambda u, s: (_city(1, _between(u[0], 3, 12)),),
)
_statement(
    "region_brands",
    "multi-join",
    """SELECT b.name, count(*) AS lines, sum(i.quantity * i.unit_price) AS revenue
       FROM shop.orders o
       JOIN shop.order_items i ON i.order_id = o.order_id
       JOIN shop.products p ON p.product_id = i.product_id
       JOIN shop.brands b ON b.brand_id = p.brand_id
       WHERE o.region_id = %s AND o.placed_at >= %s AND o.placed_at < %s
       GROUP BY b.name ORDER BY revenue DESC LIMIT 10""",
    lambda u, s: (_between(u[1], 2, 5), *_days(u[0], s, 60)),
)
_statement(
    "brand_buyers",
    "multi-join",
    """SELECT c.region_id, count(DISTINCT o.customer_id) AS buyers,
              sum(i.quantity * i.unit_price) AS revenue
       FROM shop.products p
       JOIN shop.order_items i ON i.product_id = p.product_id
       JOIN shop.orders o ON o.order_id = i.order_id
       JOIN shop.customers c ON c.customer_id = o.customer_id
       WHERE p.brand_id = %s GROUP BY c.region_id ORDER BY revenue DESC""",
    lambda u, s: (_between(u[0], 12, 60),),
)
_statement(
    "supplier_shipments",
    "multi-join",
    """SELECT o.order_id, o.placed_at, o.status, c.full_name, r.name AS region,
              w.name AS warehouse, i.line_no, p.title, g.name AS category, b.name AS brand, s.name
       FROM shop.orders o
       JOIN shop.customers c ON c.customer_id = o.customer_id
       JOIN shop.regions r ON r.region_id = c.region_id
       JOIN shop.warehouses w ON w.warehouse_id = o.warehouse_id
       JOIN shop.order_items i ON i.order_id = o.order_id
       JOIN shop.products p ON p.product_id = i.product_id
       JOIN shop.categories g ON g.category_id = p.category_id
       JOIN shop.brands b ON b.brand_id = p.brand_id
       JOIN shop.suppliers s ON s.supplier_id = p.supplier_id
       WHERE s.name = %s AND o.placed_at >= %s AND o.placed_at < %s
       ORDER BY o.placed_at DESC LIMIT 100""",
    lambda u, s: (f"Supplier {_between(u[1], 30, 290)}", *_days(u[0], s, 25)),
)

# -- aggregations: the dashboards -------------------------------------------------------------

_statement(
    "daily_revenue",
    "aggregation",
    """SELECT date_trunc('day', o.placed_at) AS day, count(*) AS orders, sum(o.total) AS revenue
       FROM shop.orders o WHERE o.placed_at >= %s AND o.placed_at < %s
       GROUP BY day ORDER BY day""",
    lambda u, s: _days(u[0], s, 45),
)
_statement(
    "cart_funnel",
    "aggregation",
    """SELECT count(*) FILTER (WHERE views > 0) AS viewed,
              count(*) FILTER (WHERE views > 0 AND carts > 0) AS carted,
              count(*) FILTER (WHERE carts > 0 AND purchases > 0) AS bought
       FROM (SELECT customer_id, product_id,
                    count(*) FILTER (WHERE event_type = 'view') AS views,
                    count(*) FILTER (WHERE event_type = 'cart') AS carts,
                    count(*) FILTER (WHERE event_type = 'purchase') AS purchases
             FROM shop.events WHERE occurred_at >= %s AND occurred_at < %s
             GROUP BY customer_id, product_id) AS pairs""",
    lambda u, s: _days(u[0], s, 30),
)
_statement(
    "region_customers",
    "aggregation",
    """SELECT c.email, c.full_name, c.city, max(o.placed_at) AS last_order, count(*) AS orders
       FROM shop.customers c JOIN shop.orders o ON o.customer_id = c.customer_id
       WHERE c.region_id = %s AND o.placed_at >= %s AND o.placed_at < %s
       GROUP BY c.email, c.full_name, c.city ORDER BY orders DESC LIMIT 100""",
    lambda u, s: (_between(u[1], 3, 8), *_days(u[0], s, 365)),
)

# -- analytical: the reports ------------------------------------------------------------------

_statement(
    "never_bought",
    "analytical",
    """SELECT c.customer_id, c.email, c.registered_at FROM shop.customers c
       WHERE c.city = %s AND c.segment <> 'consumer'
         AND c.customer_id NOT IN (SELECT o.customer_id FROM shop.orders o)
       ORDER BY c.registered_at""",
    lambda u, s: (_city(_between(u[0], 8, 24), _between(u[1], 1, 3)),),
)
_statement(
    "product_pairs",
    "analytical",
    """SELECT a.product_id, b.product_id AS other_id, count(*) AS orders
       FROM shop.orders o
       JOIN shop.order_items a ON a.order_id = o.order_id
       JOIN shop.order_items b ON b.order_id = o.order_id AND b.product_id > a.product_id
       WHERE o.placed_at >= %s AND o.placed_at < %s
       GROUP BY a.product_id, b.product_id ORDER BY orders DESC LIMIT 20""",
    lambda u, s: _days(u[0], s, 7),
)
_statement(
    "segment_revenue",
    "analytical",
    """SELECT c.segment, date_trunc('month', o.placed_at) AS month, count(*) AS orders,
              sum(o.total) AS revenue
       FROM shop.orders o JOIN shop.customers c ON c.customer_id = o.customer_id
       WHERE o.placed_at >= %s AND o.placed_at < %s GROUP BY c.segment, month ORDER BY month""",
    lambda u, s: _days(u[0], s, 180),
)
_statement(
    "lapsed_customers",
    "analytical",
    """SELECT c.region_id, count(*) AS customers FROM shop.customers c
       WHERE NOT EXISTS (SELECT FROM shop.orders o
                         WHERE o.customer_id = c.customer_id AND o.placed_at >= %s)
       GROUP BY c.region_id ORDER BY customers DESC""",
    lambda u, s: (sh.day_before_end(90 + s.within("period_age_days", u[0])),),
)
_statement(
    "regional_ranking",
    "analytical",
    """SELECT region_id, customer_id, revenue, place
       FROM (SELECT region_id, customer_id, sum(total) AS revenue,
                    rank() OVER (PARTITION BY region_id ORDER BY sum(total) DESC) AS place
             FROM shop.orders WHERE placed_at >= %s AND placed_at < %s
             GROUP BY region_id, customer_id) AS ranked
       WHERE place <= 5""",
    lambda u, s: _days(u[0], s, 45),
)

# -- writes: the till -------------------------------------------------------------------------
# Rows are written with the present time, later than all loaded data, so the reports' periods
# keep their rows.

_statement(
    "place_order",
    "write",
    """WITH placed AS (
           INSERT INTO shop.orders (customer_id, region_id, warehouse_id, carrier_id,
                                    payment_method_id, status, placed_at, updated_at, total,
                                    shipping_address)
           SELECT c.customer_id, c.region_id, c.region_id, 1, 1, 'pending', now(), now(),
                  (SELECT sum(p.price) FROM shop.products p WHERE p.product_id IN (%s, %s)),
                  '1 Main Street, ' || c.city
           FROM shop.customers c WHERE c.customer_id = %s
           RETURNING order_id)
       INSERT INTO shop.order_items (order_id, line_no, product_id, quantity, unit_price, discount)
       SELECT placed.order_id, row_number() OVER (), p.product_id, 1, p.price, 0
       FROM placed, shop.products p WHERE p.product_id IN (%s, %s)""",
    lambda u, s: _order_of(_product(u[0], s), _product(u[1], s), _customer(u[2], s)),
)


def _order_of(first: int, second: int, customer: int) -> Parameters:
    return (first, second, customer, first, second)


_statement(
    "record_event",
    "write",
    """INSERT INTO shop.events (customer_id, session_id, product_id, event_type, occurred_at, path,
                               user_agent)
       VALUES (%s, %s, %s, 'view', now(), %s, 'Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0')""",
    lambda u, s: _event_of(_customer(u[0], s), _product(u[1], s)),
)


def _event_of(customer: int, product: int) -> Parameters:
    return (customer, customer * 4000, product, f"/shop/product/{product}")


_statement(
    "update_order",
    "write",
    "UPDATE shop.orders SET carrier_id = %s, updated_at = now() WHERE order_id = %s",
    lambda u, s: (_between(u[1], 1, sh.CARRIERS), _order(u[0] / 50, s)),
)
_statement(
    "adjust_stock",
    "write",
    "UPDATE shop.products SET stock = greatest(stock - %s, 0) WHERE product_id = %s",
    lambda u, s: (_between(u[1], 1, 3), 1 + math.floor(u[0] * s.shape.products)),
)
_statement(
    "add_review",
    "write",
    """INSERT INTO shop.reviews (product_id, customer_id, rating, created_at, body)
       VALUES (%s, %s, %s, now(), 'Works as described, delivered quickly.')""",
    lambda u, s: (_product(u[0], s), _customer(u[1], s), _between(u[2], 1, 5)),
)
