"""The numbers of code blocks, by which /copy takes them."""

from collections.abc import Iterable, Sequence

from tui_chat.types import Message, Role

RESERVED = 100
"""Numbers that are kept free for a reply that is being written, while others are given."""


class CodeNumbers:
    """Numbers the code blocks of a conversation; what has a number keeps it.

    Those of a conversation that is loaded whole are numbered from its beginning on. Of a longer
    one the blocks get their numbers as they come into view, so that no others need be counted.
    """

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        self._count: dict[str, int] = {}
        """Of the messages whose text is known whole."""
        self._next = 1
        self._writing = ""
        """The reply that is being written."""

    def add(self, messages: Iterable[Message]) -> None:
        """Number the blocks of replies, in this order."""
        from tui_chat.ui.markdown_pieces import code_blocks

        for message in messages:
            if message.role is Role.ASSISTANT and message.id not in self._count:
                self.add_counted(message.id, len(code_blocks(message.content)))

    def add_counted(self, message_id: str, count: int) -> None:
        """Number the blocks of a reply that has `count` of them."""
        if message_id not in self._first:
            if self._writing:
                self._next = max(self._next, self._first[self._writing] + RESERVED)
            self._first[message_id] = self._next
        elif message_id == self._writing:
            self._writing = ""
        self._count[message_id] = count
        self._next = max(self._next, self._first[message_id] + count)

    def first_of(self, message_id: str) -> int:
        """The number of the first block of a message; one that is new is being written."""
        if message_id not in self._first:
            self._first[message_id] = self._next
            self._writing = message_id
        return self._first[message_id]

    def reopen(self, message_id: str) -> None:
        """A reply goes on, so that it may get more blocks."""
        self._count.pop(message_id, None)

    def release(self, message_id: str) -> None:
        """A message is shown no more: if its numbers were given last, they are given again."""
        count = self._count.pop(message_id, 0)
        first = self._first.pop(message_id, None)
        if first is not None and first + count == self._next:
            self._next = first

    def has_all(self, messages: Iterable[Message]) -> bool:
        """Whether the blocks of all these messages have numbers."""
        return all(m.id in self._first for m in messages if m.role is Role.ASSISTANT)

    @property
    def given(self) -> int:
        """The highest number so far."""
        return self._next - 1

    def block(self, number: int, messages: Sequence[Message]) -> str | None:
        """The raw code of a block; None when there is none of this number."""
        from tui_chat.ui.markdown_pieces import code_blocks

        for message in reversed(messages):
            index = number - self._first.get(message.id, number + 1)
            if 0 <= index < self._count.get(message.id, RESERVED):
                blocks = code_blocks(message.content)
                if index < len(blocks):
                    return blocks[index]
        return None
