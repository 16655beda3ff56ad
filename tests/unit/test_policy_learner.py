"""Level 1's learner at work: when it learns, what it records, what it deploys, what it proposes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from backend.config import Settings, load_settings
from backend.domain.clock import ManualClock
from backend.domain.modes import LEVEL_1
from backend.errors import StoreError
from backend.policy import networks
from backend.policy.recorded_trials import RecordedTrials
from backend.policy.updates import Candidate, learn_and_judge
from backend.policy.weights_files import WeightsFiles
from backend.policy_learner import MIN_TRANSITIONS, PolicyLearner
from backend.policy_versions import PolicyVersions
from backend.state_features import OFFERED_COLUMNS
from backend.telemetry import open_store
from backend.telemetry.store import SqlStore
from tests.learning.toy_planner import CATALOG
from tests.recorded_tuning import LOAD, SPACE, recorded, store_transitions, workload

WORKLOADS = [workload(seed) for seed in (0, 1)]


@dataclass
class Product:
    """A learner with a store and what it needs; ``stops`` makes its learning stop."""

    settings: Settings
    store: SqlStore
    clock: ManualClock = field(default_factory=ManualClock)
    stops: bool = False

    def __post_init__(self) -> None:
        self.versions = PolicyVersions(self.store, self.clock)
        if self.versions.go_on() is None:
            self.versions.succeed("server", "what stands", config={})
        self.learner = PolicyLearner(
            self.settings,
            SPACE,
            CATALOG,
            self.store,
            self.clock,
            self.versions,
            stopped=lambda: self.stops,
        )

    def again(self) -> Product:
        """The same after a restart."""
        return Product(self.settings, self.store, self.clock)

    def tune(self, data: RecordedTrials) -> None:
        store_transitions(self.store, self.clock, data)
        self.clock.advance(3600.0)

    @property
    def files(self) -> list[str]:
        folder = Path(self.settings.paths.policies_dir) / "weights"
        return sorted(path.name for path in folder.glob("*.npz"))


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    settings = load_settings(overrides={"paths": {"policies_dir": str(tmp_path)}}, environ={})
    with closing(open_store(f"sqlite:///{tmp_path}/telemetry.db")) as store:
        yield Product(settings, store)


@pytest.fixture(scope="module")
def tuned() -> RecordedTrials:
    return recorded(WORKLOADS, 40, seed=0)


@pytest.fixture(scope="module")
def candidate(tuned: RecordedTrials) -> Candidate:
    return learn_and_judge(tuned, None, OFFERED_COLUMNS, alpha=0.005, seed=0)


@pytest.fixture
def learnt(candidate: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates learn at once what ``tuned`` teaches, and with each of them a little more."""
    numbers = itertools.count()

    def learn(*_: object, **__: object) -> Candidate:
        policy = candidate.policy
        *layers, last = policy.network.layers
        network = replace(policy.network, layers=(*layers, last + 1e-6 * next(numbers)))
        return candidate._replace(policy=replace(policy, network=network))

    monkeypatch.setattr("backend.policy_learner.learn_and_judge", learn)


def test_it_is_due_after_the_interval(product: Product) -> None:
    assert not product.learner.due()
    product.clock.advance(3599.0)
    assert not product.learner.due()
    product.clock.advance(1.0)
    assert product.learner.due()
    assert product.learner.update() == []
    assert not product.learner.due()


def test_a_clock_that_runs_faster_is_due_earlier(product: Product) -> None:
    fast = PolicyLearner(
        product.settings, SPACE, CATALOG, product.store, product.clock, product.versions,
        time_scale=100.0,
    )  # fmt: skip
    product.clock.advance(36.0)
    assert fast.due()


def test_nothing_is_learnt_from_too_little(product: Product) -> None:
    product.tune(recorded(WORKLOADS[:1], MIN_TRANSITIONS - 1, seed=0))
    assert product.learner.update() == []
    assert product.store.policy_updates() == []


def test_what_is_better_is_deployed_and_proposed(product: Product, tuned: RecordedTrials) -> None:
    product.tune(tuned)
    state, default = WORKLOADS[0].state, SPACE.default_config()
    assert product.learner.propose(state, default) is None
    (record,) = product.learner.update()
    assert product.store.policy_updates() == [replace(record, id=1)]
    assert (record.policy, record.deployed, record.learnt_from) == ("knob", True, len(tuned))
    assert record.gain is not None
    assert record.gain_low is not None
    assert record.gain > record.gain_low > 0.0
    assert product.files == [record.weights]
    active = product.versions.newest()
    assert active is not None
    assert (active.author, dict(active.weights)) == (LEVEL_1, {"knob policy": record.weights})
    for learner in (product.learner, product.again().learner):
        for one in WORKLOADS:
            wanted = learner.propose(one.state, {**default, "other_knob": 7})
            assert wanted is not None
            assert wanted["other_knob"] == 7
            assert 0 < sum(wanted[name] != default[name] for name in default) < len(default)
            assert one.log_index(SPACE.encode({n: wanted[n] for n in SPACE.names})) < -0.05


@pytest.mark.usefixtures("learnt")
def test_states_that_differ_by_noise_get_few_answers(
    product: Product, tuned: RecordedTrials
) -> None:
    product.tune(tuned)
    product.learner.update()
    default, states = SPACE.default_config(), tuned.states[tuned.episodes == 0]
    answers = {product.learner.propose(state, default) for state in states}
    assert 1 <= len(answers - {None}) <= 4 < len(states)


@pytest.mark.usefixtures("learnt")
def test_it_does_not_speak_of_a_load_that_it_never_saw(
    product: Product, tuned: RecordedTrials
) -> None:
    product.tune(tuned)
    product.learner.update()
    strange = WORKLOADS[0].state.copy()
    strange[LOAD] *= 3.0
    assert product.learner.propose(strange, SPACE.default_config()) is None


@pytest.mark.usefixtures("learnt")
def test_the_same_records_are_not_learnt_from_twice(
    product: Product, tuned: RecordedTrials
) -> None:
    product.tune(tuned)
    assert len(product.learner.update()) == 1
    product.clock.advance(3600.0)
    assert product.learner.update() == []
    assert not product.learner.due()


def test_a_policy_does_not_replace_itself(product: Product, tuned: RecordedTrials) -> None:
    product.tune(tuned)
    product.learner.update()
    # A restart forgets what was learnt from: the same is learnt again.
    (record,) = product.again().learner.update()
    assert not record.deployed
    assert record.weights == ""
    assert record.replaced == product.files[0]


def test_what_is_not_better_is_recorded_and_not_deployed(product: Product) -> None:
    noise = recorded(WORKLOADS, 20, seed=0)
    gains = np.random.default_rng(0).normal(0.0, 0.1, len(noise))
    product.tune(replace(noise, gains=gains))
    (record,) = product.learner.update()
    assert not record.deployed
    assert record.reason
    assert product.files == []
    assert len(product.store.policy_versions()) == 1


def test_it_can_be_stopped_and_is_due_again(product: Product, tuned: RecordedTrials) -> None:
    product.tune(tuned)
    product.stops = True
    assert product.learner.update() == []
    assert product.learner.due()
    assert product.store.policy_updates() == []
    product.stops = False
    assert len(product.learner.update()) == 1


@pytest.mark.usefixtures("learnt")
def test_an_earlier_version_brings_its_weights_back(
    product: Product, tuned: RecordedTrials
) -> None:
    product.tune(tuned)
    product.learner.update()
    product.versions.deploy_weights({"knob policy": ""}, author="ann", note="back")
    assert product.learner.propose(WORKLOADS[0].state, SPACE.default_config()) is None
    product.versions.deploy_weights({"knob policy": product.files[0]}, author="ann", note="again")
    assert product.learner.propose(WORKLOADS[0].state, SPACE.default_config()) is not None


@pytest.mark.usefixtures("learnt")
def test_damaged_weights_are_told_and_left_alone(product: Product, tuned: RecordedTrials) -> None:
    product.tune(tuned)
    product.learner.update()
    path = Path(product.settings.paths.policies_dir) / "weights" / product.files[0]
    path.write_bytes(path.read_bytes()[:-7])
    again = product.again()
    for _ in range(2):
        assert again.learner.propose(WORKLOADS[0].state, SPACE.default_config()) is None
    told = [event for event in product.store.events() if event.level == "warning"]
    assert len(told) == 1
    assert "damaged" in told[0].message


STEPS = ["file", "record", "version"]


@pytest.mark.usefixtures("learnt")
@pytest.mark.parametrize("step", STEPS)
def test_whatever_fails_in_between_a_whole_policy_is_deployed(
    product: Product, tuned: RecordedTrials, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    product.tune(tuned)
    product.learner.update()
    before = product.versions.newest()
    assert before is not None
    product.tune(recorded(WORKLOADS, 10, seed=5))
    victims = {
        "file": (WeightsFiles, "write"),
        "record": (SqlStore, "add_policy_update"),
        "version": (SqlStore, "add_policy_version"),
    }

    def fail(*_: object, **__: object) -> None:
        raise StoreError("gone in the middle")

    with monkeypatch.context() as patched:
        patched.setattr(*victims[step], fail)
        with pytest.raises(StoreError):
            product.learner.update()
    again = product.again()
    assert again.versions.newest() == before
    assert len(product.store.policy_updates()) == 1
    assert again.learner.propose(WORKLOADS[0].state, SPACE.default_config()) is not None
    (record,) = again.learner.update()
    assert record.replaced == before.weights["knob policy"]
    assert again.versions.weights["knob policy"] == record.weights != record.replaced


def test_learning_asks_often_whether_to_stop(
    product: Product, tuned: RecordedTrials, monkeypatch: pytest.MonkeyPatch
) -> None:
    product.tune(tuned)
    asked = []
    monkeypatch.setattr(networks, "STEPS_AT_ONCE", 50)
    learner = PolicyLearner(
        product.settings, SPACE, CATALOG, product.store, product.clock, product.versions,
        stopped=lambda: bool(asked.append(1)),
    )  # fmt: skip
    learner.update()
    assert len(asked) == (150 + 300) / 50
