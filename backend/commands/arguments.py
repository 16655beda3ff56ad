"""Words of the command line that nobody types are refused before anything is done with them.

Error messages repeat what was given, and a terminal obeys control characters: whoever makes
somebody else call run.py with a text of theirs (a script, a file's name) must gain nothing by it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from backend.errors import ConfigError

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"  # allows tab, newline
)
"""Control characters, what turns the direction of text, and bytes that are not of the locale."""


def check_words(words: Sequence[str]) -> None:
    """Refuse words with characters that terminals obey or cannot show.

    Raises:
        ConfigError: with the word's number and the character's.
    """
    for number, word in enumerate(words, 1):
        found = _OBEYED.search(word)
        if found is not None:
            raise ConfigError(
                f"word {number} of the command line holds a control character or a byte that is "
                f"no text, U+{ord(found[0]):04X}",
                remedy="leave it out, or give the file another name",
            )
