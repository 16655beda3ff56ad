"""All faults of the catalogue, by the modules that do them."""

from __future__ import annotations

from tests.faults.catalogue import (
    changes,
    fail_overs,
    loads,
    network,
    servers,
    statistics_and_time,
    stores,
    tuners,
    weeks,
)
from tests.faults.catalogue.fault import FAULTS, Fault

__all__ = ["ALL_FAULTS"]

MODULES = (tuners, servers, fail_overs, changes, stores, network, loads, statistics_and_time, weeks)
ALL_FAULTS: tuple[Fault, ...] = tuple(sorted(FAULTS, key=lambda fault: fault.item))
"""In the order of the table."""
