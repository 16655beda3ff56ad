"""The tuner's jobs: ticks that a scheduler repeats, and the faults of those that failed.

All that may change the server runs in one worker thread, one job after the other. What works on
the store alone has a thread of its own, so have the explorer, whose statements may take long, and
the service of its results. Jobs tick, they never sleep.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, get_args

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger(__name__)

Worker = Literal["server", "store", "explorer", "service", "learner"]


class Jobs:
    """Repeats jobs; one that raises is logged, told, and goes on.

    Args:
        on_fault: told once when a job begins to fail, or fails in another way than before.
    """

    def __init__(self, on_fault: Callable[[str], None]) -> None:
        self._on_fault = on_fault
        self._faults: dict[str, str] = {}
        self._scheduler = BackgroundScheduler(
            executors={worker: ThreadPoolExecutor(1) for worker in get_args(Worker)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )
        self._scheduler.add_listener(self._on_run, EVENT_JOB_ERROR | EVENT_JOB_EXECUTED)

    @property
    def fault(self) -> str:
        """What the jobs that failed in their latest run say; empty when all is well."""
        return "; ".join(f"{job}: {told}" for job, told in sorted(self._faults.items()))

    def repeat(
        self,
        job: Callable[[], None],
        seconds: float,
        *,
        worker: Worker = "server",
    ) -> None:
        """Run the job every so many seconds; its method's name names it."""
        self._scheduler.add_job(job, "interval", seconds=seconds, id=job.__name__, executor=worker)

    def start(self) -> None:
        """Begin with the jobs."""
        self._scheduler.start()

    def shut_down(self) -> None:
        """Wait for what runs; nothing begins any more."""
        self._scheduler.shutdown(wait=True)

    def _on_run(self, event: JobExecutionEvent) -> None:
        if event.exception is None:
            self._faults.pop(event.job_id, None)
            return
        told = str(event.exception) or repr(event.exception)
        if self._faults.get(event.job_id) == told:
            return  # a tick that fails four times a second is told once
        self._faults[event.job_id] = told
        log.error("job %s failed: %s\n%s", event.job_id, told, event.traceback)
        self._on_fault(f"{event.job_id}: {told}")
