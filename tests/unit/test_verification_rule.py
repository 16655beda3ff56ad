"""How often the verification proves what is true, and what is not: simulated, run by run."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest

from backend.steering.proof.verification_rule import Look, StatementTimes, VerificationRule
from tests.verification_fakes import (
    FakeRunner,
    Noise,
    carried_through,
    heavy_tails,
    hiccups,
    normal,
    verification,
)

Effects = Callable[[random.Random], Sequence[float]]


def proven_share(
    effects: Effects, noise: Noise, *, times: int, alpha: float = 0.005, seed: int = 1
) -> float:
    """The share of so many verifications that prove a hint set of such log ratios."""
    rng, proven = random.Random(seed), 0
    for number in range(times):
        log_ratios = effects(rng)
        default_s = [0.1 * math.exp(rng.gauss(0.0, 0.7)) for _ in log_ratios]
        runner = FakeRunner(default_s, log_ratios, noise, rng)
        proven += carried_through(verification(runner, alpha=alpha, seed=number)).proven
    return proven / times


def at_most(chance: float, times: int) -> float:
    """The share that so many draws of that chance exceed once in a thousand times."""
    return chance + 3.1 * math.sqrt(chance * (1 - chance) / times)


@pytest.mark.parametrize("noise", [normal(0.2), heavy_tails(0.2), hiccups(0.2)])
@pytest.mark.parametrize("statements", [1, 2, 8])
def test_what_changes_nothing_is_proven_no_oftener_than_said(noise: Noise, statements: int) -> None:
    # At a high alpha, so that a rule that spends more than it may would show in few draws.
    share = proven_share(lambda _: [0.0] * statements, noise, times=150, alpha=0.2)
    assert share <= at_most(0.2, 150)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [normal(0.15), heavy_tails(0.2), hiccups(0.2)])
@pytest.mark.parametrize("statements", [1, 2, 8])
def test_false_proofs_at_the_default_alpha(noise: Noise, statements: int) -> None:
    share = proven_share(lambda _: [0.0] * statements, noise, times=2000)
    assert share <= at_most(0.005, 2000)


@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_what_helps_some_parameters_as_much_as_it_harms_others_is_not_proven(
    spread: float,
) -> None:
    def effects(rng: random.Random) -> Sequence[float]:
        return [rng.gauss(0.0, spread) for _ in range(8)]

    assert proven_share(effects, normal(0.1), times=200, alpha=0.05) <= at_most(0.05, 200)


def test_the_interval_over_pairs_alone_would_prove_it() -> None:
    """That is: the pairs of a statement do resemble each other in the test above."""
    rng, found = random.Random(3), 0
    for _ in range(100):
        logs = [rng.gauss(0.0, 0.3) for _ in range(8)]
        pairs = [log + rng.gauss(0.0, 0.14) for log in logs for _ in range(5)]
        found += sum(pairs) / 40 + 1.68 * 0.33 / math.sqrt(40) < 0
    assert found / 100 > 0.15


@pytest.mark.parametrize(
    ("gain", "spread", "statements", "least"),
    [
        (0.15, 0.07, 1, 0.9),
        (0.15, 0.07, 8, 0.9),
        (0.15, 0.14, 1, 0.8),
        (0.15, 0.14, 8, 0.6),
        (0.3, 0.14, 3, 0.9),
        (0.3, 0.25, 8, 0.8),
        (0.5, 0.25, 1, 0.95),
        (0.5, 0.25, 4, 0.95),
        (0.5, 0.25, 8, 0.95),
    ],
)
def test_gains_are_proven(gain: float, spread: float, statements: int, least: float) -> None:
    log_ratios = [math.log(1 - gain)] * statements
    assert proven_share(lambda _: log_ratios, normal(spread), times=60) >= least


@pytest.mark.parametrize("noise", [normal(0.14), heavy_tails(0.2)])
def test_what_helps_seven_statements_and_harms_one_threefold_is_not_proven(noise: Noise) -> None:
    log_ratios = [math.log(0.5)] * 7 + [math.log(3.0)]
    assert proven_share(lambda _: log_ratios, noise, times=60) == 0


def test_what_harms_one_by_a_quarter_is_hardly_ever_proven() -> None:
    log_ratios = [math.log(0.5)] * 7 + [math.log(1.25)]
    assert proven_share(lambda _: log_ratios, normal(0.14), times=100) <= 0.05


def test_what_helps_seven_and_leaves_one_as_it_was_is_proven() -> None:
    """The statement that gains nothing gets the pairs that clear it."""
    log_ratios = [math.log(0.5)] * 7 + [0.0]
    assert proven_share(lambda _: log_ratios, normal(0.14), times=50) >= 0.9


# -- the parts of the rule -------------------------------------------------------------------------


def times(default_ms: Sequence[float], ratios: Sequence[float], pairs: int) -> list[StatementTimes]:
    """Pairs almost without noise (a tenth of a per cent, up and down)."""
    made = []
    for own_ms, ratio in zip(default_ms, ratios, strict=True):
        wobble = [1.001 if pair % 2 else 0.999 for pair in range(pairs)]
        made.append(
            StatementTimes([own_ms / 1000] * pairs, [own_ms / 1000 * ratio * w for w in wobble])
        )
    return made


def look(default_ms: Sequence[float], ratios: Sequence[float]) -> Look:
    rule = VerificationRule(len(ratios), 0.1, 0.005, 40)
    return rule.look(times(default_ms, ratios, rule.look_rounds[0]))


def test_looks_are_few_and_at_whole_rounds() -> None:
    for statements in range(1, 9):
        rule = VerificationRule(statements, 0.1, 0.005, 40)
        rounds = rule.look_rounds
        assert 1 <= len(rounds) <= 3
        assert rounds == tuple(sorted(rounds))
        assert statements * rounds[0] >= 8
        assert rounds[0] >= 2
        assert statements * rounds[-1] <= 40
        assert rule.confidence == 1 - 0.005 / len(rounds)


def test_the_summed_times_must_agree() -> None:
    assert look([10.0, 10.0, 10.0], [0.5, 0.5, 0.95]).proven is True
    found = look([10.0, 10.0, 1000.0], [0.5, 0.5, 0.95])
    assert found.proven is None
    assert "summed time" in found.reason


def test_statements_that_all_gain_by_different_factors_are_proven_each_by_itself() -> None:
    found = look([10.0, 10.0, 10.0, 10.0], [0.01, 0.1, 0.5, 0.85])
    assert found.proven is True
    assert "each by itself" in found.reason
    assert found.interval.low <= found.interval.effect <= found.interval.high < 0


def test_a_mean_gain_of_statements_that_differ_much_is_not_proven() -> None:
    found = look([10.0] * 4, [0.3, 0.3, 0.4, 1.0])
    assert found.proven is None
    assert "may be none" in found.reason


def test_a_gain_too_small_to_be_worth_it_ends_it() -> None:
    found = look([10.0], [0.95])
    assert found.proven is False
    assert "a gain of 10% is excluded" in found.reason


def test_a_loss_below_a_millisecond_is_tolerated_among_longer_statements() -> None:
    assert look([100.0] * 7 + [1.0], [0.5] * 7 + [1.2]).proven is True
    assert look([1.0] * 8, [0.5] * 7 + [1.2]).proven is False
    assert look([100.0] * 7 + [10.0], [0.5] * 7 + [1.2]).proven is False


def test_what_is_no_number_proves_nothing() -> None:
    rule = VerificationRule(1, 0.1, 0.005, 40)
    broken = StatementTimes([0.1] * 8, [math.nan] + [0.01] * 7)
    assert rule.look([broken]).proven is not True


def test_a_statement_that_may_be_slower_gets_pairs_until_it_is_clear() -> None:
    rule = VerificationRule(8, 0.1, 0.005, 40)
    made = times([10.0] * 8, [0.5] * 8, 2)
    made[3] = StatementTimes([0.010, 0.010], [0.008, 0.0125])
    first = rule.look(made)
    assert first.proven is None
    assert first.unclear == (3,)
    made[3].default_s += [0.010] * 2
    made[3].steered_s += [0.0095, 0.0101]
    again = rule.look_again(made, first)
    assert again.proven is None
    assert again.unclear == (3,)
    made[3].default_s += [0.010] * 60
    made[3].steered_s += [0.0095, 0.0101] * 30
    assert rule.look_again(made, again).proven is True
    made[3].steered_s[-60:] = [0.014, 0.015] * 30
    worse = rule.look_again(made, again)
    assert worse.proven is False
    assert "1 of 8 statement(s) proven slower" in worse.reason


def test_what_stays_unclear_ends() -> None:
    rule = VerificationRule(8, 0.1, 0.005, 40)
    made = times([10.0] * 8, [0.5] * 8, 2)
    made[3] = StatementTimes([0.010] * 2, [0.007, 0.014])
    first = rule.look(made)
    made[3] = StatementTimes([0.010] * 66, [0.002, 0.055] * 33)
    found = rule.look_again(made, first)
    assert found.proven is False
    assert "unclear" in found.reason


@pytest.mark.parametrize(
    "arguments",
    [(0, 0.1, 0.005, 40), (1, 0.0, 0.005, 40), (1, 1.0, 0.005, 40), (1, 0.1, 0.5, 40),
     (1, 0.1, 0.0, 40), (1, 0.1, 0.005, 7)],
)  # fmt: skip
def test_a_rule_out_of_bounds_is_refused(arguments: tuple[int, float, float, int]) -> None:
    with pytest.raises(ValueError, match=r"needs a statement|in \(0|max_pairs"):
        VerificationRule(*arguments)
