"""A primary with a streaming stand-by, and an address that leads to one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import psycopg2
import yaml

from backend.catalog import load_catalog
from backend.domain.records import ChangeRecord, EventRecord
from backend.embedded import autoconf
from backend.telemetry import open_store
from tests.faults.catalogue import lives
from tests.faults.catalogue.fault import Skipped
from tests.faults.catalogue.lives import Place
from tests.faults.catalogue.proxy import Proxy
from tests.faults.catalogue.world import WAIT_S, Life, World
from tests.foreign_server import ForeignServer, foreign_server
from tests.integration.conftest import DEBIAN_BIN_DIR
from tests.running_product import ServerState, open_folder
from tests.waiting import eventually

OWN_COST = "3.25"
"""``random_page_cost`` in the stand-by's own postgresql.auto.conf, which is not replicated."""


class Pair:
    """Two servers, a store, a watchdog and tuners that know nothing but the address.

    Args:
        world: keeps the processes, and ends all of it.

    Attributes:
        primary, standby: the servers; after a fail-over call :meth:`renew`.
    """

    def __init__(self, world: World) -> None:
        if not (DEBIAN_BIN_DIR / "pg_basebackup").exists():
            raise Skipped(f"no PostgreSQL in {DEBIAN_BIN_DIR} (apt-get install postgresql-15)")
        self._world = world
        self._stacks: dict[ForeignServer, contextlib.ExitStack] = {}
        self.primary = self._make(None)
        self.standby = self._copy()
        self._led_to, self._before = self.primary, 0
        self._proxy = Proxy(lambda: self._led_to.port)
        world.at_the_end.callback(self._proxy.close)
        folder = world.at_the_end.enter_context(open_folder())
        self._place = Place(folder / "config.yaml", folder)
        self._configure()
        assert self.begin_and_end() == ""
        self.store = open_store(f"sqlite:///{folder / 'telemetry.db'}", read_only=True)
        world.at_the_end.callback(self.store.close)
        world.begin(lives.watch, self._place, tells=False)

    def _configure(self) -> None:
        database = {
            "host": "127.0.0.1",
            "port": self._proxy.port,
            "user": self.primary.user,
            "password": self.primary.password,
            "dbname": self.primary.dbname,
        }
        settings = {"mode": "auto", "database": database}
        self._place.config_path.write_text(yaml.safe_dump(settings), encoding="utf-8")

    # -- servers ------------------------------------------------------------------------------

    def lead_to(self, server: ForeignServer) -> None:
        """The address means that server from now on; all present connections are lost."""
        self._proxy.cut()
        self._led_to = server
        eventually(lambda: not self._is_reached(), "all connections are lost", WAIT_S)
        self._proxy.heal()

    def fail_over(self) -> None:
        """Promote the stand-by, and let the address mean it."""
        self.standby.run("SELECT pg_promote()", dbname="postgres")
        self.lead_to(self.standby)

    def renew(self) -> None:
        """Whoever was promoted is the primary, with a new stand-by."""
        self._stacks.pop(self.primary).close()
        self.primary = self.standby
        self.standby = self._copy()
        self.lead_to(self.primary)

    def state(self, server: ForeignServer) -> ServerState:
        """The writable knobs and the entries of a server."""
        text = (server.cluster_dir / "postgresql.auto.conf").read_text(encoding="utf-8")
        names = ", ".join(f"'{name}'" for name in load_catalog(server.version, lives.HUGE).names)
        rows = server.run(f"SELECT name, setting FROM pg_settings WHERE name IN ({names})")
        return ServerState({str(n): str(s) for n, s in rows}, autoconf.entries(text))

    def _make(self, copy_of: ForeignServer | None) -> ForeignServer:
        stack = self._world.at_the_end.enter_context(contextlib.ExitStack())
        server = stack.enter_context(foreign_server(DEBIAN_BIN_DIR, copy_of=copy_of))
        self._stacks[server] = stack
        return server

    def _copy(self) -> ForeignServer:
        server = self._make(self.primary)
        server.run(f"ALTER SYSTEM SET random_page_cost = {OWN_COST}", dbname="postgres")
        server.run("SELECT pg_reload_conf()", dbname="postgres")
        cost = "SELECT setting FROM pg_settings WHERE name = 'random_page_cost'"
        eventually(lambda: server.run(cost) == [(OWN_COST,)], "it has an entry of its own", WAIT_S)
        return server

    def _is_reached(self) -> bool:
        try:
            psycopg2.connect(
                host="127.0.0.1",
                port=self._proxy.port,
                user=self.primary.user,
                password=self.primary.password,
                dbname=self.primary.dbname,
                connect_timeout=5,
            ).close()
        except psycopg2.OperationalError:
            return False
        return True

    # -- tuners -------------------------------------------------------------------------------

    def in_mid_trial(self, number: int) -> tuple[Life, Sequence[ChangeRecord]]:
        """A tuner that has stopped at a step of its first trial, and the changes open there.

        It follows the script of ``lives.change``.
        """
        step = lives.step_in_trial(number)
        self._before = max((event.id or 0 for event in self._events()), default=0)
        tuner = self._world.begin(lives.change, self._place, step, int(lives.STOP), False)
        tuner.stopped()
        changes = self.store.open_changes()
        assert changes, f"nothing is open at step {step}"
        return tuner, changes

    def begin_and_end(self) -> str:
        """Start a tuner that ends at once; what kept it from beginning."""
        life = self._world.begin(lives.begin_and_end, self._place)
        told = str(life.hear())
        assert life.ended() == 0
        return told

    def left_behind(self) -> bool:
        """Whether the journal says so of all that was open."""
        return not self.store.open_changes() and bool(self.store.changes_left_behind())

    def newest(self, kind: str) -> EventRecord:
        """The last event of that kind since the trial; it is told just after the journal."""

        def look() -> EventRecord | None:
            found = [event for event in self._events() if event.kind == kind]
            return found[-1] if found and (found[-1].id or 0) > self._before else None

        return eventually(look, f"an event {kind}", WAIT_S)

    def _events(self) -> Sequence[EventRecord]:
        return sorted(self.store.events(limit=200), key=lambda event: event.id or 0)
