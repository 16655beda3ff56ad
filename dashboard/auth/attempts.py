"""How often somebody may try to log in: token buckets per address and overall.

An address with its allowance used up waits, and so does everybody new when all together try too
often. Strangers cannot lock an operator out: addresses from which a login succeeded, and this
machine's own, are spared the common bucket, and a browser in which a user once logged in has an
allowance of that user's, whatever comes from its address. (The idea of device cookies:
https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies)
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

PER_ADDRESS, ADDRESS_REFILL_S = 5, 30.0
"""Failures at once, and seconds until one more is allowed, of one address."""
OVERALL, OVERALL_REFILL_S = 20, 3.0
"""The same for all addresses from which nobody has logged in yet."""
MOST_ADDRESSES = 1000
IPV6_PREFIX = 64
"""One customer's network; its addresses are as many as it likes."""


LOOPBACK = "this machine"


def network_of(address: str) -> str:
    """What an address is counted as: itself, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_loopback:
        return LOOPBACK
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
    return str(parsed)


class Bucket:
    """A token bucket: ``capacity`` at once, one more each ``refill_s`` seconds."""

    def __init__(self, capacity: int, refill_s: float, now_s: float) -> None:
        self._capacity = capacity
        self._refill_s = refill_s
        self._tokens = float(capacity)
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until there is a token; 0 where there is one."""
        self._tokens = min(
            self._capacity, self._tokens + max(now_s - self._at_s, 0.0) / self._refill_s
        )
        self._at_s = now_s
        return max(1.0 - self._tokens, 0.0) * self._refill_s

    def take(self) -> None:
        """Take a token that :meth:`wait_s` has shown to be there."""
        self._tokens -= 1.0

    def give_back(self) -> None:
        """Return one."""
        self._tokens = min(self._capacity, self._tokens + 1.0)


class Attempts:
    """Admits logins; memory is bounded, the address that rested longest is forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._overall = Bucket(OVERALL, OVERALL_REFILL_S, clock())
        self._addresses: OrderedDict[str, Bucket] = OrderedDict()
        self._proven: OrderedDict[str, None] = OrderedDict()

    def admit(self, address: str, known_user: str | None = None) -> float:
        """Count one attempt; returns 0, or the seconds to wait, and then it must not be made.

        Args:
            address: where it comes from.
            known_user: whose login it is to be, where that user once logged in in this browser.
        """
        source, now_s = _source(address, known_user), self._clock()
        with self._lock:
            bucket = self._addresses.pop(source, None) or Bucket(
                PER_ADDRESS, ADDRESS_REFILL_S, now_s
            )
            self._addresses[source] = bucket
            if len(self._addresses) > MOST_ADDRESSES:
                self._addresses.popitem(last=False)
            wait_s = bucket.wait_s(now_s)
            if not self._is_spared(source, known_user):
                # Own allowance first: who has none left takes nothing from the common one.
                wait_s = wait_s or self._overall.wait_s(now_s)
                if wait_s == 0:
                    self._overall.take()
            if wait_s == 0:
                bucket.take()
            return wait_s

    def succeeded(self, address: str, known_user: str | None = None) -> None:
        """The attempt was a login: it counts as none. Arguments as for :meth:`admit`."""
        network, source = network_of(address), _source(address, known_user)
        with self._lock:
            if not self._is_spared(source, known_user):
                self._overall.give_back()
            bucket = self._addresses.get(source)
            if bucket is not None:
                bucket.give_back()
            self._proven.pop(network, None)
            self._proven[network] = None
            if len(self._proven) > MOST_ADDRESSES:
                self._proven.popitem(last=False)

    def _is_spared(self, source: str, known_user: str | None) -> bool:
        return known_user is not None or source == LOOPBACK or source in self._proven


def _source(address: str, known_user: str | None) -> str:
    return network_of(address) if known_user is None else f"user {known_user}"
