"""The address leads to another server in mid-trial: a stand-by that took over, or just a stand-by.

ALTER SYSTEM is not replicated: each server has entries of its own.
"""

from __future__ import annotations

import time
from weakref import WeakKeyDictionary

from tests.faults.catalogue.fault import fault
from tests.faults.catalogue.pair import Pair
from tests.faults.catalogue.world import WAIT_S, World
from tests.waiting import eventually

_PAIRS: WeakKeyDictionary[World, Pair] = WeakKeyDictionary()


@fault(2, "server: fails over to its stand-by in mid-trial; the old one comes back", repeats=20)
def fails_over(world: World, number: int) -> None:
    """Nothing is written to the new primary; the old one is put right once it is back."""
    pair = _pair(world)
    good, own = pair.state(pair.primary), pair.state(pair.standby)
    tuner, changes = pair.in_mid_trial(number)
    if number % 2:
        pair.primary.stop("immediate")
    pair.fail_over()
    tuner.resume()
    assert tuner.ended() != 0, "it went on, on another server"
    eventually(pair.left_behind, "what was open is left behind", WAIT_S)
    assert not pair.state(pair.standby).differences(own)
    told = pair.newest("left_behind").message
    assert f":{pair.primary.port}" in told, told
    assert all(row.knob in told for row in changes), told
    # The next tuner begins with what the new primary has, and tries and deploys there.
    assert pair.begin_and_end() == ""
    assert not pair.state(pair.standby).differences(own)
    if number % 2:
        pair.primary.start()
    pair.lead_to(pair.primary)
    assert pair.begin_and_end() == ""
    assert not pair.store.changes_left_behind()
    assert not pair.state(pair.primary).differences(good)
    pair.renew()
    assert pair.begin_and_end() == ""


@fault(2, "server: the address leads to a read-only stand-by in mid-trial, and back", repeats=20)
def leads_to_a_standby(world: World, number: int) -> float | None:
    """The tuner says so and only advises there; measured from the primary's return."""
    pair = _pair(world)
    good, own = pair.state(pair.primary), pair.state(pair.standby)
    tuner, _ = pair.in_mid_trial(number)
    off = bool(pair.state(pair.primary).differences(good))
    pair.lead_to(pair.standby)
    tuner.resume()
    assert tuner.ended() != 0, "it went on, on a stand-by"
    eventually(pair.left_behind, "what was open is left behind", WAIT_S)
    assert pair.begin_and_end() == ""
    told = pair.newest("best_mode").message
    assert "advise is" in told, told
    assert "this is a stand-by" in told, told
    assert not pair.state(pair.standby).differences(own)
    pair.lead_to(pair.primary)
    back_s = time.monotonic()
    assert pair.begin_and_end() == ""
    took_s = time.monotonic() - back_s
    assert not pair.store.changes_left_behind()
    assert not pair.state(pair.primary).differences(good)
    return took_s if off else None


def _pair(world: World) -> Pair:
    """The world's pair of servers, for this and the next repeats."""
    if world not in _PAIRS:
        _PAIRS[world] = Pair(world)
    return _PAIRS[world]
