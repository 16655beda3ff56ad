"""Where settings come from: a YAML file, the environment, a database URL, the command line.

Environment variables are named ``AUTOPILOT_<SECTION>__<KEY>``
(``AUTOPILOT_SAFETY__QUERY_TIMEOUT=10``). What the keys are is the business of config. All of it
is hostile: messages never repeat what may be a password.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from backend.errors import ConfigError
from backend.settings.address import (
    address_of_environment,
    address_of_url,
    names_a_server,
    without_hostaddr,
)
from backend.strict_yaml import FileTooLargeError, RefusedYAMLError, read_strictly

ENV_PREFIX = "AUTOPILOT_"
_NOT_REPEATED = ("extra_forbidden", "model_type", "dict_type")


def gather(
    sections: Collection[str],
    path: Path | str | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    dsn: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Read all sources and merge them; values are not checked yet.

    Args:
        sections: top-level keys; environment variables that name another one are left alone.
        path: a YAML file; None: ``config.yaml`` of the working directory where it exists.
        overrides: the command line's, nested by section; they win.
        dsn: URL of a foreign server; wins over ``DATABASE_URL``.
        environ: the environment (for tests); default: the process's own.

    Raises:
        ConfigError: the file is missing or not YAML, or a URL cannot be parsed.
    """
    env = os.environ if environ is None else environ
    from_file, from_env = _read_yaml(path), _read_environment(env, sections)
    url = dsn or env.get("DATABASE_URL")
    from_url = {"database": address_of_url(url, env)} if url else {}
    layers = [from_file, from_env, from_url, overrides or {}]
    if any(_names_host(layer) for layer in layers):
        # libpq's variables fill in what nobody names, as they do for libpq itself.
        layers.insert(0, {"database": address_of_environment(env)})
    elif names_a_server(env):
        # What the file says then is about the embedded server, or the example's defaults.
        layers.insert(1, {"database": address_of_environment(env)})
    merged: dict[str, Any] = {}
    for layer in layers:
        if _names_host(layer) and isinstance(merged.get("database"), Mapping):
            merged["database"] = without_hostaddr(merged["database"])
        merged = _merge(merged, layer)
    return merged


def _names_host(layer: Mapping[str, Any]) -> bool:
    database = layer.get("database")
    return isinstance(database, Mapping) and bool(database.get("host"))


def _read_yaml(path: Path | str | None) -> dict[str, Any]:
    file = Path(path) if path is not None else Path("config.yaml")
    if path is None and not file.exists():
        return {}
    try:
        loaded = read_strictly(file)
    except FileNotFoundError:
        raise ConfigError(
            f"no settings file at {file}", remedy="copy config.yaml.example to config.yaml"
        ) from None
    except FileTooLargeError as error:
        raise ConfigError(str(error), remedy="settings take a few kilobytes") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}, line {line}: it cannot be read, it is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        # Only what and where: the text of the line may hold a password.
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        known = isinstance(error, (ScannerError, ParserError, RefusedYAMLError))
        problem = error.problem if known else "an unknown tag or alias; quote the value"
        raise ConfigError(f"{file}{where}: not YAML ({problem})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read as YAML ({type(error).__name__})") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{file} holds a {type(loaded).__name__}, not sections of settings")
    return loaded


def _read_environment(environ: Mapping[str, str], sections: Collection[str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith(ENV_PREFIX):
            continue
        keys = name[len(ENV_PREFIX) :].lower().split("__")
        if keys[0] not in sections:
            continue
        place = nested
        for key in keys[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{name} names a key inside {key}, which is set as a whole too")
        place[keys[-1]] = _parse_scalar(text)
    return nested


def _parse_scalar(text: str) -> Any:
    """Lists and mappings are given as JSON; pydantic turns plain text into numbers itself."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return None if text == "" else text


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


def explain(error: ValidationError) -> str:
    """What was refused, a line each: the key, the bound and, unless it may be secret, the value."""
    lines = []
    for item in error.errors():
        # pydantic marks what is wrong with a mapping's key, and our own words, in words of its own.
        place = [str(part) for part in item["loc"] if part != "[key]"]
        # A key is the writer's own text: in one line, and of bounded length.
        place = [p if p.isidentifier() or p.isdecimal() else reprlib.repr(p) for p in place]
        where, problem = ".".join(place) or "settings", item["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {problem}{_given(where, item['type'], item['input'])}")
    return "invalid settings:\n  " + "\n  ".join(lines)


def _given(where: str, error_type: str, value: object) -> str:
    """The refused value for a message, where it cannot be a secret."""
    if not isinstance(value, (str, int, float)):
        return f" (got a {type(value).__name__})" if value is not None else " (got nothing)"
    if isinstance(value, int) and value.bit_length() > 256:
        return " (got a huge number)"  # which Python may refuse to write out
    # A misspelt password, one in the place of a whole section (users: {ann: hunter2}), or an
    # address that holds one, must not be repeated.
    secret = "password" in where or error_type in _NOT_REPEATED or "@" in str(value)
    return "" if secret else f" (got {reprlib.repr(value)})"
