"""The live exploration on a made-up server: its course, hostile outcomes, restarts, freshness."""

from __future__ import annotations

import logging
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from backend.domain.plans import Guess, HintSet, RunOutcome
from backend.domain.steering import RunPurpose, SteeringMode, SteeringState
from backend.errors import ServerConnectionError, StoreError
from tests.exploring import TOGGLES, Behaviour, MadeUpClass, World, small_catalog


def slow(**others: Behaviour) -> MadeUpClass:
    """A class of 2 s whose other plans take twice as long, but for those named."""
    return MadeUpClass("slow", Behaviour(2.0), {**others})


# -- the course of a class ------------------------------------------------------------------------


def test_the_fastest_plan_is_found_verified_and_recorded() -> None:
    world = World(slow(no_nestloop=Behaviour(1.2), no_seqscan=Behaviour(0.3)))
    world.work()
    record = world.record("slow")
    assert record.state is SteeringState.VERIFIED
    assert record.evidence is not None
    assert record.evidence.hint_set == "no_seqscan"
    assert record.evidence.settings == {"enable_seqscan": "off"}
    assert record.evidence.under == {"enable_seqscan": "on"}
    assert record.evidence.effect == pytest.approx(0.3 / 2.0 - 1.0)
    assert (record.evidence.default_plan, record.evidence.steered_plan) == ("default", "no_seqscan")
    assert record.plans == 1 + len(TOGGLES)
    assert record.default_ms == pytest.approx(2000.0)
    probes = [run for run in world.store.runs if run.purpose is RunPurpose.PROBE]
    assert record.probes == len(probes)
    assert 0.0 < record.explored_s <= world.exploration.spent_s


def test_every_run_is_stored_with_the_plan_it_was_of() -> None:
    world = World(slow(no_seqscan=Behaviour(0.3)))
    world.work()
    assert len(world.store.runs) >= len(world.server.ran) - 2 * 8  # warming runs of a verification
    by_plan = {run.plan_hash: run.hint_set for run in world.store.runs if run.plan_hash}
    assert len(set(by_plan.values())) == len(by_plan)
    assert {len(run.statement) for run in world.store.runs} == {32}
    verification = [r for r in world.store.runs if r.purpose is RunPurpose.VERIFICATION]
    assert len({run.statement for run in verification}) == 3
    assert "SELECT" not in repr(world.store.runs)


def test_no_plan_may_run_longer_than_the_limit_and_probes_no_longer_than_the_best() -> None:
    world = World(slow(no_seqscan=Behaviour(0.3)), max_timeout_s=5.0)
    world.work()
    assert max(timeout_s for _, _, timeout_s in world.server.ran) <= 5.0


def test_plans_that_pass_the_limit_are_given_up() -> None:
    world = World(
        MadeUpClass("long", Behaviour(4.0), {toggle: Behaviour(99.0) for toggle in TOGGLES}),
        *(MadeUpClass(f"quick_{number}", Behaviour(0.1)) for number in range(3)),
        max_timeout_s=5.0,
    )
    world.work()
    assert world.record("long").state is SteeringState.DEFAULT_BEST
    assert max(world.runs("long", toggle) for toggle in TOGGLES) < 10


def test_a_short_statement_is_not_judged_by_a_run_with_cold_caches() -> None:
    faster = Behaviour(0.01)
    world = World(MadeUpClass("short", Behaviour(0.08), {"no_seqscan": faster}))

    def read_from_disk_first(name: str, hint_set: HintSet) -> None:
        if hint_set.name == "no_seqscan":
            faster.latency_s = 0.01 if world.runs("short", "no_seqscan") else 0.5

    world.server.before_run = read_from_disk_first
    world.work()
    assert world.record("short").state is SteeringState.VERIFIED


def test_where_nothing_is_faster_the_default_plan_is_best_and_rests() -> None:
    world = World(slow(no_sort=Behaviour(1.95)))
    world.work()
    record = world.record("slow")
    assert record.state is SteeringState.DEFAULT_BEST
    assert record.reason == "none of 6 other plans was 10% faster on trial"
    ran = len(world.server.ran)
    world.clock.advance(3600.0)
    world.work()
    assert len(world.server.ran) == ran  # its default plan is explained, nothing runs


def test_where_all_hint_sets_lead_to_the_default_plan_nothing_is_tried() -> None:
    world = World(MadeUpClass("lookup", Behaviour(0.001), same_as_default=set(TOGGLES)))
    world.work()
    record = world.record("lookup")
    assert (record.state, record.plans) == (SteeringState.DEFAULT_BEST, 1)
    assert record.reason == "all hint sets lead to the default plan"
    assert {hint_set for _, hint_set, _ in world.server.ran} == {"default"}


def test_hint_sets_of_one_plan_are_tried_once_and_the_simplest_is_served() -> None:
    catalog = small_catalog()
    both = catalog.combine(["no_seqscan", "no_sort"])
    hint_sets = (catalog.hint_sets[0], both, *catalog.hint_sets[1:])
    made_up = slow(no_seqscan=Behaviour(0.3))
    plan = made_up.plan
    made_up.plan = lambda h: "no_seqscan" if h == both else plan(h)  # type: ignore[method-assign]
    world = World(made_up, catalog=type(catalog)(**{**vars(catalog), "hint_sets": hint_sets}))
    world.work()
    assert world.record("slow").plans == 7
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert evidence.hint_set == "no_seqscan"
    assert world.runs("slow", both.name) == 0


def test_the_most_valuable_class_is_taken_up_first() -> None:
    world = World(slow(), MadeUpClass("quick", Behaviour(0.1)))
    world.work(until=lambda: bool(world.server.ran))
    assert world.server.ran[0][0] == "slow"


def test_what_saves_most_for_its_use_is_verified_first() -> None:
    frequent = MadeUpClass("frequent", Behaviour(0.1), {"no_seqscan": Behaviour(0.06)}, weight=1e3)
    rare = MadeUpClass("rare", Behaviour(0.1), {"no_seqscan": Behaviour(0.01)}, weight=1.0)
    world = World(frequent, rare)
    probe = world.exploration._probe
    world.exploration._probe = lambda ready, probe: False  # type: ignore[method-assign]
    world.work()  # both are prepared
    world.exploration._probe = probe  # type: ignore[method-assign]
    verified: list[str] = []
    world.work(until=lambda: bool(verified.append(world.exploration.activity)))
    names = [said.split()[6] for said in verified if said.startswith("verifying")]
    assert list(dict.fromkeys(names)) == ["frequent", "rare"]


def test_activity_says_what_is_tried() -> None:
    world = World(slow(no_seqscan=Behaviour(0.3)))
    said = []
    world.work(until=lambda: bool(said.append(world.exploration.activity)))
    assert "judging SELECT $1 FROM slow" in said
    assert any(s.startswith("trying no_") and s.endswith("of 6 plans)") for s in said)
    assert any(s.startswith("verifying no_seqscan on SELECT $1 FROM slow (") for s in said)
    assert world.exploration.activity == "no plan is worth trying now"


# -- what may not be tried ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made_up", "reason"),
    [
        (MadeUpClass("c", refusal="now is volatile"), "now is volatile"),
        (MadeUpClass("c", unexplained={"default"}), "the server takes too long to plan it"),
        (MadeUpClass("c", Behaviour(99.0)), "its default plan takes longer than 30 s"),
        (
            MadeUpClass("c", Behaviour(1.0, RunOutcome.TOO_LARGE)),
            "its answer is too large to compare",
        ),
        (
            MadeUpClass("c", Behaviour(1.0, RunOutcome.FAILED, detail="bad 'Anna' (22P02)")),
            "the server refuses it (SQLSTATE 22P02)",
        ),
        (
            MadeUpClass("c", broken="permission denied for table c (42501)"),
            "the role that tries statements may not read all that it reads",
        ),
    ],
)
def test_a_class_that_cannot_be_tried_is_refused_with_the_reason(
    made_up: MadeUpClass, reason: str
) -> None:
    world = World(made_up)
    world.work()
    assert world.record("c").state is SteeringState.REFUSED
    assert world.record("c").reason == reason
    ran = len(world.server.ran)
    world.clock.advance(23 * 3600.0)
    world.work()
    assert len(world.server.ran) == ran


@pytest.mark.parametrize("mode", [SteeringMode.OFF, SteeringMode.PIN])
def test_what_a_human_decided_about_is_not_explored(mode: SteeringMode) -> None:
    world = World(slow(no_seqscan=Behaviour(0.3)))
    world.work()
    world.register.set_mode(world.record("slow").key, mode)
    ran = len(world.server.ran)
    world.clock.advance(2 * 86_400.0)
    world.work()
    assert len(world.server.ran) == ran


# -- hostile outcomes -----------------------------------------------------------------------------


def test_a_faster_plan_with_another_answer_never_counts() -> None:
    world = World(slow(no_seqscan=Behaviour(0.1, answer="wrong"), no_sort=Behaviour(0.8)))
    world.work()
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert evidence.hint_set == "no_sort"
    stored = [run.outcome for run in world.store.runs if run.hint_set == "no_seqscan"]
    assert set(stored) == {RunOutcome.FAILED}


def test_where_all_faster_plans_give_another_answer_the_reason_says_so() -> None:
    world = World(slow(no_seqscan=Behaviour(0.1, answer="wrong")))
    world.work()
    assert world.record("slow").state is SteeringState.DEFAULT_BEST
    assert world.record("slow").reason.endswith("faster on trial; 1 gave another answer")


def test_an_answer_that_changed_with_the_data_is_compared_in_one_snapshot() -> None:
    made_up = slow(no_seqscan=Behaviour(0.3))
    world = World(made_up)

    def write(name: str, hint_set: HintSet) -> None:
        if not world.server.ran or world.server.ran[-1][1] == "default":
            return  # the second run of a snapshot sees what the first one saw
        made_up.default.answer = made_up.others["no_seqscan"].answer = f"{len(world.server.ran)}"

    world.server.before_run = write
    world.work(until=lambda: world.exploration.activity.startswith("verifying"))
    compared = [b for a, b in pairwise(world.server.ran)
                if a[1] == "default" and b[1] == "no_seqscan"]  # fmt: skip
    assert compared
    assert {r.outcome for r in world.store.runs if r.hint_set == "no_seqscan"} == {
        RunOutcome.FINISHED
    }


@pytest.mark.parametrize("outcome", [RunOutcome.FAILED, RunOutcome.TOO_LARGE])
def test_an_arm_that_fails_is_closed_and_the_others_are_tried(outcome: RunOutcome) -> None:
    world = World(slow(no_seqscan=Behaviour(0.1, outcome), no_sort=Behaviour(0.8)))
    world.work()
    assert world.runs("slow", "no_seqscan") <= 1
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert evidence.hint_set == "no_sort"


@pytest.mark.parametrize("outcome", [RunOutcome.LOCKED, RunOutcome.CANCELLED])
def test_a_lock_teaches_nothing_and_the_class_rests_ever_longer(outcome: RunOutcome) -> None:
    locked = Behaviour(0.3, outcome)
    world = World(
        slow(no_seqscan=locked, **{t: Behaviour(9.0) for t in TOGGLES if t != "no_seqscan"})
    )
    world.work()
    tried_at = []
    for _ in range(400):
        before = world.runs("slow", "no_seqscan")
        world.clock.advance(30.0)
        world.work()
        if world.runs("slow", "no_seqscan") > before:
            tried_at.append(world.clock.monotonic_s())
    pauses = [b - a for a, b in pairwise(tried_at)]
    assert pauses[0] < pauses[2] <= pauses[-1] <= 3700.0
    assert world.record("slow").state is SteeringState.EXPLORING
    locked.outcome = RunOutcome.FINISHED
    world.clock.advance(3700.0)
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED


def test_while_a_class_rests_others_are_explored() -> None:
    locked = MadeUpClass("locked", Behaviour(1.0, RunOutcome.LOCKED))
    world = World(locked, slow(no_seqscan=Behaviour(0.3)))
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED
    assert world.record("locked").state is SteeringState.EXPLORING


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("while_doing", ["trying", "comparing", "verifying"])
def test_a_plan_that_ends_the_server_is_not_tried_again(restarted: bool, while_doing: str) -> None:
    world = World(slow(no_seqscan=Behaviour(0.3), no_sort=Behaviour(1.0)))

    def crash(name: str, hint_set: HintSet) -> None:
        doing = world.exploration.activity.startswith(while_doing)
        if doing and hint_set.name == "no_seqscan":
            raise ServerConnectionError("lost the connection to the server")

    world.server.before_run = crash
    with pytest.raises(ServerConnectionError):
        world.work()
    ran = world.runs("slow", "no_seqscan")
    world.server.before_run = lambda name, hint_set: None
    if restarted:
        world.restart()
    world.clock.advance(61.0)
    world.work()
    assert world.runs("slow", "no_seqscan") == ran
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert evidence.hint_set == "no_sort"


def test_three_plans_that_were_not_proven_and_the_default_plan_is_left_alone() -> None:
    fast = {toggle: Behaviour(0.5 + i / 10) for i, toggle in enumerate(TOGGLES)}
    world = World(slow(**fast))
    verifying: list[str] = []

    def slower_when_verified(name: str, hint_set: HintSet) -> None:
        if world.exploration.activity.startswith("verifying") and not hint_set.is_default:
            verifying.append(hint_set.name)
            fast[hint_set.name].latency_s = 2.5

    world.server.before_run = slower_when_verified
    world.work()
    record = world.record("slow")
    assert record.state is SteeringState.DEFAULT_BEST
    assert len(set(verifying)) == 3
    assert record.reason.startswith(f"{verifying[-1]} was not proven: ")


# -- restarts -------------------------------------------------------------------------------------


def test_after_a_restart_nothing_is_measured_twice() -> None:
    world = World(slow(**({t: Behaviour(9.0) for t in TOGGLES} | {"no_sort": Behaviour(1.9)})))
    world.work(until=lambda: len({h for _, h, _ in world.server.ran}) >= 4)
    world.exploration._log.store_all()
    tried = {(h, t) for _, h, t in world.server.ran if h != "default"}
    ran = len(world.server.ran)
    world.restart()
    world.work()
    again = world.server.ran[ran:]
    assert "default" not in [hint_set for _, hint_set, _ in again]
    assert not tried & {(h, t) for _, h, t in again}
    assert world.record("slow").state is SteeringState.DEFAULT_BEST


def test_after_a_restart_what_was_not_proven_is_not_verified_again() -> None:
    faster = Behaviour(0.3)
    world = World(slow(no_seqscan=faster))

    def slower_when_verified(name: str, hint_set: HintSet) -> None:
        if world.exploration.activity.startswith("verifying"):
            faster.latency_s = 2.5

    world.server.before_run = slower_when_verified
    world.work(until=lambda: any(r.purpose is RunPurpose.VERIFICATION for r in world.store.runs))
    assert world.record("slow").state is SteeringState.EXPLORING
    faster.latency_s = 0.3
    ran = len(world.server.ran)
    world.restart()
    world.work()
    assert world.record("slow").state is SteeringState.DEFAULT_BEST
    assert world.record("slow").reason == "no_seqscan was not proven before"
    assert "no_seqscan" not in [hint_set for _, hint_set, _ in world.server.ran[ran:]]


def test_after_a_restart_what_belongs_to_another_default_plan_is_measured_anew() -> None:
    made_up = slow(no_seqscan=Behaviour(0.3))
    world = World(made_up)
    world.work(until=lambda: world.exploration.activity.startswith("trying"))
    world.exploration._log.store_all()
    made_up.version = " after analyze"
    ran = len(world.server.ran)
    world.restart()
    world.work()
    assert "default" in [hint_set for _, hint_set, _ in world.server.ran[ran : ran + 3]]
    assert world.record("slow").state is SteeringState.VERIFIED


def test_runs_that_the_store_refused_are_stored_later() -> None:
    world = World(slow(no_seqscan=Behaviour(0.3)))
    add, refused = world.store.add_plan_runs, []

    def fail(runs: Any) -> None:
        refused.append(len(runs))
        raise StoreError("the store is locked")

    world.store.add_plan_runs = fail  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        world.work()
    world.store.add_plan_runs = add  # type: ignore[method-assign]
    world.work()
    assert refused
    assert world.record("slow").state is SteeringState.VERIFIED
    probes = [run for run in world.store.runs if run.purpose is RunPurpose.PROBE]
    assert world.record("slow").probes == len(probes)


# -- the plan agent -------------------------------------------------------------------------------


class Agent:
    """Guesses a hint set of its own, and remembers what it is told."""

    def __init__(self, hint_set: HintSet) -> None:
        self.hint_set = hint_set
        self.told: list[tuple[str, float, bool]] = []
        self.fails = ""

    def first_guess(self, query_class: str, plan_of: Any) -> list[Guess]:
        if self.fails == "first_guess":
            raise RuntimeError("no weights")
        plan = plan_of(self.hint_set)
        return [Guess(self.hint_set, plan.plan_hash, -1.0, 0.1, 1.0, False)]

    def tell(
        self, query_class: str, hint_set: HintSet, log_ratio: float, plan_of: Any, *,
        timed_out: bool = False,
    ) -> None:  # fmt: skip
        if self.fails == "tell":
            raise RuntimeError("no weights")
        assert plan_of(hint_set) is not None
        self.told.append((hint_set.name, log_ratio, timed_out))


def test_the_agents_guess_is_tried_first_also_where_the_catalogue_lacks_it() -> None:
    guess = small_catalog().combine(["no_seqscan", "no_sort"])
    agent = Agent(guess)
    world = World(slow(**{guess.name: Behaviour(0.25), "no_sort": Behaviour(1.0)}), agent=agent)
    world.work()
    first = next(ran for ran in world.server.ran if ran[1] != "default")
    assert first == ("slow", guess.name, pytest.approx(2.0))
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert evidence.hint_set == guess.name
    assert (guess.name, pytest.approx(-2.079, abs=0.01), False) in agent.told
    assert {name for name, _, timed_out in agent.told if timed_out} >= {"no_nestloop"}


@pytest.mark.parametrize("fails", ["first_guess", "tell"])
def test_an_agent_that_fails_is_left_out_and_named_once(
    fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(small_catalog().hint_sets[1])
    agent.fails = fails
    world = World(slow(no_seqscan=Behaviour(0.3)), agent=agent)
    with caplog.at_level(logging.ERROR):
        world.work()
    assert world.record("slow").state is SteeringState.VERIFIED
    assert [r.message for r in caplog.records] == [
        "the plan agent failed, exploration goes on without it"
    ]


# -- freshness ------------------------------------------------------------------------------------


def verified() -> tuple[World, MadeUpClass]:
    made_up = slow(no_seqscan=Behaviour(0.3))
    world = World(made_up)
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED
    return world, made_up


def test_other_settings_in_force_and_what_was_verified_is_verified_again() -> None:
    world, _ = verified()
    before = world.record("slow").evidence
    states = set()
    world.server.settings["work_mem"] = "64MB"
    world.clock.advance(11.0)
    world.work(until=lambda: bool(states.add(world.record("slow").state)))
    after = world.record("slow").evidence
    assert states == {SteeringState.VERIFIED}
    assert before is not None
    assert after is not None
    assert after.verified_at > before.verified_at


def test_what_is_not_proven_again_is_withdrawn_and_explored_after_a_while() -> None:
    world, made_up = verified()
    made_up.others["no_seqscan"].latency_s = 3.0
    made_up.others["no_sort"] = Behaviour(0.5)
    world.server.settings["work_mem"] = "64MB"
    world.clock.advance(11.0)
    world.work()
    assert world.record("slow").state is SteeringState.WITHDRAWN
    assert world.record("slow").reason.startswith("verified again: ")
    world.clock.advance(601.0)
    world.work()
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert (world.record("slow").state, evidence.hint_set) == (SteeringState.VERIFIED, "no_sort")


def test_in_the_midst_of_a_search_what_still_holds_is_taken_over_under_new_settings() -> None:
    world = World(slow(**{toggle: Behaviour(9.0) for toggle in TOGGLES}))
    world.work(until=lambda: len({ran[1] for ran in world.server.ran}) >= 4)
    ran, explained = len(world.server.ran), len(world.server.explained)
    world.server.settings["work_mem"] = "64MB"
    world.clock.advance(11.0)
    world.work()
    assert len(world.server.explained) == explained + 1 + len(TOGGLES)
    assert "default" not in [hint_set for _, hint_set, _ in world.server.ran[ran:]]
    assert world.record("slow").state is SteeringState.DEFAULT_BEST


def test_settings_that_changed_while_nobody_looked_are_noticed_after_a_restart() -> None:
    world, _ = verified()
    world.server.settings["enable_seqscan"] = "off"
    ran = len(world.server.ran)
    world.restart()
    world.work()
    assert len(world.server.ran) > ran


def test_a_withdrawn_class_is_explored_anew_ever_later() -> None:
    world, _ = verified()
    pauses = []
    for _ in range(10):
        world.register.withdraw(world.record("slow").key, "slower in service")
        ran, began_s = len(world.server.ran), world.clock.monotonic_s()
        while len(world.server.ran) == ran:
            world.clock.advance(60.0)
            world.work(until=lambda ran=ran: len(world.server.ran) > ran)
        pauses.append((world.clock.monotonic_s() - began_s) / 60.0)
        world.work()
        assert world.record("slow").state is SteeringState.VERIFIED
    assert [round(pause, -1) for pause in pauses[:4]] == [10, 20, 40, 80]
    assert max(pauses) <= 24 * 60 + 2


def test_after_a_day_what_was_found_is_looked_at_again() -> None:
    world, made_up = verified()
    made_up.others["no_sort"] = Behaviour(0.1)
    before = world.record("slow").evidence
    world.clock.advance(timedelta(days=1, minutes=1).total_seconds())
    world.work()
    after = world.record("slow").evidence
    assert before is not None
    assert after is not None
    assert (before.hint_set, after.hint_set) == ("no_seqscan", "no_sort")


@pytest.mark.parametrize("restarted", [False, True])
def test_another_default_plan_and_a_class_is_looked_at_again(restarted: bool) -> None:
    world = World(slow())
    world.work()
    if restarted:
        world.restart()
        world.work()
    assert world.record("slow").state is SteeringState.DEFAULT_BEST
    made_up = world.server.classes["slow"]
    made_up.version, made_up.others["no_sort"] = " after analyze", Behaviour(0.5)
    world.clock.advance(601.0)
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED


def test_a_class_withdrawn_in_the_midst_of_a_search_is_left() -> None:
    world, made_up = verified()
    made_up.others["no_sort"] = Behaviour(0.1)
    world.clock.advance(timedelta(days=1, minutes=1).total_seconds())
    world.work(until=lambda: world.exploration.activity.startswith("trying"))
    world.register.withdraw(world.record("slow").key, "slower in service")
    world.work()
    assert world.record("slow").state is SteeringState.WITHDRAWN
