"""Growth of the demo store: more orders, their lines and events, like those that are there.

Rows are copied with all their dates and references under keys of their own, so that every report
has more to read. They can be told from all others by their keys, and taken away again.
"""

from __future__ import annotations

import threading
from typing import Any

from sqlalchemy.engine import URL

from backend.workload.connection import connect
from backend.workload.shape import StoreShape

APPLICATION_NAME = "autopilot_demo_growth"
GROWN_FROM = 1_000_000_000_000
"""Keys from here on are of grown rows; identities count up from the loaded ones."""
CHUNK_ORDERS = 2000
TIMEOUT_S = 60.0

_GROW_ORDERS = """
INSERT INTO shop.orders (order_id, customer_id, region_id, warehouse_id, carrier_id,
                         payment_method_id, status, placed_at, updated_at, total,
                         shipping_address)
SELECT order_id + %(from)s, customer_id, region_id, warehouse_id, carrier_id, payment_method_id,
       status, placed_at, updated_at, total, shipping_address
FROM shop.orders WHERE order_id BETWEEN %(low)s AND %(high)s
ON CONFLICT DO NOTHING"""
_GROW_LINES = """
INSERT INTO shop.order_items (order_id, line_no, product_id, quantity, unit_price, discount)
SELECT i.order_id + %(from)s, i.line_no, i.product_id, i.quantity, i.unit_price, i.discount
FROM shop.order_items i JOIN shop.orders g ON g.order_id = i.order_id + %(from)s
WHERE i.order_id BETWEEN %(low)s AND %(high)s
ON CONFLICT DO NOTHING"""
_GROW_EVENTS = """
INSERT INTO shop.events (event_id, customer_id, session_id, product_id, event_type, occurred_at,
                         path, user_agent)
SELECT event_id + %(from)s, customer_id, session_id, product_id, event_type, occurred_at, path,
       user_agent
FROM shop.events WHERE event_id BETWEEN %(low)s AND %(high)s
ON CONFLICT DO NOTHING"""
_SHRINK = (
    "DELETE FROM shop.order_items WHERE order_id >= %(from)s",
    "DELETE FROM shop.orders WHERE order_id >= %(from)s",
    "DELETE FROM shop.events WHERE event_id >= %(from)s",
)


def grow(url: URL, shape: StoreShape, share: float, within_s: float, stop: threading.Event) -> None:
    """Add rows for a while, a chunk at a time; returns early when ``stop`` is set.

    What a run before it has added is not added again.

    Args:
        url: the database that holds the demo store.
        shape: of the store as it was loaded.
        share: of the loaded orders and events that are added, spread over all their time.
        within_s: real seconds to spread them over.
        stop: ends it after the present chunk.

    Raises:
        ServerConnectionError: the server cannot be reached.
        psycopg2.Error: a statement failed.
    """
    stride = max(round(1 / share), 1)
    chunks = range(0, -(-shape.orders // CHUNK_ORDERS), stride)
    events = CHUNK_ORDERS * shape.events // shape.orders
    connection = _connected(url)
    try:
        for chunk in chunks:
            _run(connection, (_GROW_ORDERS, _GROW_LINES), chunk * CHUNK_ORDERS, CHUNK_ORDERS)
            _run(connection, (_GROW_EVENTS,), chunk * events, events)
            if stop.wait(within_s / len(chunks)):
                return
    finally:
        connection.close()


def shrink(url: URL) -> None:
    """Take all grown rows away again.

    Raises:
        ServerConnectionError: the server cannot be reached.
        psycopg2.Error: a statement failed.
    """
    connection = _connected(url)
    try:
        with connection.cursor() as cursor:
            for statement in _SHRINK:
                cursor.execute(statement, {"from": GROWN_FROM})
    finally:
        connection.close()


def _connected(url: URL) -> Any:
    return connect(url, application_name=APPLICATION_NAME, statement_timeout_s=TIMEOUT_S)


def _run(connection: Any, statements: tuple[str, ...], after: int, count: int) -> None:
    """Run statements for the rows of ``count`` loaded keys, both or neither."""
    values = {"from": GROWN_FROM, "low": after + 1, "high": after + count}
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            for statement in statements:
                cursor.execute(statement, values)
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")
