"""What the clients are asked to offer, and what they count; both travel as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from sqlalchemy.engine import URL, make_url

from backend.workload.mixes import Mix
from backend.workload.schedule import Arrival, ArrivalSchedule
from backend.workload.shape import StoreShape
from benchmarks.harness.repeating import Repeated


@dataclass(frozen=True)
class LoadCounts:
    """Totals since the start. ``backlog``: arrivals are piling up at the clients now."""

    completed: int = 0
    errors: int = 0
    timeouts: int = 0
    dropped: int = 0
    backlog: bool = False


@dataclass(frozen=True)
class StoreOffer:
    """Statements of the demo store, open-loop, frozen by the seed.

    ``rate_per_s`` is the mean over a simulated day, None the mix's own; ``time_scale`` is how many
    simulated seconds pass in a real one. ``scale`` is the store's. After ``repeat_s`` the same
    statements come again; None: ever new ones.
    """

    mix: Mix
    scale: float
    seed: int
    rate_per_s: float | None = None
    time_scale: float = 1.0
    clients: int = 8
    statement_timeout_s: float = 30.0
    repeat_s: float | None = None

    def arrivals(self) -> Iterable[Arrival]:
        """What arrives when, without end.

        Raises:
            WorkloadError: nothing arrives in the time that is to be repeated.
        """
        schedule = self.schedule()
        return schedule if self.repeat_s is None else Repeated(schedule, self.repeat_s)

    def schedule(self) -> ArrivalSchedule:
        """The arrivals, ever new."""
        per_hour = None if self.rate_per_s is None else self.rate_per_s * 3600.0 / self.time_scale
        return ArrivalSchedule(
            self.mix, per_hour, self.seed, self.time_scale, shape=StoreShape.at_scale(self.scale)
        )


@dataclass(frozen=True)
class PgbenchOffer:
    """Transactions of one of pgbench's own scripts (``pgbench --builtin=list``), at a fixed rate.

    ``program`` is the server's pgbench, ``environment`` what it needs to start.
    """

    script: str
    rate_per_s: float
    seed: int
    clients: int
    statement_timeout_s: float
    program: str
    environment: Mapping[str, str]


Offer = StoreOffer | PgbenchOffer


def to_text(url: URL, offer: Offer) -> str:
    """The offer and the database's address, password included, as one line."""
    kind = "store" if isinstance(offer, StoreOffer) else "pgbench"
    address = url.render_as_string(hide_password=False)
    return json.dumps({"kind": kind, "url": address, "offer": asdict(offer)})


def from_text(line: str) -> tuple[URL, Offer]:
    """Read what :func:`to_text` wrote."""
    record = json.loads(line)
    fields = record["offer"]
    if record["kind"] == "pgbench":
        return make_url(record["url"]), PgbenchOffer(**fields)
    mix = Mix(**fields.pop("mix"))
    return make_url(record["url"]), StoreOffer(mix=mix, **fields)
