"""Each fault of the catalogue a few times; ``make faults`` does all of its repeats."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.catalogue.all_faults import ALL_FAULTS
from tests.faults.catalogue.fault import Fault
from tests.faults.catalogue.runner import Repeat, Worlds, plan, results_in, table


@pytest.fixture(scope="module")
def worlds() -> Iterator[Worlds]:
    """A server, a store and a watchdog, new where a fault was not survived."""
    made = Worlds()
    yield made
    made.close()


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("fault", [f for f in ALL_FAULTS if f.in_ci], ids=lambda fault: fault.key)
def test_it_is_survived(worlds: Worlds, fault: Fault) -> None:
    for number in range(fault.in_ci):
        done = worlds.do(fault, number)
        if done.survived is None:
            pytest.skip(done.why)
        assert done.survived, done.why


def test_every_repeat_is_planned_once_and_some_of_each_early() -> None:
    planned = [(fault.key, number) for fault, number in plan(ALL_FAULTS, 1.0)]
    assert len(set(planned)) == len(planned)
    assert len(planned) == sum(fault.repeats for fault in ALL_FAULTS)
    assert len({fault.key for fault in ALL_FAULTS}) == len(ALL_FAULTS)


def test_the_table_tells_what_was_not_survived_and_what_took_too_long(tmp_path) -> None:
    first, second = ALL_FAULTS[:2]
    results = results_in(tmp_path / "repeats.jsonl")
    for repeat in (
        Repeat(first.key, 0, True, 1.0),
        Repeat(first.key, 1, True, 3.0),
        Repeat(first.key, 2, True),
        Repeat(second.key, 0, False, why="it was lost"),
        Repeat(second.key, 1, None, why="not here"),
    ):
        results.append(repeat)
    one, two = table((first, second), list(results.read().values()))
    assert (one.repeats, one.survived, one.measured) == (3, 3, 2)
    assert (one.restored_p50_s, one.restored_max_s, one.kept) == (2.0, 3.0, True)
    assert (two.repeats, two.survived, two.kept) == (1, 0, False)
    assert two.why == ("it was lost", "not here")
    results.append(Repeat(first.key, 2, True, 10.1))
    assert not table((first,), list(results.read().values()))[0].kept
