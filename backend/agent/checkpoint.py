"""An agent's checkpoint: one .npz file of arrays and a JSON text, replaced in one step."""

from __future__ import annotations

import glob
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
from numpy.typing import NDArray

from backend.errors import CheckpointError

REMEDY = "move the checkpoint away to start learning anew"


def write_checkpoint(
    path: Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]
) -> None:
    """Write a checkpoint, durable when it returns; there is no pickle in it.

    Args:
        path: the file; its folder is made where there is none.
        about: whatever JSON can hold.
        arrays: numbers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _remove_unfinished(path: Path) -> None:
    """Remove what processes that were killed while they wrote have left beside ``path``."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        writer = left.suffix[1:]
        if writer.isdigit() and not psutil.pid_exists(int(writer)):
            left.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """Read back what :func:`write_checkpoint` wrote.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    try:
        with path.open("rb") as stream:
            _refuse_packed(stream)
            with np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("there is something else than arrays in it")
        about = json.loads(str(arrays.pop("about")))
    except Exception as error:  # a damaged file makes zipfile and numpy raise a dozen kinds
        raise damaged(path, error) from error
    if not isinstance(about, dict):
        raise damaged(path, TypeError("no description in it"))
    return about, arrays


def _refuse_packed(stream: BinaryIO) -> None:
    """Ours are not compressed; a few kilobytes of another's could fill the memory."""
    length = stream.seek(0, os.SEEK_END)
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if compressed or sum(entry.file_size for entry in entries) > length:
        raise ValueError("it is packed")
    stream.seek(0)


def damaged(path: Path, error: Exception) -> CheckpointError:
    """The error for a checkpoint that cannot be used."""
    return CheckpointError(
        f"{path} cannot be used: {type(error).__name__}: {error}"[:500], remedy=REMEDY
    )
