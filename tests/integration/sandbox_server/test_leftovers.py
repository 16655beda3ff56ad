"""What a killed process leaves of a sandbox."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import URL

from backend.embedded.postmaster import living_postmaster
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError
from backend.sandbox.scratch_server import ScratchServer, remove_leftovers

pytestmark = [
    pytest.mark.integration,
    pytest.mark.parametrize("server", ["embedded_server"], indirect=True),
]
KILLED = """
import sys, threading
from pathlib import Path
from sqlalchemy.engine import make_url
from backend.sandbox.copying import CopyLimits, make_copy
make_copy(make_url(sys.argv[1]), Path(sys.argv[2]), ("child",), CopyLimits(1000, 10**7),
          tell=lambda what: print(what, flush=True), is_over=lambda: False)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["copies a sample of rows", "ready"])
def test_what_a_killed_process_left_is_found_and_removed(
    source: URL, data_dir: Path, when: str
) -> None:
    process = subprocess.Popen(
        [
            sys.executable, "-c", KILLED,
            source.render_as_string(hide_password=False), str(data_dir),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        while (line := process.stdout.readline()).strip() != when:
            assert line, "it ended too early"
        assert not remove_leftovers(data_dir)  # its owner lives
        with pytest.raises(EmbeddedServerError, match=f"process {process.pid} has a sandbox"):
            ScratchServer(data_dir, 17, 10**6).create({})
        os.kill(process.pid, signal.SIGKILL)
    cluster = EmbeddedPostgres(data_dir / "sandbox", dbname="postgres").cluster_dir
    left = living_postmaster(cluster)
    assert left is not None

    assert remove_leftovers(data_dir)

    assert not psutil.pid_exists(left.pid) or (
        psutil.Process(left.pid).status() == psutil.STATUS_ZOMBIE  # init has not reaped it yet
    )
    assert list(data_dir.iterdir()) == []
    assert not remove_leftovers(data_dir)
