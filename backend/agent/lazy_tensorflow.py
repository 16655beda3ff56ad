"""TensorFlow, imported at first use: it takes seconds and most processes never need it."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

_NOTICES = (b"oneDNN custom operations are on", b"All log messages before absl::InitializeLog()")


def import_tensorflow() -> Any:
    """The module. The networks are tiny, so one thread is fastest and spares the database."""
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        with _without_notices():
            importlib.import_module("tensorflow")
        # Its half a million objects stay for good. Left out of the collector's sight, they no
        # longer cost a full collection a tenth of a second, in the middle of an answer.
        gc.freeze()
    return sys.modules["tensorflow"]


def on_one_device(optimizer: Any) -> Any:
    """A Keras optimizer that adds up no gradients over devices, where there is but one.

    That sum enters the gradient of each graph that holds it into a registry that is never emptied:
    the graph of every agent ever made would stay in memory, some ten megabytes each.
    """
    optimizer._all_reduce_sum_gradients = list
    return optimizer


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Hold the error stream back meanwhile, and pass on all but TensorFlow's notices.

    Its libraries write them when they are loaded, before any level of logging can be set.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no error stream
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            told = [line for line in held if not any(notice in line for notice in _NOTICES)]
            if told:
                os.write(2, b"".join(told))
