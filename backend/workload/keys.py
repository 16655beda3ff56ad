"""The demo store's indexes and foreign keys, built after the rows."""

from __future__ import annotations

INDEXES: tuple[tuple[int, str, str], ...] = (
    (0, "regions_pkey", "ALTER TABLE shop.regions ADD PRIMARY KEY (region_id)"),
    (0, "carriers_pkey", "ALTER TABLE shop.carriers ADD PRIMARY KEY (carrier_id)"),
    (0, "payment_methods_pkey",
     "ALTER TABLE shop.payment_methods ADD PRIMARY KEY (payment_method_id)"),
    (0, "warehouses_pkey", "ALTER TABLE shop.warehouses ADD PRIMARY KEY (warehouse_id)"),
    (0, "suppliers_pkey", "ALTER TABLE shop.suppliers ADD PRIMARY KEY (supplier_id)"),
    (0, "brands_pkey", "ALTER TABLE shop.brands ADD PRIMARY KEY (brand_id)"),
    (0, "categories_pkey", "ALTER TABLE shop.categories ADD PRIMARY KEY (category_id)"),
    (0, "customers_pkey", "ALTER TABLE shop.customers ADD PRIMARY KEY (customer_id)"),
    (0, "products_pkey", "ALTER TABLE shop.products ADD PRIMARY KEY (product_id)"),
    (0, "orders_pkey", "ALTER TABLE shop.orders ADD PRIMARY KEY (order_id)"),
    (1, "order_items_pkey", "ALTER TABLE shop.order_items ADD PRIMARY KEY (order_id, line_no)"),
    (1, "reviews_pkey", "ALTER TABLE shop.reviews ADD PRIMARY KEY (review_id)"),
    (1, "events_pkey", "ALTER TABLE shop.events ADD PRIMARY KEY (event_id)"),
    (0, "customers_email", "CREATE UNIQUE INDEX customers_email ON shop.customers (email)"),
    (0, "customers_region", "CREATE INDEX customers_region ON shop.customers (region_id)"),
    (0, "customers_city", "CREATE INDEX customers_city ON shop.customers (city)"),
    (0, "products_brand", "CREATE INDEX products_brand ON shop.products (brand_id)"),
    (0, "products_category", "CREATE INDEX products_category ON shop.products (category_id)"),
    (0, "products_supplier", "CREATE INDEX products_supplier ON shop.products (supplier_id)"),
    (0, "orders_customer", "CREATE INDEX orders_customer ON shop.orders (customer_id)"),
    (0, "orders_placed_at", "CREATE INDEX orders_placed_at ON shop.orders (placed_at)"),
    (0, "orders_status", "CREATE INDEX orders_status ON shop.orders (status)"),
    (0, "orders_warehouse", "CREATE INDEX orders_warehouse ON shop.orders (warehouse_id)"),
    (0, "order_items_product", "CREATE INDEX order_items_product ON shop.order_items (product_id)"),
    (1, "reviews_product", "CREATE INDEX reviews_product ON shop.reviews (product_id)"),
    (1, "reviews_customer", "CREATE INDEX reviews_customer ON shop.reviews (customer_id)"),
    (1, "events_customer", "CREATE INDEX events_customer ON shop.events (customer_id)"),
    (1, "events_occurred_at", "CREATE INDEX events_occurred_at ON shop.events (occurred_at)"),
    (1, "events_product", "CREATE INDEX events_product ON shop.events (product_id)"),
)  # fmt: skip
"""(loading lane, name, SQL) of every primary key and index."""

FOREIGN_KEYS: tuple[tuple[str, str, str], ...] = (
    ("warehouses", "region_id", "regions"),
    ("categories", "parent_id", "categories (category_id)"),
    ("customers", "region_id", "regions"),
    ("products", "brand_id", "brands"),
    ("products", "category_id", "categories"),
    ("products", "supplier_id", "suppliers"),
    ("orders", "customer_id", "customers"),
    ("orders", "region_id", "regions"),
    ("orders", "warehouse_id", "warehouses"),
    ("orders", "carrier_id", "carriers"),
    ("orders", "payment_method_id", "payment_methods"),
    ("order_items", "order_id", "orders"),
    ("order_items", "product_id", "products"),
    ("reviews", "product_id", "products"),
    ("reviews", "customer_id", "customers"),
    ("events", "customer_id", "customers"),
    ("events", "product_id", "products"),
)
"""(table, column, target) of every foreign key."""

TABLES = (
    "regions", "carriers", "payment_methods", "warehouses", "suppliers", "brands", "categories",
    "customers", "products", "orders", "order_items", "reviews", "events",
)  # fmt: skip
