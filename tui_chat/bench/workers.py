"""The sides of a comparison, each in a process of its own with its own threads and switches."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tui_chat.bench.harness import BenchError
from tui_chat.bench.terminal import private_environment

Side = Literal["our", "plain", "llama"]
Answer = dict[str, Any]
NAMES: dict[Side, str] = {"our": "tui-chat", "plain": "transformers", "llama": "llama.cpp"}


@dataclass(slots=True)
class Worker:
    """A process that answers a line of JSON with a line of JSON."""

    side: Side
    started: float
    """When it was started, as `time.perf_counter` tells it."""
    _process: "subprocess.Popen[str]"

    def ask(self, **request: Any) -> Answer:
        """Send a request; its answer.

        Raises:
            BenchError: the process ended, or the reply failed.
        """
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except OSError:
            pass  # It ended; what it wrote before is read below.
        line = process.stdout.readline()
        if not line:
            raise BenchError(f"{NAMES[self.side]} ended; its error is above.")
        answer: Answer = json.loads(line)
        if answer["error"]:
            raise BenchError(f"{NAMES[self.side]} failed: {answer['error']}")
        return answer


@contextmanager
def running_worker(side: Side, model: str, home: Path | None = None) -> Iterator[Worker]:
    """Start the worker of `side` with `model`; its own files lie in `home`, or are removed."""
    with tempfile.TemporaryDirectory(prefix="tui-chat-bench-") as name:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", f"tui_chat.bench.{side}_worker", "--model", model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=private_environment(home or Path(name)),
            # Ctrl+C is for the benchmark, which then ends its workers.
            start_new_session=True,
        )
        try:
            yield Worker(side, started, process)
        finally:
            process.kill()
            process.communicate()
