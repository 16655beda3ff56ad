"""How often somebody may try to log in: token buckets per address and overall.

An address with its allowance used up waits, and so does everybody new when all together try too
often. Addresses from which a login succeeded are spared the common bucket: strangers cannot lock
an operator out.
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


def network_of(address: str) -> str:
    """What an address is counted as: itself, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if parsed.version == 6:
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
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

    def admit(self, address: str) -> float:
        """Count one attempt; returns 0, or the seconds to wait, and then it must not be made."""
        network, now_s = network_of(address), self._clock()
        with self._lock:
            bucket = self._addresses.pop(network, None) or Bucket(
                PER_ADDRESS, ADDRESS_REFILL_S, now_s
            )
            self._addresses[network] = bucket
            if len(self._addresses) > MOST_ADDRESSES:
                self._addresses.popitem(last=False)
            wait_s = bucket.wait_s(now_s)
            if network not in self._proven:
                # Own allowance first: who has none left takes nothing from the common one.
                wait_s = wait_s or self._overall.wait_s(now_s)
                if wait_s == 0:
                    self._overall.take()
            if wait_s == 0:
                bucket.take()
            return wait_s

    def succeeded(self, address: str) -> None:
        """The attempt was a login: it counts as none."""
        network = network_of(address)
        with self._lock:
            if network not in self._proven:
                self._overall.give_back()
            bucket = self._addresses.get(network)
            if bucket is not None:
                bucket.give_back()
            self._proven.pop(network, None)
            self._proven[network] = None
            if len(self._proven) > MOST_ADDRESSES:
                self._proven.popitem(last=False)
