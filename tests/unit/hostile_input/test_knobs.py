"""Names and values of knobs, by every way in: refused with the reason, and nothing is written.

Settings that are never changed are refused at three layers. Each is shown to refuse by itself,
with a catalogue that holds such settings in place of the real one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.catalog import CatalogEntry, KnobCatalog, never_reason
from backend.catalog.knobs import KNOBS_FILE, parse_catalog, read_catalog
from backend.domain.clock import ManualClock
from backend.domain.knobs import Knob, KnobValue
from backend.domain.modes import ChangeState, CommandKind, CommandState
from backend.domain.records import ChangeRecord, CommandRecord
from backend.errors import CatalogError, KnobError, NeverKnobError
from backend.operator_commands import OperatorCommands
from backend.orchestrator import SystemOrchestrator
from backend.parameter_adjuster import ParameterAdjuster
from backend.targets.simulated import SimulatedDatabase
from backend.telemetry import SqlStore, open_store
from dashboard.operator_commands import check_knobs
from tests.adjuster_world import World
from tests.fake_server import CATALOG, START, FakeServer, Steps
from tests.simulated_run import make_target, settings_in

NEVER = ("fsync", "full_page_writes", "synchronous_commit", "archive_command", "autovacuum",
         "statement_timeout", "password_encryption", "shared_preload_libraries", "log_statement",
         "search_path", "max_connections", "ssl", "listen_addresses")  # fmt: skip
LEGAL = {entry.name: entry.knob for entry in CATALOG}

NAMES = (
    st.sampled_from([*LEGAL, *NEVER])
    | st.sampled_from([*LEGAL, *NEVER]).map(str.upper)
    | st.sampled_from([*LEGAL, *NEVER]).flatmap(
        lambda name: st.sampled_from(
            [f" {name}", f"{name}\n", f"{name}; DROP TABLE x", f'"{name}"', f"{name}\x00",
             f"{name}'", f"pg_catalog.{name}", name.replace("s", "\u017f"), f"{name}\u200b"]
        )
    )
    | st.text(max_size=30)
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(
        ["64MB", "64 Mb", "1e999", "-1", "9" * 5000, "0x10", "on", "off'; SELECT 1; --", "1\x00",
         "\u0661\u0662", "1_000", "64\u212aB", "nan", 10**400, -(10**400), "1" + " " * 5000]
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


def is_legal(name: str, value: KnobValue | None) -> bool:
    """Whether this is a catalogued knob's, of its kind, and within its bounds."""
    if name not in LEGAL or never_reason(name) is not None:
        return False
    return value is None or LEGAL[name].validate(value) == value


# -- the catalogue, the pages' check, the adjuster ----------------------------------------------


@settings(max_examples=400)
@given(NAMES, VALUES)
@example("work_mem", "9" * 5000)
@example("jit", [[]])
def test_the_catalogue_takes_what_is_legal_alone(name: str, value: Any) -> None:
    told = ""
    try:
        assert is_legal(name, CATALOG.check(name, value))
    except KnobError as error:
        told = str(error)
    assert len(told) < 700


@settings(max_examples=200)
@given(st.dictionaries(NAMES, VALUES, max_size=3))
def test_the_adjuster_writes_what_is_legal_alone(values: dict[str, Any]) -> None:
    world, refused = World(), False
    try:
        world.adjuster.apply(values, actor="test", epoch=world.epoch, allow_restart=True)
    except KnobError:
        refused = True
    assert not (refused and world.server.writes)
    for name in world.server.entries:
        assert is_legal(name, world.server.value_of_entry(name))
    touched = {step.split()[1] for step in world.steps.log if step.startswith("write ")}
    assert touched <= LEGAL.keys()


# -- commands from the store --------------------------------------------------------------------


class Tuner:
    """A tuner on a simulated server, whose every written entry is noted."""

    def __init__(self, folder: Path) -> None:
        target = make_target()
        self.written: list[tuple[str, KnobValue | None]] = []
        self.clock = target.clock
        assert isinstance(self.clock, ManualClock)
        self._watch(target)
        chosen = settings_in(folder)
        self.orchestrator = SystemOrchestrator(
            chosen, target_factory=lambda _: target, clock=self.clock
        )
        self.orchestrator.begin()
        self.parts = self.orchestrator._components
        self.store: SqlStore = open_store(chosen.store_url)
        self.commands = self.orchestrator._running.commands

    def _watch(self, target: SimulatedDatabase) -> None:
        write = target.write_entries

        def noting(entries: Mapping[str, KnobValue | None]) -> None:
            self.written += entries.items()
            write(entries)

        target.write_entries = noting  # type: ignore[method-assign]

    def do(self, kind: CommandKind, payload: Mapping[str, Any]) -> CommandRecord:
        """Queue a command as a browser or a stranger to the code might, and carry it out."""
        number = self.store.submit(
            CommandRecord(kind, payload, "tester", datetime.now(timezone.utc))
        )
        self.commands.run_next()
        done = self.store.command(number)
        assert done is not None
        return done

    def close(self) -> None:
        self.store.close()
        self.orchestrator.end()


@pytest.fixture(scope="module")
def tuner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuner]:
    with closing(Tuner(tmp_path_factory.mktemp("tuner"))) as made:
        yield made


PAYLOAD_KEYS = ("knobs", "batch_id", "version_id", "mode", "reason", "trial_id", "plan_id",
                "document", "fingerprint", "search_path")  # fmt: skip


@settings(max_examples=80)
@given(
    st.sampled_from(CommandKind),
    st.dictionaries(st.sampled_from(PAYLOAD_KEYS) | st.text(max_size=5), VALUES, max_size=3)
    | st.dictionaries(NAMES, VALUES, max_size=3).map(lambda knobs: {"knobs": knobs}),
)
@example(CommandKind.SET_KNOBS, {"knobs": {"work_mem": "32MB"}})
@example(CommandKind.SET_KNOBS, {"knobs": {"work_mem": "32MB", "fsync": "off"}})
def test_any_command_in_the_store_is_answered_and_writes_what_is_legal_alone(
    tuner: Tuner, kind: CommandKind, payload: dict[str, Any]
) -> None:
    tuner.written.clear()
    done = tuner.do(kind, payload)  # a defect would be raised
    assert done.state in (CommandState.DONE, CommandState.REFUSED)
    assert done.result
    assert all(is_legal(name, value) for name, value in tuner.written)
    if kind is CommandKind.FREEZE:  # the next one is to be refused for its own sake
        tuner.do(CommandKind.UNFREEZE, {})
    if kind is CommandKind.SET_MODE:
        tuner.do(kind, {"mode": "auto"})


def test_a_legal_command_is_carried_out(tuner: Tuner) -> None:
    """Or the test above could not fail."""
    for wanted in (16384, 8192):
        done = tuner.do(CommandKind.SET_KNOBS, {"knobs": {"work_mem": wanted}})
        assert done.state is CommandState.DONE, done.result
        assert ("work_mem", wanted) in tuner.written


# -- never: three layers, each by itself --------------------------------------------------------

BAD_KNOB = Knob("fsync", "boolean", default=True)
BAD_CATALOG = KnobCatalog(
    CATALOG.version,
    (*CATALOG, CatalogEntry(BAD_KNOB, CATALOG.entries[0].group, True)),
    CATALOG.groups,
)
"""What no file can make: a catalogue with fsync in it."""


@pytest.mark.parametrize("name", [*NEVER, *map(str.upper, NEVER)])
def test_first_the_catalogue(name: str) -> None:
    groups, knobs = read_catalog(KNOBS_FILE)
    with pytest.raises(CatalogError, match="never-list"):
        parse_catalog({"groups": groups, "knobs": [*knobs, {**knobs[0], "name": name}]})
    with pytest.raises(NeverKnobError, match=r"is never changed here: .{10}"):
        CATALOG.check(name, "off")
    assert name.lower() not in CATALOG.space(tunable_only=False, include_restart=True)


def test_second_the_operators_command(tuner: Tuner) -> None:
    assert BAD_CATALOG.check("fsync", "off") is False
    parts = replace(tuner.parts, catalog=BAD_CATALOG)
    commands = OperatorCommands(parts, tuner.orchestrator.loop, tuner.clock, lambda *_: "")
    tuner.commands, former = commands, tuner.commands
    tuner.written.clear()
    try:
        done = tuner.do(CommandKind.SET_KNOBS, {"knobs": {"work_mem": 4096, "fsync": "off"}})
    finally:
        tuner.commands = former
    assert done.state is CommandState.REFUSED
    assert "fsync is never changed here: committed data could be lost" in done.result
    assert tuner.written == []


@pytest.fixture
def world() -> World:
    """A server and an adjuster with the wrong catalogue."""
    made = World()
    made.server = FakeServer(Steps(), BAD_CATALOG)
    made.adjuster = ParameterAdjuster(
        made.server, made.journal, BAD_CATALOG, made.clock, sleep=made.clock.sleep
    )
    return made


def test_third_the_adjuster(world: World) -> None:
    with pytest.raises(NeverKnobError, match="fsync is never changed here: committed data"):
        world.apply(work_mem=4096, fsync=False)
    assert (world.server.writes, world.server.reloads, world.journal.rows) == (0, 0, {})


@pytest.mark.parametrize("state", [ChangeState.PENDING, ChangeState.APPLIED, ChangeState.KEPT])
def test_nor_does_the_adjuster_undo_into_it(world: World, state: ChangeState) -> None:
    """A forged record that says that fsync was off before."""
    (row,) = world.journal.add_changes(
        [
            ChangeRecord(
                batch_id="forged",
                epoch=world.epoch,
                actor="test",
                knob="fsync",
                before_entry="off",
                after_entry=None,
                before_value=False,
                after_value=True,
                state=state,
                created_at=START,
            )
        ]
    )
    if state is ChangeState.KEPT:
        with pytest.raises(NeverKnobError):
            world.adjuster.roll_back([row], epoch=world.epoch, reason="test")
    else:
        assert world.adjuster.reconcile(world.epoch).clean
        assert row.id is not None
        settled = world.journal.rows[row.id]
        assert settled.state is ChangeState.FAILED
        assert "fsync is never changed here" in settled.detail
    assert world.server.writes == 0


def test_the_pages_take_nothing_that_the_tuner_has_not_called_writable(tuner: Tuner) -> None:
    for name in NEVER:
        with pytest.raises(KnobError, match=name):
            check_knobs({name: "off"}, tuner.store.knob_statuses())
