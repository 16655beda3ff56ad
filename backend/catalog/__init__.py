"""Catalogues: what is written, measured and steered is data, one file a kind."""

from backend.catalog.knobs import CatalogEntry, KnobCatalog, load_catalog
from backend.catalog.never import never_reason, refuse_if_never

__all__ = ["CatalogEntry", "KnobCatalog", "load_catalog", "never_reason", "refuse_if_never"]
