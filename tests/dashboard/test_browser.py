"""The pages in a real browser: Chromium by Playwright, against the in-memory store."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from backend.domain.modes import CommandKind, CommandState
from dashboard.pages import PAGES
from tests.dashboard import fake_control
from tests.dashboard.browsing import LOADED, OVERFLOW, SIZES
from tests.dashboard.fake_steering import STEERED
from tests.dashboard.fake_store import FakeStore

pytestmark = pytest.mark.browser


def beating(store: FakeStore) -> FakeStore:
    """A store whose heartbeat is of this moment."""
    store.beat()
    return store


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_loads_in_every_size_and_theme(open_page, store, size, scheme):
    with open_page(beating(store), size=size, scheme=scheme) as page:
        assert page.locator("html").get_attribute("data-bs-theme") == scheme
        page.evaluate("window.neverReloaded = true")
        nav = page.locator(".bottomnav" if size == "phone" else ".sidenav")
        for entry in PAGES:
            nav.get_by_text(entry.title, exact=True).click()
            expect(page.locator("h1")).to_have_text(entry.title)
            page.wait_for_function(LOADED)
            graphs = [p for p in entry.parts if p.endswith(".figure")]
            if graphs and entry.slug not in ("decisions",):
                page.wait_for_function(
                    "n => document.querySelectorAll('.js-plotly-plot .main-svg').length >= n",
                    arg=len(graphs),
                )
            assert page.evaluate(OVERFLOW) <= 0, entry.title
            assert page.title().startswith(entry.title)
        assert page.evaluate("window.neverReloaded") is True


@pytest.mark.parametrize("entry", PAGES, ids=lambda p: p.slug)
def test_an_empty_store_says_what_will_appear(open_page, entry):
    with open_page(FakeStore(empty=True), entry.path, size="phone", scheme="dark") as page:
        expect(page.locator("h1")).to_have_text(entry.title)
        expect(page.locator("#shell-banner")).to_contain_text("The tuner is starting")
        expect(
            page.locator("#content .empty, #content .annotation-text, #knobs-summary").first
        ).to_be_visible()
        assert page.evaluate(OVERFLOW) <= 0


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


def test_numbers_are_fresh_without_a_reload(open_page, store):
    with open_page(beating(store)) as page:
        page.evaluate("window.neverReloaded = true")
        store.beat(activity="a very new activity", index=0.5)
        expect(page.locator("#overview-activity")).to_contain_text("a very new activity")
        expect(page.locator(".tag-index")).to_contain_text("0.500")
        assert page.evaluate("window.neverReloaded") is True


class SlowStore(FakeStore):
    """Its answers take longer than a page waits until it asks again."""

    def trials(self, *, limit: int = 200) -> Any:
        threading.Event().wait(1.5)
        return super().trials(limit=limit)


@pytest.mark.parametrize("path", ["/", "/decisions"])
def test_a_slow_store_keeps_no_page_from_being_fresh(open_page, path):
    store = SlowStore()
    with open_page(beating(store), path) as page:
        button = page.locator(".icon-button").first
        button.click()
        page.locator("#shell-controls").get_by_role("button", name="Pause").click()
        expect(page.locator("#command-notes")).to_contain_text("Pause: queued")
        store._trials[-1] = replace(store._trials[-1], reasons=("a very new reason",))
        store.beat(activity="a very new activity")
        shown = "#overview-activity" if path == "/" else "#decisions-trials"
        expect(page.locator(shown)).to_contain_text("a very new")


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
        page.locator("#confirm-yes").click()
        expect(page.locator("#command-notes")).to_contain_text("Freeze: queued")
        store.work()
        expect(page.locator("#shell-banner")).to_contain_text("Frozen")
        assert store.status().frozen


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


def test_hostile_text_is_shown_as_text(open_page, store):
    with open_page(beating(store), "/queries") as page:
        expect(page.locator("#queries-classes")).to_contain_text("<script>")
        page.locator(".sidenav").get_by_text("Safety").click()
        expect(page.locator("#safety-events")).to_contain_text("<img src=x")
        assert page.evaluate("window.__pwned") is None


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


def test_the_theme_is_switched_and_remembered(open_page, store):
    with open_page(beating(store), scheme="light") as page:
        page.locator("#theme-toggle").click()
        expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
        page.wait_for_function(
            "() => document.querySelector('#overview-index .js-plotly-plot')"
            ".layout.font.color === '#e3eaee'"
        )
        page.reload()
        page.wait_for_function(LOADED)
        expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")


def test_a_silent_tuner_and_an_unreadable_store_are_told_and_recover(open_page, store):
    with open_page(beating(store)) as page:
        store._status = replace(
            store.status(), at=datetime.now(timezone.utc) - timedelta(minutes=2)
        )
        banner = page.locator("#shell-banner")
        expect(banner).to_contain_text("The tuner does not answer since")
        store.failure = "disk I/O error"
        expect(banner).to_contain_text("The store cannot be read. disk I/O error")
        store.failure = None
        store.beat()
        expect(banner).to_be_empty()
        expect(page.locator("#overview-tiles")).to_contain_text("Latency index")


def test_a_dead_dashboard_is_noticed_by_the_page(open_page, store):
    with open_page(beating(store), quiet=False) as page:
        expect(page.locator("#offline")).to_be_hidden()
        page.route("**/_dash-update-component*", lambda route: route.abort())
        expect(page.locator("#offline")).to_be_visible()
        page.unroute("**/_dash-update-component*")
        expect(page.locator("#offline")).to_be_hidden()


def test_without_scripts_there_is_a_plain_summary(browser, served, store):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(served(beating(store)))
    page.wait_for_url("**/plain")
    assert "Latency index" in page.inner_text("main")
    context.close()
