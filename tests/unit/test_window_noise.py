"""What windows of an unchanged server differ by, computed from numbers that are known."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from backend.domain.metrics import MetricsSnapshot
from backend.sample_filter import Reference
from benchmarks.window_noise import heaviest, noise_of, parse, tables, windows_of
from tests.windows import START, key, window

SHARES = Reference({key(1): (0.5, 2.0), key(2): (0.5, 1.0)})


def snapshot(second: int) -> MetricsSnapshot:
    return MetricsSnapshot(
        taken_at=START + timedelta(seconds=second),
        server_started_at=START,
        config_loaded_at=START,
        statistics_reset_at=START,
        counters={"xact_commit": float(second**2)},
    )


def test_windows_follow_one_another_and_the_rest_is_left_out() -> None:
    found = windows_of([snapshot(second) for second in range(8)], 3)
    assert [(w.started_at - START).total_seconds() for w in found] == [0.0, 3.0]
    assert [w.duration_s for w in found] == [3.0, 3.0]
    assert [w.rates["xact_commit"] for w in found] == [3.0, 9.0]


def test_an_unchanged_server_without_noise_has_none() -> None:
    found = noise_of([window({1: (100, 2.0), 2: (100, 1.0)})] * 4, SHARES)
    assert (found.windows, found.index_sd, found.pair_sd) == (4, 0.0, 0.0)
    assert math.isnan(found.steal_correlation)


def test_what_others_on_the_host_take_is_told_with_what_it_does() -> None:
    windows = [
        window({1: (100, 2.0 * slow), 2: (100, 1.0 * slow)}, gauges={"host_steal_percent": steal})
        for slow, steal in ((1.0, 0.0), (2.0, 6.0), (1.0, 0.0), (1.0, 0.0), (2.0, 6.0), (1.0, 0.0))
    ]
    found = noise_of(windows, SHARES)
    assert found.steal_percent == pytest.approx(2.0)
    assert found.steal_correlation == pytest.approx(1.0)
    # Pairs differ by ln 2, by nothing, and by -ln 2.
    assert found.pair_sd == pytest.approx(math.log(2))
    # Two of six logarithms are ln 2, the others 0.
    assert found.index_sd == pytest.approx(math.log(2) * math.sqrt(4 / 15))


def test_the_class_that_makes_the_noise_is_named() -> None:
    windows = [window({1: (100, mean_ms), 2: (100, 1.0)}) for mean_ms in (1.0, 3.0, 2.0)]
    first, second = heaviest(windows, SHARES)
    assert (first.key, second.key) == (key(1), key(2))
    assert first.time_share == pytest.approx(2 / 3)
    assert (first.variance_share, second.variance_share) == (pytest.approx(1.0), 0.0)
    assert heaviest(windows[:1], SHARES) == []


def test_a_class_that_did_not_run_changes_nothing() -> None:
    found = heaviest([window({1: (100, 2.0)}), window({1: (100, 4.0)})], SHARES)
    assert [each.variance_share for each in found] == [pytest.approx(1.0), 0.0]


def test_too_few_windows_are_told_as_unknown() -> None:
    lengths, classes = tables([snapshot(0), snapshot(1)], SHARES)
    assert lengths.row_count == 4
    assert classes.row_count == 0


def test_the_command_line_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "--ever-new" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        parse(["--minutes", "1"])
    assert "--minutes 1: at least 2" in capsys.readouterr().err
    assert parse([]).workload == "mixed"
    with pytest.raises(SystemExit):
        parse(["--workload", "pgbench"])
