"""The searches that go on, and what of them stands in the register."""

from __future__ import annotations

from collections.abc import Iterator

from backend.domain.steering import ClassKey, SteeredClassRecord, SteeringMode, SteeringState
from backend.steering.register import SteeringRegister
from backend.steering.search.agenda import Agenda
from backend.steering.search.class_search import OTHER_ANSWER, ClassSearch

_NAME_LENGTH = 60


class Searches:
    """Searches by class, in the order in which they began.

    Args:
        register: what stands for each class.
        agenda: told of the end of a search.
        min_gain: smallest relative gain that is worth steering.
    """

    def __init__(self, register: SteeringRegister, agenda: Agenda, min_gain: float) -> None:
        self._register, self._agenda, self._min_gain = register, agenda, min_gain
        self._searches: dict[ClassKey, ClassSearch] = {}

    def __iter__(self) -> Iterator[ClassSearch]:
        return iter(tuple(self._searches.values()))

    def __len__(self) -> int:
        return len(self._searches)

    def __contains__(self, key: ClassKey) -> bool:
        return key in self._searches

    def begin(self, record: SteeredClassRecord, search: ClassSearch) -> None:
        """A class's search begins. One that is served stays so."""
        self._searches[search.key] = search
        if record.state is not SteeringState.VERIFIED:
            self._register.update(search.key, state=SteeringState.EXPLORING, reason="")

    def end(self, search: ClassSearch) -> None:
        """Nothing is left to find; without a proven hint set the default plan is best."""
        self.drop(search)
        record = self._register.get(search.key)
        if record is not None and record.state is SteeringState.EXPLORING:
            self._register.update(
                search.key, state=SteeringState.DEFAULT_BEST, reason=self._why_default(search)
            )
        self._agenda.end(search.key, search.verdict, search.default_hash)

    def drop(self, search: ClassSearch) -> None:
        """Leave a search as it is."""
        self.save_progress(search)
        self._searches.pop(search.key, None)

    def refuse(self, key: ClassKey, reason: str) -> None:
        """A class may not be tried, or cannot; a hint set of it is not served any longer."""
        search = self._searches.get(key)
        if search is not None:
            self.drop(search)
        record = self._register.get(key)
        if record is not None and record.state is SteeringState.VERIFIED:
            self._register.withdraw(key, reason)
        else:
            self._register.update(key, state=SteeringState.REFUSED, reason=reason)

    def leave_what_changed(self) -> None:
        """Leave classes that the service withdrew, or that a human decided about."""
        for search in self:
            record = self._register.get(search.key)
            if (
                record is None
                or record.state is SteeringState.WITHDRAWN
                or record.mode is not SteeringMode.AUTO
            ):
                self.drop(search)

    def save_progress(self, search: ClassSearch) -> None:
        """Write what is new of a search into the register."""
        record = self._register.get(search.key)
        if record is None or not (search.probes or search.spent_s):
            return
        default_s = search.default_s
        self._register.update(
            search.key,
            probes=record.probes + search.probes,
            explored_s=record.explored_s + search.spent_s,
            plans=record.plans if search.unexplained else 1 + len(search.arms),
            default_ms=record.default_ms if default_s is None else 1000.0 * default_s,
        )
        search.probes, search.spent_s = 0, 0.0

    def named(self, key: ClassKey) -> str:
        """A class in a few words, for people."""
        record = self._register.get(key)
        text = " ".join(record.text.split()) if record is not None else key.fingerprint
        return text if len(text) <= _NAME_LENGTH else f"{text[: _NAME_LENGTH - 3]}..."

    def _why_default(self, search: ClassSearch) -> str:
        if search.failure:
            return search.failure
        if not search.arms:
            return "all hint sets lead to the default plan"
        reason = f"none of {len(search.arms)} other plans was {self._min_gain:.0%} faster on trial"
        others = sum(arm.closed == OTHER_ANSWER for arm in search.arms.values())
        return f"{reason}; {others} gave another answer" if others else reason
