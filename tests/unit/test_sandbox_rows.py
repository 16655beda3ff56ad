"""Which rows are taken for a sample, without a server."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from backend.sandbox.row_copy import _Lines
from backend.sandbox.row_plan import (
    ForeignKey,
    TableFacts,
    TablePlan,
    parents_first,
    plan_rows,
    share_out,
)


def table(
    oid: int, rows: float, *parents: int, size_bytes: float | None = None, is_indexed: bool = True
) -> TableFacts:
    keys = tuple(ForeignKey(p, (f"c{p}",), ("id",), ("integer",), is_indexed) for p in parents)
    size = rows * 100 if size_bytes is None else size_bytes
    return TableFacts(oid, "s", f"t{oid}", ("id",), rows, size, keys)


def by_oid(plans: tuple[TablePlan, ...]) -> dict[int, TablePlan]:
    return {plan.table.oid: plan for plan in plans}


class TestShares:
    @given(
        wanted=st.dictionaries(st.integers(), st.floats(0, 1e12), min_size=1, max_size=20),
        budget=st.floats(0, 1e12),
    )
    def test_nobody_gets_more_than_it_wants_nor_all_more_than_there_is(
        self, wanted: dict[int, float], budget: float
    ) -> None:
        given_out = share_out(wanted, budget)

        assert all(given_out[key] <= wanted[key] for key in wanted)
        assert sum(given_out.values()) <= budget * (1 + 1e-9) + 1e-9
        assert sum(given_out.values()) >= min(budget, sum(wanted.values())) * (1 - 1e-9)

    def test_what_the_small_leave_goes_to_the_large(self) -> None:
        assert share_out({1: 10, 2: 1000, 3: 2000}, 1010) == {1: 10, 2: 500, 3: 500}


class TestPlan:
    def test_what_fits_is_taken_whole(self) -> None:
        plans = plan_rows([table(1, 1000), table(2, 5000)], 10_000, 10**9)

        assert all(plan.is_whole for plan in plans)
        assert all(plan.rows >= plan.table.rows for plan in plans)

    def test_the_row_budget_is_kept(self) -> None:
        plans = plan_rows([table(oid, 100_000) for oid in range(5)], 50_000, 10**12)

        assert not any(plan.is_whole for plan in plans)
        assert sum(plan.rows for plan in plans) <= 50_000

    def test_the_byte_budget_is_kept_where_rows_are_wide(self) -> None:
        plans = plan_rows([table(1, 10_000, size_bytes=1e9)], 10_000, 10**8)

        assert plans[0].rows == 1000

    def test_a_table_without_statistics_is_judged_by_its_size(self) -> None:
        plans = plan_rows([table(1, 0, size_bytes=1e9), table(2, 0, size_bytes=0)], 1000, 10**9)

        found = by_oid(plans)
        assert not found[1].is_whole
        assert found[1].rows <= 1000
        assert found[2].is_whole
        assert found[2].rows > 0

    def test_children_follow_the_parent_of_which_the_least_is_taken(self) -> None:
        tables = [table(1, 10), table(2, 20_000), table(3, 90_000), table(4, 500_000, 1, 2, 3)]

        found = by_oid(plan_rows(tables, 30_000, 10**12))

        assert found[1].is_whole
        assert found[4].governed_by is tables[3].foreign_keys[2]

    def test_children_of_whole_parents_are_sampled_by_blocks(self) -> None:
        found = by_oid(plan_rows([table(1, 10), table(2, 50_000, 1)], 1000, 10**12))

        assert found[2].governed_by is None
        assert 0 < found[2].percent < 5

    def test_a_key_without_an_index_is_not_followed(self) -> None:
        tables = [table(1, 50_000), table(2, 50_000, 1, is_indexed=False)]

        assert by_oid(plan_rows(tables, 1000, 10**12))[2].governed_by is None


class TestOrder:
    def test_parents_come_first(self) -> None:
        tables = [table(1, 1, 2, 3), table(2, 1, 4), table(3, 1), table(4, 1)]

        order = [found.oid for found in parents_first(tables)]

        assert sorted(order) == [1, 2, 3, 4]
        assert order.index(4) < order.index(2) < order.index(1)
        assert order.index(3) < order.index(1)

    def test_a_circle_and_a_parent_elsewhere_do_no_harm(self) -> None:
        tables = [table(1, 1, 2), table(2, 1, 1, 99)]

        assert {found.oid for found in parents_first(tables)} == {1, 2}


def test_lines_are_kept_whole_up_to_the_bound() -> None:
    kept = io.BytesIO()
    sink = _Lines(kept, 8)

    sizes = [sink.write(line) for line in (b"abc\n", b"defgh\n", b"i\n")]

    assert sizes == [4, 6, 2]
    assert kept.getvalue() == b"abc\n"
    assert sink.size == 4
