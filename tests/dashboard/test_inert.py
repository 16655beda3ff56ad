"""Characters that hide or reorder text become visible; what comes back is left alone."""

from __future__ import annotations

import pytest
from dash import html

from dashboard.inert import inert, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 漢 \n\t😀", "plain ä 漢 \n\t😀"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\x00\x07\x1b\x7f\x85\r", "\\x00\\x07\\x1b\\x7f\\x85\\r"),
        ("\u200b\ufeff\xad", "\\u200b\\ufeff\\xad"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("1\u00a0000\u202f000", "1\u00a0000\u202f000"),
    ],
)
def test_hidden_characters_become_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_component_is_made_inert_and_what_comes_back_is_left_alone() -> None:
    bad = "a\u202eb"
    made = inert(
        [
            html.Div(
                [html.Span(bad, title=bad, **{"aria-label": bad}), None, 7],
                id={"type": "command", "payload": bad},
            ),
            {"data": [{"text": (bad,)}], "payload": {"search_path": bad}},
        ]
    )
    div, figure = made
    span = div.children[0]
    good = "a\\u202eb"
    assert (span.children, span.title, getattr(span, "aria-label")) == (good,) * 3
    assert div.id["payload"] == bad
    assert figure == {"data": [{"text": (good,)}], "payload": {"search_path": bad}}
