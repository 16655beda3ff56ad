"""Checkpoints that somebody else wrote: refused with a reason, nothing in them is run."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.agent.checkpoint import read_checkpoint, write_checkpoint
from backend.errors import CheckpointError


def member(header: str, data: bytes = b"") -> bytes:
    """An array's file with this header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + data


def shaped(shape: str, descr: str = "'<f8'") -> bytes:
    return member(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")


def about(text: str) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(text))
    return stream.getvalue()


GOOD = about(json.dumps({"steps": 1}))


class Harmful:
    """Would tell if it was unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize(
    "weights",
    [
        shaped("(1,)", "'|O'") + pickle.dumps(Harmful()),
        shaped("(1000000000000,)"),
        shaped("(99999999999999999999999,)"),
        shaped("(-1,)"),
        shaped("('a',)"),
        shaped("(1,)", "'zz'"),
        member("{'descr': (((("),
        member("(" * 4000 + ")" * 4000),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_an_array_that_is_none_is_refused(tmp_path: Path, weights: bytes) -> None:
    path = tmp_path / "agent.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.npy", GOOD)
        archive.writestr("weights.npy", weights)
    with pytest.raises(CheckpointError, match="cannot be used"):
        read_checkpoint(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{", "[]", "\0"])
def test_a_description_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.npy", about(text))
    with pytest.raises(CheckpointError, match="cannot be used"):
        read_checkpoint(path)


def test_what_is_packed_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "agent.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("about.npy", GOOD)
        archive.writestr("weights.npy", shaped("(131072,)") + bytes(2**20))
    assert path.stat().st_size < 2**12
    with pytest.raises(CheckpointError, match="packed"):
        read_checkpoint(path)


def test_one_array_under_many_names_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "agent.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npy", shaped("(1024,)") + bytes(2**13))
        entry = archive.infolist()[0]
        archive.filelist += [entry] * 100
    with pytest.raises(CheckpointError, match="packed"):
        read_checkpoint(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_checkpoint_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "agent.npz"
    write_checkpoint(path, {"steps": 1}, {"weights": np.arange(8.0)})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(CheckpointError):
        read_checkpoint(path)
