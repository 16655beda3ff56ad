"""Signs of life of a process to the one that started it, through a pipe.

A process that ended is seen anyhow; one that hangs is not. A thread of its own beats, so that a
look at a silent server, which takes its time, is no hang; where the work itself does not go on, it
stops beating. A pipe needs no disk, no store and no clock.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

BEAT_S = 0.5
HUNG_S = 3.0
"""Six beats missed, while whoever watches came to look twelve times and more. At idle priority on a
machine with ten times the work it can do, the longest silence of a healthy process was 0.6 s."""
BEGINNING_S = 120.0
"""Until the first beat: to import takes time on a busy machine."""
_LONGEST_LOOK_S = 0.25
"""What one look may add to a silence: who did not come to look was kept off by the machine itself,
and the process likely too."""


class Heart:
    """Beats while the work goes on.

    Args:
        descriptor: the pipe's writing end.
        longest_turn_s: the work counts as hung when :meth:`turned` was not called for so long.
        monotonic_s: the clock.
    """

    def __init__(
        self,
        descriptor: int,
        longest_turn_s: float,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor, self._longest_turn_s = descriptor, longest_turn_s
        self._monotonic_s = monotonic_s
        self._turned_s = monotonic_s()

    def start(self) -> None:
        """Beat from now on, in a thread that ends with the process."""
        threading.Thread(target=self._go_on, name="heart", daemon=True).start()

    def turned(self) -> None:
        """The work went on by a step."""
        self._turned_s = self._monotonic_s()

    def beat(self) -> None:
        """Beat once, where the work goes on."""
        if self._monotonic_s() - self._turned_s <= self._longest_turn_s:
            # A full pipe holds beats enough; whoever is gone needs none.
            with contextlib.suppress(OSError):
                os.write(self._descriptor, b".")

    def _go_on(self) -> None:
        while True:
            self.beat()
            time.sleep(BEAT_S)


class Pulse:
    """What its starter hears of a process.

    Args:
        monotonic_s: the clock.

    Attributes:
        writing_end: the descriptor that the process gets; call :meth:`given` when it has it.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._reading_end, self.writing_end = os.pipe()
        os.set_blocking(self._reading_end, False)
        self._monotonic_s = monotonic_s
        self._looked_s = monotonic_s()
        self._silent_s, self._limit_s = 0.0, BEGINNING_S

    def given(self) -> None:
        """The process has its end; ours of that is closed."""
        os.close(self.writing_end)

    def is_silent(self) -> bool:
        """Look whether it beat; True when it has not for too long. Call it several times a second.

        The limit counts the time in which we looked, not what passed while we were kept off.
        """
        now_s = self._monotonic_s()
        self._silent_s += min(now_s - self._looked_s, _LONGEST_LOOK_S)
        self._looked_s = now_s
        if self._heard():
            self._silent_s, self._limit_s = 0.0, HUNG_S
        return self._silent_s > self._limit_s

    def _heard(self) -> bool:
        try:
            return bool(os.read(self._reading_end, 65536))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """The process is over."""
        os.close(self._reading_end)
