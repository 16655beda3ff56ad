"""All faults of the catalogue, by the modules that do them."""

from __future__ import annotations

from tests.faults.catalogue import tuners
from tests.faults.catalogue.fault import FAULTS, Fault

__all__ = ["ALL_FAULTS"]

MODULES = (tuners,)
ALL_FAULTS: tuple[Fault, ...] = tuple(sorted(FAULTS, key=lambda fault: fault.item))
"""In the order of the table."""
