"""pip-audit of what is installed, and how much of it was looked at: ``make audit``.

pip-audit ends with "No known vulnerabilities found" where the package index has no advisories and
it looked at nothing. That fails nothing here either, as nobody can do anything about it where no
advisories can be reached; but it is told, and never as a success.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TIMEOUT_S = 600


def verdict(report: Mapping[str, Any]) -> tuple[str, bool]:
    """What pip-audit's JSON comes to, and whether it found nothing known."""
    packages = report["dependencies"]
    left_out = [package for package in packages if "skip_reason" in package]
    found = [
        f"{package['name']} {package['version']}: {one['id']}"
        f" (mended in: {', '.join(one['fix_versions']) or 'no version'})"
        for package in packages
        for one in package.get("vulns", ())
    ]
    if len(left_out) == len(packages):
        reason = left_out[0]["skip_reason"] if left_out else "there are none"
        return _nothing(f"of {len(packages)} packages none could be looked up ({reason})"), True
    looked_at = len(packages) - len(left_out)
    lines = [f"pip-audit: {looked_at} of {len(packages)} packages audited, findings: {len(found)}"]
    if left_out:
        lines.append(f"NOT AUDITED: {', '.join(package['name'] for package in left_out)}")
    return "\n".join([*lines, *found]), not found


def _nothing(why: str) -> str:
    return f"pip-audit: NOTHING WAS AUDITED, known vulnerabilities would not show: {why}"


def audit() -> tuple[str, bool]:
    """Run pip-audit on this environment."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "audit.json")
        options = ["--progress-spinner=off", "--format=json", f"--output={path}"]
        command = [sys.executable, "-m", "pip_audit", *options]
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return _nothing(f"it did not end within {_TIMEOUT_S} s"), True
        if not path.exists():
            said = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
            return _nothing(f"it failed ({said})"), True
        return verdict(json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    told, is_clean = audit()
    print(told)
    sys.exit(not is_clean)
