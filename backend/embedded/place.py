"""Where the cluster lies: in the data folder, or, where the server's account cannot go, elsewhere.

The *home* is `<data_dir>/postgres` and is ours: password, lock, record. The *place* holds what the
server's account must reach: `server/` (owned by that account: cluster and log) and, where the
programs had to be copied, `programs/`. The place is the home itself when that is reachable.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import socket
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from backend.embedded.account import ServerAccount
from backend.embedded.files import read_text, telling, write_atomically
from backend.errors import EmbeddedServerError

FOLDER_NAME = "postgres-autopilot"
logger = logging.getLogger(__name__)

_PORTS = range(15432, 31432)  # below the kernel's ephemeral range, see free_port
_SHELL_CHARACTERS = set("\"$`\\\n\r'")


@dataclass(frozen=True)
class Record:
    """What the home remembers about its server, kept in `embedded.json`.

    Args:
        home: the home at the time of writing; a copied data folder is recognised by it.
        place: the folder that holds `server/` and `programs/`.
        bin_dir: where the programs were found (not their copy).
        port: the TCP port that was last chosen; None before the first start.
        user: the superuser that the cluster was made with.
    """

    home: str
    place: str
    bin_dir: str
    port: int | None
    user: str


def read_record(home: Path) -> Record | None:
    """Read the home's record; None when there is none.

    Raises:
        EmbeddedServerError: the record is damaged.
    """
    path = home / "embedded.json"
    text = read_text(path)
    if text is None:
        return None
    try:
        fields = json.loads(text)
        port = fields["port"]
        return Record(
            home=str(fields["home"]),
            place=str(fields["place"]),
            bin_dir=str(fields["bin_dir"]),
            port=None if port is None else int(port),
            user=str(fields["user"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EmbeddedServerError(
            f"the embedded server's record {path} is damaged: {error!r}",
            remedy="restore the file from a copy, or remove the folder to begin anew "
            "(its databases are lost then)",
        ) from error


def write_record(home: Path, record: Record) -> None:
    """Write the home's record atomically."""
    with telling(f"cannot write the embedded server's record in {home}"):
        write_atomically(home / "embedded.json", json.dumps(asdict(record), indent=1), mode=0o644)


def current_place(home: Path, record: Record) -> Path:
    """Return where the server of this home lies, also after the data folder was moved.

    Raises:
        EmbeddedServerError: the data folder is a copy, and its original still uses that place.
    """
    if record.home == str(home):
        return Path(record.place)
    if record.place == record.home:
        return home  # not relocated: the cluster moved or was copied along with its home
    original = Path(record.home)
    if (original / "embedded.json").exists():
        raise EmbeddedServerError(
            f"{home} is a copy of {original}, whose cluster lies in {record.place}",
            remedy=f"remove {home} to begin with a cluster of its own",
        )
    return Path(record.place)


def make_home(home: Path) -> None:
    """Create the home; others may pass through it (when we are root) but not list it."""
    with telling(f"cannot create the embedded server's folder {home}"):
        home.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            home.mkdir()
            home.chmod(0o711 if os.geteuid() == 0 else 0o700)


def choose_place(home: Path, account: ServerAccount) -> Path:
    """Find a folder that the account can reach, and make `server/` in it, owned by the account.

    Raises:
        EmbeddedServerError: there is none; lists what was tried and why it failed.
    """
    refused: list[str] = []
    for place in (home, *_relocations(home, account)):
        reason = _prepare_server_folder(place, home, account)
        if reason is None:
            return place
        refused.append(f"{place}: {reason}")
    raise EmbeddedServerError(
        f"no folder for the cluster that the account {account.name!r} can use: "
        + "; ".join(refused),
        remedy="choose a data folder that this account can reach (chmod o+x on its parents), "
        "on a local file system that keeps owners and modes",
    )


def remove_place(place: Path, home: Path) -> None:
    """Remove the server's folders of a place that this home made; a foreign place is left alone."""
    with telling(f"cannot remove the embedded server's folders in {place}"):
        if place.is_dir() and (place == home or (place / "made-for").is_file()):
            for part in ("server", "programs"):
                if (place / part).exists():
                    shutil.rmtree(place / part)
            if place != home:
                shutil.rmtree(place)
    if place != home:
        with contextlib.suppress(OSError):  # other clusters lie there
            place.parent.rmdir()


def remove_home(home: Path) -> None:
    """Remove our files from the home, and the home if nothing else lies in it; the lock last."""
    with telling(f"cannot remove the embedded server's folder {home}"):
        for name in ("embedded.json", "password", "explorer-password", "lock"):
            (home / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not ours, or not empty: somebody else's files stay
        home.rmdir()


def refuse_foreign(home: Path) -> None:
    """Refuse a home without a record in which a filled `server/` lies: we did not make that.

    Raises:
        EmbeddedServerError: there is such a folder.
    """
    server = home / "server"
    with telling(f"cannot look into {server}"):
        if server.exists() and any(server.iterdir()):
            raise EmbeddedServerError(
                f"{server} is not empty, and there is no record {home / 'embedded.json'} that "
                "the embedded server made it",
                remedy="restore the record from a copy, or move that folder away",
            )


def random_password() -> str:
    """Return a fresh password of 192 random bits, without characters that need quoting."""
    return secrets.token_urlsafe(24)


def write_password(path: Path, password: str) -> None:
    """Write the password to a file of mode 0600."""
    with telling(f"cannot write the password file {path}"):
        write_atomically(path, password, mode=0o600)


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port() -> int:
    """Choose a port that is free now.

    From below the kernel's range for outgoing connections: while the server restarts, a client
    that keeps connecting could otherwise be given the server's own port as its local one.

    Raises:
        EmbeddedServerError: every one that was tried is in use.
    """
    tries = 200
    for _ in range(tries):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        if is_free(port):
            return port
    raise EmbeddedServerError(
        f"{tries} ports between {_PORTS.start} and {_PORTS.stop} were tried, none is free",
        remedy="name a free port in the configuration",
    )


def _relocations(home: Path, account: ServerAccount) -> list[Path]:
    """Return fresh folders elsewhere, in order of preference.

    Each try has a name of its own: what lies under an older one belonged to a data folder of this
    path that was removed by hand, and a new data folder begins with a new cluster.
    """
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    if account.switch:
        bases = [Path("/var/lib", FOLDER_NAME), Path("/var/tmp", FOLDER_NAME)]  # nosec B108
    else:
        bases = [Path("/var/tmp", f"{FOLDER_NAME}-{account.uid}")]  # nosec B108
    for base in bases:
        for abandoned in base.glob(f"{digest}-*"):
            logger.warning("%s holds the cluster of a data folder that is gone", abandoned)
    return [base / f"{digest}-{secrets.token_hex(3)}" for base in bases]


def _prepare_server_folder(place: Path, home: Path, account: ServerAccount) -> str | None:
    """Make `place/server`; return why it cannot be used, None when it can."""
    if _SHELL_CHARACTERS & set(str(place)):
        return "its path has a quote, a backslash, a dollar sign or a line break"
    server = place / "server"
    try:
        if place != home:
            for folder in (place.parent, place):
                _make_trusted_folder(folder)
            write_atomically(place / "made-for", str(home), mode=0o644)
        server.mkdir(mode=0o700, exist_ok=True)
        if account.switch:
            os.chown(server, account.uid, account.gid)
        reason = account.why_not_writable(server)
    except OSError as error:
        reason = str(error)
    if reason is not None:  # leave nothing behind where the cluster does not go
        with contextlib.suppress(OSError):
            server.rmdir()
        if place != home:
            with contextlib.suppress(OSError):
                (place / "made-for").unlink()
                place.rmdir()
                place.parent.rmdir()
    return reason


def _make_trusted_folder(folder: Path) -> None:
    """Make a folder under a world-writable one, or accept it when only we can have made it."""
    try:
        folder.mkdir(mode=0o755)
    except FileExistsError:
        status = folder.lstat()
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if not ours or status.st_mode & 0o022:
            raise PermissionError(f"{folder} is there already and is not ours alone") from None
    folder.chmod(0o755)
