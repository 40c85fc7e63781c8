"""The engine without a screen, in a process of its own: one line in, one reply's figures out.

Started as `python -m tui_chat.bench.headless_worker`; takes a prompt in a line of JSON.
"""

import argparse
import json
import sys
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime

from tui_chat.config import Config, model_spec
from tui_chat.engine import open_engine
from tui_chat.types import GenerationFinished, Message, Mode, Role


def main() -> None:
    """Answer each line of standard input with one line of JSON: metrics and finish reason."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-new-tokens", type=int, required=True)
    args = parser.parse_args()
    config = Config(model=args.model)
    settings = replace(config.settings(Mode.SPEED), max_new_tokens=args.max_new_tokens)
    engine = open_engine(model_spec(config), lambda progress: None, threading.Event())
    for line in sys.stdin:
        prompt = Message("prompt", Role.USER, json.loads(line), datetime.now(UTC))
        for event in engine.stream([prompt], lambda: settings, threading.Event()):
            if isinstance(event, GenerationFinished):
                answer = {"metrics": asdict(event.metrics), "error": event.error}
                print(json.dumps(answer), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
