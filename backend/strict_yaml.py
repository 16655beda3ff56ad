"""YAML that people write, and that others might: no objects, no aliases, no key twice, not large.

Aliases are refused since a few lines of them stand for more than any memory holds, merged into
mappings (``<<``) or written out again; a key that is there twice hides one of its values.
https://yaml.org/spec/1.1/
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 100_000
"""Some seconds of PyYAML's time."""


class RefusedYAMLError(yaml.MarkedYAMLError):
    """YAML, but of a kind that is not taken here; ``problem`` repeats no value."""


class FileTooLargeError(ValueError):
    """The file has more than ``MAX_BYTES`` bytes."""


class _StrictLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise RefusedYAMLError(
                problem="aliases are not taken; write the value out, or quote it",
                problem_mark=mark,
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # PyYAML's own constructors stumble over what a tag promises and the text is not.
            raise RefusedYAMLError(
                problem=f"this is no {str(node.tag).rpartition(':')[2]!r:.40}; quote the value",
                problem_mark=node.start_mark,
            ) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue  # the loader itself refuses what cannot be a key
            name = (key.tag, key.value)
            if name in seen:
                raise RefusedYAMLError(
                    problem="this key is here for the second time", problem_mark=key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_strictly(path: Path) -> Any:
    """The one document in a file.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read.
        FileTooLargeError: it is larger than ``MAX_BYTES``; no more than that is read.
        RefusedYAMLError: it holds an alias, or a key twice.
        yaml.YAMLError, ValueError, RecursionError: it is not YAML, or nested too deeply.
    """
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise FileTooLargeError(f"{path} is larger than {MAX_BYTES} bytes")
    return yaml.load(raw.decode("utf-8"), Loader=_StrictLoader)  # nosec B506
