"""What is written down: evaluations, finished parts and comparisons, one JSON object a line.

A *part* is one method's time on one workload with one seed; a *cell* is a (workload, seed) with
its comparison of all methods' final configurations. Evaluations are written as they are made; they
count only once their part's own line is there. So a part that was cut in the middle is done again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from backend.domain.knobs import KnobValue
from backend.errors import ConfigError

PartKey = tuple[str, int, str]
"""Workload, seed, method."""
CellKey = tuple[str, int]
"""Workload, seed."""


@dataclass(frozen=True)
class Protocol:
    """The rules that all parts of a results file were measured under.

    ``rate_per_s`` is the offered load, ``knobs`` the fingerprint of the tuned space, ``cores`` and
    ``memory_gb`` are the machine's, times are real. ``minutes`` is each method's wall clock, from
    the end of its baseline on; the load runs for ``warm_up_s`` before that. After ``repeat_s`` the
    same statements come again; None: ever new ones.
    """

    minutes: float
    window_s: float
    warm_up_s: float
    scale: float
    rate_per_s: float
    clients: int
    statement_timeout_s: float
    memory_limit_gb: float
    allow_restart: bool
    knobs: str
    cores: int
    memory_gb: int
    server_version: int
    repeat_s: float | None = None


@dataclass(frozen=True)
class Pace:
    """How fast a comparison goes from one configuration to the next; None: as trials do.

    A machine's speed moves from second to second: the shorter a turn, the less of it falls between
    two configurations. Statements have to be short and frequent for it.

    Args:
        window_s: length of a window, and of the statements that come again.
        settle_s: not measured after a switch.
    """

    window_s: float | None = None
    settle_s: float | None = None


AS_TRIALS = Pace()


@dataclass(frozen=True)
class Evaluation:
    """One trial of a configuration.

    ``objective`` is the latency index against the defaults measured just before and just after
    (a lower bound where ``censored``), ``effect`` is ``objective - 1``, ``regret`` how far it lies
    above the best that the run knew by then. ``at_s`` counts from the method's start to the end of
    the trial. ``changes`` is what differed from the defaults as it was applied; ``clamped`` says
    that the memory budget had shrunk the proposal. ``drift`` is the log ratio of the defaults after
    the trial to those before it. ``again``: nothing was asked, a good configuration was measured
    once more.
    """

    number: int
    at_s: float
    objective: float
    effect: float
    regret: float
    harmful: bool
    censored: bool
    clamped: bool
    quality: float
    coverage: float
    drift: float | None
    ask_s: float
    tell_s: float
    changes: Mapping[str, KnobValue]
    reason: str = ""
    again: bool = False


@dataclass(frozen=True)
class Part:
    """A method's finished run: its trials, and the configuration that it would leave behind.

    ``final`` holds what differs from the defaults. ``violations`` are configurations on the server
    that passed the memory budget, ``durability`` the settings of the never-list that changed:
    both are looked for on the server, and must be empty. ``omitted`` names what a fixed rule asks
    for and could not be set here, with the reason. ``overrun``: the defaults could not serve the
    load. ``agent`` is the digest of the trained agent that ours-warm started from, empty for other
    methods and in files of before.
    """

    workload: str
    seed: int
    method: str
    finished_at: str
    protocol: Protocol
    evaluations: tuple[Evaluation, ...]
    final: Mapping[str, KnobValue]
    final_objective: float | None
    clamped: int
    refused: int
    violations: Sequence[str]
    durability: Sequence[str]
    omitted: Mapping[str, str]
    overrun: bool = False
    agent: str = ""

    @property
    def key(self) -> PartKey:
        """What makes it one of its kind."""
        return self.workload, self.seed, self.method


@dataclass(frozen=True)
class Comparison:
    """All final configurations of a cell against the defaults, in randomised blocks.

    ``blocks`` holds for each block each method's log ratio of the latency index against the
    defaults of the same block; None where it could not be measured. ``finals`` are the
    configurations that were compared: a part that is done again makes the comparison stale.
    ``arrivals`` is the seed of the statements; None in files of before: those of the trials.
    """

    workload: str
    seed: int
    finished_at: str
    protocol: Protocol
    finals: Mapping[str, Mapping[str, KnobValue]]
    blocks: tuple[Mapping[str, float | None], ...]
    violations: Sequence[str]
    durability: Sequence[str]
    pace: Pace = AS_TRIALS
    arrivals: int | None = None

    @property
    def key(self) -> CellKey:
        """What makes it one of its kind."""
        return self.workload, self.seed

    def log_ratios(self, method: str) -> list[float | None]:
        """A method's log ratios, block by block."""
        return [block.get(method) for block in self.blocks]

    def covers(self, parts: Mapping[str, Part], blocks: int, pace: Pace | None = None) -> bool:
        """Whether it compares the final configurations of just these parts, in enough blocks.

        Args:
            parts: by method.
            blocks: at least so many.
            pace: of such a pace; None: of any.
        """
        finals = {method: dict(part.final) for method, part in parts.items()}
        compared = {method: dict(self.finals.get(method, {"?": 0})) for method in finals}
        return compared == finals and len(self.blocks) >= blocks and pace in (None, self.pace)


class Results:
    """The results file: read once, then appended to.

    Args:
        path: created with the first line.

    Raises:
        ConfigError: the file is not one of this benchmark's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[PartKey, Part] = {}
        self.comparisons: dict[CellKey, Comparison] = {}
        self.damaged_lines = 0
        if path.exists():
            self._read()

    def _read(self) -> None:
        pending: dict[str, list[Evaluation]] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # a line that was cut when the run was killed
                self.damaged_lines += 1
                continue
            kind = record.pop("kind", None) if isinstance(record, dict) else None
            try:
                if kind == "evaluation":
                    run = record.pop("run")
                    pending.setdefault(run, []).append(Evaluation(**record))
                elif kind == "part":
                    run = record.pop("run")
                    evaluations = tuple(pending.pop(run, ()))
                    protocol = Protocol(**record.pop("protocol"))
                    part = Part(**record, protocol=protocol, evaluations=evaluations)
                    self.parts[part.key] = part
                elif kind == "comparison":
                    protocol = Protocol(**record.pop("protocol"))
                    blocks = tuple(record.pop("blocks"))
                    pace = Pace(**record.pop("pace", {}))
                    comparison = Comparison(**record, protocol=protocol, blocks=blocks, pace=pace)
                    self.comparisons[comparison.key] = comparison
                else:
                    raise TypeError(f"a line of kind {kind!r}")
            except (TypeError, KeyError) as error:
                raise ConfigError(
                    f"{self.path} is no results file of this version: {error}",
                    remedy="choose another --results file",
                ) from error

    def add_evaluation(self, run: str, evaluation: Evaluation) -> None:
        """Write a trial of the unfinished part ``run``."""
        self._append({"kind": "evaluation", "run": run, **asdict(evaluation)})

    def add_part(self, run: str, part: Part) -> None:
        """Write the line that makes the part and its evaluations count."""
        record = asdict(part)
        del record["evaluations"]
        self._append({"kind": "part", "run": run, **record})
        self.parts[part.key] = part

    def add_comparison(self, comparison: Comparison) -> None:
        """Write a cell's comparison; it replaces an earlier one."""
        self._append({"kind": "comparison", **asdict(comparison)})
        self.comparisons[comparison.key] = comparison

    def check_protocol(self, protocol: Protocol, workload: str) -> None:
        """Refuse to go on with a file whose parts of this workload had other rules.

        Raises:
            ConfigError: what differs.
        """
        done: Iterable[Part | Comparison] = (*self.parts.values(), *self.comparisons.values())
        for record in done:
            if record.workload != workload or record.protocol == protocol:
                continue
            different = ", ".join(
                f"{field.name} {getattr(record.protocol, field.name)} "
                f"instead of {getattr(protocol, field.name)}"
                for field in fields(Protocol)
                if getattr(record.protocol, field.name) != getattr(protocol, field.name)
            )
            raise ConfigError(
                f"{self.path} holds measurements of {workload} under other rules: {different}",
                remedy="choose another --results file, or the same options as before",
            )

    def check_agent(self, digest: str, workload: str) -> None:
        """Refuse to go on with a file whose parts of this workload began with another agent.

        Raises:
            ConfigError: there is such a part.
        """
        before = {part.agent for part in self.parts.values() if part.workload == workload}
        if others := before - {"", digest}:
            raise ConfigError(
                f"{self.path} holds measurements of {workload} with trained agent "
                f"{', '.join(sorted(others))} instead of {digest}",
                remedy="choose another --results file, or the agent of before (--checkpoint)",
            )

    def _append(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, allow_nan=False, sort_keys=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            if file.tell() > 0:
                file.seek(-1, 2)
                if file.read(1) != b"\n":  # the line before was cut
                    file.write(b"\n")
            file.write(text.encode() + b"\n")
