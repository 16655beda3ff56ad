"""Answers as bags of rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.steering.answer import Answer, AnswerTooLargeError

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
