"""The kinds of columns that the store's tables have."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from backend.telemetry.codec import dump_json, load_json


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware time: written as UTC, read back aware and in UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Refuse naive times: nobody could tell which zone they meant."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the time {value.isoformat()} has no time zone")
        return value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """SQLite gives naive times back, which are UTC; PostgreSQL gives the session's zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc)
        return value.astimezone(timezone.utc)


class JsonText(sa.types.TypeDecorator[Any]):
    """JSON in a text column: SQLite would turn a bare 1.0 in a JSON column into 1."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        """None is NULL."""
        return None if value is None else dump_json(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        """NULL is None."""
        return None if value is None else load_json(value)


ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON(none_as_null=True).with_variant(JsonText(), "sqlite")


def identity() -> sa.Column[int]:
    """A number that the database gives."""
    return sa.Column("id", ID, primary_key=True, autoincrement=True)


def text(name: str, **options: Any) -> sa.Column[str]:
    """Text."""
    return sa.Column(name, sa.Text, nullable=options.pop("nullable", False), **options)


def real(name: str) -> sa.Column[float]:
    """A number; one that is not finite is NULL."""
    return sa.Column(name, sa.Double, nullable=True)


def count(name: str) -> sa.Column[int]:
    """A whole number."""
    return sa.Column(name, sa.BigInteger, nullable=False)


def flag(name: str) -> sa.Column[bool]:
    """Whether or not."""
    return sa.Column(name, sa.Boolean, nullable=False)


def json(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """A document; see ``codec``."""
    return sa.Column(name, JSON, nullable=nullable)


def time(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    """An aware time, in UTC."""
    return sa.Column(name, UtcDateTime, nullable=nullable)


def reference(name: str, target: str) -> sa.Column[int]:
    """A row of another table, which goes with it."""
    return sa.Column(name, sa.BigInteger, sa.ForeignKey(target, ondelete="CASCADE"), nullable=False)
