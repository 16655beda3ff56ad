"""What every store does with steering's records, whatever database it lives in."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import timedelta, timezone

import pglast
import pytest

from backend.domain.plans import RunOutcome
from backend.domain.steering import (
    ClassKey,
    HintEvidence,
    PlanRunRecord,
    RunPurpose,
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
    SteeringStatusRecord,
)
from backend.errors import StoreError
from backend.protocols import Store
from backend.telemetry.codec import from_document, to_document
from backend.telemetry.redaction import MAX_STATEMENT_LENGTH
from tests.contracts import records as full
from tests.contracts.conftest import OpenStore

OTHER_KEY = ClassKey(full.CLASS_KEY.fingerprint, "public")


class TestRecords:
    def test_an_empty_store_answers(self, store: Store) -> None:
        assert store.steering_status() is None
        for empty in (store.steered_classes(), store.plan_runs(), store.service_timings()):
            assert empty == []

    @pytest.mark.parametrize(
        "record",
        [
            full.EVIDENCE,
            full.STEERED_CLASS,
            full.PLAN_RUN,
            full.SERVICE_TIMING,
            full.STEERING_STATUS,
        ],
        ids=lambda record: type(record).__name__,
    )
    def test_the_full_records_differ_from_the_defaults(self, record: object) -> None:
        as_default = [
            f.name
            for f in fields(record)  # type: ignore[arg-type]
            if f.name != "id" and getattr(record, f.name) == f.default
        ]
        assert as_default == []

    def test_every_field_survives(self, store: Store) -> None:
        store.save_steered_classes([full.STEERED_CLASS])
        store.add_plan_runs([full.PLAN_RUN])
        store.add_service_timings([full.SERVICE_TIMING])
        store.save_steering_status(full.STEERING_STATUS)
        assert store.steered_classes() == [full.STEERED_CLASS]
        (run,) = store.plan_runs()
        assert run == replace(full.PLAN_RUN, id=run.id)
        assert run.id is not None
        (timing,) = store.service_timings()
        assert timing == replace(full.SERVICE_TIMING, id=timing.id)
        assert timing.id is not None
        assert store.steering_status() == full.STEERING_STATUS

    def test_defaults_survive(self, store: Store) -> None:
        waiting = SteeredClassRecord(full.CLASS_KEY, "SELECT $1", SteeringState.WAITING, full.NOW)
        run = PlanRunRecord(
            full.NOW,
            full.CLASS_KEY,
            "",
            "default",
            {},
            "",
            RunPurpose.PROBE,
            RunOutcome.FAILED,
            0.0,
        )
        timing = ServiceTimingRecord(full.NOW, full.NOW, full.CLASS_KEY, "default", "default", 0, 0)
        status = SteeringStatusRecord(full.NOW)
        store.save_steered_classes([waiting])
        store.add_plan_runs([run])
        store.add_service_timings([timing])
        store.save_steering_status(status)
        assert store.steered_classes() == [waiting]
        assert [replace(read, id=None) for read in store.plan_runs()] == [run]
        assert [replace(read, id=None) for read in store.service_timings()] == [timing]
        assert store.steering_status() == status

    @pytest.mark.parametrize("state", SteeringState)
    @pytest.mark.parametrize("mode", SteeringMode)
    def test_states_and_modes(self, store: Store, state: SteeringState, mode: SteeringMode) -> None:
        record = replace(full.STEERED_CLASS, state=state, mode=mode)
        store.save_steered_classes([record])
        assert store.steered_classes() == [record]

    def test_outcomes_and_purposes(self, store: Store) -> None:
        runs = [
            replace(full.PLAN_RUN, outcome=outcome, purpose=purpose)
            for outcome in RunOutcome
            for purpose in RunPurpose
        ]
        store.add_plan_runs(runs)
        assert [replace(run, id=None) for run in store.plan_runs()] == runs

    def test_times_come_back_in_utc(self, store: Store) -> None:
        east = timezone(timedelta(hours=5, minutes=30))
        evidence = replace(full.EVIDENCE, verified_at=full.EVIDENCE.verified_at.astimezone(east))
        store.save_steered_classes(
            [
                replace(
                    full.STEERED_CLASS,
                    updated_at=full.STEERED_CLASS.updated_at.astimezone(east),
                    evidence=evidence,
                )
            ]
        )
        (read,) = store.steered_classes()
        assert read == full.STEERED_CLASS
        assert read.updated_at.utcoffset() == timedelta(0)
        assert read.evidence is not None
        assert read.evidence.verified_at.utcoffset() == timedelta(0)

    def test_numbers_that_are_not_finite_do_no_harm(self, store: Store) -> None:
        nan, inf = math.nan, math.inf
        evidence = replace(full.EVIDENCE, effect=nan, ci_low=-inf, steered_ms=inf)
        store.save_steered_classes(
            [replace(full.STEERED_CLASS, evidence=evidence, default_ms=inf, explored_s=nan)]
        )
        store.add_plan_runs([replace(full.PLAN_RUN, latency_s=inf, default_latency_s=nan)])
        store.add_service_timings([replace(full.SERVICE_TIMING, total_s=nan)])
        store.save_steering_status(replace(full.STEERING_STATUS, spent_s=inf))
        (record,) = store.steered_classes()
        assert record.evidence is not None
        assert all(
            math.isnan(number)
            for number in (
                record.evidence.effect,
                record.evidence.ci_low,
                record.evidence.steered_ms,
                record.explored_s,
                store.plan_runs()[0].latency_s,
                store.service_timings()[0].total_s,
            )
        )
        assert record.evidence.ci_high == full.EVIDENCE.ci_high
        assert record.default_ms is None
        assert store.plan_runs()[0].default_latency_s is None
        status = store.steering_status()
        assert status is not None
        assert math.isnan(status.spent_s)


class TestTexts:
    HOSTILE = "it's; DROP TABLE plan_runs; -- \x00 \ud800 <script> ☃ %s :x {y}"

    def test_hostile_text_is_only_text(self, store: Store) -> None:
        evidence = replace(full.EVIDENCE, default_plan=self.HOSTILE, steered_plan=self.HOSTILE)
        hostile = replace(full.STEERED_CLASS, reason=self.HOSTILE, evidence=evidence)
        store.save_steered_classes([replace(hostile, text="SELECT \x00$1 \ud800")])
        store.save_steering_status(
            replace(full.STEERING_STATUS, activity=self.HOSTILE, hindrance=self.HOSTILE)
        )
        (read,) = store.steered_classes()
        status = store.steering_status()
        assert status is not None
        assert read.evidence is not None
        harmless = self.HOSTILE.replace("\x00", "").replace("\ud800", "?")
        assert read.text == "SELECT $1 ?"
        assert {
            read.reason,
            read.evidence.default_plan,
            read.evidence.steered_plan,
            status.activity,
            status.hindrance,
        } == {harmless}

    def test_no_secret_is_kept(self, store: Store) -> None:
        leak = "could not connect to postgresql://app:hunter2@db/shop with password=hunter2"
        evidence = replace(full.EVIDENCE, default_plan=leak, steered_plan=leak)
        store.save_steered_classes(
            [
                replace(
                    full.STEERED_CLASS,
                    text=f"SELECT dblink('{leak}') WHERE password = 'hunter2' /* {leak} */",
                    reason=leak,
                    evidence=evidence,
                )
            ]
        )
        store.save_steering_status(replace(full.STEERING_STATUS, activity=leak, hindrance=leak))
        everything = repr((store.steered_classes(), store.steering_status()))
        assert "hunter2" not in everything
        assert everything.count("could not connect to postgresql://app:***@db/shop") == 5

    @pytest.mark.parametrize(
        "text",
        [
            "SELECT * FROM users WHERE password = $1 AND token=$2 AND secret IN ($3 /*, ... */)",
            "SELECT 1 FROM a JOIN b ON a.token = b.token AND a.api_key::text = b.api_key",
            'SELECT "it\'s", "a""b" FROM "Läden" -- that\'s all\nWHERE x ? $1 AND y @> $2',
            "SELECT " + ", ".join(f"sum(t.column_{n} + ${n})" for n in range(1, 3000)) + " FROM t",
        ],
        ids=["parameters", "columns", "quoted names and comments", "long"],
    )
    def test_a_statement_without_literals_stays_to_the_letter(
        self, store: Store, text: str
    ) -> None:
        store.save_steered_classes([replace(full.STEERED_CLASS, text=text)])
        (read,) = store.steered_classes()
        assert read.text == text
        assert pglast.fingerprint(read.text) == pglast.fingerprint(text)

    def test_an_endless_statement_is_cut(self, store: Store) -> None:
        store.save_steered_classes([replace(full.STEERED_CLASS, text="SELECT " + "$1+" * 10**5)])
        (read,) = store.steered_classes()
        assert len(read.text) == MAX_STATEMENT_LENGTH + 1
        assert read.text.endswith("…")

    def test_a_class_that_is_forgotten_is_gone(self, store: Store) -> None:
        elsewhere = replace(full.CLASS_KEY, search_path="elsewhere")
        store.save_steered_classes([full.STEERED_CLASS, replace(full.STEERED_CLASS, key=elsewhere)])
        store.delete_steered_classes([full.CLASS_KEY, replace(elsewhere, fingerprint="0" * 16)])
        assert [record.key for record in store.steered_classes()] == [elsewhere]
        store.delete_steered_classes([])
        assert len(store.steered_classes()) == 1

    def test_evidence_of_before_servers_were_told_apart_is_read(self) -> None:
        written = to_document(full.EVIDENCE)
        for later in ("server", "database", "settings_in_force"):
            del written[later]
        read = from_document(HintEvidence, written)
        assert read == replace(full.EVIDENCE, server="", database="", settings_in_force={})

    def test_settings_stay_to_the_letter(self, store: Store) -> None:
        """Whether a hint set still pays is judged by comparing them with what is in force."""
        odd = {"app.password": "x", "work_mem": "4MB", "search": "password=a ://b:c@d", "e": "€"}
        evidence = replace(
            full.EVIDENCE,
            hint_set="token=1",
            settings=odd,
            under=odd,
            settings_in_force=odd,
            functions=("password=x", "s.token:y"),
        )
        store.save_steered_classes([replace(full.STEERED_CLASS, evidence=evidence)])
        store.add_plan_runs([replace(full.PLAN_RUN, settings=odd)])
        assert store.steered_classes()[0].evidence == evidence
        assert store.plan_runs()[0].settings == odd

    @pytest.mark.parametrize("path", ["a\x00b", "\ud800", "x" * 2001, "Ä" * 1001])
    def test_a_key_that_cannot_be_kept_is_refused(self, store: Store, path: str) -> None:
        key = ClassKey(full.CLASS_KEY.fingerprint, path)
        with pytest.raises(StoreError, match="cannot be a key"):
            store.save_steered_classes([full.STEERED_CLASS, replace(full.STEERED_CLASS, key=key)])
        with pytest.raises(StoreError, match="cannot be a key"):
            store.add_plan_runs([full.PLAN_RUN, replace(full.PLAN_RUN, key=key)])
        with pytest.raises(StoreError, match="cannot be a key"):
            store.add_service_timings([replace(full.SERVICE_TIMING, key=key)])
        assert store.steered_classes() == store.plan_runs() == store.service_timings() == []

    def test_the_longest_key(self, store: Store) -> None:
        # Hard to compress, as an index entry may be.
        path = "".join(chr(0x4E00 + n * n % 20_000) for n in range(666))
        record = replace(full.STEERED_CLASS, key=ClassKey("f" * 16, path))
        store.save_steered_classes([record])
        assert store.steered_classes() == [record]


class TestClasses:
    def test_a_class_is_replaced_by_its_key(self, store: Store) -> None:
        store.save_steered_classes([full.STEERED_CLASS, replace(full.STEERED_CLASS, key=OTHER_KEY)])
        now = SteeredClassRecord(
            full.CLASS_KEY, "SELECT $1", SteeringState.DEFAULT_BEST, full.NOW + timedelta(days=1)
        )
        store.save_steered_classes([now])
        assert store.steered_classes() == [now, replace(full.STEERED_CLASS, key=OTHER_KEY)]

    def test_of_two_in_one_call_the_last_counts(self, store: Store) -> None:
        later = replace(full.STEERED_CLASS, reason="later")
        store.save_steered_classes([full.STEERED_CLASS, later])
        assert store.steered_classes() == [later]

    def test_they_are_ordered_by_key(self, store: Store) -> None:
        keys = [
            ClassKey(fingerprint, path)
            for fingerprint in ("f" * 16, "0" * 16, "a" * 16)
            for path in ("public", '"$user", public', "Ω", "Public", "")
        ]
        store.save_steered_classes([replace(full.STEERED_CLASS, key=key) for key in keys])
        assert [record.key for record in store.steered_classes()] == sorted(keys)

    def test_nothing_is_saved(self, store: Store) -> None:
        store.save_steered_classes([])
        store.add_plan_runs([])
        store.add_service_timings([])
        assert store.steered_classes() == store.plan_runs() == store.service_timings() == []


class TestRunsAndTimings:
    def test_runs_by_class_and_the_newest_of_them(self, store: Store) -> None:
        second = ClassKey("f" * 16, "public")
        for number, key in enumerate((full.CLASS_KEY, second, OTHER_KEY, full.CLASS_KEY)):
            store.add_plan_runs([replace(full.PLAN_RUN, key=key, latency_s=float(number))])
        assert [run.latency_s for run in store.plan_runs()] == [0, 1, 2, 3]
        assert [run.latency_s for run in store.plan_runs(limit=2)] == [2, 3]
        mine = full.CLASS_KEY.fingerprint
        assert [run.latency_s for run in store.plan_runs(fingerprint=mine)] == [0, 2, 3]
        assert [run.latency_s for run in store.plan_runs(fingerprint=mine, limit=2)] == [2, 3]
        assert store.plan_runs(fingerprint="' OR '1'='1") == []

    def test_timings_by_their_end(self, store: Store) -> None:
        ends = [full.NOW + timedelta(seconds=second) for second in (30, 10, 20, 10)]
        store.add_service_timings(
            [
                replace(full.SERVICE_TIMING, ended_at=end, executions=number)
                for number, end in enumerate(ends)
            ]
        )
        assert [timing.executions for timing in store.service_timings()] == [1, 3, 2, 0]
        assert [timing.executions for timing in store.service_timings(limit=2)] == [2, 0]
        since = full.NOW + timedelta(seconds=20)
        assert [timing.executions for timing in store.service_timings(since=since)] == [2, 0]
        later = full.NOW + timedelta(seconds=31)
        assert store.service_timings(since=later) == []

    def test_the_status_is_replaced(self, store: Store) -> None:
        store.save_steering_status(full.STEERING_STATUS)
        store.save_status(full.STATUS)
        now = SteeringStatusRecord(full.NOW + timedelta(seconds=5), activity="nothing to do")
        store.save_steering_status(now)
        assert store.steering_status() == now
        assert store.status() == full.STATUS

    def test_all_or_nothing(self, store: Store) -> None:
        naive = full.NOW.replace(tzinfo=None)
        with pytest.raises(StoreError, match="no time zone"):
            store.add_plan_runs([full.PLAN_RUN, replace(full.PLAN_RUN, at=naive)])
        assert store.plan_runs() == []


class TestManyWriters:
    def test_explorer_and_service_at_once(self, store: Store, open_again: OpenStore) -> None:
        """Threads of one process share a store; another process has its own."""
        keys = [ClassKey(f"{number:016x}", "public") for number in range(6)]
        start = threading.Barrier(3)

        def explore(reverse: bool, writing: Store) -> None:
            start.wait(10)
            for number in range(15):
                records = [replace(full.STEERED_CLASS, key=key, probes=number) for key in keys]
                writing.save_steered_classes(records[::-1] if reverse else records)
                writing.add_plan_runs([replace(full.PLAN_RUN, key=key) for key in keys])

        def serve() -> None:
            start.wait(10)
            for number in range(15):
                store.add_service_timings([full.SERVICE_TIMING] * 3)
                store.save_steering_status(replace(full.STEERING_STATUS, served=number))

        with ThreadPoolExecutor(3) as pool:
            done = [
                pool.submit(explore, False, store),
                pool.submit(explore, True, open_again()),
                pool.submit(serve),
            ]
        for future in done:
            future.result()
        assert [record.key for record in store.steered_classes()] == keys
        assert {record.probes for record in store.steered_classes()} == {14}
        assert len(store.plan_runs()) == 2 * 15 * 6
        assert len(store.plan_runs(fingerprint=keys[3].fingerprint)) == 2 * 15
        assert len(store.service_timings()) == 45
        status = store.steering_status()
        assert status is not None
        assert status.served == 14
