"""Messages in, token ids out: the chat template, injection-proof encoding, cached counts.

Whatever stands in a message is text; only the template may write control tokens.
"""

import hashlib
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import encode_marked_chat, mark_control_tokens

from tui_chat.engine.base import EngineError
from tui_chat.types import Message, Role

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
CHATML_MARKERS = ("<|im_start|>", "<|im_end|>")
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
_SURROGATES = re.compile("[\ud800-\udfff]")
_PROBE = "tuichatprobe"

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Turn = dict[str, str]
TurnKey = tuple[str, str, str]


class _Lru(Generic[K, V]):
    """A bounded mapping that forgets what was used longest ago; safe between threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A conversation as the model reads it."""

    token_ids: tuple[int, ...]
    seconds: float
    """What rendering the template and encoding the text took."""
    opens_reasoning: bool
    """Whether the template left the reply inside `<think>`."""
    continued: int = 0
    """How many of the last ids are the beginning of the reply, which is to go on."""


class ChatTokenizer:
    """A Hugging Face tokenizer and its chat template behind one lock.

    The lock is needed because the tokenizer's backend is switched between two ways of
    encoding; a second thread in between would get wrong ids.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Examine `tokenizer` (transformers) and its template; sets its `chat_control_tokens`."""
        self.hf = tokenizer
        self.lock = threading.Lock()
        self.notes: tuple[str, ...] = ()
        self._prompts: _Lru[tuple[TurnKey, ...], EncodedPrompt] = _Lru(4)
        self._counts: _Lru[TurnKey, int] = _Lru(8192)
        self._wordless: dict[int, bool] = {}
        self._added: dict[str, int] = dict(tokenizer.added_tokens_encoder)
        self._control = sorted((t for t in self._added if not t.isspace()), key=len, reverse=True)
        tokenizer.chat_control_tokens = list(self._control)
        self._control_pattern = _any_of(self._control)
        self._control_marks = re.compile("|".join(map(re.escape, self._control)) or "(?!)")
        self._text_markers = _any_of([])
        self._fold_system = False
        self._sanitizes = True
        self._chatml = False
        self._template = self._own_template() or self._chatml_template()
        self._examine_template()
        self._examine_sanitizing()
        self._tails = self._turn_tails()
        self._before_reply = self._space_before_reply()
        self.tokenizer_id = self._identify()

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a turn, as far as tokenizer and template tell."""
        ids = {self._added[t] for t in END_OF_TURN if t in self._added and t in self._template}
        if self.hf.eos_token_id is not None:
            ids.add(int(self.hf.eos_token_id))
        return frozenset(ids)

    @property
    def end_strings(self) -> tuple[str, ...]:
        """Texts that end a turn because the tokenizer has no token for them."""
        marker = CHATML_MARKERS[1]
        return (marker,) if self._chatml and marker not in self._added else ()

    @property
    def think_ids(self) -> tuple[int, int] | None:
        """Ids of `<think>` and `</think>` where both are single tokens."""
        if THINK_OPEN in self._added and THINK_CLOSE in self._added:
            return self._added[THINK_OPEN], self._added[THINK_CLOSE]
        return None

    def encode(self, messages: Sequence[Message]) -> EncodedPrompt:
        """Render and encode the prompt of `messages`; the last few results are kept.

        Where the last message is a reply, the prompt is that of the messages before it, followed
        by the text of the reply as the model would have written it, for the model to go on with.

        Raises:
            EngineError: the template refuses this conversation.
        """
        key = tuple(_turn_key(message) for message in messages)
        known = self._prompts.get(key)
        if known is not None:
            return known
        if len(messages) > 1 and messages[-1].role is Role.ASSISTANT:
            return self._encode_continued(messages[:-1], messages[-1])
        start = time.perf_counter()
        ids = self._encode_turns([_turn(message) for message in messages])
        tail = self.decode(ids[-16:]).rstrip()
        prompt = EncodedPrompt(
            tuple(ids), time.perf_counter() - start, opens_reasoning=tail.endswith(THINK_OPEN)
        )
        self._prompts.put(key, prompt)
        return prompt

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Exact length of the prompt of `messages`. Raises EngineError like `encode`."""
        return len(self.encode(messages).token_ids)

    def count_message(self, message: Message) -> int:
        """Tokens that one message adds to a prompt, cached by what it holds."""
        key = _turn_key(message)
        count = self._counts.get(key)
        if count is None:
            count = self._measure_turn(_turn(message))
            self._counts.put(key, count)
        return count

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids`, control tokens included."""
        with self.lock:
            return str(self.hf.decode(list(token_ids), skip_special_tokens=False))

    def is_wordless(self, token_id: int) -> bool:
        """Whether a token holds no letter and no digit; part of a character counts as one."""
        known = self._wordless.get(token_id)
        if known is None:
            text = self.decode([token_id])
            known = not any(char.isalnum() or char == "\ufffd" for char in text)
            self._wordless[token_id] = known
        return known

    # Which template

    def _own_template(self) -> str:
        template = self.hf.chat_template
        if isinstance(template, dict):
            template = template.get("default") or next(iter(template.values()), "")
        return template or ""

    def _chatml_template(self) -> str:
        self._chatml = True
        # Markers that are no tokens are written as text, so only breaking them tells them apart.
        self._control_pattern = _any_of([*self._control, *CHATML_MARKERS])
        self._text_markers = _any_of([m for m in CHATML_MARKERS if m not in self._added])
        self._note("The tokenizer has no chat template, so ChatML is used; replies may be poor.")
        first = self.hf.encode("x", add_special_tokens=True)[:1]
        starts_with_bos = self.hf.bos_token_id is not None and first == [self.hf.bos_token_id]
        return ("{{ bos_token }}" if starts_with_bos else "") + CHATML_TEMPLATE

    def _note(self, sentence: str) -> None:
        self.notes = (*self.notes, sentence)

    def _examine_template(self) -> None:
        """Find out whether the template works, and whether it takes a system message."""
        talk = [_plain(Role.USER), _plain(Role.ASSISTANT), _plain(Role.USER)]
        try:
            self._render(talk)
        except Exception as error:
            self._note(f"The model's chat template is broken ({type(error).__name__}).")
            self._template = self._chatml_template()
            return
        try:
            shown = _PROBE in self._render([{"role": "system", "content": _PROBE}, *talk])
        except Exception:
            shown = False
        if not shown:
            self._fold_system = True
            self._note(
                "The chat template takes no system message, so the system prompt is put "
                "before your first message."
            )

    def _examine_sanitizing(self) -> None:
        """Find out whether every control token can be encoded as plain text."""
        every = " ".join(self._control)
        try:
            self._apply([{"role": "user", "content": every}], sanitize=True)
        except (ValueError, TypeError, NotImplementedError):
            self._sanitizes = False
            self._note(
                "This tokenizer cannot read control tokens as plain text, so a space is put "
                "into those that a message quotes."
            )

    def _identify(self) -> str:
        backend = getattr(self.hf, "_tokenizer", None)
        text = backend.to_str() if backend is not None else json.dumps(sorted(self.hf.get_vocab()))
        digest = hashlib.sha256(text.encode("utf-8", "replace"))
        digest.update(self._template.encode("utf-8", "replace"))
        return digest.hexdigest()[:16]

    # Rendering and encoding

    def _encode_turns(self, turns: Sequence[Turn]) -> list[int]:
        """Ids of a prompt; joins turns of one role where the template insists on alternation."""
        turns = _fold_system(turns) if self._fold_system else list(turns)
        try:
            return self._ids(turns)
        except TemplateError:
            pass
        try:
            return self._ids(_alternating(turns))
        except TemplateError as error:
            raise EngineError(
                f"The model's chat template refuses this conversation ({_short(error)}); "
                "start a new chat."
            ) from error

    def _ids(self, turns: Sequence[Turn]) -> list[int]:
        if self._sanitizes:
            return self._apply(_defuse(turns, self._text_markers), sanitize=True)
        return self._apply(_defuse(turns, self._control_pattern), sanitize=False)

    def _apply(self, turns: Sequence[Turn], *, sanitize: bool) -> list[int]:
        with self.lock:
            ids = self.hf.apply_chat_template(
                list(turns),
                chat_template=self._template,
                tokenize=True,
                return_dict=False,
                add_generation_prompt=True,
                sanitize_control_tokens=sanitize,
            )
        return [int(i) for i in ids]

    def _render(self, turns: Sequence[Turn], *, prompt: bool = True) -> str:
        with self.lock:
            text = self.hf.apply_chat_template(
                list(turns),
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=prompt,
            )
        return str(text)

    # A reply that is continued

    def _encode_continued(self, before: Sequence[Message], reply: Message) -> EncodedPrompt:
        """The prompt of `before` and then the text of `reply`, all of it plain text.

        Reasoning without content stays open; reasoning before content is closed.
        """
        start = time.perf_counter()
        prompt = self.encode(before)
        turn = _turn(reply)
        content, reasoning = turn["content"], turn.get("reasoning_content", "")
        ids = list(prompt.token_ids)
        opens = prompt.opens_reasoning
        if reasoning or (opens and content):
            if not opens:
                ids += self._tag_ids(THINK_OPEN)
            begun = opens and self.decode(ids[-1:]).endswith("\n")
            reasoning = reasoning if begun else "\n" + reasoning
            opens = not content
            if content:
                ids += self._text_ids(reasoning + "\n")
                ids += self._tag_ids(THINK_CLOSE)
                ids += self._text_ids("\n\n" + content)
            else:
                ids += self._text_ids(reasoning)
        elif content:
            space = self._before_reply
            ids += self._text_ids(content if content.startswith(space) else space + content)
        continued = len(ids) - len(prompt.token_ids)
        return EncodedPrompt(tuple(ids), time.perf_counter() - start, opens, continued)

    def _tag_ids(self, tag: str) -> list[int]:
        return [self._added[tag]] if self.think_ids else self._text_ids(tag)

    def _text_ids(self, text: str) -> list[int]:
        """Ids of plain text in the middle of a prompt; none of them is a control token."""
        if not text:
            return []
        with self.lock:
            if self._sanitizes:
                # Behind a newline no tokenizer adds the space that it puts before a prompt.
                marked = mark_control_tokens("\n" + text, self._control_marks)
                ids = encode_marked_chat(self.hf, marked)
                newline = encode_marked_chat(self.hf, "\n")
                if ids[: len(newline)] == newline:
                    return list(ids[len(newline) :])
                return list(encode_marked_chat(self.hf, marked[1:]))
            text = _break_all(text, self._control_pattern)
            newline = self.hf.encode("\n", add_special_tokens=False)
            ids = self.hf.encode("\n" + text, add_special_tokens=False)
            if ids[: len(newline)] == newline:
                return list(ids[len(newline) :])
            return list(self.hf.encode(text, add_special_tokens=False))

    def _space_before_reply(self) -> str:
        """White space that the template writes between generation prompt and reply."""
        asked = [_plain(Role.USER)]
        try:
            prompt = self._render(asked)
            whole = self._render([*asked, {"role": "assistant", "content": _PROBE}], prompt=False)
        except Exception:
            return ""
        between = whole.removeprefix(prompt).partition(_PROBE)[0]
        return between if whole.startswith(prompt) and between.isspace() else ""

    # Counting one message

    def _turn_tails(self) -> dict[str, int]:
        """Tokens of a one-letter turn of each role, the measure that real turns are held to."""
        length = self._length
        user, assistant = _plain(Role.USER), _plain(Role.ASSISTANT)
        pair = length([user, assistant, user, assistant, user]) - length([user, assistant, user])
        try:
            user_alone = len(self._ids([user, user])) - len(self._ids([user]))
        except (TemplateError, ValueError):
            user_alone = pair // 2
        return {"user": user_alone, "assistant": pair - user_alone}

    def _measure_turn(self, turn: Turn) -> int:
        length = self._length
        user, assistant = _plain(Role.USER), _plain(Role.ASSISTANT)
        match turn["role"]:
            case Role.SYSTEM:
                return length([turn, user]) - length([user])
            case Role.USER:
                grown = length([turn, assistant, user]) - length([user, assistant, user])
                return grown + self._tails["user"]
            case _:
                grown = length([user, turn, user]) - length([user, assistant, user])
                return grown + self._tails["assistant"]

    def _length(self, turns: Sequence[Turn]) -> int:
        return len(self._encode_turns(turns))


def _turn_key(message: Message) -> TurnKey:
    return (message.role.value, message.content, message.reasoning)


def _turn(message: Message) -> Turn:
    """The message as templates know it; lone surrogates would make the tokenizer raise."""
    turn = {"role": message.role.value, "content": _SURROGATES.sub("\ufffd", message.content)}
    if message.reasoning:
        turn["reasoning_content"] = _SURROGATES.sub("\ufffd", message.reasoning)
    return turn


def _short(error: TemplateError) -> str:
    return (error.message or type(error).__name__)[:120]


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    """Pattern that finds any of `texts`, the longest first; single signs cannot be broken."""
    breakable = sorted({t for t in texts if len(t) > 1}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, breakable)) or "(?!)")


def _defuse(turns: Sequence[Turn], pattern: re.Pattern[str]) -> list[Turn]:
    """Break whatever `pattern` finds in the turns with a space, until nothing is left."""

    return [{key: _break_all(value, pattern) for key, value in turn.items()} for turn in turns]


def _break_all(text: str, pattern: re.Pattern[str]) -> str:
    while pattern.search(text):
        text = pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
    return text


def _plain(role: Role) -> Turn:
    return {"role": role.value, "content": "x"}


def _fold_system(turns: Sequence[Turn]) -> list[Turn]:
    """Put the system text before the text of the first user turn."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == Role.SYSTEM)
    rest = [turn for turn in turns if turn["role"] != Role.SYSTEM]
    if not system:
        return rest
    for index, turn in enumerate(rest):
        if turn["role"] == Role.USER:
            rest[index] = {**turn, "content": f"{system}\n\n{turn['content']}"}
            return rest
    return [{"role": Role.USER.value, "content": system}, *rest]


def _alternating(turns: Sequence[Turn]) -> list[Turn]:
    """Join neighbours of one role and drop replies that nothing stands before."""
    joined: list[Turn] = []
    for turn in turns:
        if not any(t["role"] == Role.USER for t in joined) and turn["role"] == Role.ASSISTANT:
            continue
        if joined and joined[-1]["role"] == turn["role"]:
            content = f"{joined[-1]['content']}\n\n{turn['content']}"
            joined[-1] = {**joined[-1], "content": content}
        else:
            joined.append(turn)
    return joined
