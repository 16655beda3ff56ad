"""Which rows of which table make up a sample: pure, from sizes and foreign keys.

Small tables are taken whole, large ones share what is left of the budgets for rows and bytes. Where
a table refers to one that is sampled, by a key that an index of it begins with, all rows of some of
the sampled parents are taken: joins then meet as many rows a parent as in the original. Other large
tables are sampled by blocks, and the parents that their rows miss are fetched afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_BYTES_OF_A_ROW = 100.0
"""Assumed where statistics say nothing."""


@dataclass(frozen=True)
class ForeignKey:
    """A reference of one table to another.

    Args:
        parent: the other table's oid.
        columns, parent_columns: names, in the key's order.
        types: of the parent's columns, as SQL.
        is_indexed: whether an index of the child begins with these columns.
    """

    parent: int
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    types: tuple[str, ...]
    is_indexed: bool


@dataclass(frozen=True)
class TableFacts:
    """A table of the original.

    Args:
        oid: its own.
        schema, name: of the table; ``columns``: those that hold rows' values.
        rows: as the server estimates them; 0 where it does not know.
        size_bytes: of its heap.
        foreign_keys: of this table.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[str, ...]
    rows: float
    size_bytes: float
    foreign_keys: tuple[ForeignKey, ...] = ()

    @property
    def likely_rows(self) -> float:
        """Rows, guessed from the size where statistics say nothing."""
        return self.rows if self.rows > 0 else self.size_bytes / _BYTES_OF_A_ROW

    @property
    def row_bytes(self) -> float:
        """Mean bytes of a row in the heap."""
        return self.size_bytes / self.likely_rows if self.likely_rows > 0 else _BYTES_OF_A_ROW


@dataclass(frozen=True)
class TablePlan:
    """What is taken of a table.

    Args:
        table: the table.
        rows: at the most.
        is_whole: whether that is all of it.
        governed_by: the reference whose parents' rows are taken; None samples blocks.
    """

    table: TableFacts
    rows: int
    is_whole: bool
    governed_by: ForeignKey | None = None

    @property
    def percent(self) -> float:
        """The share of the table's blocks to look at, with some to spare."""
        return min(100.0, 120.0 * self.rows / max(self.table.likely_rows, 1.0))


def plan_rows(tables: Sequence[TableFacts], max_rows: int, max_bytes: int) -> tuple[TablePlan, ...]:
    """Plan a sample, parents before their children.

    Args:
        tables: those that matter.
        max_rows, max_bytes: of all samples together (heap, without indexes).
    """
    by_rows = share_out({t.oid: t.likely_rows for t in tables}, max_rows)
    by_bytes = share_out({t.oid: t.size_bytes for t in tables}, max_bytes)
    plans: dict[int, TablePlan] = {}
    for table in parents_first(tables):
        rows = min(by_rows[table.oid], by_bytes[table.oid] / max(table.row_bytes, 1.0))
        # What the server estimates may be a little off, or old.
        if rows >= table.likely_rows * 0.999:
            plans[table.oid] = TablePlan(table, int(2 * table.likely_rows) + 1000, True)
        else:
            governing = _governing(table, plans)
            plans[table.oid] = TablePlan(table, max(int(rows), 1), False, governing)
    return tuple(plans.values())


def _governing(table: TableFacts, plans: Mapping[int, TablePlan]) -> ForeignKey | None:
    """The reference to the sampled parent of which the least is taken."""
    shares = {
        key: plans[key.parent].rows / plans[key.parent].table.likely_rows
        for key in table.foreign_keys
        if key.is_indexed and key.parent in plans and not plans[key.parent].is_whole
    }
    return min(shares, key=lambda key: shares[key]) if shares else None


def share_out(wanted: Mapping[int, float], budget: float) -> dict[int, float]:
    """Give everyone what it wants, or an equal share: what the small leave goes to the large."""
    given: dict[int, float] = {}
    left = budget
    for place, (oid, amount) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        given[oid] = min(amount, left / (len(wanted) - place))
        left -= given[oid]
    return given


def parents_first(tables: Sequence[TableFacts]) -> list[TableFacts]:
    """Order tables so that each comes after those it refers to; a circle is cut somewhere."""
    by_oid = {table.oid: table for table in tables}
    ordered: dict[int, TableFacts] = {}
    visited: set[int] = set()
    for first in sorted(by_oid):
        waiting = [(first, False)]
        while waiting:
            oid, are_parents_done = waiting.pop()
            if are_parents_done:
                ordered[oid] = by_oid[oid]
            elif oid not in visited:
                visited.add(oid)
                waiting.append((oid, True))
                waiting += [
                    (key.parent, False) for key in by_oid[oid].foreign_keys if key.parent in by_oid
                ]
    return list(ordered.values())
