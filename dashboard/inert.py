"""Characters that show nothing or turn the text around them become visible escapes.

React and Jinja escape markup; what is left are control characters and the invisible ones that
reorder text (https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing), with which a
statement or a name could be made to look like another one.
"""

from __future__ import annotations

import re
from typing import Any

from dash.development.base_component import Component

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Control but newline and tab; bidi and zero width; separators; halves of a pair; tags."""
AS_THEY_ARE = frozenset({"id", "payload"})
"""Come back from the browser and must be what they were; nobody sees them."""


def visible(text: str) -> str:
    """The text with every hidden character but newline and tab as an escape, ``\\u202e``."""
    return _HIDDEN.sub(lambda match: repr(match[0])[1:-1], text)


def inert(value: Any) -> Any:
    """What a callback sends, all text in it visible; components are changed in place."""
    if type(value) is str:
        return visible(value)
    if isinstance(value, Component):
        fields = vars(value)
        for name, field in fields.items():
            if name not in AS_THEY_ARE and name[0] != "_" and not name.startswith("available_"):
                safe = inert(field)
                if safe is not field:
                    fields[name] = safe
        return value
    if type(value) is dict:
        return {k: v if k in AS_THEY_ARE else inert(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(inert, value))
    return value
