"""Chats that the disk refused: tried again while the app runs and at its end."""

import threading
from collections.abc import Callable

from tui_chat.store.log import ConversationLog, StoreError
from tui_chat.ui.engine_thread import EngineThread


class Unsaved:
    """Holds the chats that were left before they could be saved."""

    def __init__(self, thread: EngineThread) -> None:
        self._thread = thread
        self._left: list[ConversationLog] = []
        self._is_trying = False
        self._last_try = threading.Lock()
        self._told: tuple[str, ...] | None = None

    def close(self, log: ConversationLog) -> None:
        """Close a chat that is left; one that the disk refuses is kept. On the engine thread.

        Raises:
            StoreError: it is not saved yet.
        """
        try:
            log.save_pending()
        except StoreError:
            self._left.append(log)
            raise
        log.close()

    def try_again(self, shown: ConversationLog, then: Callable[[], None]) -> None:
        """Save what is pending on the engine thread, and do what follows once all of it is."""
        logs = [log for log in (shown, *self._left) if log.pending]
        if not logs or self._is_trying:
            return
        self._is_trying = True

        def job(_: object) -> None:
            try:
                for log in logs:
                    log.save_pending()
                    if log in self._left:
                        self._left.remove(log)
                        log.close()
            except StoreError:
                return
            finally:
                self._is_trying = False
            then()

        self._thread.submit(job)

    def save_or_rescue(self, shown: ConversationLog) -> tuple[str, ...]:
        """The last try, once nothing else writes; a sentence for each chat that is not saved.

        Any thread may ask; what was tried once is told again.
        """
        with self._last_try:
            if self._told is None:
                self._told = tuple(filter(None, map(_saved_or_rescued, (shown, *self._left))))
            return self._told


def _saved_or_rescued(log: ConversationLog) -> str:
    """What became of a chat; empty where it is saved."""
    try:
        log.save_pending()
    except StoreError:
        title = f'The chat "{log.conversation.title}" is not saved'
        try:
            copy = log.rescue()
        except (OSError, StoreError):
            return f"{title}, and no copy of it could be written."
        return f"{title}; a copy is in {copy}, which tui-chat import takes back."
    return ""
