"""Which of the stored conversations the library lists, and in which order."""

import asyncio
import time
from functools import partial

from tui_chat.store.conversations import ConversationStore
from tui_chat.store.search import fold, holds, words_of
from tui_chat.types import ChatHits, ConversationSummary, SearchHit

SEARCH_LIMIT = 200
"""Chats whose contents hold what is searched; there may be more."""

_PAGE = 100
"""More than a screen shows."""
_ID_LENGTH = 8
"""So much of an id finds its chat: its date."""


class ChatList:
    """The conversations, read and searched on other threads; pinned first, archived last."""

    def __init__(self, store: ConversationStore) -> None:
        self.store = store
        self.all: list[ConversationSummary] = []
        self.shown: list[ConversationSummary] = []
        """Those that fit the query of the last `filter`."""
        self.hidden = 0
        """How many more would be shown with the archived ones."""
        self.total_bytes = 0
        self.is_loaded = False
        self.with_archived = False
        self.hits: dict[str, ChatHits] = {}
        """By conversation id, for what was searched last."""
        self.search_seconds = 0.0
        self._folded: dict[str, str] = {}
        """The titles as they are compared."""
        self._searched = ("", False)
        self._is_fresh = False
        """Whether the files were looked at since the last change here."""

    async def load_page(self) -> None:
        """Take the top of the list from what is known of the disk, however long the list is.

        Raises:
            StoreError: it cannot be read.
        """
        page = partial(self.store.summaries, archived=False, fresh=False)
        pinned = await asyncio.to_thread(page, pinned=True)
        self._take([*pinned, *await asyncio.to_thread(page, _PAGE, pinned=False)])

    async def load(self) -> None:
        """Read the whole list from the disk; what was searched is to be searched again.

        Raises:
            StoreError: it cannot be read.
        """
        summaries = await asyncio.to_thread(self.store.summaries)
        _, self.total_bytes = await asyncio.to_thread(partial(self.store.totals, fresh=False))
        # Sorted by these alone: among equals the last used one stays first.
        self._take(sorted(summaries, key=lambda s: (s.archived, not s.pinned)))
        self._is_fresh, self._searched = False, ("", False)
        self.is_loaded = True

    def _take(self, summaries: list[ConversationSummary]) -> None:
        self.all = summaries
        self._folded = {summary.id: fold(summary.title) for summary in summaries}

    async def search(self, query: str) -> None:
        """Search the contents for `query`: in what is known of the files, or, where that was done
        and they may have changed, in the files as they are.

        Raises:
            StoreError: they cannot be read.
        """
        archived, start = self.with_archived, time.perf_counter()
        fresh = self.is_searched(query) and not self._is_fresh
        search = partial(self.store.search_chats, archived=archived, fresh=fresh)
        hits = await asyncio.to_thread(search, query, SEARCH_LIMIT)
        self._is_fresh = self._is_fresh or fresh
        self.search_seconds = time.perf_counter() - start
        self.hits = {chat.conversation_id: chat for chat in hits}
        self._searched = (query, archived)

    def is_searched(self, query: str) -> bool:
        """Whether `hits` are those of `query`."""
        return (query, self.with_archived) == self._searched

    def is_complete(self, query: str) -> bool:
        """Whether they are all that there are by now."""
        return self.is_searched(query) and (self._is_fresh or not query)

    def filter(self, query: str) -> None:
        """Show what fits `query`: by the title at once, by the content once it is searched."""
        words = words_of(query)
        hits = self.hits if query and self.is_searched(query) else {}
        fitting = [
            s
            for s in self.all
            if s.id in hits
            or holds(self._folded[s.id], words)
            or (len(query) >= _ID_LENGTH and s.id.startswith(query))
        ]
        self.shown = [s for s in fitting if self.with_archived or not s.archived]
        self.hidden = len(fitting) - len(self.shown)

    def hits_of(self, summary: ConversationSummary, query: str) -> ChatHits | None:
        """The hits in a conversation, where `query` is searched."""
        return self.hits.get(summary.id) if query and self.is_searched(query) else None

    def hit_of(self, summary: ConversationSummary, query: str) -> SearchHit | None:
        """The hit that was written last, or None."""
        chat = self.hits_of(summary, query)
        return chat.last if chat is not None else None

    def neighbour(self, summary: ConversationSummary) -> str:
        """The id of what is next to `summary`, for when it is gone."""
        at = self.shown.index(summary)
        next_ = self.shown[at + 1 : at + 2] or self.shown[at - 1 : at] or [summary]
        return next_[0].id
