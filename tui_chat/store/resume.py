"""Which stored conversation is meant: the last one, an id, the beginning of one, or words."""

import re

from tui_chat.store.conversations import ConversationStore, StoreError
from tui_chat.store.search import fold, holds, words_of

_ID_START = re.compile(r"[0-9][0-9a-f-]*")


def last_used(store: ConversationStore) -> str:
    """The id of the conversation that was used last; archived ones do not count.

    Raises:
        StoreError: there is none.
    """
    for summary in store.summaries(1, archived=False):
        return summary.id
    raise StoreError("There is no chat to continue yet.")


def ids_from(store: ConversationStore, text: str) -> list[str]:
    """The ids that begin with `text`, where it can be the beginning of one."""
    if not _ID_START.fullmatch(text):
        return []
    return [summary.id for summary in store.summaries() if summary.id.startswith(text)]


def find_chat(store: ConversationStore, text: str) -> str:
    """The id of the one conversation that `text` means.

    It is the beginning of its id; else only one title holds all the words of `text`; else only
    one conversation does.

    Raises:
        StoreError: there is none, or more than one.
    """
    text, words = text.strip(), words_of(text)
    found = ids_from(store, text)
    if not found and words:
        found = [s.id for s in store.summaries() if holds(fold(s.title), words)]
        if len(found) != 1:
            found = [hits.conversation_id for hits in store.search_chats(text)] or found
    if not found:
        raise StoreError(f'No chat holds "{text}"; tui-chat list shows them all.')
    if len(found) > 1:
        raise StoreError(f'"{text}" means more than one chat; tui-chat list shows their ids.')
    return found[0]
