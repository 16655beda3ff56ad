"""The telemetry store, on SQLite by default and on PostgreSQL by URL."""

from backend.telemetry.store import SqlStore, open_store

__all__ = ["SqlStore", "open_store"]
