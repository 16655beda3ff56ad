"""Files of learned weights: named by their content, whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.errors import CheckpointError
from backend.policy import weights_files
from backend.policy.weights_files import WeightsFiles

ABOUT = {"policy": "knob", "note": "ä"}
ARRAYS = {"layer_0": np.arange(6.0).reshape(1, 2, 3)}


@pytest.fixture
def files(tmp_path: Path) -> WeightsFiles:
    return WeightsFiles(tmp_path / "weights")


def test_what_was_written_is_read_back(files: WeightsFiles) -> None:
    about, arrays = files.read(files.write(ABOUT, ARRAYS))
    assert about == ABOUT
    np.testing.assert_array_equal(arrays["layer_0"], ARRAYS["layer_0"])


def test_the_name_is_that_of_the_content(files: WeightsFiles, tmp_path: Path) -> None:
    name = files.write(ABOUT, ARRAYS)
    assert files.write(ABOUT, ARRAYS) == name
    assert files.write(ABOUT, {"layer_0": ARRAYS["layer_0"] + 1e-12}) != name
    assert len(list((tmp_path / "weights").iterdir())) == 2


def test_a_file_that_was_changed_is_not_used(files: WeightsFiles, tmp_path: Path) -> None:
    name = files.write(ABOUT, ARRAYS)
    path = tmp_path / "weights" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="damaged"):
        files.read(name)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a" * 64, f"{'a' * 63}/.npz"])
def test_a_name_that_is_no_digest_leads_nowhere(files: WeightsFiles, name: str) -> None:
    with pytest.raises(CheckpointError, match="names no file of weights"):
        files.read(name)


def test_a_missing_file_is_told(files: WeightsFiles) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        files.read(f"{'0' * 64}.npz")


def test_a_write_that_fails_leaves_no_name_behind(
    files: WeightsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(path: Path, *_: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(weights_files, "write_checkpoint", torn)
        with pytest.raises(OSError, match="no space"):
            files.write(ABOUT, ARRAYS)
    assert not list((tmp_path / "weights").glob("*.npz"))
    assert files.read(files.write(ABOUT, ARRAYS))[0] == ABOUT
