"""The plain way with transformers, in a process of its own: the same requests as `our_worker`.

Started as `python -m tui_chat.bench.plain_worker`. It imports nothing of tui-chat, so that its
load is the plain one. Every prompt is rendered, encoded and read from its beginning; `"keep"`
asks to keep the cache of the same prompt, for measuring nothing but the decode.
"""

import argparse
import inspect
import json
import re
import sys
import time
from threading import Thread
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    TextIteratorStreamer,
)
from transformers.utils import logging

Answer = dict[str, Any]
Turn = dict[str, str]


class _TimedStreamer(TextIteratorStreamer):  # type: ignore[misc]
    """Notes when the first token and the last one came."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.times: list[float] = []
        self._is_prompt = True

    def put(self, value: Any) -> None:
        if not self._is_prompt:
            self.times.append(time.perf_counter())
        self._is_prompt = False
        super().put(value)


class _Plain:
    """A model and a tokenizer as `from_pretrained` gives them."""

    def __init__(self, folder: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        if torch.cuda.is_available():
            self.model.to("cuda")
        self.history: list[Turn] = []
        parameters = inspect.signature(self.model.forward).parameters
        # transformers 5.24 renamed it.
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"
        self._caches: dict[tuple[int, ...], Any] = {}

    def reply(self, messages: list[Turn], settings: dict[str, Any], *, keep: bool) -> Answer:
        started = time.perf_counter()
        inputs = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        prompt_ids = inputs["input_ids"][0].tolist()
        options = dict(settings)
        if keep:
            options[self._cache_name] = self._cache_of(prompt_ids)
        streamer = _TimedStreamer(self.tokenizer)
        found: list[Any] = []

        def generate() -> None:
            try:
                found.append(self.model.generate(**inputs, **options, streamer=streamer))
            finally:
                # Without an end the reader below would wait for ever.
                streamer.end()

        thread = Thread(target=generate)
        thread.start()
        text = "".join(streamer)
        thread.join()
        if not found:
            return {"error": "generate raised; its traceback is above."}
        times = streamer.times
        new_ids = found[0][0, len(prompt_ids) :].tolist()
        taken = times[-1] - times[0]
        return {
            "text": text,
            "first_seconds": times[0] - started,
            "prompt_ids": prompt_ids,
            "new_ids": new_ids,
            "tokens_per_second": (len(new_ids) - 1) / taken if taken else 0.0,
            "threads": torch.get_num_threads(),
            "error": "",
        }

    def turn(self, text: str, settings: dict[str, Any]) -> Answer:
        """One prompt and its cleaned reply, with everything before it."""
        started = time.perf_counter()
        self.history.append({"role": "user", "content": text})
        answer = self.reply(self.history, settings, keep=False)
        answer["text"] = re.sub(r"<\|im_end\|>|</s>|<\|eot_id\|>", "", answer["text"]).strip()
        self.history.append({"role": "assistant", "content": answer["text"]})
        return {**answer, "seconds": time.perf_counter() - started}

    def _cache_of(self, prompt_ids: list[int]) -> Any:
        """A cache that holds all of the prompt but its last id."""
        cache = self._caches.get(tuple(prompt_ids))
        if cache is not None:
            cache.crop(len(prompt_ids) - 1 - cache.get_seq_length())
            return cache
        cache = self._caches[tuple(prompt_ids)] = DynamicCache(config=self.model.config)
        ids = torch.tensor([prompt_ids[:-1]], device=self.model.device)
        with torch.inference_mode():
            self.model(ids, **{self._cache_name: cache}, logits_to_keep=1)
        return cache


def main() -> None:
    """Answer each line of standard input with one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    plain = _Plain(args.model)
    for line in sys.stdin:
        request = json.loads(line)
        settings = {name: value for name, value in request["settings"].items() if name != "seed"}
        if "seed" in request["settings"]:
            torch.manual_seed(request["settings"]["seed"])
        if request.get("new_chat"):
            plain.history.clear()
        if "turn" in request:
            answer = plain.turn(request["turn"], settings)
        else:
            messages = [{"role": role, "content": text} for role, text in request["messages"]]
            answer = plain.reply(messages, settings, keep=request.get("keep", False))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
