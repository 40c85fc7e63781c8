"""Messages in, token ids out: the chat template, injection-proof encoding, exact counts.

Whatever stands in a message is text; only the template may write control tokens. What was
rendered and encoded for earlier prompts is used again where it is proven to be the same.
"""

import hashlib
import json
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import Any

from jinja2 import TemplateError

from tui_chat.engine.chat_template import (
    CHATML_MARKERS,
    ChatTemplate,
    Turn,
    context,
    plain_turn,
)
from tui_chat.engine.encoding import Recent, TextEncoder
from tui_chat.engine.reasoning import THINK_CLOSE, THINK_OPEN
from tui_chat.engine.template_watch import TemplateWatch
from tui_chat.types import Message, Role

END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
_USER, _ASSISTANT, _SYSTEM = Role.USER, Role.ASSISTANT, Role.SYSTEM
_Key = tuple[str, str | None, bool]
_SURROGATES = re.compile("[\ud800-\udfff]")
_KEPT_BYTES = 64_000_000
_KEPT_PROMPTS, _KEPT_CHARACTERS = 8, 1_000_000
"""Prompts that are remembered, and the longest turn in them."""
_BYTES_PER_CHARACTER = 12
"""What text and ids of a turn take up together, about."""


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


@dataclass(frozen=True, slots=True)
class _Part:
    """The text of a turn, encoded."""

    ids: Sequence[int]
    end: str
    """The added token that the text up to here ends with, or an empty string."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """What the template writes for a message, or for the first two turns together."""

    text: str
    parts: dict[str, _Part] = field(default_factory=dict)
    """Its encoding, by the added token that the text before it ends with."""


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The first turns of a prompt, encoded."""

    parts: list[_Part]
    lengths: list[int]
    """How many ids there are up to the end of each part."""


@dataclass(slots=True)
class _Written:
    """A prompt as it was written turn by turn."""

    messages: tuple[Message, ...]
    thinking: bool | None
    turns: list[_Turn]
    """The first two turns, and then each message."""
    ending: _Turn
    """The generation prompt."""
    encoded: _Encoded | None = None
    """The generation prompt is its last part, or it lacks some turns. Replaced, never changed:
    several threads may read it."""

    @property
    def text(self) -> str:
        return "".join([turn.text for turn in self.turns]) + self.ending.text


class ChatTokenizer:
    """A Hugging Face tokenizer and its chat template; safe to use from several threads."""

    def __init__(self, tokenizer: Any, watch: TemplateWatch | None = None) -> None:
        """Examine `tokenizer` (transformers) and its template; sets its `chat_control_tokens`.

        `watch` limits what the template may take.
        """
        self.hf = tokenizer
        self._added: dict[str, int] = dict(tokenizer.added_tokens_encoder)
        self._template = ChatTemplate(tokenizer, self._added, watch or TemplateWatch())
        self._encoder = TextEncoder(
            tokenizer, self._added, self._template.text_markers, self._template.sample()
        )
        self.lock = self._encoder.lock
        self.notes: tuple[str, ...] = self._template.notes
        if not self._encoder.sanitizes:
            self.notes += (
                "This tokenizer cannot read control tokens as plain text, so a space is put "
                "into those that a message quotes.",
            )
        self._turns: Recent[tuple[object, ...], _Turn] = Recent(_KEPT_BYTES)
        self._counts: Recent[_Key, int] = Recent(16384)
        self._prompts: deque[_Written] = deque(maxlen=_KEPT_PROMPTS)
        self._wordless: dict[int, bool] = {}
        self._letterless: dict[int, bool] = {}
        self._tails = self._turn_tails()
        self.tokenizer_id = self._identify()

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a turn, as far as tokenizer and template tell."""
        source = self._template.source
        ids = {self._added[t] for t in END_OF_TURN if t in self._added and t in source}
        if self.hf.eos_token_id is not None:
            ids.add(int(self.hf.eos_token_id))
        return frozenset(ids)

    @property
    def end_strings(self) -> tuple[str, ...]:
        """Texts that end a turn because the tokenizer has no token for them."""
        marker = CHATML_MARKERS[1]
        return (marker,) if marker in self._template.text_markers else ()

    @property
    def think_ids(self) -> tuple[int, int] | None:
        """Ids of `<think>` and `</think>` where both are single tokens."""
        if THINK_OPEN in self._added and THINK_CLOSE in self._added:
            return self._added[THINK_OPEN], self._added[THINK_CLOSE]
        return None

    def encode(self, messages: Sequence[Message], thinking: bool | None = None) -> EncodedPrompt:
        """Render and encode the prompt of `messages`.

        Where the last message is a reply, the prompt is that of the messages before it, followed
        by the text of the reply as the model would have written it, for the model to go on with.

        Args:
            messages: a conversation, oldest first.
            thinking: whether the model shall reason before it answers, where the template has a
                switch for that; None leaves it to the template.

        Raises:
            EngineError: the template refuses this conversation.
        """
        start = time.perf_counter()
        continued = 0
        if len(messages) > 1 and messages[-1].role is Role.ASSISTANT:
            ids, opens, continued = self._continued(messages[:-1], messages[-1], thinking)
        else:
            ids, opens = self._prompt(messages, thinking)
        return EncodedPrompt(tuple(ids), time.perf_counter() - start, opens, continued)

    def count_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """Exact length of the prompt of `messages`; takes and raises what `encode` does."""
        if len(messages) > 1 and messages[-1].role is Role.ASSISTANT:
            return len(self._continued(messages[:-1], messages[-1], thinking)[0])
        grown = self._count_retyped(messages, thinking)
        if grown is not None:
            return grown
        written = self._written(messages, thinking)
        encoded = self._encoded(written) if written else None
        if encoded is not None:
            return encoded.lengths[-1]
        return len(self._prompt(messages, thinking)[0])

    def render(self, messages: Sequence[Message], thinking: bool | None = None) -> str:
        """The text of the prompt of `messages`, control tokens that messages quote marked.

        Args:
            messages: a conversation, oldest first, that ends with a user message.
            thinking: as in `encode`.

        Raises:
            EngineError: the template refuses this conversation.
        """
        written = self._written(messages, thinking)
        if written is not None:
            return written.text
        turns = [self._said(message) for message in messages]
        return self._template.prompt(turns, thinking=thinking)

    def count_message(self, message: Message) -> int:
        """Tokens that one message adds to a prompt, cached by what it holds."""
        key = _key(message)
        count = self._counts.get(key)
        if count is None:
            count = self._measure(message)
            self._counts.put(key, count)
        return count

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids`, control tokens included."""
        with self.lock:
            return str(self.hf.decode(list(token_ids), skip_special_tokens=False))

    def is_wordless(self, token_id: int) -> bool:
        """Whether a token holds no letter and no digit; part of a character counts as one."""
        return self._holds_no(str.isalnum, token_id, self._wordless)

    def is_letterless(self, token_id: int) -> bool:
        """Whether a token holds no letter; a digit is none, part of a character counts as one."""
        return self._holds_no(str.isalpha, token_id, self._letterless)

    def _holds_no(
        self, kind: Callable[[str], bool], token_id: int, answers: dict[int, bool]
    ) -> bool:
        """Whether no character of a token is of the kind that `answers` is about."""
        answer = answers.get(token_id)
        if answer is None:
            text = self.decode([token_id])
            answer = not any(kind(char) or char == "\ufffd" for char in text)
            answers[token_id] = answer
        return answer

    def _identify(self) -> str:
        backend = getattr(self.hf, "_tokenizer", None)
        text = backend.to_str() if backend is not None else json.dumps(sorted(self.hf.get_vocab()))
        digest = hashlib.sha256(text.encode("utf-8", "replace"))
        digest.update(self._template.source.encode("utf-8", "replace"))
        return digest.hexdigest()[:16]

    # A whole prompt

    def _prompt(self, messages: Sequence[Message], thinking: bool | None) -> tuple[list[int], bool]:
        """Ids of a prompt, and whether it leaves the reply inside `<think>`."""
        written = self._written(messages, thinking)
        encoded = self._encoded(written) if written else None
        if written is not None and encoded is not None:
            ids: list[int] = []
            for part in encoded.parts:
                ids.extend(part.ids)
            return ids, _opens_reasoning(written.ending.text)
        text = self.render(messages, thinking)
        return self._encoder.ids(text), _opens_reasoning(text)

    def _said(self, message: Message) -> Turn:
        """The message as templates know it; lone surrogates would make the tokenizer raise."""
        neutral = self._encoder.neutral
        content = neutral(_SURROGATES.sub("\ufffd", message.content))
        turn = {"role": message.role.value, "content": content}
        if message.reasoning:
            turn["reasoning_content"] = neutral(_SURROGATES.sub("\ufffd", message.reasoning))
        return turn

    # A prompt turn by turn

    def _written(self, messages: Sequence[Message], thinking: bool | None) -> _Written | None:
        """The texts of a prompt; what it shares with earlier ones is taken from there.

        None where the template is not proven to write turn by turn, and for other conversations
        than those that alternate.
        """
        lead = 1 if messages and messages[0].role is Role.SYSTEM else 0
        head = lead + 2
        if (
            not self._template.turn_by_turn
            or len(messages) <= head
            or not _alternates(messages[lead:head])
        ):
            return None
        system = bool(lead) and not self._template.folds_system
        try:
            first = self._head(messages[:head], thinking)
            known, shared = self._longest_known(messages, thinking, first.text)
            if known is not None and shared == len(messages) == len(known.messages):
                return known
            turns, encoded = [first], None
            if known is not None and shared > head:
                turns, encoded = known.turns[: shared - head + 1], known.encoded
            else:
                shared = head
            same = len(turns)
            # What is shared alternates; its last reply decides who speaks next.
            if not _alternates(messages[lead + (shared - lead) // 2 * 2 :]):
                return None
            new = [self._later(message, system, thinking) for message in messages[shared:]]
            ending = self._ending(system, thinking)
        except TemplateError:
            return None
        if encoded is not None:
            encoded = _Encoded(encoded.parts[:same], encoded.lengths[:same])
        written = _Written(tuple(messages), thinking, turns + new, ending, encoded)
        if all(len(turn.text) <= _KEPT_CHARACTERS for turn in (first, *new)):
            self._prompts.append(written)
        return written

    def _longest_known(
        self, messages: Sequence[Message], thinking: bool | None, head_text: str
    ) -> tuple[_Written | None, int]:
        """The remembered prompt that shares most messages with `messages`, and how many."""
        best, most = None, 0
        for written in reversed(tuple(self._prompts)):
            if written.thinking is not thinking or written.turns[0].text != head_text:
                continue
            shared = _shared(messages, written.messages)
            if shared > most:
                best, most = written, shared
            if most >= len(messages) - 2:
                break
        return best, most

    def _count_retyped(self, messages: Sequence[Message], thinking: bool | None) -> int | None:
        """The count of a remembered prompt with another last question, else None.

        A draft is counted at every key press: only its own turn is written and encoded here, and
        the prompt is not remembered.
        """
        said = tuple(messages[:-1])
        lead = 1 if said and said[0].role is Role.SYSTEM else 0
        if len(said) < lead + 2 or messages[-1].role is not _USER or self._template.reads_clock:
            return None
        for written in reversed(tuple(self._prompts)):
            at = len(written.turns) - 2
            encoded = written.encoded
            if (
                encoded is not None
                and len(encoded.parts) > at
                and written.thinking is thinking
                and written.messages[:-1] == said
            ):
                break
        else:
            return None
        system = bool(lead) and not self._template.folds_system
        try:
            turn = self._later(messages[-1], system, thinking)
        except TemplateError:
            return None
        end = encoded.parts[at].end
        part = turn.parts.get(end)
        length = len(part.ids) if part else self._encoder.count_behind(end, turn.text)
        end = part.end if part else self._encoder.anchor_at_end(turn.text)
        ending = written.ending.parts.get(end) or self._part(written.ending, end)
        if length is None or ending is None:
            return None
        return encoded.lengths[at] + length + len(ending.ids)

    def _head(self, messages: Sequence[Message], thinking: bool | None) -> _Turn:
        key = ("head", *map(_key, messages), thinking)
        turn = self._turns.get(key)
        if turn is None or self._template.reads_clock:
            turns = [self._said(message) for message in messages]
            text = self._template.text(turns, prompt=False, thinking=thinking)
            if turn is None or turn.text != text:
                turn = self._keep(key, text)
        return turn

    def _later(self, message: Message, system: bool, thinking: bool | None) -> _Turn:
        key = (message.content, message.reasoning, message.role is _USER, system, thinking)
        turn = self._turns.get(key)
        if turn is None:
            said = self._said(message)
            text = self._template.turn_text(said, system=system, thinking=thinking)
            turn = self._keep(key, text)
        return turn

    def _ending(self, system: bool, thinking: bool | None) -> _Turn:
        key = ("ending", system, thinking)
        turn = self._turns.get(key)
        if turn is None:
            turn = self._keep(key, self._template.ending(system=system, thinking=thinking))
        return turn

    def _keep(self, key: tuple[object, ...], text: str) -> _Turn:
        turn = _Turn(text)
        self._turns.put(key, turn, _BYTES_PER_CHARACTER * len(text) + 400)
        return turn

    def _encoded(self, written: _Written) -> _Encoded | None:
        """A prompt encoded turn by turn, or None if its turns do not stand alone."""
        known = written.encoded
        if known is None:
            part = self._first_part(written.turns[0])
            if part is None:
                return None
            known = _Encoded([part], [len(part.ids)])
        if len(known.parts) > len(written.turns):
            return known
        parts, lengths = [*known.parts], [*known.lengths]
        part, length = parts[-1], lengths[-1]
        for turn in (*written.turns[len(parts) :], written.ending):
            part = turn.parts.get(part.end) or self._part(turn, part.end)
            if part is None:
                return None
            length += len(part.ids)
            parts.append(part)
            lengths.append(length)
        written.encoded = _Encoded(parts, lengths)
        return written.encoded

    def _first_part(self, turn: _Turn) -> _Part | None:
        """The first two turns as they are encoded at the beginning of a prompt."""
        part = turn.parts.get("")
        if part is None:
            ids = self._encoder.ids_at_start(turn.text)
            if ids is None:
                return None
            part = turn.parts[""] = _Part(ids, self._encoder.anchor_at_end(turn.text))
        return part

    def _part(self, turn: _Turn, behind: str) -> _Part | None:
        """A turn as it is encoded behind the added token `behind`, or none.

        None if its ids depend on more than the added token that the text before it ends with.
        """
        text = turn.text
        ids = self._encoder.ids_behind("", text)
        if ids is None and behind:
            ids = self._encoder.ids_behind(behind, text)
        if ids is None:
            return None
        part = _Part(ids, self._encoder.anchor_at_end(text) if text else behind)
        turn.parts[behind] = part
        return part

    # A reply that is continued

    def _continued(
        self, before: Sequence[Message], reply: Message, thinking: bool | None
    ) -> tuple[list[int], bool, int]:
        """The prompt of `before` and then the text of `reply`, all of it plain text.

        Also whether reasoning is open, and how many of the ids are the reply's. Reasoning
        without content stays open; reasoning before content is closed.
        """
        content = _SURROGATES.sub("\ufffd", reply.content)
        reasoning = _SURROGATES.sub("\ufffd", reply.reasoning)
        ids, opens = self._prompt(before, True if reasoning else thinking)
        start = len(ids)
        text_ids = self._encoder.plain_ids
        if reasoning or (opens and content):
            if not opens:
                ids += self._tag_ids(THINK_OPEN)
            if not opens or not self.decode(ids[-1:]).endswith("\n"):
                reasoning = "\n" + reasoning
            if not content:
                ids += text_ids(reasoning)
                return ids, True, len(ids) - start
            ids += text_ids(reasoning + "\n")
            ids += self._tag_ids(THINK_CLOSE)
            ids += text_ids("\n\n" + content)
            return ids, False, len(ids) - start
        if content:
            space = self._template.space_before_reply
            ids += text_ids(content if content.startswith(space) else space + content)
        return ids, opens, len(ids) - start

    def _tag_ids(self, tag: str) -> list[int]:
        return [self._added[tag]] if self.think_ids else self._encoder.plain_ids(tag)

    # Counting one message

    def _turn_tails(self) -> dict[str, int]:
        """Tokens of a one-letter turn of each role, the measure that real turns are held to."""
        length = self._length
        user, assistant = plain_turn(Role.USER), plain_turn(Role.ASSISTANT)
        pair = length([user, assistant, user, assistant, user]) - length([user, assistant, user])
        try:
            twice = self._template.text([user, user])
            user_alone = len(self._encoder.ids(twice)) - length([user])
        except (TemplateError, ValueError):
            user_alone = pair // 2
        return {"user": user_alone, "assistant": pair - user_alone}

    def _measure(self, message: Message) -> int:
        """What `count_message` counts, by the turn alone or by prompts with and without it."""
        if self._template.turn_by_turn and message.role is not Role.SYSTEM:
            before = self._template.text(context(message.role, system=False), prompt=False)
            try:
                turn = self._later(message, False, None)
                part = self._part(turn, self._encoder.anchor_at_end(before))
            except TemplateError:
                part = None
            if part is not None:
                return len(part.ids)
        length, said = self._length, self._said(message)
        user, assistant = plain_turn(Role.USER), plain_turn(Role.ASSISTANT)
        match message.role:
            case Role.SYSTEM:
                return length([said, user]) - length([user])
            case Role.USER:
                grown = length([said, assistant, user]) - length([user, assistant, user])
                return grown + self._tails["user"]
            case _:
                grown = length([user, said, user]) - length([user, assistant, user])
                return grown + self._tails["assistant"]

    def _length(self, turns: Sequence[Turn]) -> int:
        return len(self._encoder.ids(self._template.prompt(turns)))


def _shared(ours: Sequence[Message], theirs: Sequence[Message]) -> int:
    """How many messages two conversations begin with in common."""
    ours, theirs = tuple(ours), tuple(theirs)
    # A chat mostly changes behind its last but one message; comparing at once is faster.
    last = min(len(ours), len(theirs)) - 1
    if last >= 0 and ours[:last] == theirs[:last]:
        return last + (ours[last] is theirs[last])
    return (*map(is_, ours, theirs), False).index(False)


def _key(message: Message) -> _Key:
    """What the text of a message depends on."""
    role = message.role
    return message.content, None if role is _SYSTEM else message.reasoning, role is _USER


def _alternates(messages: Sequence[Message]) -> bool:
    """Whether user and assistant take turns, the user first."""
    roles = [message.role for message in messages]
    users, assistants = roles[::2], roles[1::2]
    return users.count(_USER) == len(users) and assistants.count(_ASSISTANT) == len(assistants)


def _opens_reasoning(text: str) -> bool:
    return text.rstrip().endswith(THINK_OPEN)
