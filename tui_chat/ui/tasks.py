"""What runs beside the keys: a task that fails is told, and the app goes on.

Textual's own way is to end the app, or to pass over the failure without a word.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from textual.app import App
from textual.dom import DOMNode
from textual.worker import Worker
from textual.worker_manager import WorkerManager

log = logging.getLogger(__name__)


class WatchedWorkers(WorkerManager):
    """The workers of an app; of one that fails `on_fault` hears while the exception is handled."""

    def __init__(self, app: App[Any], on_fault: Callable[[str], None]) -> None:
        super().__init__(app)
        self._on_fault = on_fault

    def add_worker(self, worker: Worker[Any], start: bool = True, exclusive: bool = True) -> None:
        """See `WorkerManager.add_worker`."""
        work = worker._work
        made: list[Coroutine[Any, Any, Any]] = []
        if inspect.isawaitable(work):
            worker._work = self._watched(work, worker.node)
            made = [each for each in (worker._work, work) if inspect.iscoroutine(each)]
        super().add_worker(worker, start, exclusive)

        def close(_: object) -> None:
            for each in made:
                each.close()

        if worker._task is not None:
            # Python would complain of one that was cancelled before it began, at any time later.
            worker._task.add_done_callback(close)

    async def _watched(self, work: Awaitable[Any], node: DOMNode) -> Any:
        try:
            return await work
        except Exception as error:
            if node._pruning or node._closing or node._closed:
                # It looked for a part of a screen that is being taken away.
                log.info("a task of a screen that was left failed: %s", type(error).__name__)
            else:
                self._on_fault("a task of the screen failed")
            raise
