"""What is worth a trial next: proposals that pass the sandbox, and what a probe found promising."""

from __future__ import annotations

import math
from collections.abc import Mapping

from backend.ask_and_tell import AskAndTell, State
from backend.domain.knobs import KnobValue
from backend.domain.modes import Verdict
from backend.protocols import Clock
from backend.trials import TrialPlan
from backend.vetting import Vetting

FRUITLESS_PROBES = 8
"""After so many probes without a promising one there is a rest between probes."""

Candidate = tuple[Mapping[str, KnobValue], str]
"""The knobs to change, and who proposed it."""


class Candidates:
    """Keeps one promising candidate, and rests where nothing comes up.

    Args:
        agent: proposes.
        clock: time.
        rest_s: length of a rest.
        vetting: tries proposals where they can do no harm; None: nowhere.
    """

    def __init__(
        self, agent: AskAndTell, clock: Clock, rest_s: float, vetting: Vetting | None = None
    ) -> None:
        self._agent, self._clock, self._rest_s = agent, clock, rest_s
        self._vetting = vetting
        self._promising: Candidate | None = None
        self._fruitless = 0
        self._rests_until_s = -math.inf
        self._why_rest = ""

    @property
    def promising(self) -> Candidate | None:
        """The one that has earned a promotion; None where none has."""
        return self._promising

    def take_promising(self) -> Candidate:
        """That one, which is kept no more."""
        assert self._promising is not None  # asked before
        promising, self._promising = self._promising, None
        return promising

    def keep(self, plan: TrialPlan) -> None:
        """The candidate of this plan is promising."""
        self._promising = plan.after, plan.proposer

    def drop(self) -> None:
        """Something else stands: what was promising was so against what stood before."""
        self._promising = None
        if self._vetting is not None:
            self._vetting.drop()

    def begin_anew(self) -> None:
        """Another workload: nothing is known of it yet, so there is no rest either."""
        self.drop()
        self._fruitless, self._rests_until_s = 0, -math.inf

    @property
    def resting(self) -> bool:
        """Whether nothing is proposed just now."""
        return self._clock.monotonic_s() < self._rests_until_s

    @property
    def hindrance(self) -> str:
        """Why nothing is proposed just now, for people; "" where something is."""
        return self._why_rest if self.resting else ""

    def rest(self, why: str) -> None:
        """Propose nothing for a while; ``why`` is for people."""
        self._rests_until_s = self._clock.monotonic_s() + self._rest_s
        since = f"{self._clock.now():%H:%M} UTC"
        self._why_rest = f"{why}: a rest of {self._rest_s / 60:.3g} min since {since}"

    def ask(self, state: State, index_standing: float) -> Candidate | None:
        """The next candidate for a probe.

        None where the sandbox has not answered yet, or where nothing new comes up, which begins a
        rest. What failed in the sandbox is told to the agent as too slow.
        """
        if self._vetting is None:
            return self._asked(state)
        vetted = self._vetting.take()
        if vetted is not None and vetted.result.may_be_tried:
            return vetted.values, vetted.proposer
        if vetted is not None:
            self._agent.tell_too_slow(vetted.values, index_standing, state)
        if not self._vetting.busy and (proposal := self._asked(state)) is not None:
            self._vetting.hand_in(*proposal)
        return None

    def _asked(self, state: State) -> Candidate | None:
        proposal = self._agent.ask(state)
        if proposal is None:
            self.rest("nothing new came up to try")
        return proposal

    def probed(self, plan: TrialPlan, verdict: Verdict | None) -> bool:
        """Draw the consequences of a probe; False where too many have led to nothing."""
        if verdict is Verdict.ACCEPT:
            self._fruitless = 0
            self.keep(plan)
            return True
        self._fruitless += 1
        if self._fruitless < FRUITLESS_PROBES:
            return True
        self.rest(f"{self._fruitless} probes in a row led to nothing")
        return False
