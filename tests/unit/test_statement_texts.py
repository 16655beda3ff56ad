"""What is shown of a statement of pg_stat_statements: no literal, whatever the server kept."""

from __future__ import annotations

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
    ],
)  # fmt: skip
def test_literals_are_not_shown(text: str, shown: str | None) -> None:
    assert classify(text) == shown
