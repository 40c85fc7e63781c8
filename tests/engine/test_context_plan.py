"""What a plan of the context promises, by the tokenizer's own count of the rendered prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from chat_templates import GEMMA, LLAMA3, QWEN3
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import (
    CHATML,
    INST,
    byte_level_tokenizer,
    message,
    metaspace_tokenizer,
    unigram_tokenizer,
)

from tui_chat.chat.context import PromptTooLong, plan_context, split_turns
from tui_chat.engine.tokenizer import ChatTokenizer
from tui_chat.types import ContextPlan, Message, Role

pytestmark = pytest.mark.engine

KINDS = {
    "byte-level, chatml": (byte_level_tokenizer, CHATML),
    "byte-level, llama 3": (byte_level_tokenizer, LLAMA3),
    "byte-level, qwen 3": (byte_level_tokenizer, QWEN3),
    "metaspace, mistral": (metaspace_tokenizer, INST),
    "metaspace, gemma": (metaspace_tokenizer, GEMMA),
    "unigram, chatml": (unigram_tokenizer, CHATML),
}
TEXTS = st.lists(
    st.sampled_from(
        ["Hello", "the lazy dog", "naïve café", "世界", "🙂", "12,345", "a\n\n  b", "  "]
    ),
    max_size=25,
).map(" ".join)


@dataclass(frozen=True)
class Chat:
    """A tokenizer of transformers, ours around a copy of it, and a conversation."""

    hf: Any
    ours: ChatTokenizer
    messages: tuple[Message, ...]

    def plan(
        self, budget: int, *, reserved: int = 0, most: int | None = None, dropped_before: int = 0
    ) -> ContextPlan:
        return plan_context(
            self.messages,
            budget + reserved,
            reserved,
            self.ours.count_message,
            self.ours.count_tokens,
            most=most,
            dropped_before=dropped_before,
        )

    def count(self, messages: Sequence[Message]) -> int:
        """The prompt rendered and encoded by transformers alone."""
        turns = [{"role": str(m.role), "content": m.content} for m in messages]
        if self.ours._template.folds_system and turns[0]["role"] == "system":
            system, first, *rest = turns
            turns = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
        text = self.hf.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return len(self.hf(text, add_special_tokens=False)["input_ids"])


@cache
def tokenizers_of(kind: str) -> tuple[Any, ChatTokenizer]:
    make, template = KINDS[kind]
    plain, ours = make(template), make(template)
    for tokenizer in (plain, ours):
        tokenizer.bos_token = tokenizer.bos_token or "<|im_start|>"
    return plain, ChatTokenizer(ours)


def conversation(kind: str, system: str, pairs: Sequence[tuple[str, str]], newest: str) -> Chat:
    hf, ours = tokenizers_of(kind)
    messages = [message("system", system)] if system.strip() else []
    for asked, answered in pairs:
        messages += [message("user", asked), message("assistant", answered)]
    return Chat(hf, ours, (*messages, message("user", newest)))


CHATS = st.builds(
    conversation,
    st.sampled_from(list(KINDS)),
    TEXTS,
    st.lists(st.tuples(TEXTS, TEXTS), max_size=8),
    TEXTS,
)
BUDGETS = st.integers(1, 900)


def planned(chat: Chat, budget: int, **options: Any) -> ContextPlan:
    """The plan, also of a prompt that has to be refused."""
    try:
        plan = chat.plan(budget, **options)
    except PromptTooLong as error:
        assert error.plan.prompt_tokens > error.plan.budget
        return error.plan
    assert plan.prompt_tokens <= plan.budget
    return plan


@settings(max_examples=300)
@given(CHATS, BUDGETS, st.integers(0, 100), st.none() | BUDGETS, st.integers(0, 9))
def test_a_plan_is_within_the_budget_by_the_tokenizers_own_count(
    chat: Chat, budget: int, reserved: int, most: int | None, dropped_before: int
) -> None:
    plan = planned(chat, budget, reserved=reserved, most=most, dropped_before=dropped_before)
    assert plan.budget == (budget if most is None else min(budget, most))
    assert plan.prompt_tokens == chat.count(plan.kept)


@settings(max_examples=300)
@given(CHATS, BUDGETS, st.integers(0, 9))
def test_system_prompt_and_newest_message_stay_and_only_whole_old_turns_go(
    chat: Chat, budget: int, dropped_before: int
) -> None:
    plan = planned(chat, budget, dropped_before=dropped_before)
    system = tuple(m for m in chat.messages if m.role is Role.SYSTEM)
    assert plan.kept[: len(system)] == system
    assert plan.kept[-1] is chat.messages[-1]
    turns = split_turns(chat.messages)
    dropped = split_turns(plan.dropped)
    assert dropped == turns[: len(dropped)]
    assert split_turns(plan.kept) == turns[len(dropped) :]


@settings(max_examples=300)
@given(CHATS, BUDGETS, BUDGETS, st.integers(0, 9))
def test_from_the_same_state_a_larger_budget_never_keeps_fewer_turns(
    chat: Chat, one: int, other: int, dropped_before: int
) -> None:
    small, large = sorted((one, other))
    fewer = planned(chat, small, dropped_before=dropped_before)
    more = planned(chat, large, dropped_before=dropped_before)
    assert len(split_turns(fewer.kept)) <= len(split_turns(more.kept))


@settings(max_examples=100)
@given(CHATS, BUDGETS)
def test_over_a_whole_chat_turns_go_in_blocks_and_do_not_come_back(chat: Chat, budget: int) -> None:
    turns = split_turns(chat.messages)
    system = tuple(m for m in chat.messages if m.role is Role.SYSTEM)
    dropped = 0
    for count in range(1, len(turns) + 1):
        asked = tuple(m for turn in turns[: count - 1] for m in turn) + turns[count - 1][:1]
        plan = planned(Chat(chat.hf, chat.ours, system + asked), budget, dropped_before=dropped)
        gone = len(split_turns(plan.dropped))
        assert gone >= dropped
        if gone > dropped and len(split_turns(plan.kept)) > 1:
            assert plan.prompt_tokens <= budget - int(budget * 0.25)
        dropped = gone
