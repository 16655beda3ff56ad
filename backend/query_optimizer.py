"""The plan agent: a deep Q-network that searches better plans for queries it has never run.

A search is an episode. It begins with the plan that the server makes by itself; an action turns
on one toggle of the hint-set catalogue, for which the agent reads an EXPLAIN, or stops. The reward
of a stop is ``ln(default latency / latency)`` of the plan it stopped at, that of a step a small
cost; a plan several toggles away is worth the discounted value of the way to it. Deep Q-network
with experience replay and target networks after Mnih et al. 2015
(https://doi.org/10.1038/nature14236), the target after double DQN (van Hasselt et al. 2016,
https://arxiv.org/abs/1509.06461). Made for a few hundred measured plans: an ensemble whose
members are each kept from some query classes says what is not known, values are backed up only
through actions that were recorded, and the default plan is preferred unless a gain is clear.
Formulas, logged quantities and deviations: docs/plan-agent.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from backend.agent.checkpoint import REMEDY, damaged, read_checkpoint, write_checkpoint
from backend.catalog.hint_sets import HintSetCatalog
from backend.domain.plans import DEFAULT_HINT_SET, ExplainedPlan, Guess, HintSet
from backend.errors import CheckpointError
from backend.plan_agent.belief import Belief, CheckedPlans
from backend.plan_agent.networks import QEnsemble
from backend.plan_agent.replay import PlanReplay, Transitions
from backend.plan_agent.settings import PlanAgentSettings
from backend.plan_agent.states import (
    FloatArray,
    Outcome,
    QueryRecord,
    StateEncoder,
    Step,
    ToggleSet,
)
from backend.plan_agent.toggles import ToggleSpace, dearer, parts
from backend.steering.plans.plan_features import FEATURE_NAMES

__all__ = ["CHECKPOINT_FILE", "Guess", "PlanAgent", "PlanAgentSettings", "PlanLearning"]

CHECKPOINT_FILE = "plan_agent.npz"
FORMAT = 2

PlanOf = Callable[[HintSet], ExplainedPlan | None]
"""EXPLAIN under a hint set; None where the planner took too long or refused."""


@dataclasses.dataclass(frozen=True)
class PlanLearning:
    """What a call of :meth:`PlanAgent.learn` did; see docs/plan-agent.md for each quantity."""

    updates: int
    statements: int
    outcomes: int
    transitions: int
    loss: float | None
    value: float
    trust: float
    planner_trust: float
    shortfall: float


def checkpoint_fingerprint(catalog: HintSetCatalog) -> str:
    """What weights and replay are bound to: toggles and their settings, plan features."""
    settings = [(name, sorted(t.settings.items())) for name, t in catalog.toggles.items()]
    return hashlib.sha256(repr((settings, FEATURE_NAMES)).encode()).hexdigest()[:16]


class PlanAgent:
    """Guesses hint sets for a query and learns from what became of them.

    Args:
        catalog: the toggles that may be turned on.
        seed: same seed and same calls, same guesses.
        settings: see :class:`PlanAgentSettings`.

    Attributes:
        toggles: which sets of toggles, and so which actions, are legal.
        belief: what is left of the gain that the networks expect of classes never seen.
    """

    def __init__(
        self, catalog: HintSetCatalog, seed: int = 0, *, settings: PlanAgentSettings | None = None
    ) -> None:
        self.seed = seed
        self.settings = s = settings or PlanAgentSettings()
        self.belief = Belief()
        self._rng = np.random.default_rng(seed)
        self.toggles = ToggleSpace(catalog, s.max_toggles)
        self._stop = len(self.toggles)  # the action after those of the toggles
        self._encoder = StateEncoder(len(self.toggles), len(FEATURE_NAMES))
        self._replay = PlanReplay(s.buffer_size)
        self._updates = 0
        self._networks = QEnsemble(
            self._encoder.width,
            self._stop + 1,
            hidden_layers=s.hidden_layers,
            members=s.ensemble_size,
            learning_rate=s.learning_rate,
            gamma=s.gamma,
            weight_decay=s.weight_decay,
            prior_scale=s.prior_scale,
            seed=seed,
        )

    # -- the search ---------------------------------------------------------------------------

    def first_guess(self, query_class: str, plan_of: PlanOf) -> list[Guess]:
        """Search from the default plan and rank what was found on the way.

        Steps are chosen with optimism, since an EXPLAIN costs little; stops with caution, since a
        slow plan costs much. Nothing is run.

        Args:
            query_class: as in :meth:`tell`; it need not be known.
            plan_of: asked for the plans of the steps, ``settings.max_explains`` times at most.

        Returns:
            Hint sets of different plans by their promise, best first. The default plan is among
            them and stands before every hint set whose promise is not above
            ``settings.clear_gain``: the first one is the guess.

        Raises:
            ValueError: a plan has other features than :data:`FEATURE_NAMES`.
        """
        default = self._explain(frozenset(), plan_of)
        if default is None:  # nothing to begin with, nothing to compare with
            return [Guess(DEFAULT_HINT_SET, "", 0.0, 0.0, self.settings.clear_gain, True)]
        record = self._record_of(query_class, default)
        others = self._replay.of_class(query_class)
        known = self._encoder.known([(other, frozenset(other.outcomes)) for other in others])
        guesses: dict[str, Guess] = {}
        seen: dict[ToggleSet, Step | None] = {**record.steps, frozenset(): default}
        taken = {frozenset[int]()}
        ways: dict[ToggleSet, float] = {}  # steps not yet taken → their value

        def arrive(on: ToggleSet, step: Step) -> None:
            """Judge a new plan, and the steps that lead on from it."""
            state = self._encoder(default, step, on, record.outcomes, known)
            values = self._networks.values(state[None])[:, 0]
            believed = self.belief.gain(values[:, self._stop], dearer(on, seen))
            guesses[step.plan_hash] = self._guess(on, step, record, believed)
            optimistic = values.mean(axis=0) + values.std(axis=0)
            for toggle in np.flatnonzero(self.toggles.legal(on)[: self._stop]):
                if (onward := on | {int(toggle)}) not in taken:
                    ways[onward] = max(ways.get(onward, -math.inf), float(optimistic[toggle]))

        arrive(frozenset(), default)
        for way, known_step in sorted(record.steps.items(), key=lambda item: len(item[0])):
            plan_hash = known_step.plan_hash
            if plan_hash in record.outcomes and plan_hash not in guesses:
                taken.add(way)
                ways.pop(way, None)
                arrive(way, known_step)  # measured: known without an EXPLAIN
        # Before anything was learnt there is nothing to follow.
        explains_left = self.settings.max_explains - 1 if self._updates else 0
        while ways:
            on = max(ways, key=lambda on: (ways[on], -len(on), sorted(on)))
            # The default plan's head start is for what is served, not for what is looked at.
            best = max(0.0 if g.hint_set.is_default else g.promise for g in guesses.values())
            # What its toggles cost alone is needed to judge a plan.
            wanted = [way for way in {on, *(frozenset({one}) for one in on)} if way not in seen]
            explains_left -= len(wanted)
            if ways.pop(on) <= best or explains_left < 0:
                break
            taken.add(on)
            for way in wanted:
                seen[way] = self._explain(way, plan_of)
            step = seen[on]
            if step is not None and step.plan_hash not in guesses:
                arrive(on, step)
        return sorted(guesses.values(), key=lambda guess: -guess.promise)

    def _guess(self, on: ToggleSet, step: Step, record: QueryRecord, believed: FloatArray) -> Guess:
        """What to expect of a plan: its measurement, or the members' values within its bound."""
        s = self.settings
        gain, spread = float(believed.mean()), math.hypot(believed.std(), self.belief.shortfall)
        promise, measured = gain - s.caution * spread, False
        outcome = record.outcomes.get(step.plan_hash)
        if step.plan_hash == record.default_hash:
            gain, spread, promise, measured = 0.0, 0.0, s.clear_gain, True
        elif outcome is not None and outcome.censored:
            gain, promise = min(gain, outcome.gain), min(promise, outcome.gain)
        elif outcome is not None:
            gain, spread, promise, measured = outcome.gain, 0.0, outcome.gain, True
        return Guess(self.toggles.hint_set(on), step.plan_hash, -gain, spread, promise, measured)

    # -- experience -----------------------------------------------------------------------------

    def tell(
        self,
        query_class: str,
        hint_set: HintSet,
        log_ratio: float,
        plan_of: PlanOf,
        *,
        timed_out: bool = False,
    ) -> None:
        """Record a measured outcome, with the plans of every way that leads to it.

        A class's statements are told from each other by the hash of their default plans: other
        parameters, other data or new statistics are another statement of the class.

        Args:
            query_class: what the statement is, whatever its parameters (its fingerprint, say).
            hint_set: what was run; it need not have been guessed.
            log_ratio: ln(latency ÷ default latency), both of the same data; below 0 is faster.
            plan_of: asked for those plans between the default one and this that are not known.
            timed_out: the latency is only a lower bound (its logarithm may be below 0, where the
                time-out was shorter than the default plan takes).

        Raises:
            ValueError: the log ratio is not finite, there is no plan, or it has other features.
            CatalogError: the hint set is not made of at most ``settings.max_toggles`` toggles.
        """
        if not math.isfinite(log_ratio):
            raise ValueError(f"log_ratio = {log_ratio} must be finite")
        on = self.toggles.toggles(hint_set)
        default, step = self._explain(frozenset(), plan_of), self._explain(on, plan_of)
        if default is None or step is None:
            raise ValueError(f"no plan for {hint_set.name}: nothing can be learnt from its run")
        record = self._record_of(query_class, default)
        steps = {frozenset[int](): default, on: step}
        for way in parts(on):
            if way not in record.steps and (between := self._explain(way, plan_of)) is not None:
                steps[way] = between
        for way, found in steps.items():
            if way not in record.steps:
                self._encoder.observe(default, found)
            record.steps[way] = found
        if step.plan_hash != record.default_hash:
            clip = self.settings.reward_clip
            told = Outcome(float(np.clip(-log_ratio, -clip, clip)), timed_out)
            before = record.outcomes.get(step.plan_hash)
            record.outcomes[step.plan_hash] = told if before is None else before.with_later(told)
        self._replay.keep(query_class, record)

    def _record_of(self, query_class: str, default: Step) -> QueryRecord:
        """What is known of a statement; of an unknown one, an empty record.

        Which networks are kept from a class is drawn once: at least one, and not all.
        """
        known = self._replay.records.get((query_class, default.plan_hash))
        if known is not None:
            return known
        members = self.settings.ensemble_size
        count = min(max(round(self.settings.left_out * members), 1), members - 1)
        digest = hashlib.sha256(f"{self.seed} {query_class}".encode()).digest()
        order = np.random.default_rng(list(digest)).permutation(members)
        return QueryRecord(default.plan_hash, order < count)

    # -- learning -------------------------------------------------------------------------------

    def learn(self, updates: int = 1000) -> PlanLearning:
        """Update the networks on batches from the replay, and check guesses on unseen queries.

        Args:
            updates: of all networks; the target networks follow every
                ``settings.target_update`` of them. With nothing told, nothing changes.
        """
        s, replay = self.settings, self._replay
        if not replay.outcomes:
            return PlanLearning(
                0, len(replay.records), 0, 0, None, 0.0, **dataclasses.asdict(self.belief)
            )
        told = replay.transitions(self._encoder, s.step_cost, self._rng)
        loss = None
        for start in range(0, updates, s.target_update):
            batches = told.draw(min(s.target_update, updates - start), s.batch_size, self._rng)
            loss = self._networks.train(told, batches)
        self._updates += updates
        value = self._check_guesses(told)
        return PlanLearning(
            updates,
            len(replay.records),
            replay.outcomes,
            len(told.actions),
            loss,
            value,
            **dataclasses.asdict(self.belief),
        )

    def _check_guesses(self, told: Transitions) -> float:
        """Set the belief; return the default plans' mean value with nothing known.

        Of every measured plan, the networks that never saw its class are asked. How much of what
        they expected came true is what to allow for: the spread of the networks alone does not
        know of what no plan's numbers tell, nor that the best of many guesses is the one most
        overrated.
        """
        values = self._networks.values(told.states)
        unseen = np.flatnonzero(told.stops & told.fresh & ~told.default)
        kept_from = ~told.seen_by[:, unseen]
        stops = values[:, told.origin[unseen], self._stop]
        self.belief = Belief.checked(
            CheckedPlans(
                told.classes[unseen],
                told.statements[unseen],
                (stops * kept_from).sum(axis=0) / kept_from.sum(axis=0),
                told.dearer[told.origin[unseen]],
                told.rewards[unseen],
                told.censored[unseen],
            )
        )
        first = np.flatnonzero(told.stops & told.fresh & told.default)
        starts = values[:, told.origin[first]].mean(axis=0)
        possible = told.recorded[told.origin[first]]
        return float(np.where(possible, starts, -np.inf).max(axis=1).mean())

    def _explain(self, on: ToggleSet, plan_of: PlanOf) -> Step | None:
        plan = plan_of(self.toggles.hint_set(on))
        if plan is None:
            return None
        if plan.features.names != FEATURE_NAMES:
            raise ValueError(f"a plan of layout {plan.features.layout}, not of FEATURE_NAMES")
        return Step(plan.plan_hash, plan.features.values)

    # -- checkpoints ------------------------------------------------------------------------------

    @property
    def _fingerprint(self) -> str:
        return checkpoint_fingerprint(self.toggles.catalog)

    def save(self, folder: Path | str) -> None:
        """Write everything that :meth:`load` needs to go on as if nothing had happened.

        One file, replaced in one step; no pickle in it.
        """
        about = {
            "format": FORMAT,
            "fingerprint": self._fingerprint,
            "seed": self.seed,
            "settings": dataclasses.asdict(self.settings),
            "rng": self._rng.bit_generator.state,
            "updates": self._updates,
            "belief": dataclasses.asdict(self.belief),
            "replay": self._replay.about(),
        }
        arrays = {f"networks.{name}": array for name, array in self._networks.arrays().items()}
        arrays |= {f"plans.{name}": array for name, array in self._encoder.plans.arrays().items()}
        arrays["replay"] = self._replay.features(len(FEATURE_NAMES))
        write_checkpoint(Path(folder) / CHECKPOINT_FILE, about, arrays)

    @classmethod
    def load(cls, folder: Path | str, catalog: HintSetCatalog) -> PlanAgent:
        """Restore what :meth:`save` wrote.

        Raises:
            CheckpointError: there is none, it is damaged, or of other toggles or plan features.
        """
        path = Path(folder) / CHECKPOINT_FILE
        about, arrays = read_checkpoint(path)
        try:
            agent = cls(catalog, about["seed"], settings=PlanAgentSettings(**about["settings"]))
            if (about["format"], about["fingerprint"]) != (FORMAT, agent._fingerprint):
                raise CheckpointError(
                    f"{path} is of another format, or of other toggles or plan features",
                    remedy=REMEDY,
                )
            agent._rng.bit_generator.state = about["rng"]
            agent._updates = int(about["updates"])
            agent.belief = Belief(**{name: float(x) for name, x in about["belief"].items()})
            agent._replay.restore(about["replay"], np.asarray(arrays["replay"], np.float64))
            for part, owner in (("networks.", agent._networks), ("plans.", agent._encoder.plans)):
                owner.restore({n.removeprefix(part): a for n, a in arrays.items() if part in n})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, error) from error
        return agent
