"""The users of the dashboard and their passwords: scrypt hashes, compared in constant time.

The parameters of scrypt are among those that OWASP names:
https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from werkzeug.security import check_password_hash, generate_password_hash

from backend.errors import ConfigError
from dashboard.auth.identity import Identity

if TYPE_CHECKING:
    from backend.settings.dashboard import DashboardSettings, UserSettings

METHOD = "scrypt:32768:8:3"
"""N = 2^15, r = 8, p = 3: 32 MB a check."""
MIN_LENGTH = 12
MAX_LENGTH = 256
MOST_REMEMBERED = 100
_HASH = re.compile(r"scrypt:[0-9]{4,7}:[0-9]{1,2}:[0-9]{1,2}\$[A-Za-z0-9]{8,64}\$[0-9a-f]{128}")


def hash_password(password: str) -> str:
    """The text that stands for a password in the settings.

    Raises:
        ConfigError: it is shorter or longer than a password may be.
    """
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise ConfigError(
            f"the password has {len(password)} characters; {MIN_LENGTH} to {MAX_LENGTH} are needed",
            remedy="take a sentence, or let a password manager make one",
        )
    return generate_password_hash(password, METHOD)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_exposure(settings: DashboardSettings) -> None:
    """Refuse to be reached from elsewhere without a login.

    Raises:
        ConfigError: names the setting that opens the dashboard, and the remedy.
    """
    if settings.users:
        return
    if not is_loopback(settings.host):
        why = f"dashboard.host = {settings.host!r} can be reached from other machines"
    elif settings.trusted_proxy is not None:
        why = f"dashboard.trusted_proxy = {settings.trusted_proxy!r} brings in other machines"
    elif any(not is_loopback(name) for name in settings.allowed_hosts):
        why = f"dashboard.allowed_hosts = {', '.join(settings.allowed_hosts)} names other machines"
    else:
        return
    raise ConfigError(
        f"{why}, and dashboard.users names nobody who may log in",
        remedy="make a hash with run.py password and put it into dashboard.users (see "
        "docs/dashboard.md), or leave dashboard.host at 127.0.0.1 and use a tunnel",
    )


def _hash_of(name: str, user: UserSettings) -> str:
    """The hash behind a user's settings."""
    if user.password is not None:
        place, text = f"dashboard.users.{name}.password", user.password.get_secret_value()
    else:
        assert user.password_file is not None  # the settings' own check
        place = f"dashboard.users.{name}.password_file"
        try:
            text = user.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"{place}: {user.password_file} cannot be read: {reason}") from None
    if _HASH.fullmatch(text):
        try:
            check_password_hash(text, "")
        except ValueError:  # a login would fail, and not only this user's
            raise ConfigError(
                f"{place} is a hash with parameters that scrypt does not take here",
                remedy="make it with run.py password",
            ) from None
        return text
    if text.startswith(("scrypt:", "pbkdf2:")):
        raise ConfigError(
            f"{place} begins like a hash and is none of scrypt",
            remedy="make it with run.py password, and quote it in YAML and in a shell",
        )
    try:
        return hash_password(text)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error.message}", remedy=error.remedy) from None


class Accounts:
    """The users with their hashes.

    Args:
        settings: names, roles and passwords of the users; the files are read here, once.

    Raises:
        ConfigError: the dashboard may not go without a login, or a password cannot be used.
    """

    def __init__(self, settings: DashboardSettings) -> None:
        check_exposure(settings)
        users: Mapping[str, UserSettings] = settings.users
        self._hashes = {name: _hash_of(name, user) for name, user in users.items()}
        self._identities = {name: Identity(name, user.role) for name, user in users.items()}
        # An unknown name costs what a known one costs.
        self._nobody = generate_password_hash(secrets.token_urlsafe(16), METHOD) if users else ""
        self._one_at_a_time, self._lock = threading.Lock(), threading.Lock()
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, Identity] = OrderedDict()

    @property
    def open(self) -> bool:
        """Whether there are no users, and so no login."""
        return not self._hashes

    def knows(self, name: str) -> bool:
        """Whether a user of that name exists; for the audit alone, never for an answer."""
        return name in self._identities

    def verify(self, name: str, password: str) -> Identity | None:
        """The user, if the password is right.

        One check runs at a time, so that many logins at once cost no more memory than one. What
        was right once is remembered by a keyed digest: a scraper sends its password every time.
        """
        # HMAC, and so scrypt, takes a password and the same with a NUL behind it for one.
        if not 0 < len(password) <= MAX_LENGTH or "\0" in password:
            return None
        digest = hmac.digest(self._key, f"{name}\0{password}".encode(), hashlib.sha256)
        with self._lock:
            known = self._remembered.get(digest)
            if known is not None:
                self._remembered.move_to_end(digest)
                return known
        with self._one_at_a_time:
            right = check_password_hash(self._hashes.get(name, self._nobody), password)
        identity = self._identities.get(name) if right else None
        if identity is not None:
            with self._lock:
                self._remembered[digest] = identity
                if len(self._remembered) > MOST_REMEMBERED:
                    self._remembered.popitem(last=False)
        return identity
