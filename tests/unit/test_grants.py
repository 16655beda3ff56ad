"""The printed grants: what is in them for a mode and a version, and that names stay names."""

from __future__ import annotations

import re

import pytest

from backend.commands.grants import grant_script, knobs_in_play
from backend.config import Settings
from backend.db_connector import EXPLORER_ROLE
from backend.errors import ConfigError

HOSTILE = 'x"; DROP TABLE y; --\n\\! touch z'
QUOTED = re.compile(r"""^--[^\n]*|"(?:[^"]|"")*"|E'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'""", re.M)
"""What psql takes as a comment, a name or a text."""
COMMANDS = {"\\set", "\\gset", "\\if", "\\warn", "\\quit", "\\endif", "\\gexec"}
FOREIGN = Settings.model_validate({"database": {"host": "h", "user": "me", "dbname": "app"}})


def statements(mode: str, version: int, settings: Settings = FOREIGN) -> str:
    """The script without its comments."""
    script = grant_script(settings, mode=mode, server_version=version)
    return "\n".join(line for line in script.splitlines() if not line.startswith("--"))


@pytest.mark.parametrize("version", [14, 15, 18])
@pytest.mark.parametrize("mode", ["observe", "advise"])
def test_looking_needs_no_right_to_change(mode: str, version: int) -> None:
    text = statements(mode, version)
    assert 'GRANT pg_monitor TO "me"' in text
    assert 'GRANT CONNECT ON DATABASE "app" TO "me"' in text
    assert 'GRANT CONNECT ON DATABASE "postgres" TO "me"' in text
    for word in ("ALTER SYSTEM", "pg_reload_conf", "pg_file_settings", "SUPERUSER"):
        assert word not in text


@pytest.mark.parametrize("mode", ["approve", "auto"])
def test_changing_needs_each_knob_and_the_way_back(mode: str) -> None:
    text = statements(mode, 17)
    for word in ("pg_reload_conf()", "pg_file_settings", "pg_show_all_file_settings()"):
        assert word in text
    for knob in knobs_in_play(FOREIGN, 170000):
        assert knob in text
    for other in ("shared_buffers", "fsync", "autovacuum_naptime", "SET,", "pg_signal_backend"):
        assert other not in text


def test_before_version_15_nothing_but_looking_can_be_granted() -> None:
    assert statements("auto", 14) == statements("advise", 14)
    script = grant_script(FOREIGN, mode="auto", server_version=14)
    assert "not possible" in script
    assert "mode advise" in script


def test_where_no_server_was_named_it_is_the_database_that_psql_is_in() -> None:
    """The first command of the README: before, it was for database shop and did nothing."""
    nobodys = Settings.model_validate({"database": {"user": "me"}})
    script = grant_script(nobodys, mode="observe", server_version=17, explorer=True)
    assert "shop" not in script
    for role in ("me", EXPLORER_ROLE):
        assert f'GRANT CONNECT ON DATABASE :"DBNAME" TO "{role}";' in script
    assert 'GRANT CONNECT ON DATABASE "postgres" TO "me";' in script
    assert "\\quit" not in script


def test_settings_decide_which_knobs_are_in_play() -> None:
    slow = FOREIGN.model_copy(
        update={"level1": FOREIGN.level1.model_copy(update={"max_settle_s": 600.0})}
    )
    assert set(knobs_in_play(slow, 170000)) > set(knobs_in_play(FOREIGN, 170000))


@pytest.mark.parametrize("version", [14, 15, 18])
def test_the_explorer_reads_and_nothing_else(version: int) -> None:
    plain = grant_script(FOREIGN, mode="observe", server_version=version)
    script = grant_script(FOREIGN, mode="observe", server_version=version, explorer=True)
    more = "\n".join(line for line in script.splitlines() if line not in plain.splitlines())
    assert 'GRANT pg_read_all_data TO "autopilot_explorer"' in more
    assert 'GRANT CONNECT ON DATABASE "app" TO "autopilot_explorer"' in more
    assert "SET default_transaction_read_only = on" in more
    assert "SET temp_file_limit = '2GB'" in more
    assert ("SET ON PARAMETER pg_stat_statements.track" in more) is (version >= 15)
    assert '"me"' not in more
    assert more.count("GRANT ") == (3 if version >= 15 else 2)


def test_names_stay_names() -> None:
    database = {"host": "h", "user": "me", "dbname": HOSTILE}
    settings = Settings.model_validate({"database": database})
    script = grant_script(settings, mode="auto", role=HOSTILE, server_version=17)
    bare = QUOTED.sub("", script)
    assert "DROP" not in bare
    assert "touch" not in bare
    assert set(re.findall(r"\\\S+", bare)) == COMMANDS
    quoted = HOSTILE.replace('"', '""')
    assert f'GRANT pg_monitor TO "{quoted}";' in script


@pytest.mark.parametrize("version", [13, 19, 130004, 0, -1])
def test_versions_that_are_not_known_are_refused(version: int) -> None:
    with pytest.raises(ConfigError, match="14 to 18"):
        grant_script(FOREIGN, mode="auto", server_version=version)


def test_modes_that_are_not_known_are_refused() -> None:
    with pytest.raises(ConfigError, match="turbo"):
        grant_script(FOREIGN, mode="turbo", server_version=17)


def test_without_a_server_and_a_version_the_remedy_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        grant_script(Settings(), mode="auto")
    assert "--server-version" in (caught.value.remedy or "")
