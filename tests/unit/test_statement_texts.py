"""What is shown of a statement of pg_stat_statements: no literal, whatever the server kept."""

from __future__ import annotations

import time

import pytest

from backend.targets.postgresql_statements import classify


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT a FROM t2 WHERE id = $1 ORDER BY 2", "SELECT a FROM t2 WHERE id = $1 ORDER BY 2"),
        # As they were written: the entry was gone when the statement ended.
        ("select a from t2 where n = 'A' and i > 4.5e3", "select a from t2 where n = $ and i > $"),
        ("SELECT 1 FROM a1.b2 WHERE x = E'it\\'s'", "SELECT $ FROM a1.b2 WHERE x = $"),
        ("UPDATE t SET a = $1 WHERE s = $$secret$$", "UPDATE t SET a = $1 WHERE s = $"),
        ("CALL pay('Ann', 4711)", "CALL pay($, 4711)"),
        ("(SELECT 42)", "(SELECT $)"),
        ("SET x = 'secret'", None),
        ("/* autopilot */ SELECT 1", None),
        ("SELECT a -- it's\nFROM t WHERE s = 'secret'", "SELECT a -- it's\nFROM t WHERE s = $"),
        ("SELECT $1 /* a='b' */ FROM \"it's\" x$y$z", "SELECT $1 /* a=$ */ FROM \"it's\" x$y$z"),
        ("SELECT $1, 'C:\\', 'secret'", "SELECT $1, $, $"),
        ("SELECT $1, 'it''s', U&'x'", "SELECT $1, $, U&$"),
        # Cut off by the server's text or by us.
        ("CALL pay('Ann", "CALL pay($"),
        ("CALL pay(E'Ann\\", "CALL pay($"),
        ("CALL pay($body$ Ann $", "CALL pay($"),
    ],
)  # fmt: skip
def test_literals_are_not_shown(text: str, shown: str | None) -> None:
    assert classify(text) == shown


@pytest.mark.parametrize(
    "piece", ["'\\", "$a", "$$a$", "/*", "--", '"', "e'", "1.", "''", "$1$", "(", "\t", "E'\\'"]
)
def test_no_text_takes_long(piece: str) -> None:
    # With a quadratic pattern this took minutes, in which the tuner counted as hung.
    begun_s = time.process_time()
    classify("SELECT /* */ " + piece * 500_000)
    classify("SELECT " + "".join(f"$a{i}$ '\\" for i in range(100_000)))
    assert time.process_time() - begun_s < 10
