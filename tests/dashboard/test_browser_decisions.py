"""Modes, plans, versions, levels of learning and safety in a real browser."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.dashboard import fake_control
from tests.dashboard.browsing import OVERFLOW, SIZES, beating

pytestmark = pytest.mark.browser


REASON = "<b onclick=alert(1)>the sale begins</b>" + " and lasts" * 20


def test_mode_is_changed_after_confirmation_and_freeze_is_shown(open_page, store):
    with open_page(beating(store)) as page:
        page.locator("#controls-open").click()
        page.locator("#shell-controls .choice", has_text="observe").get_by_role(
            "button", name="Switch"
        ).click()
        expect(page.locator("#confirm-text")).to_contain_text("from auto to observe")
        page.locator("#confirm-no").click()
        expect(page.locator("#confirm-text")).to_be_hidden()
        assert store.commands() == []
        page.locator("#shell-controls").get_by_role("button", name="Freeze").click()
        expect(page.get_by_label("Why, for the others")).to_be_visible()
        page.locator("#confirm-yes").click()
        expect(page.locator("#command-notes")).to_contain_text("Freeze: queued")
        assert store.commands()[-1].payload == {}
        store.work()
        expect(page.locator("#shell-banner")).to_contain_text("Frozen")
        assert store.status().frozen


@pytest.mark.parametrize("size", SIZES)
def test_a_freeze_takes_a_reason_that_every_page_shows(open_page, store, size):
    with open_page(beating(store), size=size) as page:
        controls, why = page.locator("#shell-controls"), page.locator("#confirm-reason")
        page.locator("#controls-open").click()
        controls.get_by_role("button", name="Freeze").click()
        why.fill("a reason that is not sent")
        page.locator("#confirm-no").click()
        expect(why).to_be_hidden()
        controls.locator(".choice", has_text="observe").get_by_role("button", name="Switch").click()
        expect(page.locator("#confirm-text")).to_contain_text("from auto to observe")
        expect(why).to_be_hidden()  # other commands take none
        page.locator("#confirm-no").click()
        controls.get_by_role("button", name="Freeze").click()
        expect(why).to_have_value("")
        assert why.get_attribute("maxlength") == "300"
        why.fill(REASON)
        assert page.evaluate(OVERFLOW) <= 0
        page.locator("#confirm-yes").click()
        expect(page.locator("#command-notes")).to_contain_text("Freeze: queued")
        assert store.commands()[-1].payload == {"reason": REASON}
        store.work()
        expect(page.locator("#shell-banner")).to_contain_text(f"({REASON})")
        assert page.evaluate(OVERFLOW) <= 0


@pytest.mark.parametrize("size", SIZES)
def test_what_waits_is_decided_on_the_page(open_page, store, size):
    plan, promotion = fake_control.wait(store)
    with open_page(beating(store), "/decisions", size=size) as page:
        waiting = page.locator("#decisions-waiting")
        expect(waiting).to_contain_text(f"Promotion of trial {promotion.trial_id}")
        waiting.get_by_role("button", name="Approve the plan").click()
        expect(page.locator("#confirm-text")).to_contain_text("What they prove still waits for you")
        page.locator("#confirm-yes").click()
        notes = page.locator("#command-notes")
        expect(notes).to_contain_text("Approve the experiment plan: queued")
        assert store.commands()[-1].payload == {"plan_id": plan.id}
        waiting.get_by_role("button", name="Decline", exact=True).first.click()
        expect(notes).to_contain_text("Decline the promotion: queued")
        assert store.commands()[-1].payload == {"trial_id": promotion.trial_id}
        assert page.evaluate(OVERFLOW) <= 0


def test_a_trials_evidence_opens(open_page, store):
    with open_page(beating(store), "/decisions") as page:
        page.get_by_role("button", name="#16").click()
        expect(page.locator("#decisions-title")).to_have_text("Trial 16")
        expect(page.locator("#decisions-detail")).to_contain_text("max_wal_size")
        expect(page.locator("#decisions-blocks .scatterlayer .point")).to_have_count(6)


def version_of(page: Page, number: int) -> Locator:
    name = page.get_by_text(f"Version {number}", exact=True)
    return page.locator(".lineage-item").filter(has=name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_earlier_version_is_gone_back_to_after_its_changes_were_shown(
    open_page, store, size, scheme
):
    with open_page(beating(store), "/decisions", size=size, scheme=scheme) as page:
        lineage = page.locator(".lineage-item")
        expect(lineage).to_have_count(7)
        expect(lineage.first).to_contain_text("deployed")
        expect(lineage.first.get_by_role("button", name="Go back")).to_have_count(0)
        version_of(page, 2).get_by_role("button", name="Go back to this version").click()
        dialog = page.locator("#decisions-return-body")
        expect(dialog).to_contain_text("What changes against version 7, deployed now")
        for changed in ("random_page_cost", "max_wal_size", "no nested loops", "knob policy"):
            expect(dialog).to_contain_text(changed)
        expect(dialog).not_to_contain_text("work_mem 32")
        assert dialog.evaluate("e => e.scrollWidth <= e.clientWidth")
        assert page.evaluate(OVERFLOW) <= 0
        assert store.commands() == []
        dialog.get_by_role("button", name="Go back to version 2").click()
        expect(dialog).to_be_hidden()
        expect(page.locator("#command-notes")).to_contain_text("Roll back: queued")
        assert [c.payload for c in store.commands()] == [{"version_id": 2}]
        store.work()
        expect(lineage).to_have_count(8)
        expect(lineage.first).to_contain_text("as version 2")


def test_the_way_back_can_be_left_and_goes_by_the_keyboard(open_page, store):
    with open_page(beating(store), "/decisions") as page:
        version_of(page, 5).get_by_role("button", name="Go back to this version").focus()
        page.keyboard.press("Enter")
        dialog = page.locator("#decisions-return-body")
        expect(dialog).to_contain_text("stands for the same state")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert store.commands() == []


def test_a_version_leads_to_the_evidence_of_its_trial(open_page, store):
    with open_page(beating(store), "/decisions", size="phone") as page:
        version_of(page, 5).get_by_role("button", name="trial 16").click()
        expect(page.locator("#decisions-title")).to_have_text("Trial 16")
        expect(page.locator("#decisions-detail")).to_contain_text("max_wal_size")


@pytest.mark.parametrize("size", SIZES)
def test_the_levels_of_learning_lead_to_their_parts_of_the_page(open_page, store, size):
    with open_page(beating(store), "/learning", size=size) as page:
        for level, shown in (("1", "#learning-level1"), ("2", "#learning-level2")):
            page.locator(f".level-card[href='#level-{level}']").click()
            expect(page.locator(f"#level-{level}")).to_be_in_viewport()
            expect(page.locator(shown)).to_be_visible()
            bar = page.locator(".topbar").bounding_box()
            assert page.locator(f"#level-{level}").bounding_box()["y"] >= bar["y"] + bar["height"]
        expect(page.locator("#learning-updates .scatterlayer .trace")).to_have_count(4)
        expect(page.locator("#learning-genomes-steady .scatterlayer .trace")).to_have_count(3)
        expect(page.locator("#learning-updates-table tbody tr")).to_have_count(8)
        assert page.evaluate(OVERFLOW) <= 0


def test_a_new_update_and_a_new_genome_appear_without_a_reload(open_page, store):
    with open_page(beating(store), "/learning") as page:
        page.evaluate("window.neverReloaded = true")
        store._updates.append(replace(store._updates[-1], id=9, reason="a very new reason"))
        store._genomes.append(replace(store._genomes[0], id=42, generation=5))
        expect(page.locator("#learning-updates-table")).to_contain_text("a very new reason")
        expect(page.locator("#learning-levels")).to_contain_text("41 genomes measured")
        assert page.evaluate("window.neverReloaded") is True


def test_an_undone_deployment_is_told_on_the_safety_page(open_page, store):
    with open_page(beating(store), "/safety", size="phone", scheme="dark") as page:
        undone = page.locator("#safety-undone")
        expect(undone).to_contain_text("Version 6, of human@dashboard")
        expect(undone).to_contain_text("the latency index rose by 6.2 %")
        assert page.evaluate(OVERFLOW) <= 0


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/decisions", "#decisions-versions"),
        ("/learning", "#learning-updates-table"),
        ("/safety", "#safety-undone"),
    ],
)
def test_hostile_text_of_policies_is_shown_as_text(open_page, store, path, part):
    with open_page(beating(store), path, size="phone") as page:
        expect(page.locator(part)).to_contain_text("<img src=x")
        assert page.evaluate("window.__pwned") is None
        assert page.evaluate(OVERFLOW) <= 0
