"""The parameter adjuster: all or nothing, intent first, a human's value stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from backend.domain.knobs import KnobValue
from backend.domain.modes import ChangeState
from backend.errors import (
    AdjustmentError,
    ConflictError,
    KnobBoundsError,
    NeverKnobError,
    ServerConnectionError,
    ServerError,
    StaleEpochError,
    StoreError,
    UnknownKnobError,
)
from backend.parameter_adjuster import AppliedBatch, ParameterAdjuster
from tests.fake_server import CATALOG, Crash, FakeClock, FakeJournal, FakeServer, Steps


class World:
    """A server, a journal and an adjuster under one lease."""

    def __init__(self) -> None:
        self.steps = Steps()
        self.clock = FakeClock()
        self.server = FakeServer(self.steps)
        self.journal = FakeJournal(self.steps, self.clock)
        self.new_tuner()

    def new_tuner(self) -> None:
        self.steps.clear()
        self.epoch = self.journal.acquire_lease("tuner", 10.0)
        self.adjuster = ParameterAdjuster(
            self.server,
            self.journal,
            CATALOG,
            self.clock,
            sleep=self.clock.sleep,
        )

    def apply(
        self,
        *,
        trial_id: int | None = None,
        allow_restart: bool = False,
        **after: KnobValue | None,
    ) -> AppliedBatch:
        return self.adjuster.apply(
            after, actor="test", epoch=self.epoch, trial_id=trial_id, allow_restart=allow_restart
        )

    def states(self) -> list[ChangeState]:
        return [row.state for row in self.journal.rows.values()]


@pytest.fixture
def world() -> World:
    return World()


# -- applying ---------------------------------------------------------------------------------


def test_apply_writes_activates_and_reads_back(world: World) -> None:
    batch = world.apply(work_mem="64MB", random_page_cost=1.1, jit=False)
    assert world.server.entries == {"work_mem": "65536", "random_page_cost": "1.1", "jit": "off"}
    assert world.server.running["work_mem"] == 65536
    assert world.server.running["jit"] is False
    assert batch.after == {"work_mem": 65536, "random_page_cost": 1.1, "jit": False}
    rows = list(world.journal.rows.values())
    assert {r.state for r in rows} == {ChangeState.APPLIED}
    assert {r.knob: (r.before_entry, r.before_value) for r in rows} == {
        "work_mem": (None, 4096),
        "random_page_cost": (None, 4.0),
        "jit": (None, True),
    }


def test_the_journal_comes_before_the_first_write(world: World) -> None:
    world.apply(work_mem=8192)
    log = world.steps.log
    assert log.index("journalled") < log.index("write work_mem")


def test_apply_waits_until_a_slow_reload_shows(world: World) -> None:
    world.server.reload_lag = 5
    world.apply(work_mem=8192)
    assert world.server.running["work_mem"] == 8192
    assert world.clock.seconds > 0


def test_a_change_that_never_shows_is_undone(world: World) -> None:
    world.server.reload_lag = 10**6
    with pytest.raises(AdjustmentError, match="work_mem is 4096, not 8192"):
        world.apply(work_mem=8192)
    assert world.server.entries == {}
    assert world.states() == [ChangeState.FAILED]


def test_an_error_on_the_second_of_three_knobs_undoes_all(world: World) -> None:
    world.server.entries["work_mem"] = "16MB"
    world.server.reload()
    world.server.refused.add("random_page_cost")
    with pytest.raises(AdjustmentError, match=r"permission denied .* stands again"):
        world.apply(work_mem=65536, random_page_cost=1.1, jit=False)
    assert world.server.entries == {"work_mem": "16MB"}
    assert world.server.running["work_mem"] == 16384
    assert set(world.states()) == {ChangeState.FAILED}


def test_what_stands_already_is_neither_written_nor_journalled(world: World) -> None:
    world.server.foreign_set("work_mem", "64MB", reload=True)
    batch = world.apply(work_mem=65536, random_page_cost=4.0)
    assert batch.changes == ()
    assert world.server.entries == {"work_mem": "64MB"}
    assert world.journal.rows == {}
    assert world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x").clean


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("fsync", False, NeverKnobError),
        ("no_such_knob", 1, UnknownKnobError),
        ("work_mem", 1, KnobBoundsError),
        ("fsync", None, NeverKnobError),
        ("no_such_knob", None, UnknownKnobError),
    ],
)
def test_refused_requests_touch_nothing(
    world: World, name: str, value: KnobValue | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        world.apply(**{"work_mem": 8192, name: value})
    assert world.steps.log == []


def test_a_stale_epoch_may_neither_apply_nor_undo_nor_keep(world: World) -> None:
    batch = world.apply(work_mem=8192)
    world.journal.acquire_lease("watchdog", 10)
    writes = world.server.writes
    for act in (
        lambda: world.apply(jit=False),
        lambda: world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x"),
        lambda: world.adjuster.keep(batch.batch_id),
        lambda: world.adjuster.reconcile(world.epoch),
    ):
        with pytest.raises(StaleEpochError, match="epoch 1 is over, the newest is 2"):
            act()
    assert world.server.writes == writes


def test_what_the_journal_cannot_call_applied_is_not_left_on_the_server(world: World) -> None:
    world.steps.fail_at("settle applied", lambda: StoreError("the store is locked"))
    with pytest.raises(AdjustmentError, match=r"the store is locked.*stands again"):
        world.apply(trial_id=7, work_mem=8192)
    assert world.server.entries == {}
    assert world.states() == [ChangeState.FAILED]
    world.steps.clear()
    assert world.apply(trial_id=7, work_mem=8192).changes


def test_a_change_after_long_thought_begins_with_a_sign_of_life(world: World) -> None:
    world.clock.seconds += 60.0
    assert world.journal.lease_expired(world.clock.now())
    world.apply(work_mem=8192)
    assert not world.journal.lease_expired(world.clock.now())


def test_a_lease_that_was_given_back_may_not_act(world: World) -> None:
    world.journal.release_lease(world.epoch)
    with pytest.raises(StaleEpochError, match="given back"):
        world.apply(work_mem=8192)
    assert world.steps.log == []


def test_the_lease_is_looked_at_again_between_intent_and_action(world: World) -> None:
    original = world.journal.add_changes

    def raised_meanwhile(changes):  # type: ignore[no-untyped-def]
        added = original(changes)
        world.journal.acquire_lease("watchdog", 10)
        return added

    world.journal.add_changes = raised_meanwhile  # type: ignore[method-assign]
    with pytest.raises(StaleEpochError):
        world.apply(work_mem=8192)
    assert world.server.writes == 0
    assert world.states() == [ChangeState.PENDING]


def test_overrides_are_noticed(world: World) -> None:
    world.server.overrides["work_mem"] = "the command line"
    with pytest.raises(AdjustmentError, match="work_mem is set by the command line"):
        world.apply(work_mem=8192)
    assert world.server.writes == 0
    assert world.journal.rows == {}


def test_a_knob_that_the_server_lacks(world: World) -> None:
    del world.server.knobs["jit"]
    with pytest.raises(AdjustmentError, match="no knob named jit"):
        world.apply(jit=False)


def test_a_lost_connection_leaves_the_intent_open(world: World) -> None:
    def down() -> ServerConnectionError:
        world.server.up = False
        return ServerConnectionError("gone")

    world.steps.fail_at("wrote jit", down)
    with pytest.raises(ServerConnectionError):
        world.apply(jit=False)
    assert world.states() == [ChangeState.PENDING]
    world.server.up = True
    world.steps.clear()
    assert world.adjuster.reconcile(world.epoch).clean
    assert "jit" not in world.server.entries


def test_removing_an_entry_is_a_change_too(world: World) -> None:
    world.server.foreign_set("work_mem", 65536, reload=True)
    batch = world.apply(work_mem=None)
    assert world.server.entries == {}
    assert world.server.running["work_mem"] == 4096
    world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert world.server.entries == {"work_mem": "65536"}


# -- undoing and keeping ----------------------------------------------------------------------


def test_roll_back_restores_entries_as_they_were_spelt_and_their_absence(world: World) -> None:
    world.server.foreign_set("work_mem", "16 MB", reload=True)
    batch = world.apply(work_mem=65536, jit=False)
    result = world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="worse")
    assert result.clean
    assert world.server.entries == {"work_mem": "16 MB"}
    assert world.server.running["work_mem"] == 16384
    assert world.server.running["jit"] is True
    assert set(world.states()) == {ChangeState.ROLLED_BACK}
    assert {row.detail for row in world.journal.rows.values()} == {"worse"}


def test_roll_back_twice_does_nothing(world: World) -> None:
    batch = world.apply(work_mem=65536)
    world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    writes, reloads = world.server.writes, world.server.reloads
    assert world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x").clean
    assert (world.server.writes, world.server.reloads) == (writes, reloads)


def test_a_humans_value_stays_and_the_conflict_is_recorded(world: World) -> None:
    batch = world.apply(work_mem=65536, jit=False)
    world.server.foreign_set("work_mem", 12345, reload=True)
    result = world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert [row.knob for row in result.conflicts] == ["work_mem"]
    assert [row.knob for row in result.rolled_back] == ["jit"]
    assert world.server.entries == {"work_mem": "12345"}
    conflict = next(r for r in world.journal.rows.values() if r.knob == "work_mem")
    assert conflict.state is ChangeState.CONFLICT
    assert "12345" in conflict.detail


def test_an_entry_that_a_human_removed_stays_removed(world: World) -> None:
    world.server.foreign_set("work_mem", 16384, reload=True)
    batch = world.apply(work_mem=65536)
    world.server.foreign_set("work_mem", None, reload=True)
    result = world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert len(result.conflicts) == 1
    assert world.server.entries == {}


def test_a_human_who_interferes_while_we_apply(world: World) -> None:
    original = world.server.reload

    def reload() -> None:
        world.server.reload = original  # type: ignore[method-assign]
        world.server.foreign_set("work_mem", 12345, reload=False)
        original()

    world.server.reload = reload  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="work_mem was changed by somebody else"):
        world.apply(work_mem=65536, jit=False)
    assert world.server.entries == {"work_mem": "12345"}
    assert sorted(world.states()) == [ChangeState.CONFLICT, ChangeState.FAILED]


def test_stacked_batches_come_off_in_reverse_order(world: World) -> None:
    lower = world.apply(work_mem=8192)
    upper = world.apply(work_mem=16384)
    with pytest.raises(AdjustmentError, match="changed work_mem after this one"):
        world.adjuster.roll_back(lower.batch_id, epoch=world.epoch, reason="x")
    with pytest.raises(AdjustmentError, match="rests on batch"):
        world.adjuster.keep(upper.batch_id)
    world.adjuster.roll_back(upper.batch_id, epoch=world.epoch, reason="x")
    assert world.server.running["work_mem"] == 8192
    world.adjuster.roll_back(lower.batch_id, epoch=world.epoch, reason="x")
    assert world.server.entries == {}


def test_kept_changes_survive_reconcile_and_are_undone_on_request(world: World) -> None:
    kept = world.adjuster.keep(world.apply(work_mem=65536, jit=False).batch_id)
    assert world.adjuster.reconcile(world.epoch).rolled_back == ()
    assert world.server.running["work_mem"] == 65536
    result = world.adjuster.roll_back(kept, epoch=world.epoch, reason="operator", actor="human")
    assert result.clean
    assert world.server.entries == {}
    assert world.states() == [ChangeState.ROLLED_BACK] * 2 + [ChangeState.KEPT] * 2
    with pytest.raises(AdjustmentError, match="not applied"):
        world.adjuster.keep(kept[0].batch_id)


def test_what_a_human_changed_meanwhile_is_not_kept(world: World) -> None:
    batch = world.apply(work_mem=65536, jit=False)
    world.server.foreign_set("work_mem", 12345, reload=False)
    with pytest.raises(ConflictError, match="cannot be kept: work_mem was changed"):
        world.adjuster.keep(batch.batch_id)
    world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="conflict")
    assert world.server.entries == {"work_mem": "12345"}


def test_several_kept_batches_are_undone_at_once(world: World) -> None:
    first = world.adjuster.keep(world.apply(work_mem=8192).batch_id)
    second = world.adjuster.keep(world.apply(work_mem=16384, jit=False).batch_id)
    world.server.foreign_set("jit", True, reload=True)
    result = world.adjuster.roll_back((*first, *second), epoch=world.epoch, reason="operator")
    assert world.server.entries == {"jit": "on"} or world.server.running["jit"] is True
    assert "work_mem" not in world.server.entries
    assert [row.knob for row in result.conflicts] == ["jit"]


def test_undoing_an_old_batch_under_a_newer_one_is_a_conflict(world: World) -> None:
    first = world.adjuster.keep(world.apply(work_mem=8192).batch_id)
    world.adjuster.keep(world.apply(work_mem=16384).batch_id)
    result = world.adjuster.roll_back(first, epoch=world.epoch, reason="operator")
    assert len(result.conflicts) == 1
    assert world.server.running["work_mem"] == 16384


def test_the_arms_of_a_trial_change_places_without_new_rows(world: World) -> None:
    for _ in range(20):
        batch = world.apply(trial_id=7, work_mem=65536, jit=False)
        assert len(batch.changes) == 2
        assert world.server.running["work_mem"] == 65536
        assert {row.state for row in world.journal.open_changes()} == {ChangeState.APPLIED}
        world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="switch")
        assert world.server.entries == {}
        assert world.journal.open_changes() == []
    assert len(world.journal.rows) == 2


def test_one_switch_costs_few_requests(world: World) -> None:
    world.apply(trial_id=7, work_mem=65536, jit=False)
    assert (world.server.reads, world.server.reloads) == (2, 1)


def test_rows_are_not_reused_when_something_else_stands_there_now(world: World) -> None:
    batch = world.apply(trial_id=7, work_mem=65536)
    world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="switch")
    world.server.foreign_set("work_mem", 12345, reload=True)
    batch = world.apply(trial_id=7, work_mem=65536)
    assert len(world.journal.rows) == 2
    world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="switch")
    assert world.server.entries == {"work_mem": "12345"}


def test_one_knob_that_cannot_be_restored_does_not_hold_up_the_others(world: World) -> None:
    batch = world.apply(work_mem=65536, jit=False, random_page_cost=1.1)
    world.server.refused.add("jit")
    with pytest.raises(AdjustmentError, match=r"not undone yet: permission denied .* jit"):
        world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert world.server.entries == {"jit": "off"}
    assert [row.knob for row in world.journal.open_changes()] == ["jit"]
    world.server.refused.clear()
    assert world.adjuster.reconcile(world.epoch).clean
    assert world.server.entries == {}


def test_a_default_that_changed_outside_does_not_block_the_undoing(world: World) -> None:
    batch = world.apply(work_mem=65536)
    original = world.server._default
    world.server._default = lambda n: 5000 if n == "work_mem" else original(n)  # type: ignore
    result = world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert result.clean
    assert world.server.running["work_mem"] == 5000


def test_a_knob_that_vanished_is_settled(world: World) -> None:
    world.apply(work_mem=65536)
    del world.server.knobs["work_mem"]
    assert world.adjuster.reconcile(world.epoch).clean
    assert world.states() == [ChangeState.FAILED]


# -- restarts ---------------------------------------------------------------------------------


def test_restart_knobs_need_leave(world: World) -> None:
    with pytest.raises(AdjustmentError, match="shared_buffers: takes effect at a restart only"):
        world.apply(shared_buffers=131072)
    assert world.server.restarts == world.server.writes == 0


def test_restart_knobs_are_applied_and_undone_with_a_restart(world: World) -> None:
    batch = world.apply(shared_buffers="1GB", work_mem=8192, allow_restart=True)
    assert batch.restarted
    assert world.server.running["shared_buffers"] == 131072
    result = world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert result.restarted
    assert world.server.running["shared_buffers"] == 16384
    assert world.server.restarts == 2


def test_a_server_that_does_not_start_is_recovered_and_the_batch_failed(world: World) -> None:
    world.server.unstartable["shared_buffers"] = "131072"
    with pytest.raises(AdjustmentError, match="did not start with shared_buffers"):
        world.apply(shared_buffers=131072, work_mem=8192, allow_restart=True)
    assert world.server.entries == {}
    assert world.server.running["work_mem"] == 4096
    assert set(world.states()) == {ChangeState.FAILED}


def test_recovery_that_took_out_an_earlier_entry_is_no_conflict(world: World) -> None:
    world.server.entries["shared_buffers"] = "32768"
    world.server.restart()
    world.server.unstartable["shared_buffers"] = "131072"
    with pytest.raises(AdjustmentError, match="did not start"):
        world.apply(shared_buffers=131072, allow_restart=True)
    assert world.server.entries == {"shared_buffers": "32768"}
    assert world.states() == [ChangeState.FAILED]


def test_a_restart_never_activates_what_somebody_else_left_pending(world: World) -> None:
    world.server.foreign_set("huge_pages", "off", reload=True)
    with pytest.raises(ConflictError, match="would also activate huge_pages"):
        world.apply(shared_buffers=131072, allow_restart=True)
    world.server.foreign_set("shared_buffers", 32768, reload=True)
    with pytest.raises(ConflictError, match="already waits for a restart"):
        world.apply(shared_buffers=131072, allow_restart=True)
    assert world.server.restarts == 0


def test_a_restart_change_that_was_never_activated_is_undone_without_a_restart(
    world: World,
) -> None:
    world.steps.fail_at("wrote shared_buffers", Crash)
    restarts = world.server.restarts
    with pytest.raises(Crash):
        world.apply(shared_buffers=131072, allow_restart=True)
    world.new_tuner()
    assert world.adjuster.reconcile(world.epoch).clean
    assert world.server.restarts == restarts
    assert world.server.entries == {}


def test_where_restarts_are_not_allowed_the_undoing_says_what_is_left(world: World) -> None:
    world.apply(shared_buffers=131072, work_mem=8192, allow_restart=True)
    world.server.can_restart = False
    result = world.adjuster.reconcile(world.epoch)
    assert [row.knob for row in result.unsettled] == ["shared_buffers"]
    assert "needs a restart" in result.problems[0]
    assert world.server.entries == {}
    world.server.can_restart = True
    assert world.adjuster.reconcile(world.epoch).clean
    assert world.server.running["shared_buffers"] == 16384


def test_a_value_that_the_server_replaces_by_its_own_choice(world: World) -> None:
    world.server.foreign_set("wal_buffers", 2048, reload=False)
    world.server.restart()
    original = world.server._activate

    def activate(*, restart: bool) -> None:
        original(restart=restart)
        if world.server.running["wal_buffers"] == -1:
            world.server.running["wal_buffers"] = 512

    world.server._activate = activate  # type: ignore[method-assign]
    world.apply(wal_buffers=-1, allow_restart=True)
    assert world.server.running["wal_buffers"] == 512
    assert world.apply(wal_buffers=-1, allow_restart=True).changes == ()


# -- any sequence of misfortunes --------------------------------------------------------------

RELOAD_KNOBS = ("work_mem", "maintenance_work_mem", "effective_cache_size")
RESTART_KNOB = "shared_buffers"
KNOBS = (*RELOAD_KNOBS, RESTART_KNOB)
# The tuner takes even values, the human odd ones, so that no one can confuse them.
OURS = st.dictionaries(
    st.sampled_from(KNOBS), st.integers(5000, 40000).map(lambda n: 2 * n), min_size=1
)
THEIRS = st.integers(5000, 40000).map(lambda n: 2 * n + 1)


class Misfortunes(RuleBasedStateMachine):
    """Whatever happens, reconcile leaves each knob at the last good or at the human's entry."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.good: dict[str, str | None] = dict.fromkeys(KNOBS)
        self.batches: list[AppliedBatch] = []
        self.seen_kept: set[int] = set()
        self.touched: set[str] = set()

    def _note_kept(self) -> None:
        for number, row in self.world.journal.rows.items():
            if row.state is ChangeState.KEPT and number not in self.seen_kept:
                self.seen_kept.add(number)
                self.good[row.knob] = row.after_entry

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Crash:
            self.world.new_tuner()
            self.batches = []
            self._note_kept()
            self._reconcile()
        except (AdjustmentError, ServerError):
            pass
        self._note_kept()

    def _reconcile(self) -> None:
        """As on start; may die again, and then begins again."""
        try:
            self.world.adjuster.reconcile(self.world.epoch)
        except (Crash, ServerError):
            self.world.new_tuner()
            self.world.adjuster.reconcile(self.world.epoch)

    @rule(after=OURS, dies=st.none() | st.integers(0, 40))
    def apply(self, after: dict[str, int], dies: int | None) -> None:
        self._arm(dies, Crash)

        def act() -> None:
            batch = self.world.adjuster.apply(
                after, actor="test", epoch=self.world.epoch, trial_id=1, allow_restart=True
            )
            self.batches.append(batch)

        self._try(act)

    @rule(after=OURS, fails=st.integers(0, 30))
    def apply_with_a_failing_server(self, after: dict[str, int], fails: int) -> None:
        self._arm(fails, lambda: ServerError("disk full"))
        self._try(
            lambda: self.world.adjuster.apply(
                after, actor="test", epoch=self.world.epoch, allow_restart=True
            )
        )

    @precondition(lambda self: self.batches)
    @rule(dies=st.none() | st.integers(0, 30))
    def roll_back(self, dies: int | None) -> None:
        self._arm(dies, Crash)
        batch = self.batches.pop()
        self._try(
            lambda: self.world.adjuster.roll_back(
                batch.batch_id, epoch=self.world.epoch, reason="x"
            )
        )

    @precondition(lambda self: self.batches)
    @rule(dies=st.none() | st.integers(0, 6))
    def keep(self, dies: int | None) -> None:
        self._arm(dies, Crash)
        batch = self.batches.pop(0)
        self._try(lambda: self.world.adjuster.keep(batch.batch_id))

    @precondition(lambda self: self.seen_kept)
    @rule(dies=st.none() | st.integers(0, 40))
    def undo_newest_kept(self, dies: int | None) -> None:
        newest = self.world.journal.rows[max(self.seen_kept)]
        rows = [
            r
            for r in self.world.journal.rows.values()
            if r.batch_id == newest.batch_id and r.state is ChangeState.KEPT
        ]
        self._arm(dies, Crash)
        self._try(
            lambda: self.world.adjuster.roll_back(
                rows, epoch=self.world.epoch, reason="operator", allow_restart=True
            )
        )

    @rule(knob=st.sampled_from(KNOBS), value=THEIRS, reload=st.booleans())
    def human(self, knob: str, value: int, reload: bool) -> None:
        self.world.server.foreign_set(knob, value, reload=reload)
        self.good[knob] = str(value)
        self.touched.add(knob)

    @rule(dies=st.none() | st.integers(0, 20))
    def reconcile(self, dies: int | None) -> None:
        self._arm(dies, Crash)
        self.batches = []
        self._try(lambda: self.world.adjuster.reconcile(self.world.epoch))

    def _arm(self, steps: int | None, error: Callable[[], BaseException]) -> None:
        self.world.steps.clear()
        if steps is not None:
            self.world.steps.fail_after(steps, error)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.new_tuner()
        result = world.adjuster.reconcile(world.epoch)
        assert result.clean
        assert world.journal.open_changes() == []
        self._note_kept()
        assert {knob: world.server.entries.get(knob) for knob in KNOBS} == self.good
        world.server.reload()
        for knob in RELOAD_KNOBS:
            assert world.server.running[knob] == world.server.value_of_entry(knob)
        if RESTART_KNOB not in self.touched:
            assert world.server.running[RESTART_KNOB] == world.server.value_of_entry(RESTART_KNOB)
        before = world.server.writes
        assert world.adjuster.reconcile(world.epoch).rolled_back == ()
        assert world.server.writes == before


TestMisfortunes = Misfortunes.TestCase
TestMisfortunes.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
