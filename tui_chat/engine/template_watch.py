"""Ends a chat template that never ends, or eats all memory: it is a program of the model's author.

A thread looks once a second at what is rendered and raises in the thread that renders for too
long. That costs a render next to nothing, and works between any two steps of it; one
step that takes long by itself (a huge text) cannot be ended. On Linux the whole process may not
allocate more than half of the free memory meanwhile, so that such a step fails.
"""

import contextlib
import ctypes
import math
import resource
import sys
import threading
import time
from types import TracebackType

import psutil
from jinja2 import TemplateError

MOST_SECONDS = 4.0
"""How long one rendering may take; that of a long conversation takes milliseconds."""
_LOOK_SECONDS = 1.0
_IS_LINUX = sys.platform == "linux"
_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc


class TemplateTooSlow(TemplateError):
    """A template was still rendering after `MOST_SECONDS`."""

    def __init__(self) -> None:
        super().__init__("it does not come to an end")


class TemplateTooLarge(TemplateError):
    """A template wanted more memory than a rendering may have."""

    def __init__(self) -> None:
        super().__init__("it takes too much memory")


class _Fence:
    """Keeps the process from growing while something is rendered, in however many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = (0, 0)
        self._half = 0
        self._look_again = 0.0

    def enter(self, most_grown_bytes: int | None) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1 and _IS_LINUX:
                self._before = resource.getrlimit(resource.RLIMIT_DATA)
                most = most_grown_bytes or self._half_of_what_is_free()
                held = _written_bytes()
                soft, hard = self._before
                if soft == resource.RLIM_INFINITY or held + most < soft:
                    with contextlib.suppress(ValueError, OSError):  # more than may be asked for
                        resource.setrlimit(resource.RLIMIT_DATA, (held + most, hard))

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and _IS_LINUX:
                resource.setrlimit(resource.RLIMIT_DATA, self._before)

    def _half_of_what_is_free(self) -> int:
        """Looked up once a second: that takes longer than most renderings."""
        now = time.monotonic()
        if now >= self._look_again:
            self._look_again = now + _LOOK_SECONDS
            self._half = psutil.virtual_memory().available // 2
        return self._half


def _written_bytes() -> int:
    """What the limit counts: memory of its own, not the files of weights that it looks into."""
    with open("/proc/self/statm", "rb", buffering=0) as statm:
        return int(statm.read().split()[5]) * resource.getpagesize()


_fence = _Fence()


class TemplateWatch:
    """`with watch:` around a rendering in any thread; raises `TemplateTooSlow` and
    `TemplateTooLarge` out of it."""

    def __init__(
        self, most_seconds: float = MOST_SECONDS, most_grown_bytes: int | None = None
    ) -> None:
        """Without `most_grown_bytes` it is half of the memory that is free."""
        self._most_seconds = most_seconds
        self._most_grown_bytes = most_grown_bytes
        self._lock = threading.Lock()
        self._started: dict[int, float] = {}
        self._looks = False

    def __enter__(self) -> None:
        _fence.enter(self._most_grown_bytes)
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
        try:
            with self._lock:
                self._started.pop(threading.get_ident(), None)
            if kind is None:
                # What was raised too late must not hit what comes after.
                _raise_in(ctypes.c_ulong(threading.get_ident()), None)
        finally:
            _fence.leave()
        if kind is MemoryError:
            raise TemplateTooLarge from None

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
