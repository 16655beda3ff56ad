"""The store is locked, damaged, from a newer version; disks are full."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.faults.catalogue import lives
from tests.faults.catalogue.fault import Skipped, fault
from tests.faults.catalogue.world import World
from tests.running_product import open_folder

_LOCKED_S = 12.0
"""Longer than the lease and the longest wait for a turn to write."""


@fault(11, "store: locked by another program in mid-trial", repeats=20, in_ci=0)
def store_locked(world: World, number: int) -> float | None:
    """Nobody can note anything meanwhile; measured from the lock's end."""
    world.in_mid_trial()
    holder = world.begin(lives.hold_store, world.data_dir / "telemetry.db", _LOCKED_S)
    holder.hear()
    world.resume_trials()
    holder.ended()
    return world.restored(time.monotonic())


@fault(11, "store: damaged", repeats=20)
def store_damaged(world: World, number: int) -> None:
    """The tuner says so and does nothing; the file stays as it is."""

    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.write(os.urandom(4096) if number % 2 else b"no database" * 400)

    _refused(world, damage, "damaged")


@fault(11, "store: from a newer version", repeats=20)
def store_newer(world: World, number: int) -> None:
    """The tuner says so and does nothing; the file stays as it is."""

    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")

    _refused(world, change, "upgrade this program")


def _refused(world: World, hurt: Callable[[Path], None], remedy: str) -> None:
    """Start a tuner on a hurt copy of the store; it must decline and leave all as it is."""
    world.end_trials()
    place = world.beside("hurt")
    assert place.store is not None
    for old in place.store.parent.iterdir():
        old.unlink()
    with (
        closing(sqlite3.connect(world.data_dir / "telemetry.db")) as source,
        closing(sqlite3.connect(place.store)) as copy,
    ):
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=WAL")
    hurt(place.store)
    content = place.store.read_bytes()
    tuner = world.begin(lives.begin_and_end, place)
    message = tuner.hear()
    assert remedy in message, message
    assert tuner.ended() == 0
    assert place.store.read_bytes() == content
    world.be_whole()


@fault(5, "disk: full under the store", repeats=20)
def disk_full_under_store(world: World, number: int) -> float | None:
    """What cannot be noted is not done, what is open is undone; measured from free space on."""
    return _disk_full(world, number, lambda other: other.data_dir)


@fault(5, "disk: full under the server", repeats=20)
def disk_full_under_server(world: World, number: int) -> float | None:
    """ALTER SYSTEM cannot write its file; measured from free space on."""
    return _disk_full(world, number, lambda other: other.data_dir / "postgres")


def _disk_full(world: World, number: int, where: Callable[[World], Path]) -> float | None:
    other = _on_small_disks(world)
    tuner = other.tuner(signal_at=other.step_of(number), number=lives.STOP)
    tuner.stopped()
    ballast = where(other) / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(65536))
            file.flush()
    try:
        tuner.resume()
        time.sleep(2.0)
    finally:
        ballast.unlink(missing_ok=True)  # where it was full for a moment already
    free_s = time.monotonic()
    tuner.kill()
    return other.restored(free_s)


def _on_small_disks(world: World) -> World:
    """A world whose store and whose server lie on a small disk each."""
    if "small disks" in world.others:
        return world.others["small disks"]
    if os.geteuid() != 0:
        raise Skipped("only root may mount a small disk")
    folder = world.at_the_end.enter_context(open_folder())
    for path, size in ((folder, "64m"), (folder / "postgres", "700m")):
        path.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Skipped(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        world.at_the_end.callback(subprocess.run, ["umount", "-l", str(path)], check=False)
    other = World(folder)
    world.at_the_end.callback(other.close)
    world.others["small disks"] = other.open()
    return other
