"""The commands that learn from recorded measurements: train (Level 0) and evolve (Level 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from backend.commands.options import ConfigOption, DataDirOption, settings_of


def train(
    store: Annotated[
        Optional[list[str]],
        typer.Option(
            "--store",
            help="A store to learn from: a SQLite file or a URL; may be given several times, the "
            "first one decides on the knobs. Default: the configured store.",
        ),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out", help="Folder to write to. Default: where the tuner's next run starts from."
        ),
    ] = None,
    trained: Annotated[
        Optional[Path],
        typer.Option(
            "--trained",
            help="Folder of an agent trained before (pretrained.npz): what it has learnt from is "
            "learnt again, besides the stores. Default: the agent that a first run starts from "
            "(level0.knob.pretrained), where its knobs are the same.",
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Learn from the stores alone.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the training.")] = 0,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Train the knob agent from recorded measurements, of any number of stores and workloads."""
    if fresh and trained is not None:
        raise typer.BadParameter(
            "--fresh learns from the stores alone, --trained from an agent too"
        )
    settings = settings_of(config, data_dir)
    from backend.offline_training import train_from_stores

    console = Console()
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
        console=console, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("starting", total=None)
        training = train_from_stores(
            settings, store or (), out, trained=trained, fresh=fresh, seed=seed,
            on_progress=lambda text: bar.update(task, description=text),
        )  # fmt: skip
    for line in training.summary():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def evolve(
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, help="Minutes to take, judging included.")
    ] = 20.0,
    store: Annotated[
        Optional[list[str]],
        typer.Option("--store", help="SQLite file or URL to learn from; may be given often."),
    ] = None,
    cores: Annotated[int, typer.Option("--cores", min=1, max=64, help="Processes.")] = 1,
    study: Annotated[
        Optional[str], typer.Option("--study", help="File or URL of the study to go on with.")
    ] = None,
    back: Annotated[
        bool, typer.Option("--back", help="Bring back the genome that stood before.")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Evolve the learners' hyper-parameters (Level 2) from recorded measurements.

    Genomes (learning rates, network sizes, exploration, thresholds of the gate) compete.

    Each really learns, on targets fitted to what the store has recorded and on response models.

    The best is deployed only where it is proven faster on workloads that none of them saw.

    Nothing is tried on the server. It runs at the lowest priority, beside a tuner or without one.

    Ctrl-C ends it, and so may a kill: the same command goes on with what is finished.

    Examples: run.py evolve --minutes 60 --cores 4; run.py evolve --store first.db --store second.db
    """
    from backend.commands.evolve import back as go_back
    from backend.commands.evolve import evolve as run

    settings = settings_of(config, data_dir)
    if back:
        go_back(settings, Console())
    else:
        run(settings, Console(), minutes=minutes, stores=store or (), cores=cores, study=study)
