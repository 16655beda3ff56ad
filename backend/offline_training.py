"""Offline training: from recorded transitions to a trained agent that tuning starts from.

The other half of the closed loop: online tuning records every measurement it learns from
(``Learner.tell``), training learns from all of them again, of any number of stores, servers and
workloads, and the next run starts from the result (``Learner.load``). What the agent that a first
run starts from has learnt from is learnt again besides: training makes it know more, not other
things.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL

from backend.agent.pretrained import Pretrained
from backend.config import Settings
from backend.errors import AutopilotError, CheckpointError, StoreError
from backend.learning import TRAINED_FILE, agent_folder, agent_settings, pretrained_folder
from backend.settings.address import parse_url
from backend.settings.level0 import KnobAgentSection
from backend.state_features import STATE_LAYOUT, STATE_WIDTH
from backend.telemetry import open_store
from backend.training_data import Recorded, TrainingData, training_data

if TYPE_CHECKING:
    from backend.rl_agent import KnobAgentSettings

UPDATES = 2000
"""Of critics and actor: some hundred passes over a thousand transitions in batches of 64."""


@dataclass(frozen=True)
class Training:
    """What came of a training.

    Args:
        data: what was learnt from.
        path: the file that was written.
        set_aside: where the checkpoint of earlier runs is now; None where none was in the way.
        not_learnt: why the trained agent of the settings was not learnt from; empty if it was.
    """

    data: TrainingData
    path: Path
    set_aside: Path | None
    not_learnt: str = ""

    def summary(self) -> list[str]:
        """What was used and what was not, in plain lines."""
        data = self.data
        by_workload: Counter[str] = Counter()
        for workload, episode in zip(data.workloads, data.episodes, strict=True):
            by_workload[workload] += len(episode)
        shown = ", ".join(f"{name} {count}" for name, count in by_workload.most_common(8))
        more = len(by_workload) - 8
        lines = [
            f"Used {data.used} transitions of {len(data.episodes)} runs: {shown}"
            + (f" and {more} more workloads" if more > 0 else ""),
            *(f"Left out {count} {reason}" for reason, count in data.left_out.items()),
            *([f"Not learnt again: {self.not_learnt}"] if self.not_learnt else []),
            f"Wrote {self.path} ({self.path.stat().st_size / 1000:.0f} kB)",
        ]
        if self.set_aside is not None:
            lines.append(f"The checkpoint of earlier runs is now {self.set_aside}")
        return lines


def train_from_stores(
    settings: Settings,
    stores: Sequence[str | Path] = (),
    out: Path | None = None,
    *,
    trained: Path | None = None,
    fresh: bool = False,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda text: None,
) -> Training:
    """Train a fresh agent from all that the stores have recorded.

    Args:
        settings: sections level0.knob and paths.
        stores: SQLite files or URLs; none: the configured store. The knob space is that of the
            newest transition of the first store that has any.
        out: the folder to write to; None: that of the agent's checkpoint, from which the next
            run starts. The checkpoint of earlier runs is set aside there, since it would win.
        trained: the folder of an agent trained before; what it has learnt from is learnt again.
            None: that of setting ``level0.knob.pretrained``, where it fits.
        fresh: learn from the stores alone, where no trained agent is named.
        seed: same seed and same transitions, same agent.
        on_progress: told what is going on.

    Raises:
        StoreError: a store cannot be read.
        CheckpointError: the trained agent that was named cannot be read, or is for other knobs or
            states.
        AutopilotError: there is nothing to learn from, or a tuner is at work that would write
            its own checkpoint.
    """
    urls = list(dict.fromkeys(_url(text) for text in stores)) or [settings.store_url]
    section = settings.level0.knob
    if out is None:
        _refuse_while_tuning(settings)
    found: list[Recorded] = []
    for url in urls:
        on_progress(f"reading {url.render_as_string(hide_password=True)}")
        store = open_store(url, read_only=True)
        try:
            found.append(Recorded.read(store, store.address))
        finally:
            store.close()
    data, not_learnt = _data(found, section, trained, fresh)
    on_progress(f"learning from {data.used} transitions of {len(data.episodes)} runs")
    folder = out or agent_folder(settings)
    path = folder / TRAINED_FILE
    train(data, path, agent_settings(section), seed=seed, updates=UPDATES)
    return Training(data, path, _set_aside(folder) if out is None else None, not_learnt)


def train(
    data: TrainingData,
    path: Path,
    settings: KnobAgentSettings,
    *,
    seed: int,
    updates: int,
) -> None:
    """Train an agent and write what it has learnt."""
    from backend.rl_agent import KnobAgent

    room = replace(settings, buffer_size=max(settings.buffer_size, data.used))
    agent = KnobAgent(data.space, seed, settings=room, state_width=STATE_WIDTH)
    agent.pretrain(data.episodes, updates)
    replace(agent.pretrained(), state_layout=STATE_LAYOUT).write(path)


def _data(
    found: Sequence[Recorded], section: KnobAgentSection, trained: Path | None, fresh: bool
) -> tuple[TrainingData, str]:
    """What there is to learn from; and why the settings' trained agent is not part of it."""
    floor = section.quality_floor
    folder = trained or (None if fresh else pretrained_folder(section))
    if folder is None:
        return training_data(found, floor), ""
    path = folder / TRAINED_FILE
    try:
        return training_data(found, floor, known=Pretrained.read(path)), ""
    except CheckpointError as error:
        if trained is not None:
            raise
        return training_data(found, floor), f"{path}: {error.message}"


def _url(text: str | Path) -> URL:
    """A store's address: a file's name, or a URL."""
    if "://" in str(text):
        return parse_url(str(text), "--store")
    return URL.create("sqlite", database=str(text))


def _refuse_while_tuning(settings: Settings) -> None:
    try:
        store = open_store(settings.store_url, read_only=True)
    except StoreError:
        return  # no tuner of these settings has ever run, or reading it will say what is wrong
    try:
        lease = store.lease()
    finally:
        store.close()
    now = datetime.now(timezone.utc)
    if lease is not None and not lease.released and not lease.expired(now):
        raise AutopilotError(
            f"a tuner is at work ({lease.holder}) and would go on writing its own checkpoint",
            remedy="stop it first, or name another folder with --out",
        )


def _set_aside(folder: Path) -> Path | None:
    """Move the checkpoint of earlier runs aside: all it was told is in the store."""
    from backend.rl_agent import CHECKPOINT_FILE

    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    return path.replace(path.with_suffix(".before-training.npz"))
