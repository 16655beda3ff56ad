"""Texts to copy say what they should, to the parser of whoever reads them."""

from __future__ import annotations

import shlex

import pglast
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pglast import ast

from backend.advice.quoting import exact_text, sql_identifier
from backend.advice.texts import RDS_MOST, CopyText, Place, texts, together
from backend.catalog.entries import entry_value, same_value
from backend.domain.knobs import Knob, KnobValue
from backend.domain.server import KnobReading
from backend.targets.postgresql_lookup import AWS_RDS, AZURE, GOOGLE_CLOUD_SQL, Rights
from tests.unit.advice.made_facts import CATALOG

KNOBS = [entry.knob for entry in CATALOG]
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1)
ROLES = NAMES.filter(lambda name: name not in ("none", "public"))
"""PostgreSQL reserves these two even in quotes: no role can be called so."""


@st.composite
def changes(draw: st.DrawFn) -> tuple[Knob, KnobValue]:
    """A knob with a legal value."""
    knob = draw(st.sampled_from(KNOBS))
    if knob.kind == "boolean":
        return knob, draw(st.booleans())
    if knob.kind == "categorical":
        return knob, draw(st.sampled_from(knob.choices))
    low, high = knob.bounds
    if knob.kind == "integer":
        return knob, draw(st.integers(round(low), round(high)))
    return knob, float(f"{draw(st.floats(low, high)):.6g}")


def place(**given: object) -> Place:
    rights = Rights("autopilot", "shop", set_value=frozenset(CATALOG.names))
    return Place(**{"rights": rights, "version": 170010, "role": "shop_app", **given})


def all_texts(
    knob: Knob, value: KnobValue, where: Place | None = None, **reading: object
) -> dict[str, CopyText]:
    present = KnobReading(knob.name, knob.default, "default", **reading)
    return {one.form: one for one in texts(knob, value, present, where or place())}


def knob_of(name: str) -> Knob:
    return CATALOG.knob(name).knob


# -- values and names -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("shared_buffers", 16384, "128MB"),
        ("shared_buffers", 131072, "1GB"),
        ("work_mem", 43690, "43690kB"),
        ("wal_buffers", -1, "-1"),
        ("checkpoint_timeout", 900, "15min"),
        ("bgwriter_delay", 100, "100ms"),
        ("random_page_cost", 1.1, "1.1"),
        ("jit", False, "off"),
        ("wal_compression", "lz4", "lz4"),
    ],
)
def test_values_as_people_write_them(name: str, value: KnobValue, text: str) -> None:
    assert exact_text(knob_of(name), value) == text


@given(changes())
def test_the_text_means_the_value_and_no_other(change: tuple[Knob, KnobValue]) -> None:
    knob, value = change
    assert same_value(entry_value(knob, exact_text(knob, value)), value)


@given(ROLES)
def test_any_name_survives_quoting_in_one_printable_line(name: str) -> None:
    quoted = sql_identifier(name)
    assert quoted.isprintable()
    statement = pglast.parse_sql(f"ALTER ROLE {quoted} SET work_mem = '4MB'")[0].stmt
    assert isinstance(statement, ast.AlterRoleSetStmt)
    whole = name.encode()[:63].decode(errors="ignore")  # the parser cuts longer names
    assert statement.role.rolename == whole


# -- SQL and file ---------------------------------------------------------------------------------


@given(changes(), ROLES, NAMES)
def test_sql_says_the_value_to_the_servers_parser(
    change: tuple[Knob, KnobValue], role: str, database: str
) -> None:
    knob, value = change
    rights = Rights("autopilot", database, set_value=frozenset(CATALOG.names))
    told = all_texts(knob, value, place(rights=rights, role=role))
    for form in ("ALTER SYSTEM", "ALTER DATABASE", "ALTER ROLE"):
        if form not in told:
            assert knob.context != "session"
            continue
        for text in (told[form].text, told[form].undo):
            (raw,) = pglast.parse_sql(text)
            assert raw.stmt.setstmt.name == knob.name
        constant = pglast.parse_sql(told[form].text)[0].stmt.setstmt.args[0].val.sval
        assert same_value(entry_value(knob, constant), value)
    name, _, written = told["postgresql.conf"].text.partition(" = ")
    assert name == knob.name
    assert same_value(entry_value(knob, written.strip("'")), value)


def test_undo_puts_back_the_entry_that_stood_there() -> None:
    knob = knob_of("work_mem")
    assert all_texts(knob, 8192)["ALTER SYSTEM"].undo == "ALTER SYSTEM RESET work_mem;"
    entry = all_texts(knob, 8192, entry="7MB'")["ALTER SYSTEM"]
    assert entry.undo == "ALTER SYSTEM SET work_mem = '7MB''';"
    blind = all_texts(knob, 8192, place(sees_entries=False))["ALTER SYSTEM"]
    assert blind.undo == "ALTER SYSTEM SET work_mem = '4MB';"


def test_an_entry_wins_over_the_file_and_that_is_said() -> None:
    told = all_texts(knob_of("work_mem"), 8192, entry="5MB")
    assert "postgresql.auto.conf" in told["postgresql.conf"].obstacle


# -- what stands in the way -----------------------------------------------------------------------


def test_a_role_that_may_is_not_hindered() -> None:
    told = all_texts(knob_of("work_mem"), 8192)
    assert not any(one.obstacle for one in told.values())


def test_a_missing_privilege_is_told_with_its_grant() -> None:
    obstacle = all_texts(knob_of("work_mem"), 8192, may_alter=False)["ALTER SYSTEM"].obstacle
    assert 'GRANT ALTER SYSTEM ON PARAMETER work_mem TO "autopilot";' in obstacle
    before_15 = all_texts(knob_of("work_mem"), 8192, place(version=140005), may_alter=False)
    assert "superuser" in before_15["ALTER SYSTEM"].obstacle
    assert "GRANT" not in before_15["ALTER SYSTEM"].obstacle


def test_files_that_forbid_alter_system() -> None:
    rights = Rights("autopilot", "shop", alter_system_off=True)
    told = all_texts(knob_of("work_mem"), 8192, place(rights=rights))
    assert "allow_alter_system" in told["ALTER SYSTEM"].obstacle
    assert not told["postgresql.conf"].obstacle


def test_a_stand_by_takes_its_own_settings_and_no_others() -> None:
    rights = Rights("a", "shop", in_recovery=True, set_value=frozenset(CATALOG.names))
    told = all_texts(knob_of("work_mem"), 8192, place(rights=rights))
    assert not told["ALTER SYSTEM"].obstacle
    assert "stand-by" in told["ALTER SYSTEM"].note
    assert "primary" in told["ALTER ROLE"].obstacle


def test_a_setting_that_only_superusers_may_give_to_a_role() -> None:
    told = all_texts(knob_of("wal_compression"), "pglz", place(rights=Rights("a", "shop")))
    assert "GRANT SET" in told["ALTER DATABASE"].obstacle


def test_a_managed_server_has_its_services_text_alone() -> None:
    rights = Rights("a", "shop", managed_by=GOOGLE_CLOUD_SQL)
    told = all_texts(knob_of("work_mem"), 8192, place(rights=rights))
    assert GOOGLE_CLOUD_SQL in told
    assert AWS_RDS not in told
    assert AZURE not in told
    assert told["ALTER SYSTEM"].obstacle
    assert told["postgresql.conf"].obstacle


# -- services -------------------------------------------------------------------------------------


@given(changes())
def test_services_get_native_numbers_through_a_shell(change: tuple[Knob, KnobValue]) -> None:
    knob, value = change
    told = all_texts(knob, value)

    parameter = shlex.split(told[AWS_RDS].text)[-1]
    fields = dict(part.split("=", 1) for part in parameter.split(","))
    assert fields["ParameterName"] == knob.name
    expected = "pending-reboot" if knob.context == "restart" else "immediate"
    assert fields["ApplyMethod"] == expected
    assert same_value(entry_value(knob, fields["ParameterValue"]), value)

    flag = shlex.split(told[GOOGLE_CLOUD_SQL].text)[-1]
    name, written = flag.removeprefix("--database-flags=").split("=", 1)
    assert name == knob.name
    assert same_value(entry_value(knob, written), value)

    words = shlex.split(told[AZURE].text)
    assert words[-4:-1] == ["--name", knob.name, "--value"]
    assert same_value(entry_value(knob, words[-1]), value)


def test_service_texts_to_the_letter() -> None:
    told = all_texts(knob_of("shared_buffers"), 524288)
    assert told[AWS_RDS].text == (
        "aws rds modify-db-parameter-group --db-parameter-group-name YOUR_PARAMETER_GROUP "
        "--parameters ParameterName=shared_buffers,ParameterValue=524288,ApplyMethod=pending-reboot"
    )
    assert told[GOOGLE_CLOUD_SQL].text == (
        "gcloud sql instances patch YOUR_INSTANCE --database-flags=shared_buffers=524288"
    )
    assert "go back to their defaults" in told[GOOGLE_CLOUD_SQL].note
    assert told[AZURE].text.endswith("--name shared_buffers --value 524288")
    assert "restart" in told[AZURE].note
    assert "ParameterValue=0" in all_texts(knob_of("jit"), False)[AWS_RDS].text
    assert "jit=off" in all_texts(knob_of("jit"), False)[GOOGLE_CLOUD_SQL].text


def test_many_changes_at_once() -> None:
    many = [(knob, knob.default) for knob in KNOBS if knob.default is not None][: RDS_MOST + 3]
    told = {one.form: one for one in together(many)}
    assert told["ALTER SYSTEM"].text.endswith("SELECT pg_reload_conf();")
    assert len(pglast.parse_sql(told["ALTER SYSTEM"].text)) == len(many) + 1
    assert len(pglast.parse_sql(told["ALTER SYSTEM"].undo)) == len(many) + 1
    assert len(told["postgresql.conf"].text.splitlines()) == len(many)
    assert [line.count("ParameterName=") for line in told[AWS_RDS].text.splitlines()] == [
        RDS_MOST,
        3,
    ]
    assert len(told[GOOGLE_CLOUD_SQL].text.splitlines()) == 1
    assert len(told[AZURE].text.splitlines()) == len(many)
    assert together([]) == ()
