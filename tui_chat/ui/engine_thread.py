"""The one thread that owns the engine: it loads models and writes replies, one at a time.

A thread of our own instead of Textual's thread workers: those are not daemons, so a load or a
forward pass would hold up quitting, and successive ones run on different threads, which CUDA
graphs do not like.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable

Job = Callable[[threading.Event], None]
"""Runs on the engine thread; ends soon after the event is set."""

log = logging.getLogger(__name__)


class EngineThread(threading.Thread):
    """Runs jobs in the order they were given, each with a cancel event of its own."""

    def __init__(self) -> None:
        super().__init__(name="engine", daemon=True)
        self._jobs: queue.SimpleQueue[tuple[Job, threading.Event] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open: set[threading.Event] = set()
        self._stopped = False

    def submit(self, job: Job) -> threading.Event:
        """Queue `job`; setting the returned event cancels it, running or waiting."""
        cancel = threading.Event()
        with self._lock:
            if self._stopped:
                cancel.set()
            self._open.add(cancel)
        self._jobs.put((job, cancel))
        return cancel

    def run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, cancel = item
            try:
                job(cancel)
            except Exception:
                # A job reports its own faults; this keeps the thread for the next one.
                log.exception("a job of the engine thread failed")
            finally:
                with self._lock:
                    self._open.discard(cancel)

    def stop(self) -> None:
        """Cancel everything and let the thread end; does not wait."""
        with self._lock:
            self._stopped = True
            for cancel in self._open:
                cancel.set()
        self._jobs.put(None)

    def ended_within(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the thread to end; True if it has."""
        with contextlib.suppress(RuntimeError):  # never started
            self.join(timeout)
        return not self.is_alive()
