"""The advice as text, JSON and a page: complete, inert, without literals."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

from backend.advice.advice import advise
from backend.advice.pages import to_html, to_text
from backend.domain.metrics import QueryKey
from backend.domain.steering import (
    ClassKey,
    HintEvidence,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from backend.targets.postgresql_lookup import AWS_RDS, Rights
from tests.unit.advice.made_facts import (
    SECRET,
    START,
    UNKNOWN,
    facts,
    hostile_advice,
    query,
)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]


def evidence(**given: object) -> HintEvidence:
    fields = {
        "hint_set": "no nested loops", "settings": {"enable_nestloop": "off"}, "under": {},
        "functions": (), "statements": 3, "pairs": 12, "effect": -0.5, "ci_low": -0.6,
        "ci_high": -0.4, "confidence": 0.99, "default_ms": 100.0, "steered_ms": 50.0,
        "default_plan": "", "steered_plan": "", "verified_at": START, "server": "7",
        "database": "shop",
    }  # fmt: skip
    return HintEvidence(**{**fields, **given})


def steered(proof: HintEvidence, **given: object) -> SteeredClassRecord:
    fields = {
        "key": ClassKey("f" * 16, "public"), "text": "SELECT * FROM orders WHERE n = $1",
        "state": SteeringState.VERIFIED, "updated_at": START, "evidence": proof,
    }  # fmt: skip
    return SteeredClassRecord(**{**fields, **given})


def test_hostile_names_are_inert() -> None:
    advice = hostile_advice()
    page = to_html(advice)
    assert "script" not in Page(page).tags
    for text in (page, to_text(advice)):
        assert all(c.isprintable() or c == "\n" for c in text)
        assert SECRET not in text
    assert SECRET not in advice.as_json()
    assert "\x1b" not in advice.as_json()


def test_the_page_is_self_contained() -> None:
    page = to_html(advise(facts(), START))
    assert "Content-Security-Policy" in page
    assert {"link", "script", "img", "iframe"}.isdisjoint(Page(page).tags)
    assert all(a.startswith("https://www.postgresql.org/docs/") for a in Page(page).addresses)


def test_text_page_and_json_tell_the_same() -> None:
    advice = advise(facts(totals={"temp_files": 3, "temp_bytes": 200e6}, queries=query()), START)
    document = json.loads(advice.as_json())
    text, page = to_text(advice), to_html(advice)
    assert document["format"] == 1
    assert document["knobs"]
    for finding in document["findings"]:
        assert finding["title"] in text
        assert finding["title"] in page
    for knob in document["knobs"]:
        assert knob["expected_effect"]
        assert knob["needs"] in ("reload", "restart")
        assert knob["texts"][0]["text"] in text
        assert f"{knob['name']}: {knob['present']} → {knob['proposed']}" in page
    assert "Nothing was changed" in text


def test_a_quiet_server_gives_a_report_too() -> None:
    made = advise(facts(), START)
    assert "Nothing of note was seen." in to_text(made)
    assert "Nothing of note was seen." in to_html(made)


def test_what_cannot_be_known_is_said() -> None:
    made = facts(host=UNKNOWN)
    lacking = replace(made.info, capabilities={}, missing={"read_all_stats": "GRANT pg_monitor"})
    told = to_text(advise(replace(made, info=lacking), START))
    for part in ("--memory-gib", "--cores", "GRANT pg_monitor", "unknown memory"):
        assert part in told


def test_a_managed_servers_text_is_its_services() -> None:
    made = facts(rights=Rights("a", "shop", managed_by=AWS_RDS))
    told = to_text(advise(made, START))
    assert "aws rds modify-db-parameter-group" in told
    assert "gcloud" not in told


def test_lines_for_people_stay_narrow() -> None:
    for line in to_text(hostile_advice()).splitlines():
        if "https://" not in line and ";" not in line:
            assert len(line) <= 160


# -- statements -----------------------------------------------------------------------------------


def test_proven_hint_sets_of_this_server_are_told_with_their_effect() -> None:
    classes = [
        steered(evidence()),
        steered(evidence(server="8"), key=ClassKey("e" * 16, "public")),
        steered(evidence(database="other"), key=ClassKey("d" * 16, "public")),
        steered(evidence(), key=ClassKey("c" * 16, "public"), mode=SteeringMode.OFF),
    ]
    advice = advise(facts(), START, classes=classes)
    (hint,) = advice.hint_sets
    assert hint.comment == "/*+ Set(enable_nestloop off) */"
    assert "-50.0 %" in hint.effect
    assert "-60.0 % to -40.0 %" in hint.effect
    assert "/*+ Set(enable_nestloop off) */" in to_text(advice)
    assert "export" in " ".join(advice.next_steps)


def test_a_hint_set_that_a_comment_cannot_carry_is_told_with_the_reason() -> None:
    advice = advise(facts(), START, classes=[steered(evidence(settings={"work_mem": "64MB"}))])
    assert advice.hint_sets[0].comment == ""
    assert "pg_hint_plan" in advice.hint_sets[0].hindrance
    assert "pg_hint_plan" in to_text(advice)


def test_statements_worth_a_search_only_read_and_weigh_something() -> None:
    queries = {**query(1, 100, 5.0), **query(2, 100, 4.0), **query(3, 1, 0.1)}
    texts = {
        QueryKey(10, 5, 1): "SELECT $1",
        QueryKey(10, 5, 2): "UPDATE orders SET n = $1",
        QueryKey(10, 5, 3): "SELECT $1 + $2",
    }
    advice = advise(replace(facts(queries=queries), texts=texts), START)
    assert [one.worth_a_search for one in advice.statements] == [True, False, False]
    steps = " ".join(advice.next_steps)
    assert "steering explore" in steps
    assert "steering report" in steps


def test_many_gaps_are_told_in_a_few_lines() -> None:
    gaps = {f"the configuration was reloaded at 12:00:{second:02}": 1 for second in range(40)}
    told = advise(facts(gaps=gaps), START).unknown
    assert sum("Not covered" in line for line in told) == 4
    assert "37 times more" in told[-1]
