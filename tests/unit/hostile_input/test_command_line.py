"""Any text for any option or argument of run.py: done, or refused in a clear line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg2
import pytest
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import run
from backend import logs
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError
from backend.evolution import process as evolution
from backend.supervisor import Supervisor
from backend.telemetry import open_store

SECRET = "hunter2-correct-horse"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST = 20_000
"""Characters on the terminal, help texts included."""
WHERE_SECRETS_ARE = {"dsn", "store", "study"}
FILES = {"data_dir", "out", "output", "paths", "file"}
"""Options that write where they are told: always into a folder ``here``."""

TEXTS = st.text(st.characters(exclude_characters="\0"), max_size=30) | st.sampled_from(
    ["", "-", "--", "-1", "0", "1", "7", "17", "99999999999999999999", "nan", "inf", "1e400", "0x1",
     "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202eabc", "a\nb", "\udcff", "[red]x[/red]", "[/]",
     "'; DROP TABLE x; --", "${HOME}", "%s%n", "auto", "pin", "comments", "x" * 3000,
     "/dev/null", "/etc/passwd", "/nonexistent/x", "."]
)  # fmt: skip
URLS = st.builds(
    lambda scheme, host, tail: f"{scheme}://user:{SECRET}@{host}{tail}",
    st.sampled_from(["postgresql", "postgresql+psycopg2", "postgres", "mysql", "oracle", "http"]),
    st.sampled_from(["127.0.0.1:1", "localhost", "[::1", "h:port", "", "a b"]) | TEXTS,
    st.sampled_from(["/shop", "/shop?sslmode=never", "/?password=x", "/%", "", "?x", "#"]) | TEXTS,
)
FITTING = (st.integers(0, 100) | st.integers() | st.floats(0.1, 100) | st.floats()).map(str) | (
    st.sampled_from(
        ["observe", "advise", "approve", "auto", "pin", "off", "comments", "hint-table",
         "alter-role", "mixed", "oltp", "shop", "tuner", "dashboard", "evolution",
         "0123456789abcdef"]
    )
)  # fmt: skip
NAMES = st.text(
    st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=20
)


@dataclass(frozen=True)
class Terminal:
    """Runs run.py as from a terminal, in a folder of its own with a store in it."""

    folder: Path

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def files(self) -> set[Path]:
        """What lies in the working directory, beside the data."""
        return {path for path in self.folder.iterdir() if path.name not in ("data", "here")}

    def call(self, *arguments: str) -> tuple[int, str]:
        """The exit code, and all that is shown."""
        words = mock.patch.object(sys, "argv", ["run.py", *arguments])
        with mock.patch.dict(os.environ), words:
            for name in [n for n in os.environ if n.startswith(("PG", "AUTOPILOT_"))]:
                del os.environ[name]
            os.environ.pop("DATABASE_URL", None)
            with CliRunner().isolation(color=True) as streams:
                code: object = 0
                try:
                    run.main()
                except SystemExit as ended:
                    code = ended.code or 0
                shown = streams[2].getvalue().decode("utf-8", "replace")
        assert isinstance(code, int)
        return code, shown


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """No server is there, and none is started."""
    folder = tmp_path_factory.mktemp("terminal")
    open_store(f"sqlite:///{folder}/data/telemetry.db").close()
    here = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(psycopg2, "connect", _no_server)
        patch.setattr(EmbeddedPostgres, "ensure_started", _no_programs)
        patch.setattr(EmbeddedPostgres, "start_or_recover", _no_programs)
        patch.setattr(Supervisor, "run", lambda _: 0)
        patch.setattr(logs, "configure_logging", lambda *_: None)
        patch.setattr(evolution, "be_nice", lambda: None)
        patch.setattr(evolution, "evolve", _no_programs)
        yield Terminal(folder)
    assert Path.cwd() == here


def _no_server(*_: object, **__: object) -> None:
    raise psycopg2.OperationalError(f"no server for \x1b[31m user:{SECRET} ")


def _no_programs(*_: object, **__: object) -> None:
    raise EmbeddedServerError("no programs \x1b[31m here")


# -- what there is --------------------------------------------------------------------------------


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


COMMANDS: Mapping[tuple[str, ...], Any] = dict(commands(typer.main.get_command(run.app)))


def value_of(data: Any, parameter: Any) -> str:
    """Something for an option or argument."""
    if parameter.name in FILES:
        return "here/" + data.draw(NAMES, parameter.name).replace("..", "")
    kinds = TEXTS | URLS if parameter.name in WHERE_SECRETS_ARE else TEXTS | FITTING
    chosen: str = data.draw(kinds, parameter.name)
    if parameter.name in ("store", "study") and SECRET not in chosen:
        return "here/" + chosen.replace("/", "").replace("..", "")
    return chosen


def words_of(data: Any, terminal: Terminal, command: Any) -> list[str]:
    """Options and arguments of a command, a third of them given."""
    words: list[str] = []
    for parameter in command.params:
        if parameter.name == "help" or data.draw(st.integers(0, 2), f"gives {parameter.name}"):
            continue
        if parameter.param_type_name == "argument":
            words.append(value_of(data, parameter))
        else:
            words.append(data.draw(st.sampled_from(parameter.opts)))
            if not parameter.is_flag:
                words.append(value_of(data, parameter))
    named = {parameter.name for parameter in command.params}
    if "data_dir" in named and "--data-dir" not in words:
        words += ["--data-dir", str(terminal.data)]
    return words + (["more"] if data.draw(st.integers(0, 9), "more") == 9 else [])


def is_clear(code: int, shown: str) -> None:
    """One of three codes; nothing that a terminal obeys, no stack trace, no secret, no flood."""
    assert code in (0, 1, 2), shown
    assert "Traceback" not in shown
    assert SECRET not in shown
    assert not OBEYED.search(shown), ascii(shown)
    assert len(shown) < LONGEST
    assert code == 0 or shown.strip()


CALLED = sorted(COMMANDS)


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_words_are_done_or_refused(terminal: Terminal, data: Any) -> None:
    words = data.draw(st.sampled_from(CALLED), "command")
    before = terminal.files()
    is_clear(*terminal.call(*words, *words_of(data, terminal, COMMANDS[words])))
    assert terminal.files() == before


@given(words=st.lists(TEXTS, min_size=1, max_size=4))
@example(words=["--\x1b[31m"])
@example(words=["\x1b[31m"])
def test_words_of_no_command_are_refused(terminal: Terminal, words: list[str]) -> None:
    is_clear(*terminal.call("report", *words))
    is_clear(*terminal.call("policy", *words))


def test_a_settings_file_gives_nothing_to_a_terminal(terminal: Terminal) -> None:
    file = terminal.folder / "here" / "hostile.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text('"\\e]0;title\\a": 1\nmode: "\\e[31mred\\u202e"\n')
    code, shown = terminal.call("report", "--config", str(file))
    is_clear(code, shown)
    assert code == 1
    assert "title" in shown


@pytest.mark.parametrize("command", [(), ("doctor",), ("grants",), ("advise",)])
def test_what_a_server_says_gives_nothing_to_a_terminal(
    terminal: Terminal, command: tuple[str, ...]
) -> None:
    """The stub repeats the password, as no server does, and sends control characters."""
    dsn = f"postgresql://user:{SECRET}@127.0.0.1:1/shop"
    code, shown = terminal.call(*command, "--dsn", dsn, "--data-dir", str(terminal.data))
    is_clear(code, shown)
    assert code == 1
    assert "127.0.0.1:1" in shown
