"""The sandbox: whether a candidate is harmful, found out where it can do no harm.

Two kinds. Without an address of its own it makes a *copy*: a scratch server of the original's
version on this machine, with its schema and a sample of its rows. With one (a stand-by that the
user names) it runs statements there, and tries only what a session may set for itself. Both run the
recorded statements that are shown to only read, under incumbent and candidate in turns.

A check reads the original (knobs; for a new copy schema and rows), so it belongs between trials.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy.engine import URL

from backend.db_connector import DatabaseConnector
from backend.domain.knobs import KnobValue
from backend.domain.modes import Arm
from backend.embedded.cluster import StartError
from backend.errors import (
    AutopilotError,
    EmbeddedServerError,
    RefusedValueError,
)
from backend.sandbox.arms import MACHINE_KNOBS, ArmPlan, plan_arms
from backend.sandbox.bench import Deadline, StatementBench, opened
from backend.sandbox.comparison import (
    CandidateFailedError,
    ComparisonRule,
    InterruptedCheckError,
    compare,
)
from backend.sandbox.copying import CopyLimits, MadeCopy, make_copy
from backend.sandbox.outcome import SandboxOutcome, SandboxResult
from backend.sandbox.scratch_server import SANDBOX_APPLICATION, ScratchServer, remove_leftovers
from backend.sandbox.statement_set import (
    ChosenClass,
    choose_statements,
    class_name,
    only_reading,
)
from backend.steering.statements.read_only import ReadOnlyCheck
from backend.steering.statements.sample_book import SampleBook
from backend.steering.statements.statement_parts import NotReadOnlyError, parse_query
from backend.targets.postgresql import PostgresTarget

_BLOCKS = 4
_PASSES = 4 * _BLOCKS
_RETRY_COPY_S = 3600.0
_PASS_SHARE = 0.5
"""Of the time left: what the passes of the fewest blocks may take, by the first measurement."""
_MOST_PASS_S = 3.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SandboxSettings:
    """What a sandbox works with.

    Args:
        data_dir: the product's data folder; the copy lies in its subfolder ``sandbox``.
        samples: the file of recorded statements (``SteeringPlaces.kept_samples``).
        knobs: the names that may be configured at all.
        limits: of the copy.
        max_s: seconds that one check may take, with the making of a copy.
        max_regression: relative loss that is proven harm (``safety.rollback_threshold``).
        standby: where statements are run in place of a copy; None makes one.
    """

    data_dir: Path
    samples: Path
    knobs: Collection[str]
    limits: CopyLimits
    max_s: float
    max_regression: float
    standby: URL | None = None


class Sandbox:
    """Checks candidates, one at a time.

    A copy is made by the first check and kept for a day, or until statements are recorded that read
    other tables. Between checks its server is stopped. Used from one thread; :attr:`progress` and
    the stop event from any.

    Args:
        source: the original, as the role that reads it.
        settings: see there.
        stop: ends a check that runs within seconds, when set.
    """

    def __init__(self, source: URL, settings: SandboxSettings, stop: threading.Event) -> None:
        self._source, self._settings, self._stop = source, settings, stop
        self._copy: MadeCopy | None = None
        self._progress = ""
        self._no_copy: tuple[str, float] | None = None
        try:
            if remove_leftovers(settings.data_dir):
                logger.info("a sandbox of an earlier run was removed")
        except EmbeddedServerError as error:
            logger.warning("a sandbox of an earlier run cannot be removed: %s", error)

    @property
    def progress(self) -> str:
        """What it does now, for people; empty when nothing."""
        return self._progress

    def close(self) -> None:
        """End the scratch server and remove it. Idempotent."""
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.server.destroy()

    def check(self, changes: Mapping[str, KnobValue | None]) -> SandboxResult:
        """Try a candidate against what the original is configured with now.

        Args:
            changes: knob → value in the native unit; None takes the entry away.

        Returns:
            What was found. Whatever keeps it from being found out is outcome UNKNOWN, with the
            reason: a sandbox that is missing blocks nothing.
        """
        began_s = time.monotonic()
        deadline = Deadline(self._settings.max_s, self._stop)
        try:
            result = self._check(changes, deadline)
        except CandidateFailedError as error:
            result = SandboxResult(SandboxOutcome.FAILED, (str(error),))
        except InterruptedCheckError as error:
            result = SandboxResult(SandboxOutcome.UNKNOWN, (str(error),))
        except (AutopilotError, OSError) as error:
            logger.info("no sandbox: %s", error)
            result = SandboxResult(SandboxOutcome.UNKNOWN, (str(error),))
        finally:
            self._rest()
            self._progress = ""
        return replace(result, seconds=time.monotonic() - began_s)

    # -- the two kinds ----------------------------------------------------------------------------

    def _check(self, changes: Mapping[str, KnobValue | None], deadline: Deadline) -> SandboxResult:
        deadline.check()
        chosen = choose_statements(SampleBook(self._settings.samples))
        if self._settings.standby is not None:
            return self._check_on(self._settings.standby, None, {}, {}, changes, chosen, deadline)
        server = self._ready_copy(chosen, deadline)
        incumbent, left_out = self._incumbent(changes)
        self._tell("starts the scratch server")
        try:
            server.apply(incumbent, restart=True)
        except (EmbeddedServerError, RefusedValueError) as error:
            told = f"the scratch server does not take what the original runs with: {error.message}"
            raise InterruptedCheckError(told) from None
        return self._check_on(
            server.owner_url, server, incumbent, left_out, changes, chosen, deadline
        )

    def _ready_copy(self, chosen: Collection[ChosenClass], deadline: Deadline) -> ScratchServer:
        wanted = _relations(chosen)
        if self._copy is not None and not self._copy.is_good_for(wanted):
            self.close()
        if self._copy is None:
            self._copy = self._make_copy(wanted, deadline)
            return self._copy.server
        try:
            self._copy.server.start()
        except EmbeddedServerError:
            self.close()  # the next check makes another one
            raise
        return self._copy.server

    def _make_copy(self, relations: Collection[str], deadline: Deadline) -> MadeCopy:
        """Make a copy; where that failed, not again for an hour: it costs the original reads."""
        if self._no_copy is not None and time.monotonic() < self._no_copy[1]:
            raise InterruptedCheckError(self._no_copy[0])
        self._no_copy = None
        try:
            return make_copy(
                self._source,
                self._settings.data_dir,
                relations,
                self._settings.limits,
                tell=self._tell,
                is_over=deadline.is_over,
            )
        except (AutopilotError, OSError) as error:
            if not self._stop.is_set():
                self._no_copy = (str(error), time.monotonic() + _RETRY_COPY_S)
            raise

    def _incumbent(
        self, changes: Mapping[str, KnobValue | None]
    ) -> tuple[Mapping[str, KnobValue], Mapping[str, str]]:
        """What the original is configured with, and which changes cannot be tried here."""
        connector = DatabaseConnector(self._source, application_name=SANDBOX_APPLICATION)
        with closing(PostgresTarget(connector)) as target:
            is_local = target.describe().host.is_local
            readings = target.read_knobs(list(self._settings.knobs))
        elsewhere = frozenset() if is_local else MACHINE_KNOBS
        incumbent = {
            name: reading.value
            for name, reading in readings.items()
            if reading.source != "default" and name not in elsewhere
        }
        why = "it depends on the original's machine, which is another one"
        return incumbent, {name: why for name in changes if name in elsewhere}

    def _check_on(
        self,
        url: URL,
        server: ScratchServer | None,
        incumbent: Mapping[str, KnobValue],
        left_out: Mapping[str, str],
        changes: Mapping[str, KnobValue | None],
        chosen: Collection[ChosenClass],
        deadline: Deadline,
    ) -> SandboxResult:
        with closing(DatabaseConnector(url, application_name=SANDBOX_APPLICATION)) as where:
            arms = plan_arms(
                where, incumbent, changes, left_out=left_out, may_configure=server is not None
            )
            told = [f"{name} was not tried: {why}" for name, why in sorted(arms.left_out.items())]
            if arms.is_empty:
                return SandboxResult(SandboxOutcome.UNKNOWN, (*told, "nothing is left to try"))
            _check_values(where, arms.session)
            switch = _Switch(server, arms)
            if server is not None:
                self._tell("starts the scratch server with the candidate")
                switch(Arm.CANDIDATE)
            statements, refused = only_reading(tuple(chosen), ReadOnlyCheck(where))
        if refused:
            told.append(f"{sum(refused.values())} statements were not run: {next(iter(refused))}")
        bench = StatementBench(
            url,
            statements,
            tuple(arms.session.items()),
            switch,
            deadline,
            may_crash=server is not None,
        )
        with opened(bench):
            # A pass after a restart is run twice.
            pass_s = min(_PASS_SHARE * deadline.left_s / _PASSES, _MOST_PASS_S)
            found = self._compare(bench, pass_s / 2 if arms.needs_restart else pass_s)
        return replace(found, reasons=(*found.reasons, *told))

    def _compare(self, bench: StatementBench, pass_s: float) -> SandboxResult:
        self._tell("runs statements")
        dropped = bench.prepare(pass_s)
        told = (f"{dropped} statements failed or took too long before",) if dropped else ()
        if not bench.statements:
            reason = "no recorded statement could be run: an empty set proves nothing"
            return SandboxResult(SandboxOutcome.UNKNOWN, (reason, *told))
        total = sum(found.share for found in bench.statements)
        rule = ComparisonRule(
            {class_name(found.key): found.share / total for found in bench.statements},
            bench.reference_s,
            max_regression=self._settings.max_regression,
            min_blocks=_BLOCKS,
            seed=self._settings.limits.seed,
        )
        self._tell(f"compares {len(bench.statements)} query classes")
        found = compare(bench, rule)
        count = sum(len(one.texts) for one in bench.statements)
        return replace(
            found, reasons=(*found.reasons, *told), coverage=min(total, 1.0), statements=count
        )

    # -- inside -----------------------------------------------------------------------------------

    def _tell(self, what: str) -> None:
        self._progress = what

    def _rest(self) -> None:
        """Stop the copy's server until the next check."""
        if self._copy is None:
            return
        try:
            self._copy.server.stop()
        except EmbeddedServerError as error:
            logger.warning("the sandbox does not stop, it is removed: %s", error.message)
            self.close()


class _Switch:
    """Puts an arm in force; remembers which one is.

    Args:
        server: the scratch server; None: the arms differ in their sessions alone.
        arms: what to put in force.
    """

    def __init__(self, server: ScratchServer | None, arms: ArmPlan) -> None:
        self._server, self._arms = server, arms
        self._in_force = Arm.INCUMBENT

    def __call__(self, arm: Arm) -> bool:
        """Whether the server was restarted for it.

        Raises:
            CandidateFailedError: the server does not take the candidate, or not start with it.
            InterruptedCheckError: it does not take the incumbent any more.
        """
        if self._server is None or not self._arms.is_server_switched or arm is self._in_force:
            return False
        try:
            self._server.apply(self._arms.server[arm], restart=self._arms.needs_restart)
        except RefusedValueError as error:
            raise _blamed(arm, f"the server refuses it: {error.message}") from None
        except StartError as error:
            if error.kind != "other":  # a full disk, say
                raise
            raise _blamed(arm, f"the server does not start with it: {_why(error)}") from None
        self._in_force = arm
        return self._arms.needs_restart


def _blamed(arm: Arm, told: str) -> Exception:
    return CandidateFailedError(told) if arm is Arm.CANDIDATE else InterruptedCheckError(told)


def _why(error: StartError) -> str:
    """The line of a server's log that says why, if there is one."""
    fatal = [line for line in error.message.splitlines() if "FATAL:" in line]
    return fatal[-1].partition("FATAL:")[2].strip()[:200] if fatal else error.message[:200]


def _check_values(where: DatabaseConnector, session: Mapping[str, str]) -> None:
    for name, text in session.items():
        try:
            where.fetch("SELECT pg_catalog.set_config(%s, %s, true)", (name, text))
        except RefusedValueError as error:
            raise CandidateFailedError(f"the server refuses it: {error.message}") from None


def _relations(chosen: Collection[ChosenClass]) -> set[str]:
    """Names of the tables and views in the statements, whatever their schema."""
    names: set[str] = set()
    for found in chosen:
        for text in found.texts:
            try:
                names |= {name for _, name in parse_query(text).names.relations}
            except NotReadOnlyError:
                continue
    return names
