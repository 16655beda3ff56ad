"""Carries verifications through, one at a time, and writes what came of them into the register."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend.domain.plans import DEFAULT_HINT_SET, HintSet
from backend.domain.steering import (
    ClassKey,
    HintEvidence,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from backend.errors import KnobError, ServerConnectionError, ServerError
from backend.protocols import Clock
from backend.settings.steering import SteeringSection
from backend.steering.client.statements import functions_called
from backend.steering.proof.verification import Verification, VerificationResult
from backend.steering.refusals import is_transient, said
from backend.steering.register import SteeringRegister
from backend.steering.search.class_search import Arm, ClassSearch, digest
from backend.steering.search.plan_run_log import PlanRunLog
from backend.steering.search.trial_server import TrialServer
from backend.steering.statements.read_only import ReadOnlyVerdict

logger = logging.getLogger(__name__)

_OVERTAKEN = "it was decided about the class meanwhile"


@dataclass(frozen=True)
class VerificationEnd:
    """What came of a verification.

    Args:
        key: the class.
        hint_set: what was verified.
        search, arm: that it came from; None where a hint set that is served was verified again.
        proven: whether it was; the register has the evidence then.
        reason: why not.
        disturbed: it came to nothing, and may be tried again.
    """

    key: ClassKey
    hint_set: HintSet
    search: ClassSearch | None
    arm: Arm | None
    proven: bool
    reason: str
    disturbed: bool = False


@dataclass
class _Case:
    key: ClassKey
    stood: SteeredClassRecord | None
    hint_set: HintSet
    verdicts: tuple[ReadOnlyVerdict, ...]
    plan_hashes: tuple[tuple[str, str], ...]
    verification: Verification
    search: ClassSearch | None
    arm: Arm | None


class VerificationDesk:
    """Verifies hint sets.

    Args:
        settings: gain, confidence and the longest time-out.
        server: runs the pairs.
        register: takes the evidence.
        log: takes the runs.
        clock: time.
        seed: of the verifications' order of runs.
    """

    def __init__(
        self,
        settings: SteeringSection,
        server: TrialServer,
        register: SteeringRegister,
        log: PlanRunLog,
        clock: Clock,
        seed: int,
    ) -> None:
        self._settings, self._server, self._register = settings, server, register
        self._log, self._clock, self._seed = log, clock, seed
        self._case: _Case | None = None
        self._begun = 0

    @property
    def key(self) -> ClassKey | None:
        """The class that is verified now."""
        return self._case.key if self._case else None

    def doing(self, named: Callable[[ClassKey], str]) -> str:
        """What it does now, for people."""
        if self._case is None:
            return ""
        share = self._case.verification.progress
        return f"verifying {self._case.hint_set.name} on {named(self._case.key)} ({share:.0%})"

    def begin(
        self,
        key: ClassKey,
        hint_set: HintSet,
        verdicts: Sequence[ReadOnlyVerdict],
        search: ClassSearch | None = None,
        arm: Arm | None = None,
    ) -> None:
        """Take a hint set up; nothing runs yet, each statement is explained.

        One that the server refuses to explain is left out: a value may be all that is wrong.

        Args:
            key: the class.
            hint_set: what is to be verified.
            verdicts: read-only statements of the class, at least one.
            search, arm: where it was found, if it is new.

        Raises:
            KnobError: the hint set is no longer of the catalogue.
            ServerError: none of the statements can be explained, or one not now.
        """
        stood = self._register.get(key)
        hashes: dict[ReadOnlyVerdict, tuple[str, str]] = {}
        for verdict in verdicts:
            try:
                plans = self._server.explain_one(key, verdict, [DEFAULT_HINT_SET, hint_set])
            except ServerConnectionError:
                raise
            except ServerError as error:
                if is_transient(error) or (verdict is verdicts[-1] and not hashes):
                    raise
                continue
            default, hinted = (plan.plan_hash if plan else "" for plan in plans)
            hashes[verdict] = default, hinted
        self._begun += 1
        verification = Verification(
            self._server.runner(key),
            hint_set,
            list(hashes),
            min_gain=self._settings.min_gain,
            alpha=self._settings.alpha,
            max_timeout_s=self._settings.max_timeout_s,
            seed=self._seed + self._begun,
        )
        self._case = _Case(
            key, stood, hint_set, tuple(hashes), tuple(hashes.values()), verification, search, arm
        )

    def step(self) -> VerificationEnd | None:
        """Run one pair of the present case, if there is one; what came of it when it is over.

        Where a human or the service decided about the class meanwhile, nothing runs any more, and
        nothing is proven.

        Raises:
            ServerConnectionError: the connection was lost; the case is closed, for its plan may be
                what ended the server. What is served is withdrawn for that.
        """
        case = self._case
        if case is None:
            return None
        stands = self._stands(case)
        if stands is None:
            return self._overtaken(case)
        try:
            with self._server.counted(case.search):
                result = case.verification.step()
        except ServerConnectionError:
            self._close(case)
            if case.search is not None and case.arm is not None:
                self._server.lost(case.search, case.arm)
            else:
                reason = "the server was lost while it was verified again"
                self._register.withdraw(case.key, reason, stands.evidence)
            raise
        except ServerError as error:
            self._close(case)
            return self._ended(case, False, said(error), disturbed=True)
        if result is None:
            return None
        self._close(case)
        if not result.proven:
            if not result.disturbed and case.search is not None and case.arm is not None:
                self._log.add_refutation(case.search, case.arm)
            return self._ended(case, False, result.reason, disturbed=result.disturbed)
        evidence = self._evidence(case, result)
        if self._register.verify(case.key, evidence, expected=stands) is None:
            return self._ended(case, False, _OVERTAKEN, disturbed=True)
        return self._ended(case, True, result.reason)

    # -- inside -------------------------------------------------------------------------------

    def _stands(self, case: _Case) -> SteeredClassRecord | None:
        """What stands for the class now; None where it was decided about since the case began.

        A pin does not hinder that its own hint set is verified again.
        """
        record, stood = self._register.get(case.key), case.stood
        if record is None or stood is None or record.evidence != stood.evidence:
            return None
        if case.search is not None:
            unchanged = record.state is stood.state and record.mode is SteeringMode.AUTO
        else:
            is_off = record.mode is SteeringMode.OFF
            unchanged = record.state is SteeringState.VERIFIED and not is_off
        return record if unchanged else None

    def _overtaken(self, case: _Case) -> VerificationEnd:
        self._close(case)
        return self._ended(case, False, _OVERTAKEN, disturbed=True)

    def _close(self, case: _Case) -> None:
        """Hand the runs over."""
        self._case = None
        for made in case.verification.runs:
            default, hinted = case.plan_hashes[made.statement]
            self._log.add_verification(
                case.key,
                digest(case.verdicts[made.statement].statement),
                made.hint_set,
                default if made.hint_set.is_default else hinted,
                made.run,
            )

    def _evidence(self, case: _Case, result: VerificationResult) -> HintEvidence:
        with self._server.counted(case.search):
            texts = [self._plan_text(case, plan) for plan in (DEFAULT_HINT_SET, case.hint_set)]
        return result.evidence(
            case.hint_set,
            under=case.verification.under,
            functions=sorted(functions_called(case.verdicts[0].statement) or ()),
            default_plan=texts[0],
            steered_plan=texts[1],
            verified_at=self._clock.now(),
        )

    def _plan_text(self, case: _Case, hint_set: HintSet) -> str:
        try:
            return self._server.runner(case.key).plan_text(case.verdicts[0], hint_set)
        except (ServerError, KnobError) as error:
            logger.warning("no plan to show for %s: %s", case.key.fingerprint, said(error))
            return ""

    def _ended(
        self, case: _Case, proven: bool, reason: str, *, disturbed: bool = False
    ) -> VerificationEnd:
        return VerificationEnd(
            case.key, case.hint_set, case.search, case.arm, proven, reason, disturbed
        )
