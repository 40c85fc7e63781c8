"""Ends a chat template that never ends: it is a program of the model's author, and may loop.

A thread looks once a second at what is rendered and raises in the thread that renders for too
long. That costs a render a fraction of a microsecond, and works between any two steps of it; one
step that takes long by itself (a huge text) cannot be ended.
"""

import ctypes
import math
import threading
import time
from types import TracebackType

from jinja2 import TemplateError

MOST_SECONDS = 4.0
"""How long one rendering may take; that of a long conversation takes milliseconds."""
_LOOK_SECONDS = 1.0
_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc


class TemplateTooSlow(TemplateError):
    """A template was still rendering after `MOST_SECONDS`."""

    def __init__(self) -> None:
        super().__init__("it does not come to an end")


class TemplateWatch:
    """`with watch:` around a rendering in any thread; raises `TemplateTooSlow` out of it."""

    def __init__(self, most_seconds: float = MOST_SECONDS) -> None:
        self._most_seconds = most_seconds
        self._lock = threading.Lock()
        self._started: dict[int, float] = {}
        self._looks = False

    def __enter__(self) -> None:
        with self._lock:
            self._started[threading.get_ident()] = time.monotonic()
            if self._looks:
                return
            self._looks = True
        threading.Thread(target=self._look, name="template-watch", daemon=True).start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._started.pop(threading.get_ident(), None)
        if kind is None:
            # What was raised too late must not hit what comes after.
            _raise_in(ctypes.c_ulong(threading.get_ident()), None)

    def _look(self) -> None:
        """Look until there was nothing to watch for a while; the next rendering starts anew."""
        while True:
            time.sleep(min(_LOOK_SECONDS, self._most_seconds))
            with self._lock:
                if not self._started:
                    self._looks = False
                    return
                late = time.monotonic() - self._most_seconds
                for thread, started in self._started.items():
                    if started < late:
                        self._started[thread] = math.inf  # once is enough
                        kind = ctypes.py_object(TemplateTooSlow)
                        _raise_in(ctypes.c_ulong(thread), kind)
