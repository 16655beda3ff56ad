"""Which capabilities a role lacks, and the SQL that is named for them."""

from __future__ import annotations

import pytest

from backend.targets.postgresql_probe import _missing

ALL = {
    "role": "o'neill",
    "superuser": True,
    "in_recovery": False,
    "allow_alter_system": "on",
    "reload": True,
    "file_settings": True,
    "read_all_stats": True,
    "track_io_timing": "on",
}


def missing(version: int = 170001, **lacking: object) -> dict[str, str]:
    return _missing(None, {**ALL, **lacking}, version)  # type: ignore[arg-type]


def test_with_everything_nothing_is_missing() -> None:
    assert missing() == {}


@pytest.mark.parametrize("lacking", ["reload", "file_settings"])
def test_who_could_not_undo_a_change_may_not_make_one(lacking: str) -> None:
    found = missing(**{lacking: False})
    assert set(found) == {lacking, "alter_system"}
    assert found["alter_system"].startswith(found[lacking])
    assert '"o\'neill"' in found[lacking]


@pytest.mark.parametrize(
    ("version", "lacking", "reason"),
    [
        (190000, {}, "newer than 18"),
        (170001, {"in_recovery": True}, "stand-by"),
        (170001, {"allow_alter_system": "off"}, "allow_alter_system = off"),
        (140005, {"superuser": False}, "only a superuser"),
    ],
)
def test_the_first_obstacle_is_the_one_that_is_named(
    version: int, lacking: dict[str, object], reason: str
) -> None:
    found = missing(version, reload=False, **lacking)
    assert reason in found["alter_system"]
