"""The values that cross floors: frozen dataclasses and enums, nothing that acts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal


class Role(StrEnum):
    """Who wrote a message; the values are those of OpenAI and Hugging Face chat formats."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Mode(StrEnum):
    """Which of the two tables of generation settings a reply uses."""

    SPEED = "speed"
    ACCURACY = "accuracy"

    @property
    def other(self) -> "Mode":
        """The mode that the switch leads to."""
        return Mode.ACCURACY if self is Mode.SPEED else Mode.SPEED


class Precision(StrEnum):
    """How the weights are held, in the order of the loading ladder."""

    INT4 = "4-bit"
    INT8 = "8-bit"
    FP16 = "16-bit"
    CPU = "cpu"


Status = Literal["complete", "interrupted", "failed"]
FinishReason = Literal["stop", "length", "cancelled", "repetition", "error"]
TitleSource = Literal["user", "prompt", "model"]
"""Who made a title: the user chose it, it is the first words of the prompt, or a model wrote it."""
PenaltyScope = Literal["reply", "context"]
Glyphs = Literal["auto", "unicode", "ascii"]
"""What the signs on the screen are drawn with."""


@dataclass(frozen=True, slots=True)
class ReplyMetrics:
    """What one reply cost. Seconds are wall-clock; a rate is a property, never stored."""

    prompt_tokens: int = 0
    """Tokens of the whole rendered prompt."""
    cached_tokens: int = 0
    """How many of them were already in the prompt cache."""
    completion_tokens: int = 0
    """Tokens that were generated, the end-of-turn token included."""
    tokenize_seconds: float = 0.0
    """Rendering the chat template and encoding it."""
    prefill_seconds: float = 0.0
    """From the encoded prompt to the first generated token."""
    decode_seconds: float = 0.0
    """From the first generated token to the last."""
    precision: Precision | None = None
    peak_memory_bytes: int = 0
    """Highest memory use during the reply: of the device, or of the process on a CPU."""
    drafted_tokens: int = 0
    """How many generated tokens were drafted from the context and verified together."""
    cache_note: str = ""
    """Why the prompt cache had to start over; empty where it did not."""
    speculation_note: str = ""
    """Why no drafts could be verified although the settings ask for it; else empty."""
    approximate: bool = False
    """Whether the counts are estimates, because a server did not tell them."""

    @property
    def generate_seconds(self) -> float:
        """Prefill and decode together."""
        return self.prefill_seconds + self.decode_seconds

    @property
    def total_seconds(self) -> float:
        """Tokenize, prefill and decode together."""
        return self.tokenize_seconds + self.generate_seconds

    @property
    def tokens_per_second(self) -> float:
        """Decode rate: the first token belongs to the prefill. 0.0 when there is no rate."""
        if self.completion_tokens < 2 or self.decode_seconds <= 0:
            return 0.0
        return (self.completion_tokens - 1) / self.decode_seconds

    @property
    def prompt_tokens_per_second(self) -> float:
        """Prefill rate over the tokens that were not cached. 0.0 when there is no rate."""
        if self.prefill_seconds <= 0:
            return 0.0
        return (self.prompt_tokens - self.cached_tokens) / self.prefill_seconds


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as it is stored."""

    id: str
    role: Role
    content: str
    """Raw text, exactly as typed or generated; made safe only where it is shown."""
    created_at: datetime
    """Aware, UTC."""
    parent_id: str | None = None
    """The message this one answers or follows; siblings share a parent."""
    reasoning: str = ""
    """What the model thought before the answer; never part of `content`."""
    status: Status = "complete"
    finish_reason: FinishReason | None = None
    """Why a reply ended; None for messages that were typed."""
    error: str = ""
    """One sentence for the reader when `status` is "failed"."""
    model: str = ""
    revision: str = ""
    """Commit of the model on the hub; empty for a folder and for what was typed."""
    tokenizer_id: str = ""
    """Tokenizer and chat template that the prompt was made with; empty for what was typed."""
    mode: Mode | None = None
    """The mode at the end of the reply."""
    modes: tuple[Mode, ...] = ()
    """All modes that wrote the reply, in order, where there was more than one; else empty."""
    seed: int | None = None
    token_count: int | None = None
    metrics: ReplyMetrics | None = None
    """What a reply cost; of a continued one, what its last part cost."""
    cut_tail: str = ""
    """Of a reply that was cut: what was generated behind `content` and is neither shown nor sent.
    With it the reply can go on from its very last token."""
    continuations: int = 0
    """How often the reply was cut and continued."""
    edited: bool = False
    """Whether the user changed the text of this reply; the model's own is a sibling."""
    excluded: bool = False
    """Whether the user left this message, and with it its turn, out of the context."""

    @property
    def can_continue(self) -> bool:
        """Whether a model can go on with this reply: it was cut off, or its text was edited."""
        return self.is_cut or (self.edited and self.finish_reason is None and bool(self.content))

    @property
    def is_cut(self) -> bool:
        """Whether this is a reply that was cut off with text, so that it can be continued."""
        cut = self.finish_reason in ("length", "cancelled", "error")
        killed = self.finish_reason is None and self.status == "interrupted"
        begun = self.role is Role.ASSISTANT and bool(self.content or self.reasoning)
        return begun and (cut or killed)


Values = Mapping[str, Any]
"""Checked values of generation settings, by the names of `GenerationSettings`."""


def _nothing() -> Values:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What a conversation sets for itself; the rest is that of the config file."""

    preset: str = ""
    """Name of the preset that was chosen last; what it set may have been changed since."""
    mode: Mode | None = None
    speed: Values = field(default_factory=_nothing)
    accuracy: Values = field(default_factory=_nothing)

    def of(self, mode: Mode) -> Values:
        """The values for `mode`."""
        return self.speed if mode is Mode.SPEED else self.accuracy


NO_SETTINGS = ChatSettings()


@dataclass(frozen=True, slots=True)
class Preset:
    """A named beginning for conversations; what it leaves out stays as it is."""

    name: str
    description: str = ""
    system_prompt: str | None = None
    settings: ChatSettings = NO_SETTINGS


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation: its header and the messages on the branch that is open."""

    id: str
    created_at: datetime
    title: str = ""
    model: str = ""
    tokenizer_id: str = ""
    system_prompt: str = ""
    messages: tuple[Message, ...] = ()
    title_by: TitleSource = "user"
    pinned: bool = False
    """Whether it stands at the top of the list."""
    archived: bool = False
    """Whether the list leaves it out until it is asked for."""
    settings: ChatSettings = NO_SETTINGS
    has_earlier: bool = False
    """Whether the branch has messages before these, which are not loaded yet."""


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """What a list of conversations shows of one of them."""

    id: str
    title: str
    created_at: datetime
    updated_at: datetime
    model: str
    message_count: int
    pinned: bool = False
    archived: bool = False


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A message, or a title, that holds all the words of a search."""

    conversation_id: str
    title: str
    message_id: str | None
    """None where the title is the hit."""
    role: Role | None
    created_at: datetime
    snippet: str
    """The text around the hit on one line; raw like all that is stored."""
    start: int
    """Where the first word of the search stands in `snippet`, in characters."""
    end: int


@dataclass(frozen=True, slots=True)
class ChatHits:
    """The hits of a search in one conversation."""

    conversation_id: str
    last: SearchHit | None
    """The message that was written last, else the title; None where the conversation is archived
    and was left out."""
    count: int
    """Messages that are hits."""


@dataclass(frozen=True, slots=True)
class FoundText:
    """The whole text of a hit."""

    message_id: str | None
    """None where it is the title."""
    role: Role | None
    text: str


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """A server that answers in place of a model in this process."""

    name: str
    """What the user calls it, or host and port of its address."""
    url: str
    """Where its API begins, such as `http://127.0.0.1:8000/v1`."""
    model: str = ""
    """What it calls the model; empty takes its only one."""
    key_env: str = ""
    """Environment variable that holds its key; the key itself is never kept here."""
    key_command: str = ""
    """Command that prints its key."""
    context_window: int | None = None
    """Tokens of its context window, for a server that does not tell."""
    first_token_seconds: float = 600.0
    """How long it may be silent before the first token."""
    between_tokens_seconds: float = 60.0
    """How long it may be silent after that."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model to open, and how."""

    model: str = "guide"
    """`guide`, a local folder, a Hugging Face hub name, `server:NAME/MODEL`, an address of a
    server, or `echo:PATH`."""
    server: ServerSpec | None = None
    """The server that `model` names, with the model it is asked for."""
    revision: str | None = None
    precision: Precision | None = None
    """None takes the highest rung of the ladder that works."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    context_window: int | None = None
    """Upper limit for the context window; None takes the model's own."""
    echo_rate: float = 0.0
    """Tokens per second of the scripted engine; 0 is as fast as possible."""


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How to generate. None leaves a value to the model's own generation config."""

    max_new_tokens: int = 1024
    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    penalty_scope: PenaltyScope | None = None
    """What penalty and n-gram block look at: the reply alone (None too), or the prompt as well."""
    speculation: bool | None = None
    """Whether drafts copied from the context may be verified several at a time; None is off."""
    thinking: bool | None = None
    """Whether to reason before the answer, for chat templates with a switch for it; None leaves
    it to the template."""
    seed: int | None = None
    stop_strings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContextPlan:
    """Which messages the next prompt holds."""

    kept: tuple[Message, ...]
    """What is sent, the system message first if there is one."""
    dropped: tuple[Message, ...]
    """What no longer fits, oldest first."""
    prompt_tokens: int
    """Length of the rendered prompt of `kept`."""
    context_window: int
    reserved_tokens: int
    """Room that is kept free for the reply."""
    budget: int
    """Tokens that the prompt may have; more only in a plan that cannot be sent."""
    exact: bool = True
    """Whether `prompt_tokens` is counted, not estimated."""
    drops_earlier: bool = False
    """Whether all before `dropped` does not fit either; how much that is was not looked at."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory of the device that holds the model, in bytes."""

    weights_bytes: int
    cache_bytes: int
    """The KV cache of the open conversation."""
    used_bytes: int
    """Everything this process holds there."""
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far the loading of a model has come."""

    stage: str
    """A word or two for the reader: "importing torch", "loading weights"."""
    fraction: float | None = None
    """0 to 1, or None while it is not known."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the loading ladder, taken or fallen."""

    precision: Precision
    taken: bool
    reason: str
    """Why it fell, or what was loaded; one sentence for the reader."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """Prompt tokens that are in the cache (`done`, reused ones included) of `total`."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the reply, with the live figures at that moment."""

    text: str
    kind: Literal["content", "reasoning"] = "content"
    completion_tokens: int = 0
    decode_seconds: float = 0.0
    approximate: bool = False
    """Whether `completion_tokens` is an estimate."""


@dataclass(frozen=True, slots=True)
class EngineNotice:
    """Something that the reader should know about this reply, in one sentence."""

    text: str
    passing: bool = False
    """Whether it is only of this moment, such as a wait for a busy server."""


@dataclass(frozen=True, slots=True)
class GenerationFinished:
    """An engine's last event for a prompt."""

    finish_reason: FinishReason
    metrics: ReplyMetrics
    prompt_ids: Sequence[int] = field(default=(), repr=False)
    new_ids: Sequence[int] = field(default=(), repr=False)
    error: str = ""
    """One sentence for the reader when `finish_reason` is "error"."""
    out_of_memory: bool = False
    """Whether the error was a want of memory, so that a shorter prompt may do."""


EngineEvent = PrefillProgress | EngineNotice | TextDelta | GenerationFinished


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """The prompt is on disk and planned; the engine is about to read it."""

    plan: ContextPlan
    message_id: str
    """Id of the reply to come, or of the one that is continued."""
    note: str = ""
    """One sentence where the reply starts once more, with less; else empty."""


@dataclass(frozen=True, slots=True)
class ReplyFinished:
    """The reply as it was stored, whatever ended it."""

    message: Message
    finish_reason: FinishReason
    prompt_ids: Sequence[int] = field(default=(), repr=False)
    new_ids: Sequence[int] = field(default=(), repr=False)
    unsaved: str = ""
    """One sentence when the disk refused the reply; it is then in memory only."""
    out_of_memory: bool = False
    """Whether it failed for want of memory."""


ReplyEvent = ReplyStarted | PrefillProgress | EngineNotice | TextDelta | ReplyFinished
