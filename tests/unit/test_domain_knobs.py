"""Knobs and knob spaces: encoding, bounds, hostile values, fingerprints."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backend.catalog import load_catalog
from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue
from backend.domain.quantities import format_quantity, parse_quantity, unit_size
from backend.domain.server import HostFacts
from backend.errors import KnobBoundsError, UnknownKnobError

SPACE = load_catalog(17, HostFacts(8 << 30, 4.0)).space(tunable_only=False, include_restart=True)
WORK_MEM = Knob("work_mem", "integer", low=64, high=2097151, scale="log", unit="kB", default=4096)


@st.composite
def knobs(draw: st.DrawFn) -> Knob:
    """Any definition that makes sense, of any kind."""
    kind = draw(st.sampled_from(["integer", "real", "boolean", "categorical"]))
    name = draw(st.text("abcdef_", min_size=1, max_size=8))
    if kind == "boolean":
        return Knob(name, "boolean")
    if kind == "categorical":
        choices = draw(st.lists(st.text(min_size=1, max_size=4), min_size=2, unique=True))
        return Knob(name, "categorical", choices=choices)
    scale = draw(st.sampled_from(["linear", "log"]))
    least = 0 if scale == "log" else -(10**9)
    low: float
    high: float
    if kind == "integer":
        low = draw(st.integers(least, 10**9))
        high = draw(st.integers(low + 1, low + 10**9))
    else:
        low = draw(st.floats(least, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6))
        high = low + draw(st.floats(1e-3, 1e6))
        assume(high - low > 1e-9 * abs(low) and high > low)
    return Knob(name, kind, low=low, high=high, scale=scale)


def values_of(knob: Knob) -> st.SearchStrategy[KnobValue]:
    if knob.kind == "boolean":
        return st.booleans()
    if knob.kind == "categorical":
        return st.sampled_from(list(knob.choices))
    low, high = knob.bounds
    if knob.kind == "integer":
        return st.integers(int(low), int(high))
    return st.floats(low, high)


# -- encoding ---------------------------------------------------------------------------------


@given(st.data())
def test_a_value_survives_encoding_and_decoding(data: st.DataObject) -> None:
    knob = data.draw(knobs())
    value = data.draw(values_of(knob))
    encoded = knob.encode(value)
    assert encoded.shape == (knob.width,)
    assert np.all(np.abs(encoded) <= 1.0)
    decoded = knob.decode(encoded)
    if knob.kind in ("boolean", "categorical"):
        assert decoded == value
        return
    low, high = knob.bounds
    if knob.kind == "integer" and (high < 1e6 or knob.scale == "linear"):
        assert decoded == value
    else:
        slack = 1e-5 * (abs(float(value)) + (high if knob.scale == "log" else high - low) * 1e-3)
        assert math.isclose(float(decoded), float(value), rel_tol=1e-5, abs_tol=slack)


@given(st.data())
def test_any_vector_decodes_to_a_legal_value_of_the_knobs_type(data: st.DataObject) -> None:
    knob = data.draw(knobs())
    raw = data.draw(st.lists(st.floats(-5, 5), min_size=knob.width, max_size=knob.width))
    value = knob.decode(np.array(raw))
    assert knob.validate(value) == value
    assert type(knob.validate(value)) is type(value)


@given(st.data())
def test_encoding_is_monotonous_and_reaches_both_ends(data: st.DataObject) -> None:
    knob = data.draw(knobs().filter(lambda k: k.kind in ("integer", "real")))
    low, high = knob.bounds
    assert knob.encode(knob.low)[0] == pytest.approx(-1.0)
    assert knob.encode(knob.high)[0] == pytest.approx(1.0)
    left, right = sorted([data.draw(values_of(knob)), data.draw(values_of(knob))])
    assert knob.encode(left)[0] <= knob.encode(right)[0]
    assert low <= float(knob.decode(np.array([0.0]))) <= high


def test_a_log_scale_works_from_zero_on() -> None:
    knob = Knob("k", "integer", low=0, high=131072, scale="log")
    assert knob.decode(np.array([-1.0])) == 0
    assert [knob.decode(knob.encode(v)) for v in (0, 1, 2, 10, 1000, 131072)] == [
        0, 1, 2, 10, 1000, 131072,
    ]  # fmt: skip
    real = Knob("r", "real", low=0.0, high=20.0, scale="log")
    assert real.decode(np.array([-1.0])) == 0.0
    assert 0 < float(real.decode(np.array([0.0]))) < 1.0


@given(value=st.floats(0.5, 10))
def test_decoded_reals_are_what_a_server_shows(value: float) -> None:
    knob = Knob("random_page_cost", "real", low=0.5, high=10, scale="log")
    decoded = knob.decode(knob.encode(value))
    assert float(f"{decoded:.6g}") == decoded


def test_values_that_a_human_set_outside_the_bounds_are_encoded_at_the_nearest() -> None:
    assert WORK_MEM.encode(4_000_000)[0] == 1.0
    assert WORK_MEM.encode(1)[0] == -1.0
    wal = Knob("wal_buffers", "integer", low=512, high=16384, special=[-1], default=-1)
    assert wal.encode(-1)[0] == -1.0
    with pytest.raises(KnobBoundsError):
        WORK_MEM.encode(float("nan"))


def test_the_agent_never_proposes_a_special_value() -> None:
    knob = Knob("jit_above_cost", "real", low=1000, high=1e7, special=[-1], scale="log")
    for coordinate in np.linspace(-1, 1, 41):
        assert knob.decode(np.array([coordinate])) != -1


@given(st.data())
def test_a_whole_configuration_survives(data: st.DataObject) -> None:
    names = data.draw(st.sets(st.sampled_from(SPACE.names)))
    config = {name: data.draw(values_of(SPACE[name])) for name in names}
    vector = SPACE.encode(config)
    assert vector.shape == (SPACE.width,)
    decoded = SPACE.decode(vector)
    again = SPACE.decode(SPACE.encode(decoded))
    assert decoded.keys() == set(SPACE.names)
    for name in SPACE.names:
        left, right = decoded[name], again[name]
        if isinstance(left, float):
            assert right == pytest.approx(left, rel=1e-5)
        else:
            assert left == right


def test_decode_refuses_another_width_and_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="expected a vector of shape"):
        SPACE.decode(np.zeros(3))
    broken = np.zeros(SPACE.width)
    broken[5] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        SPACE.decode(broken)


# -- bounds and hostile values ----------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        63, 2097152, -1, 0, 4096.5, "4096.5", "", " ", "abc", "0x10", "1e400", "-inf", "nan",
        float("inf"), float("nan"), True, None, [], {}, (4096,), b"4096", object(), 10**400,
        "4096; DROP TABLE x", "'4096'", "٤٠٩٦x", complex(4096),
    ],
)  # fmt: skip
def test_hostile_integers_are_refused_with_the_name(value: object) -> None:
    with pytest.raises(KnobBoundsError, match="work_mem = "):
        WORK_MEM.validate(value)


@pytest.mark.parametrize("value", ["4096", " 4096 ", 4096.0, np.int64(4096), np.float64(4096)])
def test_friendly_integers_are_typed(value: object) -> None:
    valid = WORK_MEM.validate(value)
    assert valid == 4096
    assert type(valid) is int


@pytest.mark.parametrize("value", ["x", "", 2, -1, None, [], 0.5, "o", object(), float("nan")])
def test_hostile_booleans_are_refused(value: object) -> None:
    with pytest.raises(KnobBoundsError, match="neither on nor off"):
        Knob("jit", "boolean").validate(value)


@pytest.mark.parametrize("value", ["ON", "true", "Yes", "1", 1, True, np.bool_(True)])
def test_friendly_booleans_are_typed(value: object) -> None:
    assert Knob("jit", "boolean").validate(value) is True


@pytest.mark.parametrize("value", ["gzip", "", None, 1, [], {}, ["off"], np.zeros(2), b"off"])
def test_hostile_choices_are_refused(value: object) -> None:
    with pytest.raises(KnobBoundsError, match="wal_compression = "):
        Knob("wal_compression", "categorical", choices=["off", "lz4"]).validate(value)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.binary(), st.none(), st.booleans()))
def test_validate_either_types_the_value_or_refuses_it(value: object) -> None:
    for knob in SPACE:
        try:
            valid = knob.validate(value)
        except KnobBoundsError:
            continue
        assert knob.validate(valid) == valid
        if knob.kind in ("integer", "real") and valid not in knob.special:
            low, high = knob.bounds
            assert low <= float(valid) <= high


def test_messages_stay_short_whatever_comes() -> None:
    with pytest.raises(KnobBoundsError) as caught:
        WORK_MEM.validate("9" * 100_000)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "definition",
    [
        {"kind": "integer"},
        {"kind": "integer", "low": 5, "high": 5},
        {"kind": "real", "low": 5, "high": 1},
        {"kind": "integer", "low": -5, "high": 5, "scale": "log"},
        {"kind": "real", "low": float("nan"), "high": 5},
        {"kind": "real", "low": 0, "high": float("inf")},
        {"kind": "integer", "low": 0.5, "high": 0.7},
        {"kind": "categorical", "choices": ["one"]},
        {"kind": "categorical", "choices": ["one", "one"]},
        {"kind": "text"},
        {"kind": "integer", "low": 0, "high": 5, "default": 9},
    ],
)
def test_contradictory_definitions_are_refused(definition: dict[str, object]) -> None:
    with pytest.raises(KnobBoundsError):
        Knob("k", **definition)  # type: ignore[arg-type]


def test_special_values_are_legal_and_typed() -> None:
    knob = Knob("wal_buffers", "integer", low=512, high=16384, special=[-1], default=-1)
    assert knob.validate("-1") == -1
    assert knob.default == -1
    with pytest.raises(KnobBoundsError):
        knob.validate(-2)


# -- spaces -----------------------------------------------------------------------------------


def test_the_fingerprint_tells_spaces_apart_and_is_stable() -> None:
    assert KnobSpace([WORK_MEM]).fingerprint == KnobSpace([replace(WORK_MEM)]).fingerprint
    changed = [
        replace(WORK_MEM, low=128),
        replace(WORK_MEM, high=1000000),
        replace(WORK_MEM, scale="linear"),
        replace(WORK_MEM, unit="8kB"),
        replace(WORK_MEM, name="other_mem"),
        replace(WORK_MEM, kind="real"),
    ]
    prints = {KnobSpace([knob]).fingerprint for knob in [WORK_MEM, *changed]}
    assert len(prints) == 1 + len(changed)
    jit = Knob("jit", "boolean")
    assert KnobSpace([jit, WORK_MEM]).fingerprint != KnobSpace([WORK_MEM, jit]).fingerprint


def test_what_the_encoding_does_not_depend_on_keeps_the_fingerprint() -> None:
    same = replace(WORK_MEM, description="other words", risk="high", settle_s=9.0, low=64.0)
    assert KnobSpace([same]).fingerprint == KnobSpace([WORK_MEM]).fingerprint


def test_a_space_knows_its_knobs() -> None:
    space = KnobSpace([WORK_MEM, Knob("jit", "boolean", default=True)])
    assert space.names == ("work_mem", "jit")
    assert "jit" in space
    assert space["jit"].default is True
    assert space.default_config() == {"work_mem": 4096, "jit": True}
    assert space.subset(["jit"]).names == ("jit",)
    with pytest.raises(UnknownKnobError, match="no knob named 'fsync'"):
        space["fsync"]
    with pytest.raises(UnknownKnobError):
        space.validate({"fsync": False})
    with pytest.raises(KnobBoundsError, match="each knob once"):
        KnobSpace([WORK_MEM, WORK_MEM])


# -- configurations ---------------------------------------------------------------------------


def test_configurations_compare_and_hash_by_content_and_type() -> None:
    left, right = KnobConfig({"a": 1, "b": True}), KnobConfig({"b": True, "a": 1})
    assert left == right == {"a": 1, "b": True}
    assert hash(left) == hash(right)
    assert left.replace({"a": 2}) == {"a": 2, "b": True}
    assert len({left, right}) == 1


# -- quantities -------------------------------------------------------------------------------


def test_quantities_are_read_and_written() -> None:
    assert parse_quantity("64MB", "kB") == 65536
    assert parse_quantity("128 MB", "8kB") == 16384
    assert parse_quantity("1.5", None) == 1.5
    assert parse_quantity("5min", "s") == 300
    assert unit_size("8kB") == ("bytes", 8192.0)
    assert format_quantity(16384, "8kB") == "128 MB"
    assert format_quantity(300, "s") == "5 min"
    assert format_quantity(4, None) == "4"
    assert format_quantity(0, "kB") == "0 B"
    assert format_quantity(3, "apples") == "3 apples"


@pytest.mark.parametrize("text", ["", "MB", "1 2", "1MBx", "0x1", "1;", "--1", "1e", "nan", "inf"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a number|no such unit"):
        parse_quantity(text, "kB")


@given(value=st.integers(0, 10**9), unit=st.sampled_from(["B", "kB", "8kB", "MB", "ms", "s"]))
def test_written_quantities_read_back_nearly(value: int, unit: str) -> None:
    assert parse_quantity(format_quantity(value, unit), unit) == pytest.approx(value, rel=1e-3)
