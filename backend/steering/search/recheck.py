"""Is what was verified still true? Settings in force, default plans, and verifying again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import islice

from backend.catalog.hint_sets import HintSetCatalog
from backend.domain.plans import DEFAULT_HINT_SET, HintSet
from backend.domain.steering import (
    ClassKey,
    HintEvidence,
    StatementSample,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from backend.errors import KnobError, ServerConnectionError, ServerError
from backend.protocols import Clock
from backend.steering.refusals import is_transient, said
from backend.steering.register import SteeringRegister
from backend.steering.search.agenda import Agenda
from backend.steering.search.class_search import digest
from backend.steering.search.plan_run_log import PlanRunLog
from backend.steering.search.preparation import Preparation, StatementBook
from backend.steering.search.searches import Searches
from backend.steering.search.trial_server import TrialServer
from backend.steering.search.verification_desk import VerificationDesk, VerificationEnd

logger = logging.getLogger(__name__)

_FOUND = (SteeringState.VERIFIED, SteeringState.DEFAULT_BEST)
_SETTINGS_EVERY_S = 10.0
_TRY_AGAIN_AFTER_S = 60.0
_MOST_ASKED = 3
"""Classes under whose search paths the settings are asked for at a time."""
_NO_STATEMENT = "it must be verified again, and no statement of it is known any more"


class Recheck:
    """Finds what may no longer hold, and verifies it again.

    Args:
        book: the statements.
        catalog: names the planner settings to watch.
        server, register, searches, agenda, preparation, desk, log, clock: shared with the
            exploration.
    """

    def __init__(
        self,
        book: StatementBook,
        catalog: HintSetCatalog,
        *,
        server: TrialServer,
        register: SteeringRegister,
        searches: Searches,
        agenda: Agenda,
        preparation: Preparation,
        desk: VerificationDesk,
        log: PlanRunLog,
        clock: Clock,
    ) -> None:
        self._book, self._server, self._register = book, server, register
        self._searches, self._agenda, self._log = searches, agenda, log
        self._preparation, self._desk, self._clock = preparation, desk, clock
        toggles = catalog.toggles.values()
        self._watched = sorted({name for toggle in toggles for name in toggle.settings})
        self._looked_up: set[ClassKey] = set()
        self._in_force: Mapping[str, str] | None = None
        self._answered: tuple[ClassKey, ...] = ()
        """The class under whose search path the settings were read last."""
        self._next_look_s = clock.monotonic_s()
        self.waiting: dict[ClassKey, tuple[bool, float]] = {}
        """Classes to be verified again → whether a search follows, and not before when."""

    # -- what may no longer hold ------------------------------------------------------------------

    def look_at_settings(self) -> None:
        """Read the planner settings in force, every ten seconds at most.

        What was verified under others is verified again, and goes on being served meanwhile,
        where there is a statement to verify it with. Searches begin anew; what still holds of them
        is taken over from the log, where plans are known by their hashes.

        Raises:
            ServerConnectionError: the server cannot be reached.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _SETTINGS_EVERY_S
        proven = [record for record in self._register.classes() if _is_held(record)]
        before, in_force = self._in_force, self._read_settings([record.key for record in proven])
        if in_force is None:
            return
        self._in_force = in_force
        for record in proven:
            if record.evidence is not None and _is_under_others(record.evidence, in_force):
                self.again(record.key, search_follows=record.key in self._searches)
        if before is not None and before != in_force:
            for search in self._searches:
                self._searches.drop(search)

    def _read_settings(self, proven: Sequence[ClassKey]) -> Mapping[str, str] | None:
        """The settings in force under some class's search path; None where none was of use.

        A search path that the server refuses is that class's trouble alone.
        """
        tried = (
            key
            for key in dict.fromkeys((*self._answered, *proven, *self._book.keys()))
            if (record := self._register.get(key)) is None
            or record.state is not SteeringState.REFUSED
        )
        for key in islice(tried, _MOST_ASKED):
            try:
                in_force = self._server.in_force(key, self._watched)
            except ServerConnectionError:
                raise
            except ServerError as error:
                self._answered = ()
                logger.info("%s does not tell the settings: %s", key.fingerprint, said(error))
            else:
                self._answered = (key,)
                return in_force
        return None

    def again(self, key: ClassKey, *, search_follows: bool) -> None:
        """Have a class's hint set verified again, unless it waits for that already."""
        if key not in self.waiting and key != self._desk.key:
            self.waiting[key] = search_follows, 0.0

    def look_at_a_default_plan(self) -> str:
        """Explain a default plan, to see whether it is still the same.

        Returns:
            What was done, for people; empty where nothing was due.

        Raises:
            ServerConnectionError: the server cannot be reached.
        """
        if self._watch_what_was_measured_before():
            return "looking up what was measured before"
        key = self._agenda.plan_to_look_at({r.key: r for r in self._register.classes()})
        if key is None:
            return ""
        plan = None
        try:
            verdict = self._agenda.verdict_of(key)
            plan = self._server.explain_one(key, verdict, [DEFAULT_HINT_SET])[0]
        except ServerConnectionError:
            raise
        except ServerError as error:
            logger.info("%s cannot be explained any more: %s", key.fingerprint, said(error))
        self._agenda.looked_at(key, plan.plan_hash if plan else None)
        return f"explaining {self._searches.named(key)}"

    def _watch_what_was_measured_before(self) -> bool:
        """After a restart, watch one class's default plan more; False: all are watched."""
        for record in self._register.classes():
            key = record.key
            known = key in self._looked_up or key in self._searches or self._agenda.watches(key)
            if record.state in _FOUND and not known:
                self._looked_up.add(key)
                last = self._log.last_default_plan(key)
                for sample in self._book.samples(key):
                    if last is not None and digest(sample.text) == last[0]:
                        self._watch(sample, last[1])
                return True
        return False

    def _watch(self, sample: StatementSample, plan_hash: str) -> None:
        try:
            verdict = self._preparation.judge(sample)
        except ServerConnectionError:
            raise
        except ServerError:  # a lock is in the way; a day's end brings the class back, too
            return
        if verdict.is_read_only:
            self._agenda.watch(sample.key, verdict, plan_hash)

    # -- verifying again --------------------------------------------------------------------------

    def begin(self) -> str:
        """Begin to verify a hint set again, the most valuable class first.

        Returns:
            What was done, for people; empty where nothing was due.

        Raises:
            ServerConnectionError: the server cannot be reached.
        """
        self._forget_what_is_not_served()
        now_s = self._clock.monotonic_s()
        due = {key for key, (_, not_before_s) in self.waiting.items() if not_before_s <= now_s}
        key = next((key for key in list(self._book.keys()) if key in due), None)
        record = None if key is None else self._register.get(key)
        if key is None or record is None or record.evidence is None:
            return ""
        self._wait(key)  # unless it comes to an end
        hint_set = HintSet(record.evidence.hint_set, record.evidence.settings)
        try:
            verdicts = self._preparation.verdicts(key)
            if verdicts:
                self._desk.begin(key, hint_set, verdicts)
            else:
                self._withdraw(key, "none of its statements may be tried any more")
        except ServerConnectionError:
            raise
        except KnobError:
            self._withdraw(key, f"{hint_set.name} is no hint set of this server any more")
        except ServerError as error:
            if not is_transient(error):
                self._withdraw(key, said(error))
        return f"judging {self._searches.named(key)}"

    def found_out(self, end: VerificationEnd) -> None:
        """Take what came of it."""
        if end.disturbed:
            self._wait(end.key)
            return
        search_follows, _ = self.waiting.pop(end.key, (False, 0.0))
        if not end.proven:
            self._register.withdraw(end.key, f"verified again: {end.reason}")
        elif search_follows and (record := self._register.get(end.key)):
            self._preparation.open(record, first=end.hint_set)

    def _wait(self, key: ClassKey) -> None:
        if key in self.waiting:
            not_before_s = self._clock.monotonic_s() + _TRY_AGAIN_AFTER_S
            self.waiting[key] = self.waiting[key][0], not_before_s

    def _withdraw(self, key: ClassKey, reason: str) -> None:
        del self.waiting[key]
        self._register.withdraw(key, reason)

    def _forget_what_is_not_served(self) -> None:
        """Nor can be verified again: without a statement nobody knows whether it still holds."""
        for key in list(self.waiting):
            record = self._register.get(key)
            if record is None or not _is_held(record):
                del self.waiting[key]
            elif not self._book.samples(key):
                del self.waiting[key]
                if record.mode is SteeringMode.AUTO:
                    self._register.withdraw(key, _NO_STATEMENT, record.evidence)


def _is_held(record: SteeredClassRecord) -> bool:
    """Whether what was verified is served, or would be."""
    return record.state is SteeringState.VERIFIED and record.mode is not SteeringMode.OFF


def _is_under_others(evidence: HintEvidence, in_force: Mapping[str, str]) -> bool:
    """Whether it was verified under other settings."""
    under = {**evidence.under, **evidence.settings_in_force}
    return any(in_force.get(name, value) != value for name, value in under.items())
