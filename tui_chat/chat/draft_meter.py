"""The size of the next prompt while it is typed: a key press counts the draft, not the chat."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tui_chat.chat.session import Session
from tui_chat.engine.base import Engine
from tui_chat.types import ContextPlan, Message, Role

QUICK_SECONDS = 0.002
"""A count that takes longer is none for the event loop."""
QUICK_CHARACTERS = 4000
"""Neither is one of a longer draft."""
_SAMPLE = 1500
"""Characters at the beginning, in the middle and at the end of a text, to estimate it by."""
_BYTES_PER_TOKEN = 4
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class PromptSize:
    """The next prompt with the draft as its question."""

    plan: ContextPlan
    """What would be sent; more than its budget, where the draft has to be refused."""
    draft_tokens: int
    """How many of its tokens the draft makes up."""
    dropped_tokens: int = 0
    """What the turns that are left out would take up."""
    drops_more: bool = False
    """Whether turns are left out that the prompt before had."""

    @property
    def bare_tokens(self) -> int:
        """Tokens of the prompt without the draft."""
        return self.plan.prompt_tokens - self.draft_tokens

    @property
    def room_left(self) -> int:
        """Tokens that the prompt may still grow by; below 0 it cannot be sent."""
        return self.plan.budget - self.plan.prompt_tokens


@dataclass(frozen=True, slots=True)
class _Situation:
    """All that the size depends on, besides the draft."""

    engine: Engine
    messages: tuple[Message, ...]
    system_prompt: str
    thinking: bool | None
    instead_of: str | None


@dataclass(slots=True)
class _Known:
    """What was counted of a situation."""

    situation: _Situation
    bare: PromptSize
    """The size without a draft."""
    history: Sequence[Message]
    """What the draft stands behind."""
    seconds: float = field(default=0.0)
    """What the last count of a draft took."""


class DraftMeter:
    """Sizes of the next prompt of one session; exact where its engine's counts are."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.perf_counter) -> None:
        self._session = session
        self._clock = clock
        self._known: _Known | None = None
        self._texts: dict[tuple[Engine, str], int] = {}

    def count_texts(self, texts: Collection[str]) -> dict[str, int]:
        """What each text adds to a message; one that was counted before is not counted again.

        Nothing while no model is loaded. It may take long: not for the event loop.
        """
        engine = self._session.engine
        counts: dict[str, int] = {}
        for text in texts:
            tokens = self.counted(text)
            if tokens is None:
                tokens = self._session.count_text(text)
            if engine is not None and tokens is not None:
                counts[text] = self._texts[engine, text] = tokens
        if engine is not None:
            self._texts = {(engine, text): tokens for text, tokens in counts.items()}
        return counts

    def counted(self, text: str) -> int | None:
        """What `count_texts` has counted of `text`, with this model; None where it has not."""
        engine = self._session.engine
        return self._texts.get((engine, text)) if engine is not None else None

    def measure(
        self, draft: str, thinking: bool | None = None, instead_of: str | None = None
    ) -> PromptSize | None:
        """The size with `draft`, whatever has changed; None while no model is loaded.

        It may take as long as the chat is: not for the event loop. The arguments are those of
        `Session.plan`, which may raise.
        """
        situation = self._situation(thinking, instead_of)
        bare = self._session.plan("", thinking, instead_of=instead_of)
        if situation is None or bare is None:
            return None
        has_question = bare.kept and bare.kept[-1].role is Role.USER
        known = _Known(
            situation,
            self._size(situation.engine, bare, 0),
            bare.kept[:-1] if has_question else bare.kept,
        )
        question = _question(draft)
        tokens = self._count(known, question)
        size = self._with_draft(known, question, tokens)
        if size is None:
            plan = self._session.plan(draft, thinking, instead_of=instead_of) or bare
            size = self._size(situation.engine, plan, tokens - bare.prompt_tokens)
        self._known = known
        return size

    def recount(
        self, draft: str, thinking: bool | None = None, instead_of: str | None = None
    ) -> PromptSize | None:
        """The same where only the draft has changed and that is counted in no time, else None.

        Raises:
            EngineError: the prompt cannot be rendered.
        """
        known = self._known
        if (
            known is None
            or not known.situation.engine.counts_here
            or known.seconds > QUICK_SECONDS
            or len(draft) > QUICK_CHARACTERS
            or known.situation != self._situation(thinking, instead_of)
        ):
            return None
        question = _question(draft)
        return self._with_draft(known, question, self._count(known, question))

    def _situation(self, thinking: bool | None, instead_of: str | None) -> _Situation | None:
        engine, conversation = self._session.engine, self._session.conversation
        if engine is None:
            return None
        return _Situation(
            engine, conversation.messages, conversation.system_prompt, thinking, instead_of
        )

    def _with_draft(self, known: _Known, question: Message, tokens: int) -> PromptSize | None:
        """The size with a draft that leaves out no other turns; None where it may."""
        bare = known.bare
        if not question.content:
            return bare
        # What drops turns anyway drops so many that a part of the budget is free with the draft.
        if bare.drops_more or tokens > bare.plan.budget:
            return None
        plan = replace(bare.plan, kept=(*known.history, question), prompt_tokens=tokens)
        return PromptSize(plan, tokens - bare.plan.prompt_tokens, bare.dropped_tokens)

    def _count(self, known: _Known, question: Message) -> int:
        """Tokens of the prompt with this question, nothing else changed; timed."""
        situation = known.situation
        started = self._clock()
        tokens = situation.engine.count_tokens((*known.history, question), situation.thinking)
        known.seconds = self._clock() - started
        return tokens

    def _size(self, engine: Engine, plan: ContextPlan, draft_tokens: int) -> PromptSize:
        known = self._known
        if known is not None and plan.dropped == known.bare.plan.dropped:
            dropped_tokens = known.bare.dropped_tokens
        else:
            dropped_tokens = sum(map(engine.count_message, plan.dropped))
        return PromptSize(plan, draft_tokens, dropped_tokens, self._session.drops_more(plan))


def _question(draft: str) -> Message:
    """The draft as a message; one of white space is none."""
    return Message("draft", Role.USER, draft if draft.strip() else "", _EPOCH)


def estimate_text(session: Session, text: str) -> int:
    """About as many tokens as `text` adds to a message, in no time and without asking anybody.

    A sample of it is counted where this process can count. It is told to three digits.
    """
    sample = text
    if len(text) > 3 * _SAMPLE:
        middle = len(text) // 2
        sample = text[:_SAMPLE] + text[middle : middle + _SAMPLE] + text[-_SAMPLE:]
    counts_here = session.engine is not None and session.engine.counts_here
    tokens = session.count_text(sample) if counts_here else None
    if tokens is None:
        tokens = -(-len(sample.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)
    return int(float(f"{tokens * len(text) / max(1, len(sample)):.3g}"))
