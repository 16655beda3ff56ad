"""The simulated server of the experiment: its classes, its knobs, its swinging load."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from backend.catalog.knobs import load_catalog
from backend.config import PathSettings, Settings, load_settings
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig, KnobSpace
from backend.targets.simulated import (
    Checkpoints,
    LoadScript,
    Noise,
    ResponseModel,
    SimulatedDatabase,
    Swings,
)
from backend.targets.simulated_model import SimulatedClass

CLASSES: tuple[SimulatedClass, ...] = (
    SimulatedClass("SELECT * FROM products WHERE product_id = $1", 40.0, 0.8),
    SimulatedClass("SELECT * FROM orders JOIN customers USING (customer_id) WHERE id = $1",
                   16.0, 3.0),
    SimulatedClass("SELECT brand_id, count(*) FROM products GROUP BY brand_id", 6.0, 20.0),
    SimulatedClass("SELECT region, sum(amount) FROM order_items JOIN orders USING (order_id) "
                   "GROUP BY region", 3.0, 60.0),
    SimulatedClass("INSERT INTO events (customer_id, kind) VALUES ($1, $2)", 20.0, 1.2, True),
    SimulatedClass("SELECT * FROM reviews WHERE rating < $1 ORDER BY created_at LIMIT $2",
                   5.0, 20.0),
    SimulatedClass("UPDATE daily_sales SET amount = $1 WHERE day = $2", 0.06, 300.0, True),
)  # fmt: skip
"""The last class is the batch job's; 0.06 a second is its average over its periods."""
BATCH = len(CLASSES) - 1
CORES = 2.5
GAIN = 0.5
"""At load 1 the default configuration keeps the cores busy to 38 %, the best one to 20 %."""
KNOBS = (
    "random_page_cost",
    "cpu_tuple_cost",
    "effective_cache_size",
)
"""Few, so that the search is short and what a trial can tell decides."""
NOISE = Noise(sigma=0.015, shared_sigma=0.015, correlation=0.7, per_call=0.25)
SWINGS = Swings(
    lowest=0.5,
    highest=2.0,
    dwell_s=60.0,
    leanings=(
        (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        (1.3, 1.3, 0.4, 0.4, 1.3, 0.7, 1.0),
        (0.7, 0.7, 1.5, 1.5, 0.6, 1.2, 1.0),
    ),
    mix_dwell_s=400.0,
    batch_class=BATCH,
    batch_every_s=420.0,
    batch_lasts_s=60.0,
)
CHECKPOINTS = Checkpoints(every_s=300.0, lasts_s=15.0, slowdown=1.15)


def knob_space() -> KnobSpace:
    """The catalogue's knobs of this server."""
    host = SimulatedDatabase(ResponseModel(cores=CORES)).describe().host
    return load_catalog(170000, host).space(include_restart=False).subset(KNOBS)


def response(seed: int, gain: float = GAIN) -> ResponseModel:
    """The server's response: the optimum and the weights are drawn by lot."""
    return ResponseModel(knob_space(), CLASSES, gain=gain, cores=CORES, seed=seed)


def swinging_server(seed: int, seconds: float, gain: float = GAIN) -> SimulatedDatabase:
    """A server under the swinging load, with the batch job and the checkpoints."""
    return SimulatedDatabase(
        response(seed, gain),
        ManualClock(),
        load=SWINGS.script(len(CLASSES), seconds, seed),
        noise=NOISE,
        checkpoints=CHECKPOINTS,
        seed=seed,
        restart_allowed=False,
    )


def doubling_server(seed: int, at_s: float, gain: float = GAIN) -> SimulatedDatabase:
    """A server whose load is steady until it doubles, for good, at a moment."""
    evenly = (1.0,) * len(CLASSES)
    return SimulatedDatabase(
        response(seed, gain),
        ManualClock(),
        load=LoadScript(shifts=[(at_s, 2.0, evenly)]),
        noise=NOISE,
        seed=seed,
        restart_allowed=False,
    )


def experiment_settings(folder: Path, *, filtered: bool, seed: int) -> Settings:
    """The product's defaults in a folder of their own.

    Two things differ, for every variant alike: the agent starts cold, since the optimum is drawn by
    lot, and it rests for seconds instead of minutes after fruitless probes, since trials count.
    """
    return load_settings(
        Path(os.devnull),
        overrides={
            "mode": "auto",
            "paths": PathSettings.under(folder),
            "level0": {"knob": {"pretrained": False}},
            "level1": {"sample_filter": filtered, "rest_s": 10.0},
            "workload": {"seed": seed},
        },
        environ={},
    )


def configuration_at(
    model: ResponseModel, low: float, high: float, rng: np.random.Generator
) -> KnobConfig:
    """A configuration whose true latency index lies between ``low`` and ``high``.

    A better one (``high`` below 1) makes no class of statements slower.

    Raises:
        ValueError: none was found.
    """
    default, best = model.space.default_config(), model.best_config
    here, there = model.space.encode(default), model.space.encode(best)
    for _ in range(20_000):
        # Towards the best configuration or away from it, more or less straight.
        way = rng.uniform(-1.0, 1.0) * (there - here) + rng.normal(
            0.0, rng.uniform(0, 0.4), here.size
        )
        config = model.space.decode(np.clip(here + way, -1.0, 1.0))
        harmless = high >= 1.0 or bool(
            (model.latency_ms(config) <= model.latency_ms(default)).all()
        )
        if harmless and low <= model.index_of(config) <= high:
            return config
    raise ValueError(f"no configuration has an index between {low:g} and {high:g}")
