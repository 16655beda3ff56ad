"""What happens when in the synthetic run, and the statements that its clients send."""

from __future__ import annotations

from datetime import datetime, timedelta

from backend.domain.knobs import KnobValue
from backend.domain.modes import Phase
from tests.dashboard.fake_steering import HOSTILE

WINDOW_S = 12.0
QUERIES: tuple[tuple[str, str, float, float], ...] = (
    ("SELECT p.id, p.name, p.price_cents FROM products p WHERE p.id = $1", "simple", 0.8, 44.0),
    (
        "SELECT o.id, o.total_cents, c.email FROM orders o JOIN customers c ON c.id = "
        "o.customer_id WHERE o.created_at >= $1 ORDER BY o.created_at DESC LIMIT $2",
        "two-table join",
        6.5,
        18.0,
    ),
    (
        "SELECT b.name, count(*), sum(oi.quantity * oi.price_cents) FROM order_items oi "
        "JOIN products p ON p.id = oi.product_id JOIN brands b ON b.id = p.brand_id JOIN orders o "
        "ON o.id = oi.order_id WHERE o.created_at BETWEEN $1 AND $2 GROUP BY b.name "
        "ORDER BY 3 DESC LIMIT $3",
        "multi-join",
        128.0,
        2.2,
    ),
    (
        "SELECT date_trunc($1, created_at) AS day, count(*), avg(total_cents) FROM orders "
        "GROUP BY 1 ORDER BY 1",
        "aggregation",
        210.0,
        1.1,
    ),
    (
        "SELECT customer_id, total_cents, rank() OVER (PARTITION BY region ORDER BY total_cents "
        "DESC) FROM orders JOIN customers ON customers.id = customer_id WHERE region = $1",
        "analytical",
        284.0,
        0.6,
    ),
    ("INSERT INTO events (customer_id, kind, payload) VALUES ($1, $2, $3)", "writes", 1.1, 25.0),
    (f"SELECT $1 AS note /* {HOSTILE} */", "simple", 0.4, 1.0),
)


class Timeline:
    """A run of about an hour: baseline, learning with four promotions, optimised.

    Moments are given as a share of the run.
    """

    PROMOTIONS: tuple[tuple[float, dict[str, tuple[KnobValue, KnobValue]], float], ...] = (
        (0.30, {"work_mem": (4096, 32768)}, -0.118),
        (0.45, {"random_page_cost": (4.0, 1.1), "effective_io_concurrency": (1, 64)}, -0.094),
        (0.58, {"jit": (True, False)}, -0.063),
        (0.72, {"max_wal_size": (1024, 4096)}, -0.031),
    )

    def __init__(self, now: datetime) -> None:
        self.started_at = now - timedelta(minutes=62)
        self.count = int(62 * 60 / WINDOW_S)

    def at(self, share: float) -> datetime:
        return self.started_at + timedelta(seconds=share * self.count * WINDOW_S)

    def phase(self, share: float) -> Phase:
        if share < 0.02:
            return Phase.STARTING
        if share < 0.16:
            return Phase.BASELINE
        return Phase.LEARNING if share < 0.8 else Phase.OPTIMISED

    def level(self, share: float) -> float:
        level = 1.0
        for at, _delta, effect in self.PROMOTIONS:
            if share >= at:
                level *= 1.0 + effect
        return level
