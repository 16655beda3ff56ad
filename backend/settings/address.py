"""Where a foreign server's address comes from: a URL, libpq's own variables, a service file.

Only what we must know ourselves (host, port, user, database) is read here. The rest is libpq's:
``~/.pgpass`` and PGPASSFILE, PGPASSWORD, PGSSLMODE, PGSSLROOTCERT, and whatever else a service
holds. https://www.postgresql.org/docs/current/libpq-envars.html
"""

from __future__ import annotations

import configparser
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from backend.errors import ConfigError

CONNECTION_PARAMETERS = frozenset(
    {
        "channel_binding",
        "gssencmode",
        "hostaddr",
        "passfile",
        "require_auth",
        "service",
        "sslcert",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "target_session_attrs",
    }
)
"""Parameters of libpq that a URL or the settings may hold; none of them is a secret.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

LONGEST_HOST = 253
"""Characters of a name in the domain name system (RFC 1035, without the last dot)."""
_VARIABLES = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGDATABASE": "dbname"}
_NAMES_A_SERVER = ("PGHOST", "PGHOSTADDR", "PGSERVICE")
_DEFAULT_HOST = "localhost"
_SYSTEM_FOLDERS = (Path("/etc/postgresql-common"), Path("/etc/sysconfig/pgsql"), Path("/etc"))


def parse_url(text: str, name: str) -> URL:
    """The URL that a setting holds.

    Raises:
        ConfigError: it is none; ``name`` is the setting's.
    """
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        # The text may hold a password, so it is not repeated.
        raise ConfigError(
            f"{name} cannot be parsed as a URL",
            remedy="write it as postgresql://user@host:5432/dbname",
        ) from None


def address_of_url(dsn: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """What a database URL says, as settings of section ``database``.

    Raises:
        ConfigError: it is no URL of PostgreSQL, holds an option that is not known, or names a
            service that there is not.
    """
    if dsn.count("@") > 1:
        # Part of a password would be taken for the host, and told as such.
        raise ConfigError(
            "the database URL has more than one @",
            remedy="write an @ inside a name, password or path as %40, or leave the password to "
            "~/.pgpass",
        )
    url = parse_url(dsn, "the database URL")
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigError(
            f"database kind {url.get_backend_name()!r:.40} is not supported",
            remedy="write it as postgresql://user@host:5432/dbname",
        )
    query = {
        key: value if isinstance(value, str) else ",".join(value)
        for key, value in url.query.items()
    }
    host = unquote(url.host) if url.host else query.pop("host", None)
    if host and len(host) > LONGEST_HOST:
        raise ConfigError(
            f"the host of the database URL has {len(host)} characters: {host:.40}...",
            remedy=f"a name, an address or a socket's folder has at most {LONGEST_HOST}",
        )
    check_parameters(query, "the database URL")
    service = _of_service(query.get("service"), environ)
    if host:
        place = {**service, "host": host, "parameters": {}}
    elif service or "hostaddr" not in query:
        place = service or _of_variables(environ)
    else:
        place = {"host": query["hostaddr"]}
    given = {
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
        "parameters": {**place.pop("parameters", {}), **query},
    }
    return {**place, **{key: value for key, value in given.items() if value not in (None, "", {})}}


def names_a_server(environ: Mapping[str, str]) -> bool:
    """Whether libpq's variables say which server to connect to."""
    return any(environ.get(name) for name in _NAMES_A_SERVER)


def address_of_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """What libpq's variables say, as settings of section ``database``; a service's word wins.

    Raises:
        ConfigError: PGSERVICE names a service that there is not.
    """
    found: dict[str, Any] = {
        key: environ[name] for name, key in _VARIABLES.items() if environ.get(name)
    }
    service = _of_service(environ.get("PGSERVICE"), environ)
    if service or names_a_server(environ):
        found.update(service or _of_variables(environ))
    return found


def without_hostaddr(section: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of section ``database`` without the numeric address of their host.

    For whoever names another host: libpq connects to the address, whatever the host is called.
    """
    parameters = section.get("parameters")
    if not isinstance(parameters, Mapping) or "hostaddr" not in parameters:
        return dict(section)
    left = {name: value for name, value in parameters.items() if name != "hostaddr"}
    return {**section, "parameters": left}


def _of_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """The host of PGHOST and PGHOSTADDR; this machine where neither is set."""
    address = environ.get("PGHOSTADDR")
    host = environ.get("PGHOST") or address or _DEFAULT_HOST
    return {"host": host, "parameters": {"hostaddr": address} if address else {}}


def check_parameters(names: Iterable[str], where: str) -> None:
    """Refuse what is no parameter of a connection, or is not for others to read.

    Raises:
        ConfigError: dropped silently, sslmode=require would become a connection in the clear.
    """
    unknown = sorted(set(names) - CONNECTION_PARAMETERS)
    if unknown:
        raise ConfigError(
            f"{where} has options that are not known here: {', '.join(unknown)[:200]}",
            remedy=f"known are {', '.join(sorted(CONNECTION_PARAMETERS))}",
        )


def _of_service(name: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    """Host, port, user and database of a service; libpq reads the rest of it by itself.

    https://www.postgresql.org/docs/current/libpq-pgservice.html
    """
    if not name:
        return {}
    looked_at = _service_files(environ)
    for path in looked_at:
        section = _section(path, name)
        if section is not None:
            address = section.get("hostaddr")
            host = section.get("host") or address or _DEFAULT_HOST
            wanted = {key: section.get(key) for key in ("port", "user", "dbname")}
            return {
                "host": host,
                "parameters": {"hostaddr": address} if address else {},
                **{key: value for key, value in wanted.items() if value},
            }
    raise ConfigError(
        f"service {name!r:.80} is not in {' or '.join(str(path) for path in looked_at)}",
        remedy=f"write [{name:.80}] with host=, port=, user= and dbname= there, "
        "or name the file in PGSERVICEFILE",
    )


def _service_files(environ: Mapping[str, str]) -> list[Path]:
    home = environ.get("HOME")
    own = Path(home) / ".pg_service.conf" if home else None
    if environ.get("PGSERVICEFILE"):
        own = Path(environ["PGSERVICEFILE"])
    folders = [Path(environ["PGSYSCONFDIR"])] if environ.get("PGSYSCONFDIR") else _SYSTEM_FOLDERS
    return [*([own] if own else []), *(folder / "pg_service.conf" for folder in folders)]


def _section(path: Path, name: str) -> Mapping[str, str] | None:
    parser = configparser.RawConfigParser(
        strict=False,
        delimiters=("=",),
        comment_prefixes=("#",),
        default_section="",
        allow_no_value=True,
    )
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        # The text may hold a password, so only the kind of trouble is told.
        raise ConfigError(
            f"the service file {path} cannot be read ({type(error).__name__})",
            remedy="see the format in PostgreSQL's manual, The Connection Service File",
        ) from None
    return parser[name] if parser.has_section(name) else None
