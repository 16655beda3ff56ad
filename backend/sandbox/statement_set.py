"""The statements that a sandbox runs: of the most valuable recorded classes, a few each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from backend.domain.steering import ClassKey
from backend.errors import ServerError
from backend.steering.statements.read_only import ReadOnlyCheck
from backend.steering.statements.sample_book import SampleBook

MAX_CLASSES = 30
PER_CLASS = 3


@dataclass(frozen=True)
class ChosenClass:
    """A recorded class.

    Args:
        key: the class.
        share: of the original's time that all chosen classes take.
        texts: statements of it, the newest first.
    """

    key: ClassKey
    share: float
    texts: tuple[str, ...]


def choose_statements(book: SampleBook) -> tuple[ChosenClass, ...]:
    """Take the classes in which the original spends most of its time.

    A class's weight is its executions times their mean time on the original: with it, the sum of
    its relative changes is the latency index, however short its statements are on a small copy.
    A class of which no time is known counts like the median of the others.
    """
    keys = book.keys()[:MAX_CLASSES]
    known = [weight for weight in map(book.weight, keys) if weight > 0]
    usual = median(known) if known else 1.0
    weights = {key: book.weight(key) or usual for key in keys}
    total = sum(weights.values())
    return tuple(
        ChosenClass(
            key,
            weights[key] / total,
            tuple(sample.text for sample in book.samples(key)[:PER_CLASS]),
        )
        for key in keys
    )


def only_reading(
    chosen: Sequence[ChosenClass], check: ReadOnlyCheck
) -> tuple[tuple[ChosenClass, ...], Mapping[str, int]]:
    """Leave out what is not shown to only read on the server that is asked.

    Returns:
        What is left, with its old shares; and how many statements were refused, by reason.

    Raises:
        ServerConnectionError: the server cannot be asked.
    """
    left: list[ChosenClass] = []
    refused: dict[str, int] = {}
    for found in chosen:
        texts = []
        for text in found.texts:
            try:
                verdict = check.check(text, found.key.search_path)
            except ServerError as error:
                refused[error.message] = refused.get(error.message, 0) + 1
                continue
            if verdict.is_read_only:
                texts.append(verdict.statement)
            else:
                refused[verdict.refusal] = refused.get(verdict.refusal, 0) + 1
        if texts:
            left.append(ChosenClass(found.key, found.share, tuple(texts)))
    return tuple(left), refused


def class_name(key: ClassKey) -> str:
    """How a class is called in results: its fingerprint, and the search path if it is no usual one.

    Two classes may share a fingerprint under different search paths.
    """
    return (
        key.fingerprint
        if key.search_path == '"$user", public'
        else (f"{key.fingerprint} under {key.search_path}")
    )
