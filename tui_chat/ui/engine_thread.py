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
        self._writing: set[threading.Event] = set()
        self._all_written = threading.Event()
        self._all_written.set()
        self._stopped = False

    def submit(self, job: Job, *, writes: bool = True) -> threading.Event:
        """Queue `job`; setting the returned event cancels it, running or waiting.

        With `writes` something is lost where the process ends before the job does.
        """
        cancel = threading.Event()
        with self._lock:
            if self._stopped:
                cancel.set()
            self._open.add(cancel)
            if writes:
                self._writing.add(cancel)
                self._all_written.clear()
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
                    self._writing.discard(cancel)
                    if not self._writing:
                        self._all_written.set()

    def stop(self) -> None:
        """Cancel everything and let the thread end; does not wait."""
        with self._lock:
            self._stopped = True
            for cancel in self._open:
                cancel.set()
        self._jobs.put(None)

    def written_within(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the jobs that write; True if all of them ended.

        A load may run on: an import cannot be cancelled, and nothing of it is worth a wait.
        """
        return self._all_written.wait(timeout)

    def ended_within(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the thread to end; True if it has."""
        with contextlib.suppress(RuntimeError):  # never started
            self.join(timeout)
        return not self.is_alive()
