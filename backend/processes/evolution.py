"""The process of an evolution that began by itself: one of Level 2's, bounded in time."""

from __future__ import annotations

import logging
import threading

from backend.config import Settings
from backend.evolution.course import Course, StoppedError
from backend.evolution.preparation import prepared
from backend.evolution.process import be_nice, evolve
from backend.evolution.schedule import longest_s
from backend.protocols import Store
from backend.run_options import RunOptions

log = logging.getLogger(__name__)


def evolution(settings: Settings, options: RunOptions, store: Store, stop: threading.Event) -> int:
    """Evolve once, going on where a killed one was; what fails is not tried again by itself."""
    be_nice()
    course = Course(store, longest_s(settings, options.time_scale), by_itself=True, stop=stop)
    try:
        evolve(prepared(settings, until=course.record.began_at), course, store)
    except StoppedError:
        log.info("the evolution is stopped; it goes on with the next start")
    except Exception as error:
        log.exception("the evolution failed")
        course.end(f"the evolution failed: {error}", level="error")
    return 0
