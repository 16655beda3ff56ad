"""A class on its way to its first probe: judged, explained, its default plan measured."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Protocol

from backend.domain.plans import DEFAULT_HINT_SET, HintSet, RunOutcome
from backend.domain.steering import ClassKey, StatementSample, SteeredClassRecord
from backend.errors import ServerConnectionError, ServerError
from backend.protocols import Clock
from backend.steering.client.statements import functions_called
from backend.steering.proof.verification import MAX_STATEMENTS
from backend.steering.refusals import is_transient, said
from backend.steering.register import SteeringRegister
from backend.steering.search.agenda import Agenda
from backend.steering.search.class_search import TRANSIENT, ClassSearch, digest
from backend.steering.search.plan_advice import PlanAdvice
from backend.steering.search.plan_run_log import PlanRunLog
from backend.steering.search.searches import Searches
from backend.steering.search.trial_server import TrialServer
from backend.steering.statements.read_only import ReadOnlyCheck, ReadOnlyVerdict

MOST_SEARCHES = 64
"""Classes that are searched at a time; the others wait."""
_BUNDLE = 8
"""EXPLAINs of one step."""
_REST_S = 60.0
"""Of a class whose statement cannot be judged now."""


class StatementBook(Protocol):
    """Where statements come from; see ``statements.sample_book.SampleBook``."""

    def keys(self) -> Sequence[ClassKey]:
        """Of all classes, the most valuable first."""

    def samples(self, key: ClassKey) -> Sequence[StatementSample]:
        """A class's statements, the newest first; empty where it is not known."""

    def weight(self, key: ClassKey) -> float:
        """Seconds that its executions took lately; 0 where no use is known."""

    def text(self, key: ClassKey) -> str:
        """A class's statement without its literals; KeyError where it is not known."""


class Preparation:
    """Takes classes up and gets them ready for probes.

    Args:
        book: the statements.
        check: judges whether they only read.
        hint_sets: what is explained, the default first.
        max_timeout_s: the longest that the default plan may take.
        server, register, searches, agenda, log, advice, clock: shared with the exploration.
    """

    def __init__(
        self,
        book: StatementBook,
        check: ReadOnlyCheck,
        hint_sets: Sequence[HintSet],
        max_timeout_s: float,
        *,
        server: TrialServer,
        register: SteeringRegister,
        searches: Searches,
        agenda: Agenda,
        log: PlanRunLog,
        advice: PlanAdvice,
        clock: Clock,
    ) -> None:
        self._book, self._check = book, check
        self._hint_sets, self._max_timeout_s = hint_sets, max_timeout_s
        self._server, self._register, self._searches = server, register, searches
        self._agenda, self._log, self._advice, self._clock = agenda, log, advice, clock
        self._refused: dict[ClassKey, set[str]] = {}
        """Digests of statements that the server refuses, of classes that are taken up."""
        self._rests_until_s: dict[ClassKey, float] = {}

    # -- taking a class up ----------------------------------------------------------------------

    def next_due(self, busy: Container[ClassKey | None]) -> SteeredClassRecord | None:
        """The most valuable class that should be explored now.

        Args:
            busy: classes that something else is done for.
        """
        if len(self._searches) >= MOST_SEARCHES:
            return None
        now_s = self._clock.monotonic_s()
        self._rests_until_s = {k: s for k, s in self._rests_until_s.items() if s > now_s}
        for key in list(self._book.keys()):
            if key in self._searches or key in busy or key in self._rests_until_s:
                continue
            record = self._register.get(key)
            if record is None:
                try:
                    record = self._register.add(key, self._book.text(key))
                except KeyError:  # forgotten meanwhile
                    continue
            if self._agenda.is_due(record) and self._book.samples(key):
                return record
        return None

    def open(self, record: SteeredClassRecord, first: HintSet | None = None) -> None:
        """Begin a class's search, with the statement that ran already, else the newest.

        Where the statement cannot be judged now, the class rests for a while.

        Args:
            record: of the class.
            first: what is tried before all else: the hint set that was proven already.

        Raises:
            ServerConnectionError: the server cannot be reached.
        """
        key = record.key
        samples = self._open_samples(key)
        if not samples:
            return
        ran = self._log.statements(key, self._agenda.measured_since(record))
        chosen = next((statement for statement in ran if statement in samples), None)
        try:
            verdict = self.judge(samples[chosen or next(iter(samples))])
        except ServerConnectionError:
            raise
        except ServerError:
            self._rests_until_s[key] = self._clock.monotonic_s() + _REST_S
            return
        self._agenda.begin(record)
        if verdict.is_read_only:
            self._searches.begin(record, ClassSearch(key, verdict, self._hint_sets, first))
        else:
            self._searches.refuse(key, verdict.refusal)

    def judge(self, sample: StatementSample) -> ReadOnlyVerdict:
        """Whether a statement may be tried, and steered by the plug-in.

        Raises:
            ServerError: as :meth:`ReadOnlyCheck.check` does.
        """
        with self._server.counted(preparing=True):
            verdict = self._check.check(sample.text, sample.key.search_path)
        if verdict.is_read_only and functions_called(verdict.statement) is None:
            return ReadOnlyVerdict("", "the plug-in would not steer it, for it may not only read")
        return verdict

    def verdicts(self, key: ClassKey) -> list[ReadOnlyVerdict]:
        """A class's statements that may be tried, of the newest as many as are verified.

        Raises:
            ServerError: as :meth:`ReadOnlyCheck.check` does.
        """
        judged = [self.judge(sample) for sample in self._book.samples(key)[:MAX_STATEMENTS]]
        return [verdict for verdict in judged if verdict.is_read_only]

    # -- getting it ready -----------------------------------------------------------------------

    def advance(self, search: ClassSearch) -> str:
        """Do the next thing that a search needs; what it is, for people.

        Raises:
            ServerConnectionError: the server cannot be reached.
        """
        named = self._searches.named(search.key)
        try:
            if search.unexplained:
                self._explain(search)
                return f"explaining {named}"
            if not search.is_default_measured:
                self._run_default(search)
                return f"running {named} by its default plan"
            self._ask_what_to_try_first(search)
            return f"asking what to try first on {named}"
        except ServerConnectionError:
            raise
        except ServerError as error:
            if is_transient(error):
                search.pause(self._clock.monotonic_s())
            else:
                self._try_another(search, said(error))
            return f"explaining {named}"

    def _try_another(self, search: ClassSearch, reason: str) -> None:
        """The server refuses a search's statement: another one of the class stands for it.

        A class is refused when none is left, for a value may be all that is wrong.
        """
        key = search.key
        self._refused.setdefault(key, set()).add(search.statement)
        record = self._register.get(key)
        if record is not None and self._open_samples(key):
            self._searches.drop(search)
            self.open(record, search.first)
        else:
            self._refused.pop(key)
            self._searches.refuse(key, reason)

    def _open_samples(self, key: ClassKey) -> dict[str, StatementSample]:
        """A class's statements that the server did not refuse, by digest."""
        samples = {digest(sample.text): sample for sample in self._book.samples(key)}
        refused = self._refused.get(key, set())
        refused &= samples.keys()
        return {name: sample for name, sample in samples.items() if name not in refused}

    def _explain(self, search: ClassSearch) -> None:
        plans = self._server.explain(search, search.unexplained[:_BUNDLE])
        if not search.plans and plans[0] is None:
            self._searches.refuse(search.key, "the server takes too long to plan it")
            return
        search.add_plans(plans)
        if not search.unexplained:
            record = self._register.get(search.key)
            if record is not None:
                self._log.restore(search, self._agenda.measured_since(record))

    def _run_default(self, search: ClassSearch) -> None:
        run = self._server.run(search, [DEFAULT_HINT_SET], [self._max_timeout_s])[0]
        if run.outcome is RunOutcome.FINISHED:
            search.note_default(run)
            search.went_well()
        # Of the run that warms up, the record has no latency to compare with: that tells it apart.
        self._log.add(search, None, run)
        if run.outcome in TRANSIENT:
            search.pause(self._clock.monotonic_s())
        elif run.timed_out:
            reason = f"its default plan takes longer than {self._max_timeout_s:g} s"
            self._searches.refuse(search.key, reason)
        elif run.outcome is RunOutcome.TOO_LARGE:
            self._searches.refuse(search.key, run.outcome.value)
        elif run.outcome is RunOutcome.FAILED:
            self._try_another(search, said(run.detail))

    def _ask_what_to_try_first(self, search: ClassSearch) -> None:
        if search.first is not None:
            plan = self._server.explain(search, [search.first])[0]
            search.add_first(search.first, plan)
            search.proven = plan.plan_hash if plan else ""
        elif (guess := self._advice.guess(search)) is not None:
            search.add_first(*guess)
        search.guessed = True
