"""The folder of conversations: list, create, open, search, delete and restore."""

from pathlib import Path

from tui_chat.store.log import ConversationLog, MemoryLog, StoreError
from tui_chat.types import ConversationSummary

__all__ = ["ConversationLog", "ConversationStore", "MemoryLog", "StoreError"]


class ConversationStore:
    """The conversations in `folder`/chats, and the deleted ones in `folder`/trash."""

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    def summaries(self, limit: int | None = None) -> list[ConversationSummary]:
        """The stored conversations, last used first; files that are not ours are left out.

        A conversation without a title shows the first words of its first prompt.
        """
        raise NotImplementedError

    def latest(self) -> str | None:
        """Id of the conversation that was used last."""
        raise NotImplementedError

    def create(
        self,
        *,
        title: str = "",
        model: str = "",
        tokenizer_id: str = "",
        system_prompt: str = "",
    ) -> ConversationLog:
        """A new conversation; its file appears with the first message."""
        raise NotImplementedError

    def open(self, conversation_id: str) -> ConversationLog:
        """Load a conversation; read-only where another process writes it or a newer version did.

        One that is open here already is returned again; every `open` needs its own `close`.

        Raises:
            StoreError: there is no such conversation, or it cannot be read.
        """
        raise NotImplementedError

    def delete(self, conversation_id: str) -> None:
        """Move a conversation to the trash, also while it is open here.

        Raises:
            StoreError: there is no such conversation, or another process has it open.
        """
        raise NotImplementedError

    def restore(self, conversation_id: str) -> None:
        """Bring a deleted conversation back.

        Raises:
            StoreError: it is not in the trash, or one of that id is in the list again.
        """
        raise NotImplementedError

    def search(self, text: str, limit: int = 50) -> list[tuple[ConversationSummary, str]]:
        """Conversations that hold `text` in the title or a message, last used first.

        Upper and lower case count as equal. The second value is the text around the first
        match, empty when only the title matched.
        """
        raise NotImplementedError
