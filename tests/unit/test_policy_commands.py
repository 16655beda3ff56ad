"""``run.py policy`` on a store, without a server: what it prints, queues and refuses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import run
from backend.config import Settings
from backend.domain.modes import CommandKind, CommandState
from backend.domain.policies import PolicyVersionRecord
from backend.domain.steering import SteeringMode, SteeringState
from backend.domain.version_difference import difference
from backend.errors import AdjustmentError, AutopilotError, ConfigError
from backend.evolution.present import default_genome
from backend.lease import holder_name
from backend.telemetry import SqlStore, open_store
from tests.contracts import records as full

HINT, OTHER_HINT = full.VERSION.steering
WEIGHTS = f"{'ab12' * 16}.npz"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    with closing(open_store(f"sqlite:///{tmp_path}/telemetry.db")) as store:
        store.save_knob_statuses([full.KNOB])
        trial = store.save_trial(full.TRIAL)
        root = store.add_policy_version(PolicyVersionRecord(full.NOW, "server", {}, note="found"))
        promoted = replace(
            full.VERSION, parent_id=root, trial_id=trial, config={"work_mem": 65536, "jit": False},
            steering=(), weights={}, author="autopilot",
        )  # fmt: skip
        second = store.add_policy_version(promoted)
        steered = replace(promoted, parent_id=second, trial_id=None, steering=(HINT, OTHER_HINT))
        third = store.add_policy_version(replace(steered, author="query steering"))
        store.add_policy_version(
            replace(
                steered,
                parent_id=third,
                steering=(HINT,),
                weights={"plan policy": WEIGHTS},
                author="[bold]ann[/bold]",
                index=0.7,
            )
        )
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[SqlStore]:
    with closing(open_store(f"sqlite:///{folder}/telemetry.db")) as opened:
        yield opened


def policy(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(run.app, ["policy", *arguments, "--data-dir", str(folder)])


def fine(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(result: Result, kind: type[AutopilotError] = ConfigError) -> str:
    assert isinstance(result.exception, kind), (result.output, result.exception)
    assert result.exception.remedy
    return result.exception.message


# -- list -----------------------------------------------------------------------------------------


def test_the_list_tells_each_version_s_change(folder: Path) -> None:
    rows = [line for line in fine(policy(folder, "list")).splitlines() if "UTC" in line]
    assert len(rows) == 4
    assert "2026-03-01 12:00:00 UTC" in rows[0]
    assert "jit off, work_mem 64 MB" in rows[1]
    assert "2 hint sets served" in rows[2]
    assert "1 hint set withdrawn, plan policy learnt" in rows[3]
    assert "[bold]ann[/bold]" in rows[3]
    assert "0.700" in rows[3]
    assert [("active" in row) for row in rows] == [False, False, False, True]


def test_only_the_newest_are_listed_and_still_know_their_parents(folder: Path) -> None:
    rows = [line for line in fine(policy(folder, "list", "--limit", "1")).splitlines()
            if "UTC" in line]  # fmt: skip
    assert len(rows) == 1
    assert "withdrawn" in rows[0]


def test_the_list_as_json(folder: Path) -> None:
    first, second, third, fourth = json.loads(fine(policy(folder, "list", "--json")))
    assert (first["id"], first["parent_id"], first["active"]) == (1, None, False)
    assert first["created_at"] == "2026-03-01T12:00:00.123456+00:00"
    assert second["changed"]["knobs"]["work_mem"] == {"from": None, "to": 65536, "unit": "kB"}
    assert [hint["to"]["pinned"] for hint in third["changed"]["hint_sets"]] == [True, False]
    assert fourth["changed"]["weights"] == {"plan policy": {"from": None, "to": WEIGHTS}}
    assert fourth["active"] is True


# -- show -----------------------------------------------------------------------------------------


def test_a_version_is_shown_with_its_evidence(folder: Path) -> None:
    text = fine(policy(folder, "show", "2"))
    assert "Policy version 2\n" in text
    assert "accept, -25.0 % latency index (-31.0 % to -18.0 %, at 90 % confidence)" in text
    assert "lower by 25 %" in text
    assert "work_mem = 64 MB" in text
    assert "Hint sets: none" in text
    assert "work_mem: the server's own -> 64 MB" in text


def test_the_active_one_is_shown_where_none_is_named(folder: Path) -> None:
    text = fine(policy(folder, "show"))
    assert "Policy version 4, active" in text
    assert f"{full.EVIDENCE.hint_set} (enable_nestloop = off, work_mem = 64MB), pinned" in text
    assert "-50.0 % time (-62.5 % to -37.5 %) in 24 pairs of runs of 5 statements" in text
    assert "verified 2026-03-01 13:00:00 UTC" in text
    assert "SELECT * FROM orders o JOIN customers c" in text
    assert "plan policy: ab12ab12ab12" in text


def test_the_genome_in_force_is_named_with_the_active_version(
    folder: Path, store: SqlStore
) -> None:
    assert "Genome in force: that of the settings" in fine(policy(folder, "show"))
    assert "Genome in force" not in fine(policy(folder, "show", "1"))
    genes = default_genome(Settings()).values
    genome = replace(full.GENOME, genes=genes, profile={}, deployed=True, study="s")
    first = store.add_genome(genome)
    second = store.add_genome(replace(genome, at=full.NOW + timedelta(minutes=1)))
    # Without a tuner: what it would begin with. With one: what it works with.
    assert f"Genome in force: {second} of study s" in fine(policy(folder, "show"))
    store.acquire_lease(holder_name(), ttl_s=60.0)
    store.save_status(replace(full.STATUS, genome=first))
    assert f"Genome in force: {first} of study s" in fine(policy(folder, "show"))
    assert json.loads(fine(policy(folder, "show", "--json")))["genome"]["study"] == "s"


def test_a_version_as_json(folder: Path) -> None:
    document = json.loads(fine(policy(folder, "show", "2", "--json")))
    assert document["version"]["config"] == {"work_mem": 65536, "jit": False}
    assert document["trial"]["ci_low"] == -0.31
    hints = json.loads(fine(policy(folder, "show", "--json")))["version"]["steering"]
    assert hints[0]["evidence"]["pairs"] == 24


def test_a_trial_that_is_gone_is_told(folder: Path, store: SqlStore) -> None:
    store.add_policy_version(replace(full.VERSION, trial_id=99))
    assert "99, no longer kept" in fine(policy(folder, "show"))


# -- diff -----------------------------------------------------------------------------------------


def test_the_difference_of_two_versions(folder: Path) -> None:
    text = fine(policy(folder, "diff", "1", "4"))
    assert "  work_mem: the server's own -> 64 MB\n" in text
    assert "  jit: the server's own -> off\n" in text
    assert f"the default plan -> {full.EVIDENCE.hint_set}, pinned (-50.0 % time" in text
    assert "  weights of the plan policy: none -> ab12ab12ab12\n" in text


def test_the_other_way_round(folder: Path) -> None:
    text = fine(policy(folder, "diff", "4", "1"))
    assert "work_mem: 64 MB -> the server's own" in text
    assert "-> the default plan" in text
    assert "ab12ab12ab12 -> none" in text


def test_nothing_differs_from_itself(folder: Path, store: SqlStore) -> None:
    assert "nothing differs" in fine(policy(folder, "diff", "3", "3"))
    (version, *_) = store.policy_versions()
    assert not difference(version, version)


def test_the_difference_as_json(folder: Path) -> None:
    document = json.loads(fine(policy(folder, "diff", "4", "3", "--json")))
    assert (document["from"], document["to"], document["knobs"]) == (4, 3, {})
    assert document["weights"] == {"plan policy": {"from": WEIGHTS, "to": None}}
    (hint,) = document["hint_sets"]
    assert hint["from"] is None
    assert hint["to"]["hint_set"] == full.EVIDENCE.hint_set


# -- deploy and rollback --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "payload"),
    [
        (["deploy", "2"], CommandKind.DEPLOY_VERSION, {"version_id": 2}),
        (["rollback", "3"], CommandKind.ROLL_BACK, {"version_id": 3}),
        (["rollback"], CommandKind.ROLL_BACK, {}),
    ],
)
def test_a_tuner_at_work_is_asked(
    folder: Path, store: SqlStore, arguments: list[str], kind: CommandKind, payload: dict[str, int]
) -> None:
    store.acquire_lease(holder_name(), 60.0)
    with answering(store, CommandState.DONE, "now policy version 5"):
        assert fine(policy(folder, *arguments)).strip() == "now policy version 5"
    (command,) = store.commands()
    assert (command.kind, command.payload) == (kind, payload)
    assert command.actor.endswith("@command-line")


def test_a_refusal_of_the_tuner_is_told(folder: Path, store: SqlStore) -> None:
    store.acquire_lease(holder_name(), 60.0)
    with answering(store, CommandState.REFUSED, "the freeze switch is on"):
        result = policy(folder, "deploy", "2")
    assert isinstance(result.exception, AdjustmentError)
    assert "freeze switch" in result.exception.message


@contextmanager
def answering(store: SqlStore, state: CommandState, answer: str) -> Iterator[None]:
    """A tuner that answers the next command."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            command = store.take()
            if command is not None and command.id is not None:
                store.finish(command.id, state, answer)
                return
            time.sleep(0.01)  # as the tuner does between two looks

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_class_that_is_switched_without_a_tuner_makes_a_version(
    folder: Path, store: SqlStore
) -> None:
    served = replace(
        full.STEERED_CLASS, key=HINT.key, state=SteeringState.VERIFIED, mode=SteeringMode.PIN
    )
    store.save_steered_classes([served])
    arguments = ["steering", "set", HINT.key.fingerprint, "off", "--data-dir", str(folder)]
    assert CliRunner().invoke(run.app, arguments).exit_code == 0
    version = store.policy_versions()[-1]
    assert version.author.endswith("@command-line")
    assert (version.parent_id, version.steering) == (4, ())
    assert version.weights == {"plan policy": WEIGHTS}


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["show", "99"], ["diff", "1", "99"], ["diff", "99", "1"]])
def test_a_version_that_is_not_there(folder: Path, arguments: list[str]) -> None:
    assert "no policy version 99" in refused(policy(folder, *arguments))


@pytest.mark.parametrize(
    "arguments", [["show", "0"], ["show", "x"], ["diff", "1"], ["deploy"], ["list", "--limit", "0"]]
)
def test_bad_arguments_are_told(folder: Path, arguments: list[str]) -> None:
    assert policy(folder, *arguments).exit_code == 2


def test_an_empty_store_and_none(tmp_path: Path) -> None:
    assert "no store" in refused(policy(tmp_path / "elsewhere", "list"), AutopilotError)
    open_store(f"sqlite:///{tmp_path}/telemetry.db").close()
    assert "no policy version yet" in fine(policy(tmp_path, "list"))
    assert json.loads(fine(policy(tmp_path, "list", "--json"))) == []
    assert "no policy version" in refused(policy(tmp_path, "show"))


@pytest.mark.parametrize("command", ["list", "show", "diff", "deploy", "rollback"])
def test_each_command_explains_itself(folder: Path, command: str) -> None:
    text = fine(CliRunner().invoke(run.app, ["policy", command, "--help"]))
    assert "Usage" in text
    assert "--data-dir" in text
