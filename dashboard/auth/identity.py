"""Who the present request is from, and what that role may do."""

from __future__ import annotations

from dataclasses import dataclass

from flask import g, has_request_context

from backend.errors import AutopilotError
from backend.settings.dashboard import Role

LOOKS_ONLY = "A viewer may look and change nothing; log in as an operator."


class RoleError(AutopilotError):
    """The user's role does not allow what was asked for."""


@dataclass(frozen=True)
class Identity:
    """A user and its role."""

    name: str
    role: Role

    def at(self, place: str) -> str:
        """The actor of a command, as the journal keeps it: ``alice@dashboard``."""
        return f"{self.name}@{place}"


HUMAN = Identity("human", Role.OPERATOR)
"""Whoever reaches a dashboard without users; it is on loopback."""


def set_current(identity: Identity | None) -> None:
    """Tell who the present request is from; None: nobody has logged in."""
    g.identity = identity


def current() -> Identity | None:
    """Who the present request is from; None where nobody has logged in."""
    identity: Identity | None = g.get("identity") if has_request_context() else None
    return identity


def logged_in() -> Identity | None:
    """Who has logged in; None where nobody has to."""
    identity = current()
    return None if identity is HUMAN else identity


def require_operator() -> Identity:
    """Who asks, if that one may change things.

    Raises:
        RoleError: it may not.
    """
    identity = current()
    if identity is None or identity.role is not Role.OPERATOR:
        who = "nobody has logged in" if identity is None else f"{identity.name} is a viewer"
        raise RoleError(
            f"{who}, and only the role operator may change things",
            remedy="log in as a user with the role operator",
        )
    return identity


def looks_only() -> bool:
    """Whether controls are shown disabled: to anybody but an operator."""
    if not has_request_context():
        return False
    identity = current()
    return identity is None or identity.role is not Role.OPERATOR
