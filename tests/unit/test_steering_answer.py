"""Answers as bags of rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.steering.running.answer import Answer, AnswerTooLargeError
from backend.steering.statements.ties import CutTies

ROWS = st.lists(st.binary(max_size=5).map(lambda row: row.replace(b"\n", b"") + b"\n"), max_size=9)


def summed(rows: list[bytes]) -> tuple[int, str]:
    answer = Answer(10_000)
    for row in rows:
        answer.sink.write(row)
    return answer.sum_up()


@given(rows=ROWS, data=st.data())
def test_the_order_of_rows_does_not_matter(rows: list[bytes], data: st.DataObject):
    assert summed(data.draw(st.permutations(rows))) == summed(rows)


@given(left=ROWS, right=ROWS)
def test_other_rows_give_another_sum(left: list[bytes], right: list[bytes]):
    assert (summed(left) == summed(right)) == (sorted(left) == sorted(right))


def test_how_the_answer_arrives_does_not_matter():
    assert summed([b"a\n", b"b\n"]) == summed([b"a", b"\nb\n"])
    assert summed([]) == (0, "0" * 32)


TOP = [b"a\t9\n", b"b\t7\n", b"c\t5\n", b"d\t5\n"]


def cut(rows: list[bytes], limit: int, has_offset: bool = False) -> tuple[int, str]:
    answer = Answer(10_000)
    answer.sink.write(b"".join(rows))
    return answer.sum_up(CutTies((1,), limit, has_offset))


def test_of_rows_cut_among_equals_only_the_key_counts():
    others = [*TOP[:2], b"e\t5\n", b"f\t5\n"]
    assert cut(TOP, 4) == cut(others, 4)
    assert cut(TOP, 4) != cut([*TOP[:2], b"e\t5\n", b"f\t4\n"], 4)
    assert cut(TOP, 4) != cut([b"x\t9\n", *others[1:]], 4)
    assert cut(TOP, 4) != cut(TOP[:3], 4)


def test_an_answer_that_was_not_cut_counts_in_full():
    assert cut(TOP, 5) != cut([*TOP[:3], b"f\t5\n"], 5)
    assert cut(TOP, 5) == summed(TOP)
    assert cut([], 0) == cut([], 5, True) == summed([])


def test_an_offset_cuts_among_equals_at_the_beginning():
    assert cut(TOP, 9, has_offset=True) == cut([b"x\t9\n", *TOP[1:]], 9, has_offset=True)
    assert cut(TOP, 9, has_offset=True) != cut([TOP[0], b"x\t7\n", *TOP[2:]], 9, has_offset=True)


def test_too_much_is_said_once_and_nothing_is_kept():
    answer = Answer(1_000)
    with pytest.raises(AnswerTooLargeError):
        answer.sink.write(b"x" * (3 << 20))
    answer.sink.write(b"x" * (3 << 20))
    assert answer.sum_up() == (0, "0" * 32)
    answer = Answer(1_000)
    answer.sink.write(b"x" * 1_001)
    with pytest.raises(AnswerTooLargeError):
        answer.sum_up()
