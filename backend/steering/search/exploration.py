"""Finds better plans for the statements of a sample book, a small step at a time.

The course of a class: its statement is judged, explained under all hint sets, and run by the
default plan; then the offline explorer decides, over all classes, which plan is tried next and for
how long. The fastest plan found is verified on several statements of the class; proven, it is
served. What was found is looked at again when it may have changed (docs/steering-live.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backend.catalog.hint_sets import HintSetCatalog
from backend.domain.plans import PlanRun, RunOutcome
from backend.domain.steering import SteeringState
from backend.errors import ServerConnectionError, ServerError
from backend.protocols import Clock, PlanGuesser
from backend.settings.steering import SteeringSection
from backend.steering.refusals import is_transient, said
from backend.steering.register import SteeringRegister
from backend.steering.running.runner import StatementRunner
from backend.steering.search.agenda import Agenda
from backend.steering.search.class_search import OTHER_ANSWER, TRANSIENT, Arm, ClassSearch
from backend.steering.search.plan_advice import PlanAdvice
from backend.steering.search.plan_run_log import PlanRunLog, RunStore
from backend.steering.search.preparation import Preparation, StatementBook
from backend.steering.search.probe_board import ArmProbe, ProbeBoard
from backend.steering.search.recheck import Recheck
from backend.steering.search.searches import Searches
from backend.steering.search.trial_server import TrialServer
from backend.steering.search.verification_desk import VerificationDesk, VerificationEnd
from backend.steering.statements.read_only import ReadOnlyCheck

__all__ = ["LiveExploration", "StatementBook"]

_SETTLED_AFTER = 12
"""Probes, of whatever class, after which the fastest plan found is verified."""
_PAIR_S = 0.05
"""What a pair of runs of a verification costs besides the plans' own time."""
_SHORT_S = 0.1
"""What is stopped so early is run twice, and the faster run counts: the other one filled caches."""
_PREPARING_SHARE = 0.5
"""Of the time spent, for classes that are new, while there are others to try plans of."""
_LARGE = 0.5
"""Of an average class's time: what saves less is verified when no plan is worth trying."""


class LiveExploration:
    """Explores the classes of a book.

    Args:
        settings: gain, confidence, the longest time-out.
        book: the statements.
        runner_for: a runner for statements under a search path; asked for often, so it keeps them.
        check: judges whether statements only read.
        catalog: the hint sets to try.
        register: what stands for each class; written here.
        store: keeps the runs, so that a restart need not repeat them.
        agent: guesses what to try first; None where there is none.
        clock: time.
        seed: the same seed and outcomes give the same course.

    Attributes:
        activity: what it does now, for people.
    """

    def __init__(
        self,
        settings: SteeringSection,
        book: StatementBook,
        runner_for: Callable[[str], StatementRunner],
        check: ReadOnlyCheck,
        catalog: HintSetCatalog,
        register: SteeringRegister,
        store: RunStore,
        agent: PlanGuesser | None,
        clock: Clock,
        seed: int = 0,
    ) -> None:
        self._settings, self._book, self._clock = settings, book, clock
        self._log = PlanRunLog(store, clock)
        self._server = TrialServer(runner_for, self._log, clock)
        self._agenda = Agenda(clock)
        self._searches = Searches(register, self._agenda, settings.min_gain)
        self._advice = PlanAdvice(agent, self._server.explain, clock)
        self._board = ProbeBoard(settings.max_timeout_s, seed)
        self._desk = VerificationDesk(settings, self._server, register, self._log, clock, seed)
        self._preparation = Preparation(
            book,
            check,
            catalog.hint_sets,
            settings.max_timeout_s,
            server=self._server,
            register=register,
            searches=self._searches,
            agenda=self._agenda,
            log=self._log,
            advice=self._advice,
            clock=clock,
        )
        self._recheck = Recheck(
            book,
            catalog,
            server=self._server,
            register=register,
            searches=self._searches,
            agenda=self._agenda,
            preparation=self._preparation,
            desk=self._desk,
            log=self._log,
            clock=clock,
        )
        self.activity = ""

    @property
    def spent_s(self) -> float:
        """Seconds of the server's time used so far."""
        return self._server.spent_s

    def step(self) -> bool:
        """Do one small piece of work.

        At most a statement run (a short one twice; where it is compared with the default plan,
        both), a bundle of EXPLAINs, or a step of a verification.

        Returns:
            Whether there was anything to do.

        Raises:
            ServerConnectionError: the server could not be reached, or was lost. The next step goes
                on; a plan that ran then is not tried again.
            StoreError: the store refused to write.
        """
        worked = self._work()
        if self._log.store_due() if worked else self._log.store_all():
            for search in self._searches:
                self._searches.save_progress(search)
        if not worked:
            self.activity = "no plan is worth trying now"
        return worked

    def _work(self) -> bool:
        self._recheck.look_at_settings()
        self._searches.leave_what_changed()
        now_s = self._clock.monotonic_s()
        ready = [s for s in self._searches if s.is_ready and s.rests_until_s <= now_s]
        probe = self._board.ask(ready)
        if self._end_searches(ready, probe is None):
            return True
        spent_s, preparing_s = self._server.spent_s, self._server.preparing_s
        return (
            self._verify()
            or self._did(self._recheck.begin())
            or self._compare(ready)
            or self._verify_what_was_found(ready, probe is None)
            or (preparing_s <= _PREPARING_SHARE * spent_s and self._prepare())
            or self._probe(ready, probe)
            or self._prepare()
            or self._did(self._recheck.look_at_a_default_plan())
        )

    def _did(self, what: str) -> bool:
        """Whether a piece of work was done; what it was is the activity."""
        self.activity = what or self.activity
        return bool(what)

    # -- trying plans -----------------------------------------------------------------------------

    def _prepare(self) -> bool:
        """Get a class further on the way to its first probe, or take one up."""
        now_s = self._clock.monotonic_s()
        for search in self._searches:
            if not search.is_ready and search.rests_until_s <= now_s:
                return self._did(self._preparation.advance(search))
        record = self._preparation.next_due({*self._recheck.waiting, self._desk.key})
        if record is None:
            return False
        if record.state is SteeringState.VERIFIED:
            self._recheck.again(record.key, search_follows=True)
        else:
            self._preparation.open(record)
        return self._did(f"judging {self._searches.named(record.key)}")

    def _probe(self, ready: Sequence[ClassSearch], probe: ArmProbe | None) -> bool:
        """Try a plan: one that was advised, or what the explorer asks for."""
        for search in ready:
            if search.first_arm is not None and search.default_s is not None:
                probe = ArmProbe(search, search.first_arm, search.default_s)
                search.first_arm = None
                break
        if probe is None:
            return False
        search, arm = probe.search, probe.arm
        self.activity = (
            f"trying {arm.hint_set.name} on {self._searches.named(search.key)} "
            f"({search.tried} of {len(search.arms)} plans)"
        )
        times = 2 if probe.timeout_s <= _SHORT_S else 1
        run, *others = sorted(
            self._server.run(
                search, [arm.hint_set] * times, [probe.timeout_s] * times, suspect=arm
            ),
            key=_telling,
        )
        for made in others:
            self._log.add(search, arm, made)
        for other in ready:
            other.since_better += 1
        if search.needs_comparison(run):
            search.to_compare, search.doubtful = arm, run
        else:
            self._learn(search, arm, run)
        return True

    def _compare(self, ready: Sequence[ClassSearch]) -> bool:
        """Run a plan beside the default one where its answer or its speed is in doubt."""
        search = next((s for s in ready if s.to_compare is not None), None)
        if search is None or search.to_compare is None or search.default_s is None:
            return False
        arm, limit_s = search.to_compare, self._settings.max_timeout_s
        self.activity = (
            f"comparing {arm.hint_set.name} with the default plan of "
            f"{self._searches.named(search.key)}"
        )
        default, hinted = self._server.run_beside_default(search, arm, limit_s)
        doubtful = [] if search.doubtful is None else [search.doubtful]
        for run in default:
            self._log.add(search, None, run)
        if any(run.outcome is not RunOutcome.FINISHED for run in default):
            for run in hinted:
                self._log.add(search, arm, run)
            search.pause(self._clock.monotonic_s())
            return True
        search.to_compare = search.doubtful = None
        broken_off = next((run for run in hinted if run.outcome is not RunOutcome.FINISHED), None)
        if broken_off is not None:
            self._learn(search, arm, broken_off)
            if broken_off.outcome not in TRANSIENT:
                arm.closed = arm.closed or "it did not finish a second time"
            return True
        same = all(run.same_answer(default[0]) for run in (*default, *hinted))
        for run in (*doubtful, *hinted):
            self._log.add(search, arm, run, outcome=None if same else RunOutcome.FAILED)
        if not same:
            arm.closed = OTHER_ANSWER
            return True
        search.went_well()
        search.note_comparison(arm, default, hinted)
        if arm.compared_s is not None:
            found = PlanRun(RunOutcome.FINISHED, arm.compared_s)
            self._board.tell(search, arm, found)
            self._advice.tell(search, arm.hint_set, found)
        return True

    def _learn(self, search: ClassSearch, arm: Arm, run: PlanRun) -> None:
        """Tell everybody of a run."""
        self._log.add(search, arm, run)
        if run.outcome in TRANSIENT:
            search.pause(self._clock.monotonic_s())
            return
        search.went_well()
        search.note(arm, run)
        if run.outcome in (RunOutcome.FINISHED, RunOutcome.TIMED_OUT):
            self._board.tell(search, arm, run)
            self._advice.tell(search, arm.hint_set, run)

    # -- proving what was found -------------------------------------------------------------------

    def _verify_what_was_found(self, ready: Sequence[ClassSearch], idle: bool) -> bool:
        """Begin with the search that has settled on what pays most; compare it once more before."""
        min_gain = self._settings.min_gain
        large_s = _LARGE * sum(self._used_s(search) for search in ready) / max(len(ready), 1)
        found: list[tuple[float, ClassSearch, Arm]] = []
        for search in ready:
            arm = search.candidate(min_gain)
            settled = search.since_better >= _SETTLED_AFTER or search.is_exhausted(min_gain)
            if arm is None or not (idle or settled):
                continue
            default_s, latency_s = search.default_s or 0.0, arm.latency_s or 0.0
            saved_s = self._used_s(search) * (1.0 - latency_s / max(default_s, latency_s))
            if idle or saved_s >= large_s:
                found.append((saved_s / (default_s + latency_s + _PAIR_S), search, arm))
        if not found:
            return False
        _, search, arm = max(found, key=lambda item: item[0])
        if arm.compared_s is None:
            search.to_compare = arm
            return self._compare([search])
        try:
            verdicts = self._preparation.verdicts(search.key)
            if search.verdict not in verdicts:
                verdicts.append(search.verdict)
            self._desk.begin(search.key, arm.hint_set, verdicts, search, arm)
        except ServerConnectionError:
            raise
        except ServerError as error:
            if is_transient(error):
                search.pause(self._clock.monotonic_s())
            else:
                self._searches.refuse(search.key, said(error))
        return self._did(f"judging {self._searches.named(search.key)}")

    def _used_s(self, search: ClassSearch) -> float:
        """Seconds of a class's use; of one that nobody knows, as if it was executed once."""
        return max(self._book.weight(search.key), search.default_s or 0.0)

    def _verify(self) -> bool:
        """Go on with the verification that was begun."""
        if self._desk.key is None:
            return False
        self.activity = self._desk.doing(self._searches.named)
        end = self._desk.step()
        if end is not None and end.search is not None and end.arm is not None:
            self._found_out(end, end.search, end.arm)
        elif end is not None:
            self._recheck.found_out(end)
        if end is not None:
            self._log.store_all()
        return True

    def _found_out(self, end: VerificationEnd, search: ClassSearch, arm: Arm) -> None:
        if end.proven:
            search.proven = arm.plan_hash
        elif end.disturbed:
            search.pause(self._clock.monotonic_s())
        else:
            search.refuted(arm, f"{arm.hint_set.name} was not proven: {end.reason}")

    def _end_searches(self, ready: Sequence[ClassSearch], idle: bool) -> bool:
        """End those that have nothing left to find; whether there were any."""
        min_gain, ended = self._settings.min_gain, False
        for search in ready:
            pending = search.to_compare or search.first_arm or search.key == self._desk.key
            if pending or not (idle or search.is_exhausted(min_gain)):
                continue
            if search.candidate(min_gain) is None or search.has_failed:
                self._searches.end(search)
                ended = True
        return ended


def _telling(run: PlanRun) -> tuple[int, float]:
    """Order of runs of one plan: what closes it, then the fastest, then what only bounds it."""
    if run.outcome in (RunOutcome.FAILED, RunOutcome.TOO_LARGE):
        return 0, run.latency_s
    return (1 if run.outcome is RunOutcome.FINISHED else 2), run.latency_s
