"""How long a prompt is on a server: counted by the server where it can, else estimated."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from tui_chat.engine.server_dialects import LLAMA_CPP, VLLM, Dialect
from tui_chat.engine.server_faults import NOT_FOUND, ServerError
from tui_chat.engine.server_http import ServerClient
from tui_chat.engine.server_request import as_sent, continuation, template_switches
from tui_chat.types import Message

COUNT_SECONDS = 2.0
SILENT_SECONDS = 20.0
"""How long a server that did not answer is not asked to count."""
_BYTES_PER_TOKEN = 4.0
"""Of UTF-8 text, about, for the tokenizers of today in most languages."""
_MESSAGE_TOKENS, _PROMPT_TOKENS = 5, 3
"""What a chat template puts around a message and around the prompt, about."""
_KEPT_COUNTS = 64
_SCALE = (0.3, 4.0)
"""How far a reply may correct the estimate; a figure beyond is no length of a prompt."""

Prompt = tuple[tuple[str, str], ...]
logger = logging.getLogger(__name__)


def prompt_of(messages: Sequence[Message]) -> Prompt:
    """What of the messages a server sees."""
    return tuple((message.role.value, message.content) for message in messages)


class PromptCounts:
    """Counts prompts, from any thread; what a reply tells of its prompt corrects the estimate."""

    def __init__(self, client: ServerClient, model: str, dialect: Dialect) -> None:
        self._client = client
        self._model = model
        self._dialect = dialect
        counters: dict[str, Callable[[dict[str, Any]], int]] = {
            VLLM.name: self._ask_vllm,
            LLAMA_CPP.name: self._ask_llama_cpp,
        }
        self._ask = counters.get(dialect.name)
        self._silent_until = 0.0
        """No count is asked for before this moment, because the last one did not come."""
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Prompt, bool | None], int] = OrderedDict()
        self._scale = 1.0
        self._anchor: tuple[Prompt, int] = ((), 0)
        """The prompt of the last reply and its length, which the next one begins with."""

    @property
    def exact(self) -> bool:
        """Whether the server counts."""
        return self._ask is not None and time.monotonic() >= self._silent_until

    def count(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """Length of the prompt of `messages`: as the server counts it, or an estimate."""
        prompt = prompt_of(messages)
        with self._lock:
            if (prompt, thinking) in self._known:
                self._known.move_to_end((prompt, thinking))
                return self._known[prompt, thinking]
        if self._ask is None or not self.exact:
            return self._estimate(prompt)
        try:
            count = self._ask(self._body(messages, thinking))
        except ServerError as fault:
            if fault.passing or fault.is_silence:
                self._silent_until = time.monotonic() + SILENT_SECONDS
            else:
                self._ask = None
            logger.warning("the server did not count (status %d)", fault.status)
            return self._estimate(prompt)
        except (TypeError, KeyError, ValueError):
            logger.warning("the server counts in a way that is not known")
            self._ask = None
            return self._estimate(prompt)
        self._keep(prompt, thinking, count)
        return count

    def of_message(self, message: Message) -> int:
        """About what one message adds to a prompt; never asks the server."""
        return round(_raw_size(message.content) * self._scale)

    def learn(self, messages: Sequence[Message], thinking: bool | None, prompt_tokens: int) -> bool:
        """Take over what a reply told of its prompt; False if that proves the counts wrong."""
        prompt = prompt_of(messages)
        told = self._known.get((prompt, thinking)) if self._ask else None
        scale = prompt_tokens / _raw_sizes(prompt)
        if not _SCALE[0] <= scale <= _SCALE[1]:
            return True  # some servers leave out what they had in their cache
        self._scale, self._anchor = scale, (prompt, prompt_tokens)
        if told is None or told == prompt_tokens:
            self._keep(prompt, thinking, prompt_tokens)
            return True
        self._ask = None
        with self._lock:
            self._known.clear()
        return False

    def _keep(self, prompt: Prompt, thinking: bool | None, count: int) -> None:
        with self._lock:
            self._known[prompt, thinking] = count
            while len(self._known) > _KEPT_COUNTS:
                self._known.popitem(last=False)

    def _estimate(self, prompt: Prompt) -> int:
        begin, length = self._anchor
        if begin and prompt[: len(begin)] == begin:
            rest = prompt[len(begin) :]
            return length + round(self._scale * sum(_raw_size(text) for _, text in rest))
        return round(self._scale * _raw_sizes(prompt))

    def _body(self, messages: Sequence[Message], thinking: bool | None) -> dict[str, Any]:
        """What of the request for a reply makes its prompt."""
        body: dict[str, Any] = {"model": self._model, "messages": as_sent(messages)}
        body |= continuation(messages, self._dialect)
        return body | template_switches(thinking)

    def _ask_vllm(self, body: dict[str, Any]) -> int:
        return _whole(self._post("/tokenize", body)["count"])

    def _ask_llama_cpp(self, body: dict[str, Any]) -> int:
        url = f"{self._client.server.url}/chat/completions/input_tokens"
        try:
            return _whole(self._client.ask(url, body, seconds=COUNT_SECONDS)["input_tokens"])
        except ServerError as fault:
            if fault.status != NOT_FOUND:
                raise
            count = self._ask_old_llama_cpp(body)
            self._ask = self._ask_old_llama_cpp
            return count

    def _ask_old_llama_cpp(self, body: dict[str, Any]) -> int:
        prompt = self._post("/apply-template", body)["prompt"]
        text = {"content": str(prompt), "add_special": True, "parse_special": True}
        return len(self._post("/tokenize", text)["tokens"])

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._client.ask(f"{self._client.root}{path}", body, seconds=COUNT_SECONDS)


def _raw_size(text: str) -> float:
    return len(text.encode("utf-8", "replace")) / _BYTES_PER_TOKEN + _MESSAGE_TOKENS


def _raw_sizes(prompt: Prompt) -> float:
    return sum(_raw_size(text) for _, text in prompt) + _PROMPT_TOKENS


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("not a count")
    return value
