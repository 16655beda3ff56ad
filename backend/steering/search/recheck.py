"""Is what was verified still true? Settings in force, default plans, and verifying again."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from backend.catalog.hint_sets import HintSetCatalog
from backend.domain.plans import DEFAULT_HINT_SET, HintSet
from backend.domain.steering import ClassKey, SteeringMode, SteeringState
from backend.errors import KnobError, ServerConnectionError, ServerError
from backend.protocols import Clock
from backend.steering.proof.verification_desk import VerificationDesk, VerificationEnd
from backend.steering.register import SteeringRegister
from backend.steering.running.refusals import said
from backend.steering.search.agenda import Agenda
from backend.steering.search.class_search import digest
from backend.steering.search.plan_run_log import PlanRunLog
from backend.steering.search.preparation import Preparation, StatementBook
from backend.steering.search.searches import Searches
from backend.steering.search.trial_server import TrialServer

logger = logging.getLogger(__name__)

_FOUND = (SteeringState.VERIFIED, SteeringState.DEFAULT_BEST)
_SETTINGS_EVERY_S = 10.0
_TRY_AGAIN_AFTER_S = 60.0


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
        self._next_look_s = clock.monotonic_s()
        self.waiting: dict[ClassKey, tuple[bool, float]] = {}
        """Classes to be verified again → whether a search follows, and not before when."""

    # -- what may no longer hold ------------------------------------------------------------------

    def look_at_settings(self) -> None:
        """Read the planner settings in force, every ten seconds at most.

        What was verified under others is verified again, and goes on being served meanwhile.
        Searches begin anew; what still holds of them is taken over from the log, where plans are
        known by their hashes.

        Raises:
            ServerConnectionError: the server cannot be reached.
        """
        now_s, keys = self._clock.monotonic_s(), self._book.keys()
        if now_s < self._next_look_s or not keys:
            return
        self._next_look_s = now_s + _SETTINGS_EVERY_S
        before, in_force = self._in_force, self._server.in_force(keys[0], self._watched)
        self._in_force = in_force
        changed = before is not None and before != in_force
        for record in self._register.classes():
            if (
                record.evidence is None
                or record.state is not SteeringState.VERIFIED
                or record.mode is SteeringMode.OFF
            ):
                continue
            under = record.evidence.under.items()
            if changed or any(in_force.get(name, value) != value for name, value in under):
                self.again(record.key, search_follows=record.key in self._searches)
        for search in self._searches if changed else ():
            self._searches.drop(search)

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
                        verdict = self._preparation.judge(sample)
                        if verdict.is_read_only:
                            self._agenda.watch(key, verdict, last[1])
                return True
        return False

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
        for key in list(self.waiting):
            record = self._register.get(key)
            if record is None or record.state is not SteeringState.VERIFIED:
                del self.waiting[key]
