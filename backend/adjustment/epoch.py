"""Whether a tuner may still act, asked before it writes; see lease.py and watchdog.py."""

from __future__ import annotations

from backend.errors import StaleEpochError
from backend.protocols import Journal


class EpochGuard:
    """Compares an epoch with the newest one.

    Args:
        journal: holds the leases.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def check(self, epoch: int) -> None:
        """Look whether the epoch is the newest.

        Raises:
            StaleEpochError: somebody raised it, and acts on the server now.
        """
        newest = self._journal.current_epoch()
        if newest != epoch:
            raise StaleEpochError(
                f"epoch {epoch} is over, the newest is {newest}: somebody else acts on this server",
                remedy="start anew: take the lock and a new lease, then reconcile",
            )

    def hold(self, epoch: int, seconds: float) -> None:
        """The same, and make the lease last so long from now: a sign of life before a long step.

        The tuner renews its lease between two ticks. Learning before a change, or a restart
        within it, would else let it run out, and the watchdog would take the change away.

        Raises:
            StaleEpochError: somebody raised the epoch, or the lease was given back.
        """
        self.check(epoch)
        if not self._journal.renew_lease(epoch, seconds):
            self.check(epoch)
            raise StaleEpochError(
                f"the lease of epoch {epoch} was given back already",
                remedy="take a new lease, then reconcile",
            )
