"""How much of an open conversation is in memory, and loading more of it beside its use."""

import threading
from collections.abc import Callable
from dataclasses import replace

from tui_chat.store.records import Record
from tui_chat.store.tail import FIRST_BYTES, CutShort, Enough, Loaded, Tail, TailTree
from tui_chat.store.tree import MessageTree
from tui_chat.types import Conversation


class LoadedPart:
    """The tree of an open conversation, of a long one only its end, and what loads the rest.

    Where no other is named, a method is for who holds the lock of the log. The others wait for the
    disk, while who holds the lock goes on reading and writing.
    """

    def __init__(
        self, tree: MessageTree, tail: Tail | None, start: int, lock: threading.RLock
    ) -> None:
        """`tail` loads more of a `TailTree`, which begins at `start` in its file and is no more
        than a first glance; `lock` is that of the log.
        """
        self.tree = tree
        self._tail = tail if isinstance(tree, TailTree) else None
        self._start = start
        self._length = FIRST_BYTES
        self._is_glance = True
        self._was_wrong = False
        """Whether the glance showed anything else than there is."""
        self._since: list[Record] = []
        """What was applied to the tree after it was loaded."""
        self._lock = lock
        self._loading = threading.Lock()
        """Held while the file is read; never asked for under the other lock."""

    def apply(self, record: Record) -> None:
        """Take over a record that is new.

        Raises:
            DamagedRecord: as the tree does.
        """
        self.tree.apply(record)
        if self._tail is not None:
            self._since.append(record)

    def close(self) -> None:
        """Let go of the file; nothing more can be loaded."""
        self._tail = None

    def load_rest(self) -> None:
        """Others have cut the file short: put what is left of it before what is loaded."""
        tree = self.tree
        if self._tail is not None and isinstance(tree, TailTree):
            self._take(Loaded(self._tail.rest(tree, self._start), 0, 0))

    def check(self) -> bool:
        """Look over the first glance, once; whether it was not right. Without the lock.

        Raises:
            OSError: the file cannot be read.
        """
        self._load(lambda tree: bool(tree.conversation.messages), lambda: not self._is_glance, 1)
        with self._lock:
            return self._was_wrong

    def load_earlier(self) -> bool:
        """Load more of the open branch; False when there is no more. Without the lock.

        Raises:
            OSError: the file cannot be read.
        """
        with self._lock:
            if self._tail is None:
                return False
            first = self.tree.conversation.messages[:1]

        def has_more(tree: MessageTree) -> bool:
            return first != tree.conversation.messages[:1]

        self._load(has_more, lambda: has_more(self.tree), 2)
        return True

    def load_all(self) -> None:
        """Load what is not loaded. Without the lock.

        Raises:
            OSError: the file cannot be read.
        """
        self._load(None, lambda: False, 2)

    def settle(self, message_id: str) -> None:
        """Load so much that a message is there with all its siblings, if it is in the file.

        Without the lock.

        Raises:
            OSError: the file cannot be read.
        """

        def is_settled(tree: TailTree) -> bool:
            return tree.is_settled(message_id)

        self._load_for(is_settled)

    def load_for(self, record: Record) -> None:
        """Load what the record of a message speaks of before it is applied. Without the lock.

        Raises:
            OSError: the file cannot be read.
        """
        self._load_for(lambda tree: not tree.needs_earlier(record))

    def _load_for(self, enough: Enough) -> None:
        def is_loaded() -> bool:
            return not isinstance(self.tree, TailTree) or enough(self.tree)

        self._load(enough, is_loaded, 2)

    def _load(self, enough: Enough | None, is_loaded: Callable[[], bool], times: int) -> None:
        """Load so much as is `enough`, or all: so many times more than is loaded now, or more."""
        with self._lock:
            if self._tail is None or is_loaded():
                return
        with self._loading:
            with self._lock:
                tail, since = self._tail, tuple(self._since)
                if tail is None or is_loaded():
                    return
                length = times * self._length
            try:
                loaded = tail.load(enough, length, since)
            except CutShort:
                with self._lock:
                    self.load_rest()
                return
            with self._lock:
                if self._tail is not tail:
                    return
                for record in self._since[len(since) :]:
                    loaded.tree.apply(record)
                self._take(loaded)

    def _take(self, loaded: Loaded) -> None:
        """Go on with a tree that has more of the file."""
        tree = loaded.tree
        tree.header = replace(tree.header, id=self.tree.header.id)
        tree.has_header = tree.has_header or self.tree.has_header
        if self._is_glance:
            self._was_wrong = _differ(self.tree.conversation, tree.conversation)
        self.tree, self._start, self._length = tree, loaded.start, loaded.length
        self._is_glance = False
        if not isinstance(tree, TailTree):
            self._tail = None
            self._since.clear()


def _differ(old: Conversation, new: Conversation) -> bool:
    """Whether the end of a conversation is not `old`."""
    end = new.messages[max(0, len(new.messages) - len(old.messages)) :]
    return replace(new, messages=end, has_earlier=old.has_earlier) != old
