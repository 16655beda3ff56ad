"""Where runs work: a process and a folder of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_own_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns, or raises, in a fresh process: no run inherits another's memory.

    Args:
        work: a function of a module.
        args, kwargs: its arguments.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args, kwargs)


def memory_folder() -> str | None:
    """A folder in memory, where there is one: the store syncs each write to disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
