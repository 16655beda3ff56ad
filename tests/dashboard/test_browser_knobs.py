"""Changing knobs in a real browser: checked, confirmed, seen, undone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from backend.domain.modes import CommandKind
from tests.dashboard.browsing import SIZES, beating
from tests.dashboard.fake_store import FakeStore

pytestmark = pytest.mark.browser


def choose(page: Page, knob: str) -> None:
    """Open a knob's editor."""
    page.fill("#knobs-search", knob)
    page.locator(".ag-cell", has_text=re.compile(f"^{knob}$")).first.click()
    expect(page.locator("#knob-title")).to_have_text(knob)


def value_of(store: FakeStore, knob: str) -> object:
    return next(k.value for k in store.knob_statuses() if k.name == knob)


@pytest.mark.parametrize("size", SIZES)
def test_a_knob_is_changed_checked_confirmed_seen_and_undone(open_page, store, size):
    with open_page(beating(store), "/knobs", size=size) as page:
        choose(page, "maintenance_work_mem")
        review = page.locator("#knob-review")
        expect(review).to_be_disabled()
        page.fill("#knob-input", "64TB")
        expect(page.locator("#knob-check")).to_contain_text("Allowed: 1\u00a0MB to 1\u00a0GB")
        expect(review).to_be_disabled()
        page.fill("#knob-input", "much")
        expect(page.locator("#knob-check")).to_contain_text("not a number")
        page.fill("#knob-input", "256MB")
        expect(page.locator("#knob-check")).to_contain_text("256\u00a0MB")
        review.click()
        dialog = page.locator("#review-body")
        expect(dialog).to_contain_text("64\u00a0MB")
        expect(dialog).to_contain_text("256\u00a0MB")
        expect(dialog).to_contain_text("at once, by a reload")
        assert store.commands() == []
        page.locator("#review-apply").click()
        expect(page.locator("#command-notes")).to_contain_text("queued")
        assert store.commands()[-1].payload == {"knobs": {"maintenance_work_mem": 262144}}
        assert store.commands()[-1].actor == "human@dashboard"
        store.work()
        expect(page.locator("#command-notes")).to_contain_text("done")
        expect(page.locator("#knobs-last")).to_contain_text("on the server")
        expect(page.locator(".row-changed .cell-value").first).to_have_text("256\u00a0MB")
        assert value_of(store, "maintenance_work_mem") == 262144
        page.locator("#knobs-last").get_by_role("button", name="Undo").click()
        expect(page.locator("#command-notes")).to_contain_text("Roll back: queued")
        assert store.commands()[-1].kind is CommandKind.ROLL_BACK
        store.work()
        expect(page.locator("#knobs-history")).to_contain_text("rolled back")
        expect(page.locator("#knobs-last")).to_contain_text("undone, now 64\u00a0MB")
        expect(page.locator("#knobs-last button")).to_have_count(0)
        assert value_of(store, "maintenance_work_mem") == 65536


def test_several_knobs_are_changed_together_and_one_is_left_out(open_page, store):
    with open_page(beating(store), "/knobs") as page:
        for knob, value in (("shared_buffers", "512MB"), ("seq_page_cost", "0.5")):
            choose(page, knob)
            page.fill("#knob-input", value)
            expect(page.locator("#knob-review")).to_be_enabled()
            page.locator("#knob-review").click()
            expect(page.locator("#review-body")).to_contain_text(knob)
            page.locator("#review-more").click()
            expect(page.locator("#review-body")).to_be_hidden()
        choose(page, "jit")
        page.select_option("#knob-input", "on")
        page.locator("#knob-review").click()
        expect(page.locator("#review-body")).to_contain_text("needs a restart of the server")
        page.get_by_role("button", name="Leave seq_page_cost as it is").click()
        expect(page.locator("#review-body")).not_to_contain_text("seq_page_cost")
        page.locator("#review-apply").click()
        expect(page.locator("#command-notes")).to_contain_text("queued")
        assert store.commands()[-1].payload == {"knobs": {"shared_buffers": 65536, "jit": True}}


def test_a_refusal_by_the_tuner_is_shown_with_its_reason(open_page, store):
    with open_page(beating(store), "/knobs") as page:
        choose(page, "work_mem")
        page.fill("#knob-input", "512MB")
        expect(page.locator("#knob-review")).to_be_enabled()
        page.locator("#knob-review").click()
        page.locator("#review-apply").click()
        expect(page.locator("#command-notes")).to_contain_text("queued")
        store.work()
        expect(page.locator("#command-notes")).to_contain_text("refused")
        expect(page.locator("#command-notes")).to_contain_text("memory budget")
        expect(page.locator("#knobs-last")).to_contain_text("not changed")


def test_what_is_being_typed_survives_the_refresh(open_page, store):
    with open_page(beating(store), "/knobs") as page:
        choose(page, "work_mem")
        page.fill("#knob-input", "12MB")
        store.beat(trials=77)
        page.locator(".tag-index").wait_for()
        for _ in range(2):
            with page.expect_response(lambda r: "knobs-held" in (r.request.post_data or "")):
                pass
        expect(page.locator("#knob-input")).to_have_value("12MB")
        expect(page.locator("#knobs-search")).to_have_value("work_mem")


def test_a_knob_is_chosen_by_the_keyboard(open_page, store):
    with open_page(beating(store), "/knobs") as page:
        page.locator(".ag-header-cell").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Space")
        expect(page.locator("#knob-title")).to_have_text("shared_buffers")
        expect(page.locator("#knob-input")).to_be_focused()


def test_a_locked_knob_says_why(open_page, store):
    with open_page(beating(store), "/knobs") as page:
        choose(page, "huge_pages")
        expect(page.locator("#knob-body")).to_contain_text("the host offers no huge pages")
        expect(page.locator("#knob-input")).to_be_disabled()
        expect(page.locator("#knob-review")).to_be_disabled()
