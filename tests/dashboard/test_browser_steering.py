"""The queries that are steered, in a real browser."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from playwright.sync_api import Locator, Page, expect

from backend.domain.modes import CommandState
from tests.dashboard.browsing import OVERFLOW, SIZES, beating
from tests.dashboard.fake_steering import STEERED

pytestmark = pytest.mark.browser


def row_of(page: Page, text: str) -> Locator:
    return page.locator("#queries-steered tbody tr", has_text=text)


def test_the_switch_of_a_class_queues_one_command_and_shows_its_answer(open_page, store):
    with open_page(beating(store), "/queries") as page:
        row = row_of(page, "SELECT b.name")
        off = row.get_by_role("button", name=re.compile("^off"))
        off.click()
        expect(page.locator("#command-notes")).to_contain_text("Steer the class: queued")
        expect(row).to_contain_text("off: queued")
        expect(off).to_be_disabled()
        assert [c.payload for c in store.commands()] == [
            {
                "fingerprint": STEERED.fingerprint,
                "search_path": STEERED.search_path,
                "mode": "off",
            }
        ]
        store.work()
        expect(off).to_have_attribute("aria-pressed", "true")
        expect(row).to_contain_text("switched off by hand")
        expect(row).not_to_contain_text("queued")
        assert len(store.commands()) == 1


def test_pinning_needs_a_confirmation_and_evidence(open_page, store):
    with open_page(beating(store), "/queries", size="phone") as page:
        pin = row_of(page, "SELECT b.name").get_by_role("button", name=re.compile("^pin"))
        pin.click()
        expect(page.locator("#confirm-text")).to_contain_text(
            "even when the autopilot is not in mode auto"
        )
        page.locator("#confirm-no").click()
        expect(page.locator("#confirm-text")).to_be_hidden()
        assert store.commands() == []
        pin.click()
        page.locator("#confirm-yes").click()
        expect(page.locator("#command-notes")).to_contain_text("queued")
        assert [c.payload["mode"] for c in store.commands()] == ["pin"]
        store.work()
        expect(row_of(page, "SELECT b.name").locator(".tag").first).to_have_text("pinned")
        unproven = row_of(page, "SELECT c.region").get_by_role("button", name=re.compile("^pin"))
        expect(unproven).to_be_disabled()
        expect(unproven).to_have_accessible_name("pin: needs a hint set that was proven faster")


def test_the_plans_tried_and_the_plan_agent_are_shown(open_page, store):
    with open_page(beating(store), "/queries") as page:
        row_of(page, "SELECT b.name").get_by_role("button", name="Plans and evidence").click()
        expect(page.locator("#queries-detail")).to_contain_text("11 other plans tried")
    with open_page(store, "/learning") as page:
        expect(page.locator("#learning-plan")).to_contain_text("Plans learnt from")
        expect(page.locator("#learning-plan-trust .scatterlayer .trace")).to_have_count(1)


def test_a_long_hint_set_stays_in_its_column(open_page, store):
    settings = {"max_parallel_workers_per_gather": "2", "recursive_worktable_factor": "0.01"}
    store._steered = [
        replace(r, evidence=replace(r.evidence, settings=settings)) if r.evidence else r
        for r in store._steered
    ]
    with open_page(beating(store), "/queries") as page:
        hints = page.locator("#queries-steered .hint-words").first
        expect(hints).to_contain_text("max_parallel_workers_per_gather 2")
        assert hints.evaluate("e => e.scrollWidth <= e.clientWidth")
        tops = page.locator(".steering-numbers > div").evaluate_all(
            "all => all.slice(0, 4).map(e => e.getBoundingClientRect().top)"
        )
        assert len(set(tops)) == 1


def test_a_refused_switch_says_why_in_its_row(open_page, store):
    with open_page(beating(store), "/queries") as page:
        row = row_of(page, "SELECT b.name")
        row.get_by_role("button", name=re.compile("^off")).click()
        expect(row).to_contain_text("off: queued")
        store.take()
        store.finish(1, CommandState.REFUSED, "the steering table cannot be written")
        expect(row).to_contain_text("off: refused")
        expect(row).to_contain_text("the steering table cannot be written")
        expect(row.get_by_role("button", name=re.compile("^auto"))).to_have_attribute(
            "aria-pressed", "true"
        )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plans_and_evidence_open_by_the_keyboard(open_page, store, size, scheme):
    with open_page(beating(store), "/queries", size=size, scheme=scheme) as page:
        row_of(page, "SELECT b.name").get_by_role("button", name="Plans and evidence").focus()
        page.keyboard.press("Enter")
        detail = page.locator("#queries-detail")
        expect(detail).to_contain_text("SET enable_nestloop = 'off';")
        plans = detail.locator("pre.plan")
        expect(plans).to_have_count(2)
        default, steered = (plans.nth(i).bounding_box() for i in range(2))
        if size == "phone":
            assert steered["y"] >= default["y"] + default["height"]
        else:
            assert steered["x"] >= default["x"] + default["width"]
        for i in range(2):
            assert plans.nth(i).evaluate("e => e.scrollWidth >= e.clientWidth && e.tabIndex === 0")
            box = plans.nth(i).bounding_box()
            assert box["x"] + box["width"] <= SIZES[size][0]
        assert page.evaluate(OVERFLOW) <= 0
        page.keyboard.press("Escape")
        expect(detail).to_be_hidden()


def test_a_class_of_telemetry_leads_to_its_steering(open_page, store):
    with open_page(beating(store), "/queries") as page:
        page.locator("#queries-classes").get_by_role("button", name="withdrawn").click()
        expect(page.locator("#queries-detail")).to_contain_text("9.4 % slower than the default")
        pin = page.locator("#queries-detail").get_by_role("button", name=re.compile("^pin"))
        pin.click()
        expect(page.locator("#confirm-text")).to_contain_text(
            "It was withdrawn: in the last 20 min"
        )
        page.locator("#confirm-yes").click()
        expect(page.locator("#queries-detail")).to_contain_text("pin: queued")
        store.work()
        expect(page.locator("#queries-detail")).to_contain_text("no longer pays")
        assert [c.payload["mode"] for c in store.commands()] == ["pin"]


def test_hostile_text_of_steering_is_shown_as_text(open_page, store):
    with open_page(beating(store), "/queries", size="phone") as page:
        page.locator("#queries-steered summary").click()
        expect(page.locator("#queries-steered")).to_contain_text("which is volatile: <img src=x")
        row_of(page, "c.email").get_by_role("button", name="Plans and evidence").click()
        expect(page.locator("pre.plan").nth(1)).to_contain_text("<script>window.__pwned=1")
        assert page.evaluate("window.__pwned") is None
        assert page.evaluate(OVERFLOW) <= 0
