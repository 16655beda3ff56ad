"""Hint sets, plan features and arms: frozen values."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from backend.domain.plans import (
    DEFAULT_HINT_SET,
    HintSet,
    PlanFeatures,
    PlanRun,
    RunOutcome,
    distinct_arms,
)
from backend.errors import KnobError


def test_a_hint_set_cannot_be_changed_by_whoever_made_it_or_holds_it():
    settings = {"work_mem": "64MB", "enable_sort": "off"}
    hint_set = HintSet("few-sorts", settings)
    settings["enable_sort"] = "on"
    assert dict(hint_set.settings) == {"enable_sort": "off", "work_mem": "64MB"}
    with pytest.raises(TypeError):
        hint_set.settings["enable_sort"] = "on"  # type: ignore[index]


def test_equal_hint_sets_hash_alike_and_survive_pickling_and_copying():
    one = HintSet("a", {"jit": "off", "geqo": "off"})
    two = HintSet("a", {"geqo": "off", "jit": "off"})
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.deepcopy(one) == one
    assert one != HintSet("b", one.settings)


def test_the_empty_hint_set_is_the_default_plan():
    assert DEFAULT_HINT_SET.is_default
    assert not HintSet("a", {"jit": "off"}).is_default


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("", {}),
        ("a b", {}),
        ("a*/", {}),
        ("a" * 64, {}),
        ("a", {"jit": "off; drop table t"}),
        ("a", {"jit": ""}),
        ("a", {"jit": "'off'"}),
        ("a", {"jit": "off\n"}),
        ("a", {"jit\n": "off"}),
        ("a", {"jit = on --": "off"}),
        ("a", {"jit": True}),
    ],
)
def test_what_could_mean_more_than_a_setting_is_refused(name, settings):
    with pytest.raises(KnobError):
        HintSet(name, settings)


def test_plan_features_are_compared_by_value_and_bound_to_their_layout():
    one = PlanFeatures(("joins", "depth"), np.array([1.0, 2.0]))
    assert one == PlanFeatures(("joins", "depth"), np.array([1.0, 2.0]))
    assert hash(one) == hash(PlanFeatures(("joins", "depth"), np.array([1.0, 2.0])))
    assert one != PlanFeatures(("joins", "depth"), np.array([1.0, 3.0]))
    assert one.layout != PlanFeatures(("depth", "joins"), np.array([1.0, 2.0])).layout
    assert one["depth"] == 2.0


def test_plan_features_keep_their_own_numbers():
    numbers = np.array([1.0, 2.0])
    features = PlanFeatures(("joins", "depth"), numbers)
    numbers[0] = 9.0
    assert features["joins"] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        features.values[0] = 9.0


@pytest.mark.parametrize(
    ("names", "values"),
    [(("a",), [1.0, 2.0]), (("a", "a"), [1.0, 2.0]), (("a",), [np.nan]), (("a",), [[1.0]])],
)
def test_malformed_plan_features_are_refused(names, values):
    with pytest.raises(ValueError, match=r"names|finite"):
        PlanFeatures(names, np.array(values))


def test_answers_are_the_same_only_where_both_are_known():
    finished = PlanRun(RunOutcome.FINISHED, 0.1, rows=2, checksum="ab")
    assert finished.same_answer(PlanRun(RunOutcome.FINISHED, 0.9, rows=2, checksum="ab"))
    assert not finished.same_answer(PlanRun(RunOutcome.FINISHED, 0.1, rows=2, checksum="cd"))
    assert not finished.same_answer(PlanRun(RunOutcome.FINISHED, 0.1, rows=3, checksum="ab"))
    unknown = PlanRun(RunOutcome.TIMED_OUT, 0.1)
    assert unknown.timed_out
    assert not unknown.same_answer(unknown)


def test_hint_sets_of_one_plan_are_one_arm_and_refused_ones_none():
    assert distinct_arms(["x", "y", None, "x", "z", "y"]) == ((0, 3), (1, 5), (4,))
