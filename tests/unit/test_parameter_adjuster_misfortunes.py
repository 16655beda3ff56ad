"""The parameter adjuster under any sequence of misfortunes."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from backend.domain.modes import ChangeState
from backend.errors import AdjustmentError, ServerError
from backend.parameter_adjuster import AppliedBatch
from tests.adjuster_world import World
from tests.fake_server import Crash

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
