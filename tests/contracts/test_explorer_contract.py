"""What every explorer of (query, hint set) keeps to, whatever it is told."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.steering.explorer import OfflineExplorer, Probe
from benchmarks.steering.matrix import synthetic_matrix
from benchmarks.steering.peers import EXPLORERS, make_explorer

Matrix = NDArray[np.float64]


@dataclass
class Played:
    """An exploration, with all that the explorer was told."""

    latency_s: Matrix
    method: str = "ours"
    seed: int = 0
    probes: list[Probe] = field(default_factory=list)
    measured: dict[tuple[int, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        default_s = self.latency_s[:, 0].copy()
        self.explorer = make_explorer(self.method, default_s, self.latency_s.shape[1], self.seed)

    def play(self, probes: int) -> Played:
        for _ in range(probes):
            probe = self.explorer.ask()
            if probe is None:
                break
            latency_s = float(self.latency_s[probe.query, probe.hint_set])
            timed_out = latency_s > probe.timeout_s
            self.probes.append(probe)
            if not timed_out:
                self.measured[probe.query, probe.hint_set] = latency_s
            self.explorer.tell(probe, min(latency_s, probe.timeout_s), timed_out=timed_out)
        return self


@pytest.fixture(params=sorted(EXPLORERS))
def played(request: pytest.FixtureRequest) -> Played:
    return Played(synthetic_matrix(20, 8).latency_s, request.param).play(60)


def test_probes_are_possible_and_new(played: Played) -> None:
    queries, hint_sets = played.latency_s.shape
    assert played.probes
    longest: dict[tuple[int, int], float] = {}
    for probe in played.probes:
        cell = probe.query, probe.hint_set
        assert 0 <= probe.query < queries
        assert 1 <= probe.hint_set < hint_sets
        assert probe.timeout_s > longest.get(cell, 0.0)
        longest[cell] = probe.timeout_s
        # What ended within an earlier time-out is known and never run again.
        ended = played.latency_s[cell] <= probe.timeout_s
        longest[cell] = float("inf") if ended else probe.timeout_s


def test_the_fastest_measured_is_served(played: Played) -> None:
    for query, row in enumerate(played.latency_s):
        known = {h: s for (q, h), s in played.measured.items() if q == query} | {0: row[0]}
        served = played.explorer.serve(query)
        assert known[served] == min(known.values())


def test_a_cell_that_was_not_paid_for_changes_nothing(played: Played) -> None:
    """The same told outcomes, quite other latencies wherever nothing was told: the same course."""
    other = played.latency_s * 1000.0
    other[:, 0] = played.latency_s[:, 0]
    for probe in played.probes:
        other[probe.query, probe.hint_set] = played.latency_s[probe.query, probe.hint_set]
    assert Played(other, played.method).play(60).probes == played.probes


def test_the_same_seed_is_the_same_course(played: Played) -> None:
    again = Played(played.latency_s, played.method).play(60)
    assert again.probes == played.probes


def test_to_ask_is_not_to_tell() -> None:
    explorer = Played(synthetic_matrix(20, 8).latency_s).play(10).explorer
    assert explorer.ask() == explorer.ask()


latencies = st.floats(min_value=1e-6, max_value=1e6)


@settings(max_examples=25)
@given(data=st.data(), queries=st.integers(1, 6), hint_sets=st.integers(2, 6))
def test_any_matrix_is_explored_and_served_no_worse(
    data: st.DataObject, queries: int, hint_sets: int
) -> None:
    cells = data.draw(st.lists(latencies, min_size=36, max_size=36))
    latency_s = np.array(cells[: queries * hint_sets]).reshape(queries, hint_sets)
    played = Played(latency_s, seed=data.draw(st.integers(0, 3))).play(25)
    assert isinstance(played.explorer, OfflineExplorer)
    served = [played.explorer.serve(query) for query in range(queries)]
    floor_s = 1e-4  # latencies below count as this
    served_s = latency_s[np.arange(queries), served]
    assert np.all(served_s <= np.maximum(latency_s[:, 0], floor_s))
    assert np.all(np.isfinite(played.explorer.best_latency_s))


@pytest.mark.parametrize("hint_sets", [1, 2])
def test_a_single_query_and_hardly_any_hint_sets(hint_sets: int) -> None:
    explorer = OfflineExplorer([2.0], hint_sets)
    probe = explorer.ask()
    assert (probe is None) == (hint_sets == 1)
    assert explorer.serve(0) == 0
