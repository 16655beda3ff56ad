"""What is around the pages: the frame, the plain page, errors, banners, notes."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import dashboard
from backend.domain.modes import ChangeState, CommandState, Phase
from dashboard import callbacks, layouts
from dashboard.format import Viewer
from dashboard.operator_commands import make_command
from dashboard.pages import PAGES
from dashboard.pages.knobs import batch_of, batches
from tests.dashboard.fake_store import HOSTILE
from tests.dashboard.parts import text_of


def test_the_plain_page_escapes_and_tells_the_essentials(store, client):
    store._status = replace(store.status(), activity=HOSTILE)
    html = client.get("/plain").text
    assert "<script>window" not in html
    assert "&lt;script&gt;" in html
    assert "work_mem" in html
    assert "optimised" in html


def test_an_error_page_for_people_and_json_for_scripts(client):
    page = client.get("/vendor/icons/none.svg", Accept="text/html")
    assert page.status_code == 404
    assert "<h1>404</h1>" in page.text
    assert client.get("/vendor/icons/none.svg").json["status"] == "refused"


def test_the_shell_has_all_pages_and_the_theme_before_the_first_paint(client):
    html = client.get("/decisions").text
    assert html.index("/assets/js/theme.js") < html.index("/vendor/bootstrap.min.css")
    assert "/assets/css/app.css" in html
    assert "noscript" in html
    layout = text_of(client.get("/_dash-layout").json)
    for page in PAGES:
        assert f'"href": "{page.path}"' in layout


def test_banners(store):
    assert "starting" in text_of(layouts.banner(None, False, Viewer()))
    status = store.status()
    assert layouts.banner(status, False, Viewer()) is None
    assert "does not answer since" in text_of(layouts.banner(status, True, Viewer()))
    finished = replace(status, phase=Phase.FINISHED)
    assert layouts.banner(finished, True, Viewer()) is None
    frozen = layouts.banners(replace(status, frozen=True), False, Viewer())
    assert "Frozen" in text_of(frozen)
    assert "no space" in text_of(layouts.banner(replace(status, fault="no space"), False, Viewer()))


def test_batches_are_newest_first_and_kept_together(store):
    grouped = batches(store.changes())
    assert [b[0].batch_id for b in grouped] == ["trial-16", "trial-12", "trial-8", "trial-4"]
    assert [len(b) for b in grouped] == [1, 1, 2, 1]


def test_the_changes_of_a_command_are_found_and_an_undo_is_not_taken_for_them(store):
    number = store.submit(
        make_command(
            "set_knobs", {"knobs": {"work_mem": 8192}}, store.knob_statuses(), "alice@dashboard"
        )
    )
    command = store.command(number)
    assert batch_of(command, store.changes()) == []
    store.work()
    made = batch_of(command, store.changes())
    assert [(c.knob, c.after_value) for c in made] == [("work_mem", 8192)]
    store.submit(make_command("roll_back", {"batch_id": made[0].batch_id}, [], "alice@dashboard"))
    store.work()
    assert [c.state for c in batch_of(command, store.changes())] == [ChangeState.ROLLED_BACK]


def test_notes_of_success_leave_and_refusals_stay(store):
    number = store.submit(make_command("pause", {}, [], "alice@dashboard"))
    store.finish(number, CommandState.DONE, "done")
    record = store.command(number)
    assert not callbacks._is_over(record)
    late = replace(record, finished_at=datetime.now(timezone.utc) - timedelta(minutes=1))
    assert callbacks._is_over(late)
    assert not callbacks._is_over(replace(late, state=CommandState.REFUSED))


def test_no_third_party_file_is_ours():
    names = [p.name for p in dashboard.app.paths.static_folder().rglob("*") if p.is_file()]
    assert not [n for n in names if re.search(r"bootstrap|plotly|\.min\.", n)]
