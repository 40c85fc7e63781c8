"""One conversation that is being written: every change goes to its file before it counts."""

from tui_chat.types import Conversation, Message


class StoreError(Exception):
    """The disk said no; `str()` is one sentence that a user can act on."""


class ConversationLog:
    """An open conversation. Any thread may read it; one lock orders the writers.

    What the disk refuses stays in memory, is counted in `pending` and is tried again before the
    next record and on `close`.
    """

    @property
    def conversation(self) -> Conversation:
        """The header and the messages of the open branch, root to head."""
        raise NotImplementedError

    @property
    def read_only(self) -> bool:
        """Whether every change raises `StoreError` with `read_only_reason`."""
        raise NotImplementedError

    @property
    def read_only_reason(self) -> str:
        """One sentence, empty when the conversation can be written."""
        raise NotImplementedError

    @property
    def damaged(self) -> int:
        """Records of the file that could not be read and were skipped."""
        raise NotImplementedError

    @property
    def pending(self) -> int:
        """Records the disk refused, kept in memory for a retry."""
        raise NotImplementedError

    def append(self, message: Message) -> None:
        """Store a finished message as the new head; its `parent_id` says what it follows."""
        raise NotImplementedError

    def begin(self, message: Message) -> None:
        """Store that a reply is in progress; without `end` it reads back as interrupted."""
        raise NotImplementedError

    def save_partial(self, message_id: str, text: str, reasoning: str = "") -> None:
        """Store how far a reply has come; `text` and `reasoning` are all there is so far."""
        raise NotImplementedError

    def end(self, message: Message) -> None:
        """Store the finished reply, complete, interrupted or failed."""
        raise NotImplementedError

    def rename(self, title: str) -> None:
        """Give the conversation a title."""
        raise NotImplementedError

    def set_system_prompt(self, text: str) -> None:
        """Change the system prompt of the conversation."""
        raise NotImplementedError

    def select(self, message_id: str) -> None:
        """Open the branch that ends with this message.

        Raises:
            KeyError: there is no such message.
        """
        raise NotImplementedError

    def siblings(self, message_id: str) -> tuple[Message, ...]:
        """All messages with the same parent, itself included, oldest first.

        Raises:
            KeyError: there is no such message.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Write what is pending and let go of the file.

        Raises:
            StoreError: something could not be saved; the file is closed nevertheless.
        """
        raise NotImplementedError


class MemoryLog(ConversationLog):
    """The same without a file, for one-shot use."""

    def __init__(
        self,
        *,
        title: str = "",
        model: str = "",
        tokenizer_id: str = "",
        system_prompt: str = "",
    ) -> None:
        raise NotImplementedError
