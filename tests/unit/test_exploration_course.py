"""The live exploration of a class on a made-up server: from the first plan to the verdict."""

from __future__ import annotations

import pytest

from backend.domain.plans import HintSet, RunOutcome
from backend.domain.steering import RunPurpose, SteeringMode, SteeringState
from tests.exploring import TOGGLES, Behaviour, MadeUpClass, World, slow, small_catalog

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
