"""Serving verified hint sets: table, freeze switch, timings, withdrawals, commands."""

from __future__ import annotations

import json
import stat
from datetime import timedelta

import pytest

from backend.domain.clock import ManualClock
from backend.domain.modes import Mode
from backend.domain.steering import ClassKey, SteeringMode, SteeringState
from backend.errors import SteeringError, StoreError
from backend.steering.client import SpoolWriter, parse_table
from backend.steering.places import SteeringPlaces
from backend.steering.register import SteeringRegister
from backend.steering.serving.service import RECORD_EVERY_S, SteeringService
from backend.steering.serving.table_writer import REWRITE_AFTER_S
from tests.steered_classes import (
    HINT_SET,
    KEY,
    OTHER_KEY,
    START,
    MemoryStore,
    class_timings,
    counted,
    evidence,
)

TEXT = "SELECT count(*) FROM orders JOIN items USING (order_id) WHERE customer_id = $1"
THIRD_KEY = ClassKey("aaaabbbbccccdddd", KEY.search_path)


class SettableClock(ManualClock):
    def set_wall_clock(self, now):
        """Time that is measured goes on."""
        self._start += now - self.now()


class Product:
    """A service with all that it works on."""

    def __init__(self, folder):
        self.places = SteeringPlaces(folder / "data" / "steering")
        self.store, self.clock = MemoryStore(), SettableClock(START)
        self.register = SteeringRegister(self.store, self.clock)
        self.mode, self.frozen = Mode.AUTO, False
        self.service = self.start()
        self.report_to_spool = SpoolWriter(self.places.timings)

    def start(self):
        return SteeringService(
            self.register,
            self.places,
            self.store,
            self.clock,
            mode=lambda: self.mode,
            frozen=lambda: self.frozen,
        )

    def verify(self, key=KEY, **others):
        self.register.add(key, TEXT)
        others.setdefault("verified_at", self.clock.now())
        return self.register.verify(key, evidence(**others))

    def tick(self, seconds=5.0):
        self.clock.advance(seconds)
        self.service.tick()

    def table(self):
        return parse_table(self.places.table.read_bytes())

    def steered(self):
        """What plug-ins do by now."""
        if not self.places.table.exists():
            return {}
        table = self.table()
        if table.expires_at_s <= self.clock.now().timestamp():
            return {}
        return {ClassKey(e.fingerprint, e.search_path): e for e in table.entries}

    def report(self, *classes):
        self.places.folder.mkdir(parents=True, exist_ok=True)
        self.report_to_spool(list(classes))

    def hear(self):
        """Until all that lies in the spool is stored: it is read one tick after it is taken."""
        self.tick()
        self.tick()
        self.tick(RECORD_EVERY_S)


@pytest.fixture
def product(tmp_path):
    return Product(tmp_path)


# -- the table ---------------------------------------------------------------------------------


def test_a_verified_class_is_served_with_what_was_proven(product):
    product.verify()
    product.tick()
    entry = product.steered()[KEY]
    assert (entry.hint_set, dict(entry.settings)) == (HINT_SET, {"enable_nestloop": "off"})
    assert (dict(entry.under), entry.functions) == ({"enable_nestloop": "on"}, {"count"})
    assert (entry.mode, product.service.served) == ("auto", 1)
    assert product.store.told() == [("info", "hint_set_served")]
    assert "2.0 times as fast" in product.store.events[0].message


def test_an_empty_table_is_written_too(product):
    product.tick()
    assert product.table().entries == ()


def test_the_folder_is_made_for_its_owner_and_group_alone(product):
    product.tick()
    assert stat.S_IMODE(product.places.folder.stat().st_mode) & 0o007 == 0


def test_nothing_is_steered_a_minute_after_the_autopilot_died(product):
    product.verify()
    product.tick()
    product.clock.advance(59)
    assert KEY in product.steered()
    product.clock.advance(1)
    assert product.steered() == {}


def test_a_table_that_did_not_change_is_written_before_it_expires_and_not_at_every_tick(product):
    product.verify()
    product.tick()
    first = product.places.table.stat().st_ino
    product.tick(REWRITE_AFTER_S - 1)
    assert product.places.table.stat().st_ino == first
    for _ in range(10):
        product.tick()
        assert KEY in product.steered()
    assert [kind for _, kind in product.store.told()] == ["hint_set_served"]


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.ADVISE, Mode.APPROVE])
def test_other_modes_than_auto_serve_what_a_human_pinned(product, mode):
    product.verify()
    product.verify(OTHER_KEY)
    product.register.set_mode(OTHER_KEY, SteeringMode.PIN)
    product.mode = mode
    product.tick()
    assert list(product.steered()) == [OTHER_KEY]
    assert product.steered()[OTHER_KEY].mode == "pin"


def test_a_class_that_is_off_is_not_in_the_table(product):
    product.verify()
    product.register.set_mode(KEY, SteeringMode.OFF)
    product.tick()
    assert product.table().entries == ()


def test_an_entry_that_plug_ins_would_refuse_costs_the_others_nothing(product):
    product.verify(settings={"enable_nestloop": "off; DROP TABLE orders"})
    product.verify(OTHER_KEY)
    product.tick()
    product.tick()
    assert list(product.steered()) == [OTHER_KEY]
    withdrawn = product.register.get(KEY)
    assert withdrawn.state is SteeringState.WITHDRAWN
    assert "plug-ins would refuse it" in withdrawn.reason


def test_a_pinned_entry_that_plug_ins_would_refuse_is_withdrawn_once(product):
    product.verify(settings={"fsync": "off"}, under={"fsync": "on"})
    product.register.set_mode(KEY, SteeringMode.PIN)
    product.tick()
    changed_at = product.register.get(KEY).updated_at
    product.tick()
    assert product.register.get(KEY).updated_at == changed_at
    assert product.steered() == {}


def test_a_table_that_is_too_large_holds_what_matters_most(product):
    functions = tuple(f"{'f' * 120}_{number}" for number in range(300))
    keys = [ClassKey(f"{number:016x}", "public") for number in range(80)]
    for number, key in enumerate(keys):
        product.verify(key, functions=functions, default_ms=100.0 + number)
    product.register.set_mode(keys[0], SteeringMode.PIN)
    product.tick()
    steered = product.steered()
    assert 0 < len(steered) < len(keys)
    assert keys[0] in steered
    assert keys[-1] in steered
    assert keys[1] not in steered


def test_after_a_good_end_nothing_is_steered_at_all(product):
    product.verify()
    product.register.set_mode(KEY, SteeringMode.PIN)
    product.tick()
    product.service.close()
    assert product.table().expires_at_s == 0  # of whatever clock
    assert product.steered() == {}
    assert product.service.served == 0


def test_a_good_end_before_anything_was_served_is_one_too(product):
    product.service.close()
    assert product.steered() == {}


def test_the_next_process_goes_on_without_telling_it_again(product):
    product.verify()
    product.tick()
    product.service = product.start()
    product.tick()
    assert KEY in product.steered()
    assert product.store.told() == [("info", "hint_set_served")]


# -- the disk ----------------------------------------------------------------------------------


def test_a_disk_that_fails_is_told_once_and_stops_nobody(product):
    product.places.folder.parent.mkdir()
    product.places.folder.write_text("a file where the folder should be")
    product.verify()
    for _ in range(3):
        product.tick()
    assert product.service.served == 0
    assert product.store.told() == [("error", "steering_file")] * 2  # the table, the spool
    product.places.folder.unlink()
    product.tick()
    assert KEY in product.steered()
    assert product.store.told()[2:] == [
        ("info", "steering_file"),
        ("info", "steering_file"),
        ("info", "hint_set_served"),
    ]


# -- the freeze switch -------------------------------------------------------------------------


def test_frozen_serves_nothing_new_and_goes_on_with_what_it_served(product):
    product.verify()
    product.tick()
    product.frozen = True
    product.verify(OTHER_KEY)
    for _ in range(20):
        product.tick()
    assert list(product.steered()) == [KEY]
    product.frozen = False
    product.tick()
    assert set(product.steered()) == {KEY, OTHER_KEY}


def test_frozen_withdraws(product):
    product.verify()
    product.tick()
    product.frozen = True
    product.register.withdraw(KEY, "slower by now")
    product.tick()
    assert product.steered() == {}
    assert "slower by now" in product.store.events[-1].message


def test_another_hint_set_of_the_same_class_is_new(product):
    product.verify()
    product.tick()
    product.frozen = True
    product.verify(settings={"enable_hashjoin": "off"}, under={"enable_hashjoin": "on"})
    product.tick()
    assert product.steered() == {}


def test_a_restart_while_frozen_goes_on_with_what_was_served(product):
    product.verify()
    product.tick()
    product.frozen = True
    product.service = product.start()
    product.tick()
    assert list(product.steered()) == [KEY]


def test_an_orderly_restart_while_frozen_does_so_too(product):
    product.verify()
    product.verify(OTHER_KEY)
    product.register.set_mode(OTHER_KEY, SteeringMode.PIN)
    product.tick()
    product.frozen = True
    product.verify(THIRD_KEY)
    product.tick()
    product.service.close()
    product.clock.advance(3600)
    product.service = product.start()
    assert product.steered() == {}
    product.tick()
    assert set(product.steered()) == {KEY, OTHER_KEY}
    assert [kind for _, kind in product.store.told()] == ["hint_set_served"] * 2


# -- timings -----------------------------------------------------------------------------------


def test_timings_become_a_record_for_each_arm(product):
    product.verify()
    product.tick()
    began = product.clock.now()
    product.report(class_timings("steered", [0.01] * 9), class_timings("default", [0.02]))
    product.report(class_timings("steered", [0.01], cancelled=1, failed=2))
    product.hear()
    assert counted(product.store.timings) == {"steered": 10, "default": 1}
    default, steered = product.store.timings
    assert (default.key, default.hint_set, default.arm) == (KEY, HINT_SET, "default")
    assert (steered.cancelled, steered.failed) == (1, 2)
    assert steered.total_s == pytest.approx(0.1)
    assert sum(steered.buckets.values()) == 10
    assert began <= steered.started_at < steered.ended_at <= product.clock.now()


def test_timings_are_added_up_to_a_record_a_minute(product):
    product.verify()
    product.tick()
    for _ in range(120):
        product.report(class_timings("steered", [0.01]))
        product.tick()
    product.service.close()
    assert counted(product.store.timings) == {"steered": 120}
    assert len(product.store.timings) <= 12


def test_a_report_that_is_read_twice_counts_once(product):
    product.verify()
    product.tick()
    product.report(class_timings("steered", [0.01] * 3))
    lines = product.places.timings.read_bytes()
    product.hear()
    product.places.timings.write_bytes(lines * 2)
    product.report(class_timings("steered", [0.01]))
    product.hear()
    assert counted(product.store.timings) == {"steered": 4}


def test_timings_that_belong_to_nothing_or_cannot_be_are_left_out(product):
    product.verify()
    product.tick()
    product.report(
        class_timings("steered", [0.01], fingerprint=OTHER_KEY.fingerprint),
        class_timings("steered", [0.01], hint_set="another"),
        class_timings("steered", [0.01], buckets={10**9: 1}),
        class_timings("steered", [0.01], buckets={-5: 1}),
        class_timings("steered", [0.01], executions=10**6),
        class_timings("steered", [0.01], total_s=1e9),
    )
    with product.places.timings.open("ab") as file:
        file.write(b"not JSON\n" + json.dumps({"version": 99}).encode() + b"\n")
    product.report(class_timings("steered", [0.01]))
    product.hear()
    product.hear()
    assert counted(product.store.timings) == {"steered": 1}
    assert ("warning", "steering_file") in product.store.told()


def test_what_the_store_did_not_take_is_stored_later(product):
    product.verify()
    product.tick()
    product.report(class_timings("steered", [0.01] * 5))
    product.tick()
    product.store.broken = True
    with pytest.raises(StoreError):
        product.tick()
    product.store.broken = False
    product.tick()
    assert counted(product.store.timings) == {"steered": 5}


# -- withdrawing -------------------------------------------------------------------------------


def _serve_hours(product, hours, steered_s, default_s, default_pairs=10):
    for _ in range(hours):
        product.report(
            class_timings("steered", [steered_s, steered_s * 1.3] * 200),
            class_timings("default", [default_s, default_s * 1.3] * default_pairs),
        )
        product.tick()
        product.tick(3590)


def test_what_pays_stays(product):
    product.verify()
    product.tick()
    _serve_hours(product, 30, 0.01, 0.02)
    assert KEY in product.steered()
    assert product.register.get(KEY).state is SteeringState.VERIFIED


def test_what_got_slower_is_withdrawn_although_it_paid_for_long(product):
    product.verify()
    product.tick()
    _serve_hours(product, 48, 0.01, 0.02)
    _serve_hours(product, 4, 0.06, 0.02)
    assert product.steered() == {}
    record = product.register.get(KEY)
    assert record.state is SteeringState.WITHDRAWN
    assert "proven slower than the default plan" in record.reason
    assert product.store.told()[-1] == ("warning", "hint_set_withdrawn")
    assert record.reason in product.store.events[-1].message


def test_a_restart_forgets_no_timings(product):
    product.verify()
    product.tick()
    _serve_hours(product, 2, 0.015, 0.01, default_pairs=4)
    before = product.register.get(KEY).state
    product.service = product.start()
    _serve_hours(product, 2, 0.015, 0.01, default_pairs=4)
    assert before is SteeringState.VERIFIED
    assert product.register.get(KEY).state is SteeringState.WITHDRAWN


def test_timings_from_before_the_proof_do_not_count(product):
    product.verify()
    product.tick()
    _serve_hours(product, 2, 0.06, 0.02)
    assert product.register.get(KEY).state is SteeringState.WITHDRAWN
    product.verify()
    product.tick()
    _serve_hours(product, 2, 0.01, 0.02)
    assert KEY in product.steered()


@pytest.mark.parametrize("seen_ahead", [False, True])
def test_a_clock_that_was_ahead_while_it_was_verified_hides_nothing(product, seen_ahead):
    product.clock.set_wall_clock(START + timedelta(days=1))
    product.verify()
    product.tick()
    if seen_ahead:
        _serve_hours(product, 1, 0.01, 0.02)
    product.clock.set_wall_clock(START + timedelta(hours=2))
    product.tick(RECORD_EVERY_S)
    _serve_hours(product, 4, 0.06, 0.02)
    record = product.register.get(KEY)
    assert record.state is SteeringState.WITHDRAWN
    assert "proven slower" in record.reason


def test_a_restart_after_the_clock_was_set_right_hides_nothing_either(product):
    product.verify(verified_at=START + timedelta(days=1))
    product.service = product.start()
    product.tick()
    _serve_hours(product, 4, 0.06, 0.02)
    assert product.register.get(KEY).state is SteeringState.WITHDRAWN


def test_a_pinned_class_stays_however_slow(product):
    product.verify()
    product.register.set_mode(KEY, SteeringMode.PIN)
    product.tick()
    _serve_hours(product, 5, 0.06, 0.02)
    assert KEY in product.steered()


def test_a_class_goes_to_be_verified_again_once_a_day(product):
    product.verify()
    product.tick()

    def serve_slowly():
        product.clock.advance(4000)
        product.report(class_timings("steered", [0.03] * 40))
        product.hear()

    serve_slowly()
    assert "to be verified again" in product.register.get(KEY).reason
    product.verify()
    product.tick()
    serve_slowly()
    assert product.register.get(KEY).state is SteeringState.VERIFIED
    product.clock.advance(timedelta(days=1).total_seconds())
    serve_slowly()
    assert product.register.get(KEY).state is SteeringState.WITHDRAWN


def test_a_load_that_slows_every_class_down_sends_none_to_be_verified_again(product):
    keys = [ClassKey(f"{number:016x}", KEY.search_path) for number in range(5)]
    for key in keys:
        product.verify(key)
    product.tick(4000)
    product.report(
        *(class_timings("steered", [0.03] * 40, fingerprint=k.fingerprint) for k in keys[1:]),
        class_timings("steered", [0.2] * 40, fingerprint=keys[0].fingerprint),
    )
    product.hear()
    assert sorted(product.steered()) == keys[1:]


# -- operators' commands -----------------------------------------------------------------------


def _command(**others):
    payload = {"fingerprint": KEY.fingerprint, "search_path": KEY.search_path, "mode": "pin"}
    return {**payload, **others}


def test_a_human_pins_and_it_is_served_at_once(product):
    product.verify()
    product.mode = Mode.OBSERVE
    product.tick()
    answer = product.service.set_mode(_command())
    assert answer == f"{KEY.fingerprint} is pinned to {HINT_SET} until somebody chooses otherwise"
    assert product.steered()[KEY].mode == "pin"


def test_a_human_switches_off_and_back(product):
    product.verify()
    product.tick()
    assert "keeps the default plan" in product.service.set_mode(_command(mode="off"))
    assert product.steered() == {}
    assert "an operator switched its steering off" in product.store.events[-1].message
    assert f"steers it with {HINT_SET}" in product.service.set_mode(_command(mode="auto"))
    assert KEY in product.steered()


def test_the_answer_says_why_a_class_is_not_steered(product):
    product.verify()
    product.register.withdraw(KEY, "slower by now")
    assert "slower by now" in product.service.set_mode(_command(mode="auto"))
    product.frozen = True
    assert "not yet: the freeze switch is on" in product.service.set_mode(_command(mode="pin"))
    assert product.steered() == {}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fingerprint": "xyz"}, "16 hexadecimal digits"),
        ({"fingerprint": None}, "16 hexadecimal digits"),
        ({"fingerprint": 7}, "16 hexadecimal digits"),
        ({"search_path": None}, "not a text"),
        ({"search_path": ["public"]}, "not a text"),
        ({"mode": "always"}, "auto, pin, off"),
        ({"mode": None}, "auto, pin, off"),
        ({"mode": ["pin"]}, "auto, pin, off"),
        ({"search_path": "audit"}, "no query class"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_with_a_remedy(product, wrong, said):
    product.verify()
    with pytest.raises(SteeringError, match=said) as refusal:
        product.service.set_mode(_command(**wrong))
    assert refusal.value.remedy
    assert product.register.get(KEY).mode is SteeringMode.AUTO


def test_an_empty_command_is_refused(product):
    with pytest.raises(SteeringError):
        product.service.set_mode({})
