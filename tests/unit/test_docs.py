"""The documentation is tested: what it names exists, and what exists it names."""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import run
from backend.config import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md")], key=lambda page: page.relative_to(ROOT).as_posix()
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PLACEHOLDER = re.compile(r"<!--.*?-->", re.S)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# -- links --------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    found = set()
    fenced = False
    for line in text_of(page).splitlines():
        fenced ^= line.startswith("```")
        match = None if fenced else re.match(r"#+\s+(.*)", line)
        if match:
            plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", match[1]).lower()
            found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_of_a_page_resolves(page: Path) -> None:
    broken = []
    for target in LINK.findall(text_of(page)):
        if re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_every_page_of_docs_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in LINK.findall(text_of(page)):
            file = (page.parent / target.partition("#")[0]).resolve()
            if file.is_dir():
                waiting.extend(file.glob("*.md"))
            elif file.suffix == ".md" and file.exists():
                waiting.append(file)
    assert {named(page) for page in PAGES} - {named(page) for page in reached} == set()


# -- the command line ---------------------------------------------------------------------------


def command_sections() -> dict[str, str]:
    """The user guide's section of each command; "" is run.py without one."""
    parts = re.split(
        r"^### `python run\.py ?([\w-]*)`$", text_of(DOCS / "user-guide.md"), flags=re.M
    )
    return {name: body.partition("\n## ")[0] for name, body in zip(parts[1::2], parts[2::2])}  # noqa: B905


def command_options() -> dict[str, set[str]]:
    """The options of each command that people see; a group's are those of its commands."""
    group = typer.main.get_command(run.app)
    commands = {"": [group]}
    for name, command in group.commands.items():
        if not command.hidden:
            commands[name] = list(getattr(command, "commands", {"": command}).values())
    return {
        name: {o for one in some for p in one.params for o in p.opts if o.startswith("--")}
        for name, some in commands.items()
    }


def test_the_user_guide_has_a_section_for_each_command() -> None:
    assert set(command_sections()) == set(command_options())


@pytest.mark.parametrize("name", sorted(command_options()))
def test_every_option_of_a_command_is_in_its_section(name: str) -> None:
    section = command_sections()[name]
    # "--dsn" alone names an option; "--disable-x" inside a longer word would not.
    written = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section))
    options = command_options()[name]
    assert options - written == set()
    everywhere = set().union(*command_options().values(), {"--help"})
    assert written - everywhere == set()


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), flags=re.M))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    called = re.findall(r"(?:^|`)make ([a-z-]+)", text_of(page), flags=re.M)
    assert set(called) - make_targets() == set()


def test_the_readme_begins_with_its_two_commands() -> None:
    block = re.search(r"```\n(.*?)```", text_of(ROOT / "README.md"), re.S)
    assert block is not None
    assert re.findall(r"^make ([a-z-]+)", block[1], flags=re.M) == ["run", "test"]


def test_the_readme_is_a_page_for_newcomers() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 130


# -- settings and formulas ----------------------------------------------------------------------


def default_of(key: str) -> object:
    value: object = Settings()
    for part in key.split("."):
        value = getattr(value, part)
    return value


def quoted_defaults() -> Iterator[tuple[str, str, float]]:
    """Each "`section.key` (value)" of the pages, with the value as a plain number."""
    pattern = re.compile(r"`((?:level[012]|safety|telemetry|workload)\.[\w.]+)`\s\(([^)]+)\)")
    for page in PAGES:
        for key, written in pattern.findall(text_of(page)):
            match = re.fullmatch(r"\+?([\d.]+)\s*(%|s|)", written)
            assert match, f"{named(page)}: {key} ({written}) is not a value"
            yield named(page), key, float(match[1]) / (100 if match[2] == "%" else 1)


def test_every_default_that_a_page_quotes_is_the_default() -> None:
    quoted = list(quoted_defaults())
    assert len(quoted) > 8
    wrong = [(page, key, value) for page, key, value in quoted if default_of(key) != value]
    assert not wrong


def test_every_setting_that_a_page_names_exists() -> None:
    pattern = re.compile(
        r"`((?:level[012]|safety|telemetry|workload|paths|dashboard|logging|database)\.[a-z_0-9.]+)`"
    )
    modules = {path.name for path in ROOT.rglob("*.py")}
    for page in PAGES:
        for key in pattern.findall(text_of(page)):
            if key.split("/")[-1] in modules:
                continue
            default_of(key)


CONSTANTS = {
    "backend.sample_filter:MIN_CALLS": "ran at least {:g} times",
    "backend.sample_filter:LOAD_SHARPNESS": "exp(-{:g} * distance)",
    "backend.data_collector:MAX_EVICTED_TIME_SHARE": "hold more than {:.0%} of the execution",
    "backend.gate:PRIOR_DEGREES": "degrees of freedom: {:g}",
    "backend.baseline:MIN_BASELINE_CALLS": "hold {:g} statements",
    "backend.candidates:FRUITLESS_PROBES": "After {} probes without one",
    "backend.trials:MAX_VOID_WINDOWS": "{} void windows in a row",
    "backend.trials:MAX_STRADDLE_S": "at most {:g} s",
    "backend.gate:GateSettings.guarded_time_share": "at least {:.0%} of the reference",
    "backend.safety_monitor:SafetyLimits.min_calls": "{:g} statements needed",
    "backend.trials:TrialPlan.restart_settle_s": "at least {:g} s after a restart",
    "backend.agent.settings:KnobAgentSettings.updates_per_tell": "_per_tell` ({:g}) updates",
    "backend.agent.settings:KnobAgentSettings.ensemble_size": "an ensemble of {:g} with bootstrap",
}
WORDS = {6: "Six", 8: "eight"}


@pytest.mark.parametrize("where", sorted(CONSTANTS))
def test_the_numbers_of_the_formulas_are_those_of_the_code(where: str) -> None:
    module, _, path = where.partition(":")
    value = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    pattern = CONSTANTS[where]
    shown = pattern.format(WORDS.get(value, value) if "{}" in pattern else value)
    prose = " ".join((text_of(DOCS / "trials.md") + text_of(DOCS / "knob-agent.md")).split())
    assert shown.replace("%", " %") in prose


# -- the architecture ---------------------------------------------------------------------------


def section(page: Path, heading: str) -> str:
    match = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text_of(page), re.S | re.M)
    assert match, f"{named(page)} has no section {heading!r}"
    return match[1]


def required_packages() -> set[str]:
    lines = text_of(ROOT / "requirements.txt").splitlines()
    return {re.split(r"[<>=;\[ ]", line)[0] for line in lines if line and line[0] != "#"}


def test_every_dependency_has_its_reason() -> None:
    table = re.findall(
        r"^\| `([^`]+)` \| (.+) \|$", section(DOCS / "architecture.md", "Dependencies"), re.M
    )
    assert {name for name, reason in table if len(reason) > 10} == required_packages()
    assert len(table) == len(required_packages())


def test_the_house_names_every_module_and_no_other() -> None:
    house = section(DOCS / "architecture.md", "The house")
    files = set(re.findall(r"[\w*]+\.py\b", house))
    folders = set(re.findall(r"^  (\w+)/", house, re.M))
    modules = {path.name for path in (ROOT / "backend").glob("*.py")} - {"__init__.py"}
    packages = {p.parent.name for p in (ROOT / "backend").glob("*/__init__.py")}
    assert {m for m in modules if not any(fnmatch.fnmatch(m, f) for f in files)} == set()
    assert packages - folders == set()
    existing = {
        path.name for folder in ("backend", "dashboard") for path in (ROOT / folder).rglob("*.py")
    }
    existing.add("run.py")
    assert {f for f in files if not fnmatch.filter(existing, f)} == set()


def test_every_import_rule_is_described() -> None:
    rules = re.findall(r'^name = "(.+)"$', text_of(ROOT / "pyproject.toml"), re.M)
    described = " ".join(section(DOCS / "architecture.md", "Import rules").split())
    assert [rule for rule in rules if f"*{rule}*" not in described] == []


def test_what_is_not_there_yet_is_said() -> None:
    status = section(DOCS / "architecture.md", "Status")
    for missing in ("plan agent", "Level 2"):
        assert missing in status


# -- the words ----------------------------------------------------------------------------------

FOREIGN = re.compile(
    r"(?<![\w.~/])/(?:home|root|tmp|mnt|work\w*|Users)/"  # folders of one machine
    r"|\b(?:helpers?|colleagues?|the brief|this session|language models?|TODO|FIXME|XXX)\b"
    r"|\bissue #?\d",
    re.I,
)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_speaks_of_the_product_alone(page: Path) -> None:
    prose = PLACEHOLDER.sub("", text_of(page))
    assert FOREIGN.findall(prose) == []


def test_the_words_that_are_looked_for_would_be_found() -> None:
    assert FOREIGN.search("see /home/me/notes")
    assert FOREIGN.search("a TODO")
    assert not FOREIGN.search("the tuner's sessions, and data/logs/errors.log")
