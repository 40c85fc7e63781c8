"""Chooses the messages that fit the context window: whole turns, the newest kept."""

from collections.abc import Callable, Sequence
from itertools import chain

from tui_chat.types import ContextPlan, Message, Role

_FREE_AFTER_DROP = 0.25
"""Share of the budget that is free after a drop: dropping one turn at a time would void the
engine's prompt cache before every single reply."""


class PromptTooLong(Exception):
    """The newest message does not fit, even alone; `str()` is one sentence for the user."""

    def __init__(self, plan: ContextPlan) -> None:
        self.plan = plan
        led = any(message.role is Role.SYSTEM for message in plan.kept)
        what = "The message and the system prompt need" if led else "The message needs"
        room = max(0, plan.context_window - plan.reserved_tokens)
        if plan.budget < room:
            limit = f"the context budget is {plan.budget:,}: shorten it, or raise context_budget."
        else:
            limit = (
                f"only {room:,} of the context window of {plan.context_window:,} are free for it "
                f"({plan.reserved_tokens:,} are kept for the reply): shorten it, or load a model "
                "with a larger window."
            )
        about = "" if plan.exact else "about "
        super().__init__(f"{what} {about}{plan.prompt_tokens:,} tokens, but {limit}")


def split_turns(messages: Sequence[Message]) -> list[tuple[Message, ...]]:
    """`messages` without system messages in turns: a user message and what answers it."""
    user, system = Role.USER, Role.SYSTEM
    turns: list[list[Message]] = []
    for message in messages:
        role = message.role
        if role is user or (not turns and role is not system):
            turns.append([message])
        elif role is not system:
            turns[-1].append(message)
    return [tuple(turn) for turn in turns]


def left_out(messages: Sequence[Message]) -> frozenset[str]:
    """Ids of the messages that are not sent because the user excluded them or their turn.

    Chat templates want user and assistant in turn, so a turn goes as a whole: one excluded
    message takes the others of its turn with it. A last question without an answer stays.
    """
    turns = split_turns(messages)
    if turns and turns[-1][-1].role is Role.USER:
        turns.pop()
    out = {message.id for message in messages if message.role is Role.SYSTEM and message.excluded}
    for turn in turns:
        if any(message.excluded for message in turn):
            out.update(message.id for message in turn)
    return frozenset(out)


def sendable(messages: Sequence[Message]) -> tuple[Message, ...]:
    """What of `messages` may be sent: no turn that was excluded, or asked but never answered.

    The newest turn is always sent. A question whose reply failed or was stopped before any text
    goes with it, so that user and assistant alternate, as many chat templates demand.
    """
    turns = split_turns(messages)
    kept = [m for m in messages if m.role is Role.SYSTEM and not m.excluded]
    for number, turn in enumerate(turns, start=1):
        answers = tuple(
            message
            for message in turn
            if message.role is Role.ASSISTANT and (message.content or message.status == "complete")
        )
        questions = tuple(message for message in turn if message.role is Role.USER)
        excluded = any(message.excluded for message in turn)
        if number == len(turns) or (answers and not excluded):
            kept.extend(questions + answers)
    return tuple(kept)


def plan_context(
    messages: Sequence[Message],
    window: int,
    reserved: int,
    count_message: Callable[[Message], int],
    count_tokens: Callable[[Sequence[Message]], int],
    *,
    most: int | None = None,
    dropped_before: int = 0,
    exact: bool = True,
) -> ContextPlan:
    """Choose what of `messages` is sent.

    System messages and the newest turn are always kept. When the rest does not fit, whole turns
    are dropped, oldest first, until a quarter of the budget is free. From the same
    `dropped_before` a larger budget never keeps fewer turns; a chat that was held over several
    turns may, because each budget drops its blocks at other moments.

    Args:
        messages: the branch, oldest first.
        window: tokens that prompt and reply may have together.
        reserved: tokens kept free for the reply; the budget is `window - reserved` at most.
        count_message: tokens one message adds; may be inexact, it only guides the search.
        count_tokens: exact length of the rendered prompt; it has the last word.
        most: the budget, where it is to be smaller than that.
        dropped_before: how many turns the previous plan left out; they stay out.
        exact: whether `count_tokens` counts; it may estimate.

    Raises:
        PromptTooLong: system message and newest turn alone exceed the budget.
    """
    system = tuple(message for message in messages if message.role is Role.SYSTEM)
    turns = split_turns(messages)
    budget = window - reserved if most is None else min(most, window - reserved)
    last = max(0, len(turns) - 1)
    first = min(max(0, dropped_before), last)

    def kept_from(start: int) -> tuple[Message, ...]:
        return (*system, *chain.from_iterable(turns[start:]))

    def count_from(start: int) -> int:
        kept = kept_from(start)
        return count_tokens(kept) if kept else 0

    tokens = count_from(first)
    if tokens > budget:
        target = budget - int(budget * _FREE_AFTER_DROP)

        def size(turn: int) -> int:
            return sum(map(count_message, turns[turn]))

        first, tokens = _first_within(target, tokens, range(first, last), size, count_from)
    plan = ContextPlan(
        kept=kept_from(first),
        dropped=tuple(chain.from_iterable(turns[:first])),
        prompt_tokens=tokens,
        context_window=window,
        reserved_tokens=reserved,
        budget=budget,
        exact=exact,
    )
    if tokens > budget:
        raise PromptTooLong(plan)
    return plan


def _first_within(
    target: int,
    tokens: int,
    turns: range,
    size: Callable[[int], int],
    count_from: Callable[[int], int],
) -> tuple[int, int]:
    """The earliest turn with which the prompt fits `target`, and the count from there.

    Args:
        target: how many tokens the prompt may have.
        tokens: the count from the first of `turns`.
        turns: the turns that may be dropped; the one behind them is taken if none fits.
        size: about what a turn adds; it only says where to look first, so that few prompts are
            counted in full.
        count_from: the exact count of the prompt from a turn on.
    """
    first, last = turns.start, turns.stop
    excess, start = tokens - target, first
    while start < last and excess > 0:
        excess -= size(start)
        start += 1
    tokens = count_from(start)
    while start < last and tokens > target:
        start += 1
        tokens = count_from(start)
    while start > first and (earlier := count_from(start - 1)) <= target:
        start -= 1
        tokens = earlier
    return start, tokens
