"""The error tree.

Every error a user can meet says what happened with the values in it, and, where there is one,
the remedy. Code catches the narrowest class that it can do something about.
"""

from __future__ import annotations


class AutopilotError(Exception):
    """Base of all errors of this project.

    Args:
        message: what happened, with the value and the bound that it passed.
        remedy: what the reader can do about it; printed on a line of its own.
    """

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """Return the message, followed by the remedy where there is one."""
        return f"{self.message}\nRemedy: {self.remedy}" if self.remedy else self.message


class ConfigError(AutopilotError):
    """A setting (file, environment or command line) is missing, unknown or out of bounds."""


class CatalogError(AutopilotError):
    """A catalogue file (knobs, metrics, hint sets) is malformed."""


class KnobError(AutopilotError):
    """A knob's name or value was refused."""


class UnknownKnobError(KnobError):
    """The knob is not in the catalogue, so it is not writable."""


class NeverKnobError(KnobError):
    """The knob is on the never-list (durability, authentication, time-outs, ...)."""


class KnobBoundsError(KnobError):
    """The value lies outside the knob's bounds or is not of its kind."""


class MemoryBudgetError(KnobError):
    """The memory knobs together could take more than the machine's budget."""


class ServerError(AutopilotError):
    """The database server could not be reached or refused a statement."""


class ServerConnectionError(ServerError):
    """No connection, or the connection was lost."""


class OtherServerError(ServerConnectionError):
    """The address leads to another server than before: a stand-by took over, or is one."""


class RefusedValueError(ServerError):
    """The server does not take a value."""


class UnsupportedServerError(ServerError):
    """The server's version or kind is not supported for this operation."""


class PrivilegeError(ServerError):
    """Our role lacks a privilege; the remedy holds the SQL that grants it."""


class LockNotAvailableError(ServerError):
    """Another tuner acts on this server."""


class EmbeddedServerError(ServerError):
    """The embedded server could not be created, started, stopped or recovered."""


class AdjustmentError(AutopilotError):
    """A knob change was not applied, or did not take effect and was rolled back."""


class RefusedChangeError(AdjustmentError):
    """The server does not take one of the values; what stood before stands again."""


class ConflictError(AdjustmentError):
    """A human changed the knob meanwhile; the human's value stays."""


class StaleEpochError(AdjustmentError):
    """The lease was lost: the watchdog raised the epoch, this tuner may not act any more."""


class FrozenError(AdjustmentError):
    """The freeze switch is on, or the mode does not allow the action."""


class StoreError(AutopilotError):
    """The store could not be opened, migrated, read or written."""


class CheckpointError(AutopilotError):
    """An agent's checkpoint is damaged or belongs to another knob space."""


class SteeringError(AutopilotError):
    """A query class cannot be steered, explored or exported as asked."""


class WorkloadError(AutopilotError):
    """The workload could not be loaded or run."""
