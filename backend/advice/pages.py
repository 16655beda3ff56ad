"""The advice as text for a terminal and as one self-contained page.

Both are made of the same plain values as the JSON. Foreign names may hold anything: what does not
print is a space here, and the page escapes the rest.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.advice.advice import Advice
from backend.advice.finding import count, size
from backend.advice.knob_advice import Basis
from backend.advice.texts import ALTER_SYSTEM
from backend.printable import printable
from backend.reporting.pages import aligned, template
from backend.telemetry.wording import NOTHING, duration, milliseconds, number, percent

TEMPLATE = "advice.html"
WIDTH = 100
_STATEMENT_WIDTH = 60
_RELOAD = (
    "What you copy acts after SELECT pg_reload_conf(); where it says restart, after a restart."
)
# Their line breaks are ours: names in them are quoted in one line.
_TEXTS = ("texts", "together")


def to_html(advice: Advice) -> str:
    """The advice as one page without anything from elsewhere.

    Raises:
        StoreError: the template is missing from the installation.
    """
    view = _printable(advice.document())
    page = template(TEMPLATE)
    return page.render(
        view=view,
        head=head(view),
        load=load(view),
        rows=_statement_rows(view),
        rule=Basis.RULE.value,
    )


def to_text(advice: Advice) -> str:
    """The advice as text. Of the ways to make a change it shows one; the page has them all."""
    return "\n".join(_lines(_printable(advice.document()))) + "\n"


def head(view: Mapping[str, Any]) -> str:
    """What was looked at, in a sentence."""
    server, observed = view["server"], view["observed"]
    service = f", managed by {server['managed_by']}" if server["managed_by"] else ""
    standby = ", a stand-by" if server["stand_by"] else ""
    return (
        f"{server['version']} at {server['address']}{service}{standby}: observed for "
        f"{duration(observed['seconds'])} until {view['made_at'][:16].replace('T', ' ')} UTC. "
        "Nothing was changed."
    )


def load(view: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The load in figures, for people."""
    seen, server = view["load"], view["server"]
    memory = server["memory_bytes"]
    told = f" (as stated: {', '.join(server['stated'])})" if server["stated"] else ""
    machine = (
        f"{size(memory) if memory else 'unknown memory'}, "
        f"{format(server['cores'], 'g') if server['cores'] else 'unknown'} cores{told}"
    )
    figures = (
        ("statements a second", number(seen["statements_per_s"])),
        ("mean time of a statement", milliseconds(seen["mean_ms"])),
        ("transactions a second", number(seen["transactions_per_s"])),
        ("sessions at work, on average", number(seen["active_sessions"])),
        ("connections, on average", number(seen["connections"], 2)),
        ("blocks found in shared buffers", percent(seen["cache_hit_ratio"])),
        ("WAL a second", size(seen["wal_bytes_per_s"])),
        ("CPU of the machine", _unit(seen["cpu_percent"], "%")),
        ("size of the database", _size(seen["database_size_bytes"])),
        ("machine", machine),
    )
    return [(name, value) for name, value in figures if value != NOTHING]


# -- text -----------------------------------------------------------------------------------------


def _lines(view: Mapping[str, Any]) -> Iterator[str]:
    yield from _wrapped(f"ADVICE. {head(view)}", "")
    yield ""
    yield from aligned([[f"  {name}", value] for name, value in load(view)])
    yield from _heading("Findings")
    if not view["findings"]:
        yield "Nothing of note was seen."
    for finding in view["findings"]:
        yield from _finding(finding)
    yield from _heading("Knobs worth changing")
    grounded = [knob for knob in view["knobs"] if knob["basis"] != Basis.RULE.value]
    if not grounded:
        yield "None, by what was measured."
    elif not view["server"]["managed_by"]:
        yield f"{_RELOAD}\n"
    for knob in grounded:
        yield from _knob(knob, view["server"]["managed_by"])
    yield from _rules_of_thumb(view)
    if view["withheld"]:
        yield from _heading("Knobs of which nothing is proposed, though something speaks for it")
        for one in view["withheld"]:
            yield from _wrapped(f"{one['knob']}: {one['reason']}", "  ", first="")
    yield from _heading("Statements that take the time (means; no percentiles are kept)")
    yield from aligned(_statement_rows(view, cut=True)) if view["statements"] else ["None seen."]
    if view["hint_sets"]:
        yield from _heading("Hint sets proven for statements")
        for hint in view["hint_sets"]:
            yield from _wrapped(f"{hint['fingerprint']}: {hint['text']}", "  ", first="")
            yield from _wrapped(f"{hint['hint_set']}: {hint['effect']}", "    ")
            yield f"    {hint['comment'] or hint['hindrance']}"
    yield from _heading("Next")
    for step in view["next_steps"]:
        yield from _wrapped(step, "  ", first="- ")
    if view["unknown"]:
        yield from _heading("What could not be told")
        for one in view["unknown"]:
            yield from _wrapped(one, "  ", first="- ")


def _heading(text: str) -> Iterator[str]:
    yield from ("", text, "-" * len(text))


def _finding(finding: Mapping[str, Any]) -> Iterator[str]:
    yield f"[{finding['severity']}] {finding['title']} ({finding['key']})"
    for line in finding["evidence"]:
        yield from _wrapped(line, "      ", first="    * ")
    yield from _wrapped(finding["meaning"], "    ")
    yield f"    {finding['manual']}"
    for statement in finding["statements"]:
        yield f"    {statement}"
    yield ""


def _knob(knob: Mapping[str, Any], managed_by: str) -> Iterator[str]:
    grounds = ", ".join([knob["basis"], *knob["findings"]])
    yield f"{knob['name']}: {knob['present']} -> {knob['proposed']}  ({grounds}; {knob['needs']})"
    yield from _wrapped(f"Why: {knob['why']}.", "    ")
    yield from _wrapped(f"Expected effect: {knob['expected_effect']}. Risk {knob['risk']}.", "    ")
    for note in knob["notes"]:
        yield from _wrapped(note, "    ")
    yield f"    {knob['manual']}"
    obstacle = _text(knob, ALTER_SYSTEM)["obstacle"]
    if obstacle:
        yield from _wrapped(f"Hindrance: {obstacle}", "    ")
    chosen = _text(knob, managed_by or ALTER_SYSTEM)
    yield f"    {chosen['text']}"
    if chosen["undo"]:
        yield f"    to undo: {chosen['undo']}"
    yield ""


def _rules_of_thumb(view: Mapping[str, Any]) -> Iterator[str]:
    """Those that rest on nothing measured, in short: the page tells more of each."""
    by_reason: dict[str, list[Mapping[str, Any]]] = {}
    for knob in view["knobs"]:
        if knob["basis"] == Basis.RULE.value:
            by_reason.setdefault(knob["why"], []).append(knob)
    if not by_reason:
        return
    yield from _heading("By rules of thumb alone: expected effect not measured here")
    yield "These knobs stand at the server's defaults, and nothing seen speaks against the rules."
    wanted = view["server"]["managed_by"] or ALTER_SYSTEM
    if wanted == ALTER_SYSTEM:
        yield _RELOAD
    for reason, knobs in by_reason.items():
        yield ""
        yield from _wrapped(f"{reason[0].upper()}{reason[1:]}:", "")
        for knob in knobs:
            yield f"    {_text(knob, wanted)['text']}"
            yield f"        from {knob['present']}; {knob['needs']}; risk {knob['risk']}"


def _text(knob: Mapping[str, Any], form: str) -> Mapping[str, Any]:
    """The knob's text of that form."""
    found: Mapping[str, Any] = next(text for text in knob["texts"] if text["form"] == form)
    return found


def _statement_rows(view: Mapping[str, Any], *, cut: bool = False) -> list[list[str]]:
    rows = [["time", "calls", "mean", "rows", "cached", "spilled", "role", "statement"]]
    for one in view["statements"]:
        text = one["text"] or "(its text may not be read)"
        rows.append(
            [
                percent(one["time_share"]),
                count(one["calls"]),
                milliseconds(one["mean_ms"]),
                number(one["rows"]),
                percent(one["hit_ratio"]),
                _size(one["temp_bytes"] or None),
                one["role"],
                textwrap.shorten(text, _STATEMENT_WIDTH, placeholder="…") if cut else text,
            ]
        )
    return rows


def _wrapped(text: str, indent: str, *, first: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


# -- both -----------------------------------------------------------------------------------------


def _printable(value: Any, *, lines: bool = False) -> Any:
    """The values with every text in printable characters; line breaks stay in texts to copy."""
    if isinstance(value, str):
        return printable(value, keep="\n" if lines else "")
    if isinstance(value, Mapping):
        return {
            printable(str(key)): _printable(item, lines=lines or key in _TEXTS)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_printable(item, lines=lines) for item in value]
    return value


def _size(amount_bytes: float | None) -> str:
    return NOTHING if amount_bytes is None else size(amount_bytes)


def _unit(value: float | None, unit: str) -> str:
    return NOTHING if value is None else f"{number(value)} {unit}"
