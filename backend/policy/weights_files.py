"""Files of learned weights, named by what is in them: a name can never come to mean other weights.

A file is written whole before the store names it, so whatever is killed in between, what the store
calls deployed can be read. No pickle (see ``backend/agent/checkpoint.py``).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.agent.checkpoint import read_checkpoint, write_checkpoint
from backend.config import Settings
from backend.errors import CheckpointError

_NAME = re.compile(r"[0-9a-f]{64}\.npz")
REMEDY = "let Level 1 learn the policy anew, or go back to another policy version"


class WeightsFiles:
    """The folder ``<policies_dir>/weights``.

    Args:
        folder: made when the first file is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of(cls, settings: Settings) -> WeightsFiles:
        """Those of the settings' ``paths.policies_dir``."""
        return cls(Path(settings.paths.policies_dir) / "weights")

    def write(self, about: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> str:
        """Write weights, durable when it returns; the name is the digest of the file.

        Args:
            about: whatever JSON can hold.
            arrays: numbers.
        """
        new = self._folder / f".new.{os.getpid()}"
        write_checkpoint(new, about, arrays)
        name = f"{hashlib.sha256(new.read_bytes()).hexdigest()}.npz"
        new.replace(self._folder / name)
        entries = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(entries)  # the name, too, survives a loss of power
        finally:
            os.close(entries)
        return name

    def read(self, name: str) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """What :meth:`write` wrote under this name.

        Raises:
            CheckpointError: there is no such file, or it is not what was written.
        """
        if not _NAME.fullmatch(name):
            raise CheckpointError(f"{name!r:.100} names no file of weights", remedy=REMEDY)
        path = self._folder / name
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}", remedy=REMEDY) from error
        if digest != path.stem:
            raise CheckpointError(f"{path} is damaged: its digest is {digest}", remedy=REMEDY)
        return read_checkpoint(path)
