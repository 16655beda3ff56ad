"""The steps that fill the demo store, as SQL that runs inside the server.

Every row is a pure function of (seed, row number): `shop_load.u(key, salt)` hashes both to a
uniform number in [0, 1), so that the content does not depend on parallelism, on the chunk size
or on an interruption. Skew comes from powers of it: `n * u^(1/(1-s))` is a Zipf law of exponent
s over n ranks; a multiplicative permutation then scatters the ranks over the keys.
"""

# The SQL below is put together from this module's own constants and from numbers alone.
# ruff: noqa: S608

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

from backend.workload import shape as sh
from backend.workload.keys import FOREIGN_KEYS, INDEXES, TABLES
from backend.workload.shape import StoreShape

COUNTRIES = (
    ("DE", "EUR"), ("FR", "EUR"), ("GB", "GBP"), ("US", "USD"), ("IT", "EUR"), ("ES", "EUR"),
    ("NL", "EUR"), ("PL", "PLN"), ("SE", "SEK"), ("AT", "EUR"), ("BE", "EUR"), ("CH", "CHF"),
    ("CZ", "CZK"), ("DK", "DKK"), ("FI", "EUR"), ("GR", "EUR"), ("HU", "HUF"), ("IE", "EUR"),
    ("NO", "NOK"), ("PT", "EUR"), ("RO", "RON"), ("SK", "EUR"), ("CA", "CAD"), ("AU", "AUD"),
)  # fmt: skip

_VOCABULARY = """
    light solid quiet warm compact steel cotton oak handle battery charger quality delivery quick
    bright colour soft works fits returned perfect garden kitchen winter summer child gift price
    value strong cable screen travel daily sturdy small large easy clean repair spare part classic
    modern set box paper glass water proof wheel lamp table chair shelf coat boot glove tool
"""


@dataclass(frozen=True)
class LoadStep:
    """One resumable step: one statement, committed together with its progress row.

    ``lane`` says which of the two loading connections runs it; the steps of one lane run in
    order, so that rows lie in the table in the order of their keys.
    """

    name: str
    lane: int
    sql: str
    transactional: bool = True


def prose(seed: int, words: int = 900) -> str:
    """Return a seeded passage from which descriptions and reviews are cut."""
    rng = random.Random(seed)
    vocabulary = _VOCABULARY.split()
    return " ".join(rng.choice(vocabulary) for _ in range(words))


def coprime_near(n: int, fraction: float = 0.6180339887) -> int:
    """Return a multiplier near ``fraction * n`` that has no common divisor with ``n``."""
    candidate = max(1, round(n * fraction))
    while gcd(candidate, n) != 1:
        candidate += 1
    return candidate


def scatter(rank_sql: str, n: int) -> str:
    """Return SQL that maps a rank in [0, n) to a key in [1, n], one to one."""
    return f"(1 + (({rank_sql})::bigint * {coprime_near(n)}) % {n})::int"


def zipf_rank(u_sql: str, n: int, power: float) -> str:
    """Return SQL for a rank in [0, n) under a Zipf law of exponent ``1 - 1/power``."""
    return f"floor({n} * power({u_sql}, {power}))::bigint"


def product_of_rank(rank: int, shape: StoreShape) -> int:
    """Return the product at popularity ``rank`` (0 is the best seller)."""
    return 1 + (rank * coprime_near(shape.products)) % shape.products


def customer_of_rank(rank: int, shape: StoreShape) -> int:
    """Return the customer at activity ``rank`` (0 is the most active buyer)."""
    return 1 + (rank * coprime_near(shape.customers)) % shape.customers


def prepare_sql(seed: int) -> str:
    """Return the SQL of the loader's own schema: the hash and the progress table."""
    return f"""
CREATE SCHEMA IF NOT EXISTS shop_load;
CREATE TABLE IF NOT EXISTS shop_load.load_progress (
    step text PRIMARY KEY, finished_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE IF NOT EXISTS shop_load.load_parameters (
    version int NOT NULL, scale float8 NOT NULL, seed int NOT NULL);
CREATE OR REPLACE FUNCTION shop_load.u(key bigint, salt int) RETURNS float8
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (hashint8extended(key, {seed}::bigint * 1000 + salt) & 9007199254740991)::float8
           / 9007199254740992.0;
"""


def _lookup_steps() -> Iterator[LoadStep]:
    codes = ",".join(f"'{code}'" for code, _ in COUNTRIES)
    money = ",".join(f"'{currency}'" for _, currency in COUNTRIES)
    countries = len(COUNTRIES)
    yield LoadStep(
        "lookups",
        0,
        f"""
INSERT INTO shop.regions
SELECT r, (ARRAY['North','South'])[1 + (r - 1) / {countries}] || ' '
       || (ARRAY[{codes}])[1 + (r - 1) % {countries}],
       (ARRAY[{codes}])[1 + (r - 1) % {countries}], (ARRAY[{money}])[1 + (r - 1) % {countries}]
FROM generate_series(1, {sh.REGIONS}) r;
INSERT INTO shop.carriers
SELECT c, 'Carrier ' || chr(64 + c), (ARRAY['standard','express','pickup'])[1 + c % 3]
FROM generate_series(1, {sh.CARRIERS}) c;
INSERT INTO shop.payment_methods
SELECT p, (ARRAY['card','invoice','wallet','transfer','voucher','instalments','cash','crypto'])[p]
FROM generate_series(1, {sh.PAYMENT_METHODS}) p;
INSERT INTO shop.warehouses
SELECT w, 1 + (w - 1) % {sh.REGIONS}, 'Warehouse ' || w
FROM generate_series(1, {sh.WAREHOUSES}) w;
INSERT INTO shop.suppliers
SELECT s, 'Supplier ' || s,
       (ARRAY[{codes}])[1 + floor({countries} * power(shop_load.u(s, 1), 2))::int]
FROM generate_series(1, {sh.SUPPLIERS}) s;
INSERT INTO shop.brands
SELECT b, 'Brand ' || b,
       (ARRAY[{codes}])[1 + floor({countries} * power(shop_load.u(b, 2), 2))::int]
FROM generate_series(1, {sh.BRANDS}) b;
INSERT INTO shop.categories
SELECT c, NULL::int, 'Department ' || c FROM generate_series(1, {sh.TOP_CATEGORIES}) c
UNION ALL
SELECT {sh.TOP_CATEGORIES} + c, 1 + (c - 1) % {sh.TOP_CATEGORIES}, 'Category ' || c
FROM generate_series(1, {sh.LEAF_CATEGORIES}) c;
""",
    )


def _customer_steps(shape: StoreShape) -> Iterator[LoadStep]:
    # A few regions hold most customers; the city determines the region, the region sways the
    # segment.
    yield LoadStep(
        "customers",
        0,
        f"""
INSERT INTO shop.customers
SELECT c, 'customer' || c || '@example.' || (ARRAY['com','org','net'])[1 + c % 3],
       initcap(left(md5(c::text), 6)) || ' ' || initcap(left(md5((-c)::text), 9)),
       'City ' || (region_id * {sh.CITIES_PER_REGION}
                   + floor({sh.CITIES_PER_REGION} * power(shop_load.u(c, 11), 2))::int),
       region_id,
       CASE WHEN shop_load.u(c, 12) < 0.05 + 0.004 * region_id THEN 'business'
            WHEN shop_load.u(c, 12) < 0.12 + 0.004 * region_id THEN 'reseller'
            ELSE 'consumer' END,
       timestamptz '{sh.DATA_END.isoformat()}'
           - interval '1 day' * ({sh.DATA_DAYS} * 1.6 * (1 - power(c / {shape.customers}.0, 0.8))),
       shop_load.u(c, 14) < 0.4
FROM (SELECT c, (1 + {zipf_rank("shop_load.u(c, 10)", sh.REGIONS, 2.0)})::int AS region_id
      FROM generate_series(1, {shape.customers}) c) AS k;
""",
    )


def _product_steps(shape: StoreShape, seed: int) -> Iterator[LoadStep]:
    # The brand determines the category for five products of six; the category sways the price.
    top, leaf = sh.TOP_CATEGORIES, sh.LEAF_CATEGORIES
    yield LoadStep(
        "products",
        0,
        f"""
INSERT INTO shop.products
SELECT p, brand_id, category_id, 1 + (brand_id * 7) % {sh.SUPPLIERS},
       'SKU-' || lpad(p::text, 8, '0'), 'Product ' || p || ' of brand ' || brand_id,
       substr('{prose(seed + 1)}', 1 + floor(4000 * shop_load.u(p, 23))::int,
              120 + floor(200 * shop_load.u(p, 24))::int),
       round((exp(1.5 + 3 * shop_load.u(category_id, 25) + 0.8 * shop_load.u(p, 26)))::numeric, 2),
       200 + floor(4000 * shop_load.u(p, 27))::int,
       timestamptz '{sh.DATA_END.isoformat()}'
           - interval '1 day' * floor({sh.DATA_DAYS} * 1.5 * shop_load.u(p, 28))
FROM (SELECT p, brand_id,
             {top} + 1 + CASE WHEN shop_load.u(p, 21) < 0.84 THEN (brand_id * 37) % {leaf}
                  ELSE (brand_id * 37 + {top} * (1 + floor(9 * shop_load.u(p, 22))::int)) % {leaf}
                  END AS category_id
      FROM (SELECT p, (1 + {zipf_rank("shop_load.u(p, 20)", sh.BRANDS, 2.0)})::int AS brand_id
            FROM generate_series(1, {shape.products}) p) AS b) AS k;
""",
    )


def _order_steps(shape: StoreShape, chunk: int) -> Iterator[LoadStep]:
    # Buyers are skewed; the parcel goes to the buyer's region 19 times of 20, the warehouse follows
    # the region, a third of the lines are favourites of the region; the status follows the age.
    n = shape.orders
    for low in range(1, n + 1, chunk):
        high = min(n, low + chunk - 1)
        favourite = (
            "CASE WHEN shop_load.u(key, 42) < 0.33"
            f" THEN ({zipf_rank('shop_load.u(key, 43)', shape.products, 3.0)}"
            f" + region_id * {max(1, shape.products // 60)}) % {shape.products}"
            f" ELSE {zipf_rank('shop_load.u(key, 43)', shape.products, 3.0)} END"
        )
        yield LoadStep(
            f"orders {low}",
            0,
            f"""
WITH o AS MATERIALIZED (
    SELECT k.*, CASE WHEN shop_load.u(order_id, 33) < 0.95 THEN c.region_id
                     ELSE 1 + floor({sh.REGIONS} * shop_load.u(order_id, 34))::int END AS region_id
    FROM (SELECT o AS order_id,
                 {scatter(zipf_rank("shop_load.u(o, 30)", shape.customers, 2.0), shape.customers)}
                     AS customer_id,
                 timestamptz '{sh.DATA_END.isoformat()}' - interval '1 day' * greatest(0.001,
                     {sh.DATA_DAYS} * (1 - power(o / {n}.0, 0.75))
                     + 0.1 * shop_load.u(o, 31)) AS placed_at
          FROM generate_series({low}, {high}) o) AS k
    JOIN shop.customers c USING (customer_id)
), lines AS MATERIALIZED (
    SELECT k.order_id, k.line_no, p.product_id,
           (1 + floor(3 * power(shop_load.u(key, 44), 3)))::int AS quantity, p.price,
           (CASE WHEN shop_load.u(key, 45) < 0.2 THEN 0.10 ELSE 0 END)::numeric(4,2) AS discount
    FROM (SELECT order_id, line_no, region_id, order_id * 8 + line_no AS key
          FROM o, generate_series(1, 1 + floor(5 * power(shop_load.u(order_id, 32), 1.4))::int)
               AS line_no) AS k
    JOIN shop.products p ON p.product_id = {scatter(favourite, shape.products)}
), placed AS (
    INSERT INTO shop.order_items SELECT * FROM lines ORDER BY order_id, line_no
)
INSERT INTO shop.orders
SELECT o.order_id, o.customer_id, o.region_id,
       CASE WHEN o.region_id <= {sh.WAREHOUSES - sh.REGIONS} AND shop_load.u(o.order_id, 35) < 0.4
            THEN {sh.REGIONS} + o.region_id ELSE o.region_id END,
       1 + floor({sh.CARRIERS} * power(shop_load.u(o.order_id, 36), 2))::int,
       1 + floor({sh.PAYMENT_METHODS} * power(shop_load.u(o.order_id, 37), 2))::int,
       CASE WHEN age < 1 AND s < 0.9 THEN 'pending'
            WHEN age < 3 AND s < 0.9 THEN 'paid'
            WHEN age < 8 AND s < 0.9 THEN 'shipped'
            WHEN s < 0.91 THEN 'delivered' WHEN s < 0.96 THEN 'cancelled' ELSE 'returned' END,
       o.placed_at, o.placed_at + interval '1 hour' * (1 + 100 * s), t.total,
       (1 + o.order_id % 180) || ' Main Street, ' || left(md5(o.customer_id::text), 12)
FROM o
JOIN (SELECT order_id, sum(round(quantity * price * (1 - discount), 2)) AS total
      FROM lines GROUP BY order_id) AS t USING (order_id),
LATERAL (SELECT extract(epoch FROM timestamptz '{sh.DATA_END.isoformat()}' - o.placed_at) / 86400
                AS age, shop_load.u(o.order_id, 38) AS s) AS a
ORDER BY o.order_id;
""",
        )


def _event_steps(shape: StoreShape, chunk: int) -> Iterator[LoadStep]:
    n = shape.events
    for low in range(1, n + 1, chunk):
        high = min(n, low + chunk - 1)
        yield LoadStep(
            f"events {low}",
            1,
            f"""
INSERT INTO shop.events
SELECT e, customer_id, (customer_id * 1000::bigint + floor(day)::int) * 4
       + floor(2 * shop_load.u(e, 52))::int, product_id,
       CASE WHEN t < 0.68 THEN 'view' WHEN t < 0.83 THEN 'search' WHEN t < 0.93 THEN 'cart'
            WHEN t < 0.975 THEN 'checkout' ELSE 'purchase' END,
       timestamptz '{sh.DATA_END.isoformat()}' - interval '1 day' * greatest(0.001, day),
       '/shop/product/' || product_id
           || CASE WHEN t < 0.2 THEN '?utm_source=newsletter' ELSE '' END,
       (ARRAY['Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0',
              'Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/141.0',
              'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5) Safari/604.1'])[1 + customer_id % 3]
FROM (SELECT e, {scatter(zipf_rank("shop_load.u(e, 50)", shape.customers, 1.6), shape.customers)}
                 AS customer_id,
             {scatter(zipf_rank("shop_load.u(e, 51)", shape.products, 3.0), shape.products)}
                 AS product_id,
             {sh.DATA_DAYS} * (1 - power(e / {n}.0, 0.75)) AS day,
             shop_load.u(e, 53) AS t
      FROM generate_series({low}, {high}) e) AS k;
""",
        )


def _review_steps(shape: StoreShape, seed: int, chunk: int) -> Iterator[LoadStep]:
    # Ratings hang on the product: a good product is good for most of its reviewers.
    n = shape.reviews
    for low in range(1, n + 1, chunk):
        high = min(n, low + chunk - 1)
        yield LoadStep(
            f"reviews {low}",
            1,
            f"""
INSERT INTO shop.reviews
SELECT r, product_id,
       {scatter(zipf_rank("shop_load.u(r, 61)", shape.customers, 2.0), shape.customers)},
       greatest(1, least(5, round(2.4 + 2.4 * shop_load.u(product_id, 62)
                                  + 1.6 * (shop_load.u(r, 63) - 0.4))))::smallint,
       timestamptz '{sh.DATA_END.isoformat()}'
           - interval '1 day' * greatest(0.001, {sh.DATA_DAYS} * (1 - power(r / {n}.0, 0.75))),
       substr('{prose(seed + 2)}', 1 + floor(3800 * shop_load.u(r, 64))::int,
              80 + floor(500 * power(shop_load.u(r, 65), 2))::int)
FROM (SELECT r, {scatter(zipf_rank("shop_load.u(r, 60)", shape.products, 3.0), shape.products)}
                 AS product_id
      FROM generate_series({low}, {high}) r) AS k;
""",
        )


def row_steps(shape: StoreShape, seed: int) -> list[LoadStep]:
    """Return the steps that fill the tables, lane 0 and lane 1 mixed."""
    return [
        *_lookup_steps(),
        *_customer_steps(shape),
        *_product_steps(shape, seed),
        *_order_steps(shape, chunk=40_000),
        *_event_steps(shape, chunk=100_000),
        *_review_steps(shape, seed, chunk=100_000),
    ]


def index_steps() -> list[LoadStep]:
    """Return the steps that build primary keys and indexes, in two lanes."""
    return [LoadStep(f"index {name}", lane, sql) for lane, name, sql in INDEXES]


def key_steps(shape: StoreShape) -> list[LoadStep]:
    """Return the steps that add foreign keys and move the identity sequences past the rows."""
    steps = [
        LoadStep(
            f"key {table}.{column}",
            0,
            f"ALTER TABLE shop.{table} ADD CONSTRAINT {table}_{column}_fkey "
            f"FOREIGN KEY ({column}) REFERENCES shop.{target}",
        )
        for table, column, target in FOREIGN_KEYS
    ]
    rows = (("orders", "order_id", shape.orders), ("reviews", "review_id", shape.reviews),
            ("events", "event_id", shape.events))  # fmt: skip
    for table, column, last in rows:
        steps.append(
            LoadStep(
                f"sequence {table}",
                0,
                f"SELECT setval(pg_get_serial_sequence('shop.{table}', '{column}'), {last})",
            )
        )
    return steps


def vacuum_steps() -> list[LoadStep]:
    """Return the steps that freeze and analyse each table (large ones spread over both lanes)."""
    second = {"order_items", "reviews", "customers", "products"}
    return [
        LoadStep(
            f"vacuum {table}",
            1 if table in second else 0,
            f"VACUUM (FREEZE, ANALYZE) shop.{table}",
            transactional=False,
        )
        for table in TABLES
    ]
