from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tui_chat.chat.context import PromptTooLong, left_out, plan_context, sendable, split_turns
from tui_chat.types import ContextPlan, Message, Role, Status

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def message(role: Role, size: int, name: str, status: Status = "complete") -> Message:
    return Message(name, role, "x" * size, WHEN, status=status)


def count_message(item: Message) -> int:
    return len(item.content) + 3


def count_tokens(items: Sequence[Message]) -> int:
    # A template adds what the sum over single messages does not know.
    return sum(map(count_message, items)) + 5 + len(items) // 2


def conversation(
    sizes: Sequence[tuple[int, int]], newest: int, system: int | None = None
) -> tuple[Message, ...]:
    items = [] if system is None else [message(Role.SYSTEM, system, "system")]
    for number, (asked, answered) in enumerate(sizes):
        items.append(message(Role.USER, asked, f"u{number}"))
        items.append(message(Role.ASSISTANT, answered, f"a{number}"))
    return (*items, message(Role.USER, newest, "newest"))


def plan(
    items: Sequence[Message], window: int, reserved: int = 0, dropped_before: int = 0
) -> ContextPlan:
    return plan_context(
        items, window, reserved, count_message, count_tokens, dropped_before=dropped_before
    )


SIZES = st.integers(min_value=0, max_value=60)
CONVERSATIONS = st.builds(
    conversation,
    st.lists(st.tuples(SIZES, SIZES), max_size=12),
    SIZES,
    st.none() | st.integers(min_value=1, max_value=40),
)
WINDOWS = st.integers(min_value=1, max_value=900)


@given(CONVERSATIONS, WINDOWS, st.integers(min_value=0, max_value=100), st.integers(0, 15))
def test_a_plan_fits_keeps_system_and_newest_and_drops_whole_old_turns(
    items: tuple[Message, ...], window: int, reserved: int, dropped_before: int
) -> None:
    try:
        made = plan(items, window, reserved, dropped_before)
    except PromptTooLong as error:
        made = error.plan
        assert made.prompt_tokens > window - reserved
        assert len([m for m in made.kept if m.role is not Role.SYSTEM]) == 1
    else:
        assert made.prompt_tokens <= window - reserved
    assert made.prompt_tokens == count_tokens(made.kept)
    assert made.kept[-1] is items[-1]
    system = tuple(m for m in items if m.role is Role.SYSTEM)
    assert (*system, *made.dropped, *made.kept[len(system) :]) == items
    turns = split_turns(items)
    number = len(split_turns(made.dropped))
    assert made.dropped == tuple(m for turn in turns[:number] for m in turn)


@given(CONVERSATIONS, WINDOWS, WINDOWS)
def test_a_larger_window_never_keeps_fewer_messages(
    items: tuple[Message, ...], one: int, other: int
) -> None:
    small, large = sorted((one, other))
    try:
        fewer = plan(items, small)
    except PromptTooLong:
        assume(False)
    assert set(fewer.kept) <= set(plan(items, large).kept)


def test_everything_is_kept_while_it_fits() -> None:
    items = conversation([(10, 10), (10, 10)], 10, system=5)
    made = plan(items, 500)
    assert made.kept == items
    assert made.dropped == ()


def test_when_something_must_go_a_quarter_of_the_budget_becomes_free() -> None:
    items = conversation([(10, 10)] * 20, 10)
    made = plan(items, 400)
    assert made.dropped
    assert made.prompt_tokens <= 300


def test_the_plan_stays_the_same_while_the_freed_room_fills() -> None:
    items = conversation([(10, 10)] * 20, 10)
    first = plan(items, 400)
    turns_out = len(split_turns(first.dropped))
    longer = (*items, message(Role.ASSISTANT, 10, "a"), message(Role.USER, 10, "next"))
    second = plan(longer, 400, dropped_before=turns_out)
    assert second.dropped == first.dropped
    assert second.kept[: len(first.kept)] == first.kept


def test_a_newest_message_that_alone_does_not_fit_is_refused_with_the_numbers() -> None:
    items = conversation([(10, 10)], 5000)
    with pytest.raises(PromptTooLong) as caught:
        plan(items, 4096, 512)
    sentence = str(caught.value)
    assert "5,008" in sentence and "4,096" in sentence and "3,584" in sentence
    assert sentence.endswith(".") and "\n" not in sentence


def test_the_rendered_count_has_the_last_word_over_the_sum() -> None:
    items = conversation([(10, 10)] * 4, 10)
    made = plan_context(items, 100, 0, lambda _: 1, lambda kept: 20 * len(kept))
    assert made.prompt_tokens == 20 * len(made.kept) <= 100


def test_a_question_that_was_never_answered_is_not_sent_again() -> None:
    items = (
        message(Role.USER, 5, "u0"),
        message(Role.ASSISTANT, 0, "a0", "failed"),
        message(Role.USER, 5, "u1"),
        message(Role.ASSISTANT, 4, "a1", "interrupted"),
        message(Role.USER, 5, "u2"),
    )
    assert [m.id for m in sendable(items)] == ["u1", "a1", "u2"]


@given(CONVERSATIONS, st.sets(st.integers(0, 25)))
def test_a_turn_with_an_excluded_message_is_left_out_whole_and_the_newest_question_never(
    items: tuple[Message, ...], excluded: set[int]
) -> None:
    marked = tuple(replace(m, excluded=at in excluded) for at, m in enumerate(items))
    sent = sendable(marked)
    assert sent[-1] is marked[-1]
    out = left_out(marked)
    assert [m.id for m in marked if m.id not in out] == [m.id for m in sent]
    for turn in split_turns(marked)[:-1]:
        gone = any(m.excluded for m in turn)
        assert all((m.id in out) is gone for m in turn)
    roles = [m.role for m in sent if m.role is not Role.SYSTEM]
    assert roles == [Role.USER, Role.ASSISTANT] * (len(roles) // 2) + [Role.USER]


def test_an_excluded_last_turn_is_left_out_once_it_is_answered() -> None:
    items = tuple(replace(m, excluded=True) for m in conversation([(5, 5)], 5))
    assert left_out(items) == {"u0", "a0"}
    answered = (*items, message(Role.ASSISTANT, 5, "a1"))
    assert left_out(answered) == {"u0", "a0", "newest", "a1"}
    assert [m.id for m in sendable(answered)] == ["newest", "a1"]  # it is being continued
