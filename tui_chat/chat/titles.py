"""A short title for a conversation, written by the model in its idle time.

The request is one more turn behind the conversation, so that what the model has read of it is
reused, and the next prompt reuses it as if the title had never been asked for. Where that cannot
be, there is no title by the model: the first words of the prompt stay.
"""

import contextlib
import logging
import re
import threading
from collections.abc import Iterable

from tui_chat.chat.sanitize import one_line
from tui_chat.chat.session import Session
from tui_chat.engine.base import Engine, EngineError
from tui_chat.store.log import StoreError
from tui_chat.store.search import fold
from tui_chat.types import (
    ContextPlan,
    Conversation,
    GenerationFinished,
    GenerationSettings,
    Role,
    TextDelta,
)

logger = logging.getLogger(__name__)

REQUEST = (
    "Write a title for this conversation: at most six words, in the language of the "
    "conversation. Answer with the title alone."
)
LONGEST = 60
"""Characters of a title."""
_TOO_LONG = 90
"""A first line of more characters is no title that was cut, but an answer."""
_NEW_TOKENS = 32
_MOST_TO_READ = 128
"""Tokens that may have to be read first: a prompt that comes meanwhile waits for one chunk."""
_LABEL = re.compile(r"^\W*(?:(?:chat|conversation)\s+)?title\s*[:：]\s*", re.IGNORECASE)
_AROUND = " \t#*_`\"'“”„«»‘’「」《》-–—"
_REFUSAL = re.compile(
    r"^(?:(?:i'?m )?sorry\b|i (?:can ?not|can'?t|am unable|am not able)\b|as an? (?:ai|language)\b"
    r"|unfortunately\b|i don'?t\b)",
    re.IGNORECASE,
)


def wants_title(conversation: Conversation) -> bool:
    """Whether nobody has given it a better title than its first words, and a reply is there."""
    last = conversation.messages[-1] if conversation.messages else None
    return (
        conversation.title_by == "prompt"
        and last is not None
        and last.role is Role.ASSISTANT
        and last.status == "complete"
        and not last.is_cut  # it may be continued, from where the model stands
    )


def write_title(session: Session, thinking: bool | None, cancel: threading.Event) -> str:
    """Let the model write a title, and store it; empty where there is no good one.

    Args:
        session: with a conversation that `wants_title`; no reply runs.
        thinking: that of the settings of its replies.
        cancel: when set, it ends within one token.
    """
    engine, conversation = session.engine, session.conversation
    try:
        plan = session.plan(REQUEST, False)
        if engine is None or plan is None or not _costs_nothing(session, engine, plan, thinking):
            return ""
        answer = _answer(engine, plan, cancel)
    except (EngineError, StoreError) as error:
        logger.info("no title: %s", error)
        return ""
    asked = [m.content for m in conversation.messages if m.role is Role.USER]
    title = clean_title(answer, asked)
    if not title or cancel.is_set():
        return ""
    try:
        return title if session.log.suggest_title(title, "model") else ""
    except StoreError as error:
        logger.warning("%s", error)
        return title


def clean_title(answer: str, asked: Iterable[str] = ()) -> str:
    """The title in an answer, one line of at most `LONGEST` characters; empty where it is none.

    A refusal, an answer instead of a title, and the words of a prompt that was `asked` are none.
    """
    line = next((line for line in answer.split("\n") if line.strip()), "")
    line = _LABEL.sub("", " ".join(line.split())).strip(_AROUND)
    line = line.removesuffix(".").strip(_AROUND)
    if len(line) > _TOO_LONG or not any(map(str.isalnum, line)) or _REFUSAL.match(line):
        return ""
    words = fold(line)
    prompts = (fold(" ".join(prompt.split())) for prompt in (REQUEST, *asked))
    if any(prompt.startswith(words) for prompt in prompts):
        return ""
    return one_line(line, LONGEST)


def _costs_nothing(
    session: Session, engine: Engine, plan: ContextPlan, thinking: bool | None
) -> bool:
    """Whether the request needs little reading, and takes nothing from the prompt that follows."""
    most = plan.prompt_tokens + _NEW_TOKENS
    if most > plan.context_window or not engine.can_take_back(most):
        return False
    following = session.plan("…", thinking)
    if following is None or following.kept[:-1] != plan.kept[:-1]:
        return False
    cached = engine.count_cached(plan.kept, False)
    needed = engine.count_cached(following.kept, thinking)
    return cached >= needed and plan.prompt_tokens - cached <= _MOST_TO_READ


def _answer(engine: Engine, plan: ContextPlan, cancel: threading.Event) -> str:
    """What the model writes; empty where it does not come to the end of a line."""
    settings = GenerationSettings(
        max_new_tokens=_NEW_TOKENS,
        do_sample=False,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        speculation=False,
        thinking=False,
    )
    text = ""
    events = engine.stream(plan.kept, lambda: settings, cancel)
    with contextlib.closing(events):  # type: ignore[type-var]
        for event in events:
            match event:
                case TextDelta(kind="content"):
                    text += event.text
                    if "\n" in text.strip():
                        break
                case GenerationFinished():
                    return text if event.finish_reason == "stop" else ""
    return text
