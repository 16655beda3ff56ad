"""Kills what deploys, with SIGKILL, at each of its steps in turn, and tells what stands afterwards.

A program of its own, since it forks. Takes a folder; writes a line of JSON for each death. The
server is one in memory whose entries live in a file, as postgresql.auto.conf does; the store is a
real one. A step is a statement or commit in the store, or an entry or a reload of the server.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.contracts import records as full
from tests.deployed_versions import Deployed, identities
from tests.fake_server import FakeServer, Steps
from tests.steered_classes import KEY, OTHER_KEY


class FileServer(FakeServer):
    """A server whose entries outlive us."""

    def __init__(self, folder: Path, steps: Steps) -> None:
        super().__init__(steps)
        self._file = folder / "entries.json"
        if self._file.exists():
            self.entries = json.loads(self._file.read_text())
        self._activate(restart=True)

    def _reach(self, what: str) -> None:
        # Reached after an entry was written, too: then it is on the disk before anybody dies.
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self.entries))
        new.replace(self._file)
        super()._reach(what)


class DeadlySteps(Steps):
    """Ends the process at a step, leaving it no time for anything."""

    def __init__(self) -> None:
        super().__init__()
        self.left = -1

    def step(self, name: str) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, engine: sa.Engine) -> None:
        for event in ("before_cursor_execute", "after_cursor_execute", "commit"):
            sa.event.listen(engine, event, lambda *_: self.step("store"))


def _to_the_first(deployed: Deployed) -> None:
    deployed.go_to(deployed.versions.find(1))


def _to_the_richest(deployed: Deployed) -> None:
    wanted = max(deployed.store.policy_versions(), key=lambda v: (len(v.steering), len(v.config)))
    deployed.go_to(wanted)


def _prove(deployed: Deployed) -> None:
    deployed.prove(KEY, "no_mergejoin")


def _withdraw(deployed: Deployed) -> None:
    deployed.register.withdraw(KEY, "slower by now")


def _learn(deployed: Deployed) -> None:
    with deployed.versions.together():
        deployed.store.add_policy_update(full.POLICY_UPDATE)
        deployed.versions.deploy_weights({"knob policy": "new.npz"}, author="level 1", note="")


DEEDS: dict[str, tuple[bool, Callable[[Deployed], None]]] = {
    "rollback": (False, _to_the_first),
    "deploy": (True, _to_the_richest),
    "prove": (False, _prove),
    "withdraw": (False, _withdraw),
    "learn": (False, _learn),
}
"""What is done → whether the first version stands before."""


def prepare(folder: Path, *, back_at_first: bool) -> None:
    """A store with some versions, and the server that goes with it."""
    folder.mkdir()
    with closing(Deployed(folder, FileServer(folder, Steps()))) as deployed:
        deployed.knobs(work_mem=8192, random_page_cost=2)
        deployed.prove(KEY)
        deployed.prove(OTHER_KEY, "no_hashjoin")
        deployed.versions.deploy_weights({"plan policy": "a.npz"}, author="level 1", note="")
        if back_at_first:
            _to_the_first(deployed)


def what_stands(folder: Path) -> dict[str, Any]:
    """After the next tuner has started: what is deployed, and whether all agree on it."""
    with closing(Deployed(folder, FileServer(folder, Steps()))) as deployed:
        active = deployed.active
        return {
            "knobs": dict(active.config),
            "hint_sets": [repr(identity) for identity in identities(active.steering)],
            "weights": dict(active.weights),
            "updates": len(deployed.store.policy_updates()),
            "versions": len(deployed.store.policy_versions()),
            "open": len(deployed.store.open_changes()),
            "consistent": deployed.consistent(),
        }


def do(folder: Path, deed: Callable[[Deployed], None], dies_at: int) -> bool:
    """Start a tuner that does it and dies at a step; whether it did die."""
    child = os.fork()
    if child == 0:
        steps = DeadlySteps()
        deployed = Deployed(folder, FileServer(folder, steps))
        steps.watch(deployed.store._engine)
        steps.left = dies_at
        deed(deployed)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "it failed instead of dying"
    return False


def main(root: Path) -> None:
    """Do everything, dying a step later each time, until it gets to its end."""
    for name, (back_at_first, deed) in DEEDS.items():
        prepare(root / name, back_at_first=back_at_first)
        for step in itertools.count(1):
            folder = root / f"{name}-{step}"
            shutil.copytree(root / name, folder)
            died = do(folder, deed, step)
            found = {"deed": name, "step": step, "died": died, **what_stands(folder)}
            print(json.dumps(found), flush=True)
            shutil.rmtree(folder)
            if not died:
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
