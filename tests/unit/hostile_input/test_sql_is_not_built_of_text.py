"""Linters that find SQL built of texts are on; every exception is known here with its reason."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
ANSWERED = {
    "backend/catalog/metrics.py": "texts of the product's own catalogue of metrics",
    "backend/commands/grants.py": "printed for people; names and constants are quoted",
    "backend/steering/export/hint_plan.py": "printed for people; its constants are quoted",
    "backend/workload/load_steps.py": "the demo's own tables; numbers that it works out itself",
    "backend/workload/verify.py": "the demo's own tables",
}


def sources() -> list[Path]:
    return [*REPOSITORY.glob("backend/**/*.py"), *REPOSITORY.glob("dashboard/**/*.py"),
            REPOSITORY / "run.py"]  # fmt: skip


def test_the_linters_are_on_and_run_by_ci() -> None:
    settings = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    selected = re.search(r"^select = \[(.*)\]", settings, re.MULTILINE)
    assert selected
    assert '"S608"' in selected[1]
    ignored = re.search(r"per-file-ignores\](.*?)^\[", settings, re.MULTILINE | re.DOTALL)
    assert ignored
    for line in ignored[1].splitlines():
        assert "S608" not in line or line.startswith(('"tests/', '"benchmarks/'))
    skipped = re.search(r"^skips = \[(.*)\]", settings, re.MULTILINE)
    assert skipped
    assert "B608" not in skipped[1]
    ci = (REPOSITORY / ".ci" / "run").read_text("utf-8")
    assert {"make lint", "make audit"} <= set(ci.splitlines())


def test_every_exception_is_known() -> None:
    found = {
        str(path.relative_to(REPOSITORY))
        for path in sources()
        if re.search(r"#.*\b[SB]608\b", path.read_text("utf-8"))
    }
    assert found == ANSWERED.keys()
