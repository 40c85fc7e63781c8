"""The engine without a screen, in a process of its own: a line of JSON in, a line out.

Started as `python -m tui_chat.bench.our_worker`. A request is `{"messages": [[role, text], ...]}`
for one reply of the engine, or `{"turn": text}` for one turn of a chat through the session, with
`"mode"` and `"settings"` (fields of `GenerationSettings`) beside it, and `"new_chat"` to begin one.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tui_chat.chat.session import Session
from tui_chat.config import Config, model_spec
from tui_chat.engine import open_engine
from tui_chat.engine.base import Engine, EngineError
from tui_chat.store.conversations import ConversationStore
from tui_chat.types import (
    GenerationFinished,
    GenerationSettings,
    Message,
    Mode,
    ReplyFinished,
    ReplyMetrics,
    Role,
    TextDelta,
)

Answer = dict[str, Any]


def main() -> None:
    """Answer each line of standard input with one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    config = Config(model=args.model)
    try:
        engine = open_engine(model_spec(config), lambda progress: None, threading.Event())
    except EngineError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    with contextlib.closing(engine), tempfile.TemporaryDirectory() as folder:
        chat = _Chat(engine, Path(folder))
        for line in sys.stdin:
            request = json.loads(line)
            if "window" in request:
                print(json.dumps({"window": engine.context_window, "error": ""}), flush=True)
                continue
            mode = Mode(request.get("mode", Mode.SPEED))
            settings = replace(config.settings(mode), **request.get("settings", {}))
            if "turn" in request:
                answer = chat.turn(request, mode, settings)
            else:
                answer = _reply(engine, request["messages"], settings)
            print(json.dumps(answer), flush=True)


def _reply(engine: Engine, messages: list[tuple[str, str]], settings: GenerationSettings) -> Answer:
    prompt = [
        Message(str(number), Role(role), text, datetime.now(UTC))
        for number, (role, text) in enumerate(messages)
    ]
    text: list[str] = []
    first = 0.0
    started = time.perf_counter()
    for event in engine.stream(prompt, lambda: settings, threading.Event()):
        if isinstance(event, TextDelta):
            first = first or time.perf_counter()
            text.append(event.text)
        elif isinstance(event, GenerationFinished):
            first = first or time.perf_counter()
            return {
                "text": "".join(text),
                "first_seconds": first - started,
                "prompt_ids": list(event.prompt_ids),
                "new_ids": list(event.new_ids),
                "error": event.error,
                **_figures(event.metrics),
            }
    return {"error": "The engine ended without a word."}


def _figures(metrics: ReplyMetrics) -> Answer:
    import torch

    return {
        "tokens_per_second": metrics.tokens_per_second,
        "metrics": asdict(metrics),
        "threads": torch.get_num_threads(),
    }


class _Chat:
    """Chats whose files lie in a folder of their own."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._store = ConversationStore(folder)
        self._session: Session | None = None

    def turn(self, request: Mapping[str, Any], mode: Mode, settings: GenerationSettings) -> Answer:
        """One prompt and its reply, from the text typed to the reply stored."""
        if self._session is None or request.get("new_chat"):
            log = self._store.create(model=self._engine.name)
            self._session = Session(self._engine, log)
        started = time.perf_counter()
        events = self._session.reply(
            request["turn"],
            mode=lambda: mode,
            settings=lambda _: settings,
            cancel=threading.Event(),
        )
        for event in events:
            if isinstance(event, ReplyFinished):
                reply = event.message
        metrics = reply.metrics or ReplyMetrics()
        return {
            "text": reply.content,
            "seconds": time.perf_counter() - started,
            "error": reply.error,
            **_figures(metrics),
        }


if __name__ == "__main__":
    main()
