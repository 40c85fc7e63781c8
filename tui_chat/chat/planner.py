"""Plans the prompts of one conversation, with as much of it as the context window can take."""

from collections.abc import Sequence
from dataclasses import replace

from tui_chat.chat.context import PromptTooLong, plan_context, sendable, split_turns
from tui_chat.engine.base import Engine
from tui_chat.store.log import ConversationLog
from tui_chat.types import ContextPlan, Message, Role

Messages = tuple[Message, ...]


class Planner:
    """What is sent of a conversation, and what earlier prompts left out of it.

    Of a long conversation the log has only the end at first. Earlier messages are loaded until
    something does not fit, so that the plan is that of the whole conversation.
    """

    def __init__(
        self, log: ConversationLog, reserved_tokens: int, context_budget: int | None
    ) -> None:
        """The arguments are those of the session."""
        self._log = log
        self._reserved_tokens = reserved_tokens
        self._context_budget = context_budget
        self._first_kept: tuple[Engine, str, str] | None = None
        """For which engine and system prompt turns were left out, and the first that was not."""

    def plan(self, engine: Engine, messages: Messages, thinking: bool | None) -> ContextPlan:
        """The plan for `messages`, which begin where the open branch is loaded.

        Raises:
            PromptTooLong: the newest turn alone does not fit.
            EngineError: the prompt cannot be rendered.
            StoreError: the earlier messages cannot be read.
        """
        has_earlier = self._has_earlier(messages)
        while has_earlier:
            # What comes before the first question belongs to a turn that is not all here.
            if (whole := _from_first_question(messages)) is not None:
                plan, reaches, error = self._plan_loaded(engine, whole, thinking)
                if not reaches:
                    plan = replace(plan, drops_earlier=True)
                    if error is not None:
                        raise PromptTooLong(plan) from error
                    return plan
            before = self._before(messages)
            messages = before + messages
            has_earlier = bool(before) and self._has_earlier(messages)
        plan, _, error = self._plan_loaded(engine, messages, thinking)
        if error is not None:
            raise error
        return plan

    def remember(self, engine: Engine, plan: ContextPlan) -> None:
        """A prompt was sent: what it left out stays out, so that its start remains cached."""
        self._first_kept = self._start_of(engine, plan)

    def drops_more(self, engine: Engine, plan: ContextPlan) -> bool:
        """Whether `plan` leaves out turns that the last prompt still had."""
        start = self._start_of(engine, plan)
        return start is not None and self._first_kept != start

    def _start_of(self, engine: Engine, plan: ContextPlan) -> tuple[Engine, str, str] | None:
        """With what a prompt begins that leaves something out; None for one that does not."""
        first = next((m for m in plan.kept if m.role is not Role.SYSTEM), None)
        if first is None or not (plan.dropped or plan.drops_earlier):
            return None
        return engine, self._log.conversation.system_prompt, first.id

    def _plan_loaded(
        self, engine: Engine, messages: Messages, thinking: bool | None
    ) -> tuple[ContextPlan, bool, PromptTooLong | None]:
        """A plan with no more than `messages`; and whether it reaches to what is before them."""
        conversation = self._log.conversation
        system = conversation.system_prompt
        branch = sendable(messages)
        if system.strip():
            prompt = Message("system", Role.SYSTEM, system, conversation.created_at)
            branch = (prompt, *branch)
        turns = split_turns(branch)
        window = engine.context_window
        dropped_before = None
        # Another model or another system prompt has an empty prompt cache: it plans anew.
        if self._first_kept and self._first_kept[:2] == (engine, system):
            first = self._first_kept[2]
            dropped_before = next((n for n, turn in enumerate(turns) if turn[0].id == first), None)

        def count_tokens(kept: Sequence[Message]) -> int:
            return engine.count_tokens(kept, thinking)

        error = None
        try:
            plan = plan_context(
                branch,
                window,
                min(self._reserved_tokens, window // 4),
                engine.count_message,
                # Templates want a question; without one there is a system prompt at most.
                count_tokens if turns else lambda kept: sum(map(engine.count_message, kept)),
                most=self._context_budget,
                dropped_before=dropped_before or 0,
                exact=engine.exact_counts,
            )
        except PromptTooLong as found:
            plan, error = found.plan, found
        reaches = dropped_before is None and not plan.dropped and error is None
        return plan, reaches, error

    def _has_earlier(self, messages: Messages) -> bool:
        conversation = self._log.conversation
        first = messages[0].id if messages else ""
        at = next((n for n, m in enumerate(conversation.messages) if m.id == first), None)
        return at is not None and (at > 0 or conversation.has_earlier)

    def _before(self, messages: Messages) -> Messages:
        """More of the open branch, before `messages`; nothing where there is no more."""
        while True:
            loaded = self._log.conversation.messages
            ids = [message.id for message in loaded]
            at = ids.index(messages[0].id) if messages[0].id in ids else None
            if at is None or at > 0:  # None: another branch was opened meanwhile
                return loaded[:at] if at else ()
            if not self._log.load_earlier():
                return ()


def _from_first_question(messages: Messages) -> Messages | None:
    """`messages` without what answers an earlier question; None where none of them is one."""
    for at, message in enumerate(messages):
        if message.role is Role.USER:
            system = tuple(m for m in messages[:at] if m.role is Role.SYSTEM)
            return system + messages[at:]
    return None
