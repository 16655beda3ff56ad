"""What the benchmarks' command lines share: bounds, a piece of given length, an orderly end."""

from __future__ import annotations

import argparse
import signal
import time
from types import FrameType
from typing import NoReturn


def positive(text: str) -> float:
    """A number above 0, as an option's type."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def whole(text: str) -> int:
    """A whole number from 0 on, as an option's type."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def add_stop_after(parser: argparse.ArgumentParser, piece: str) -> None:
    """Add ``--stop-after``; ``piece`` is what is not begun any more."""
    parser.add_argument(
        "--stop-after",
        type=positive,
        metavar="MINUTES",
        help=f"begin no {piece} that would end later; the same command goes on (no limit)",
    )


_ENDING = (signal.SIGTERM, signal.SIGHUP)


class TimeLimit:
    """How much time is left of a piece.

    Args:
        minutes: its length, from now on; None: no limit.
    """

    def __init__(self, minutes: float | None) -> None:
        self._end_s = float("inf") if minutes is None else time.monotonic() + 60.0 * minutes

    def allows(self, seconds: float) -> bool:
        """Whether what takes so long ends in time."""
        return time.monotonic() + seconds <= self._end_s


def end_in_good_order() -> None:
    """Let SIGTERM and a closed terminal end the program as Ctrl-C does.

    Clients and servers are ended on the way out, which a second signal of these does not cut short.
    """
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> NoReturn:
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)
