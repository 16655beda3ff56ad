"""Faults of a simulated server: an operation that fails, or hangs, when its turn has come."""

from __future__ import annotations

from dataclasses import dataclass

from backend.domain.clock import ManualClock
from backend.protocols import Clock


@dataclass
class _Fault:
    operation: str
    error: Exception | None
    after: int
    hang_s: float


class Faults:
    """The faults that wait, each for its operation.

    Args:
        clock: is advanced where an operation hangs (manual clock only).
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: list[_Fault] = []

    def inject(self, operation: str, error: Exception | None, after: int, hang_s: float) -> None:
        """Let an operation fail once, after so many that work; see ``SimulatedDatabase.inject``."""
        self._waiting.append(_Fault(operation, error, after, hang_s))

    def meet(self, operation: str) -> None:
        """The operation begins: raise or hang where a fault waits for it."""
        for fault in self._waiting:
            if fault.operation == operation:
                fault.after -= 1
                if fault.after < 0:
                    self._waiting.remove(fault)
                    if fault.hang_s and isinstance(self._clock, ManualClock):
                        self._clock.advance(fault.hang_s)
                    if fault.error is not None:
                        raise fault.error
                break
