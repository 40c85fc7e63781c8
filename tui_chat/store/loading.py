"""How much of an open conversation is in memory, and loading more of it beside its use."""

import threading
from dataclasses import replace

from tui_chat.store.records import Record
from tui_chat.store.tail import CutShort, Enough, Tail, TailTree
from tui_chat.store.tree import MessageTree


class LoadedPart:
    """The tree of an open conversation, of a long one only its end, and what loads the rest.

    Where no other is named, a method is for who holds the lock of the log. The others wait for the
    disk, while who holds the lock goes on reading and writing.
    """

    def __init__(self, tree: MessageTree, tail: Tail | None, lock: threading.RLock) -> None:
        """`tail` loads more of a `TailTree`; `lock` is that of the log."""
        self.tree = tree
        self._tail = tail if isinstance(tree, TailTree) else None
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
            self._tail.since.append(record)

    def close(self) -> None:
        """Let go of the file; nothing more can be loaded."""
        self._tail = None

    def load_rest(self) -> None:
        """Others have cut the file short: put what is left of it before what is loaded."""
        tree = self.tree
        if self._tail is not None and isinstance(tree, TailTree):
            self._take(self._tail.rest(tree))

    def load_earlier(self) -> bool:
        """Load more of the open branch; False when there is no more. Without the lock.

        Raises:
            OSError: the file cannot be read.
        """
        with self._lock:
            if self._tail is None:
                return False
            first = self.tree.conversation.messages[:1]
        self._load(lambda tree: first != tree.conversation.messages[:1])
        return True

    def load_all(self) -> None:
        """Load what is not loaded. Without the lock.

        Raises:
            OSError: the file cannot be read.
        """
        self._load(None)

    def settle(self, message_id: str) -> None:
        """Load so much that a message is there with all its siblings, if it is in the file.

        Without the lock.

        Raises:
            OSError: the file cannot be read.
        """
        self._load(lambda tree: tree.is_settled(message_id))

    def load_for(self, record: Record) -> None:
        """Load what the record of a message speaks of before it is applied. Without the lock.

        Raises:
            OSError: the file cannot be read.
        """
        self._load(lambda tree: not tree.needs_earlier(record))

    def _load(self, enough: Enough | None) -> None:
        with self._lock:
            if self._has(enough):
                return
        with self._loading:
            with self._lock:
                tail = self._tail
                if tail is None or self._has(enough):
                    return
                since = tuple(tail.since)
            try:
                tree = tail.load(enough, since)
            except CutShort:
                with self._lock:
                    self.load_rest()
                return
            with self._lock:
                if self._tail is not tail:
                    return
                for record in tail.since[len(since) :]:
                    tree.apply(record)
                self._take(tree)

    def _has(self, enough: Enough | None) -> bool:
        """Whether what is loaded is enough already."""
        if not isinstance(self.tree, TailTree):
            return True
        return enough is not None and enough(self.tree)

    def _take(self, tree: MessageTree) -> None:
        """Go on with `tree`, which has more of the file."""
        tree.header = replace(tree.header, id=self.tree.header.id)
        tree.has_header = tree.has_header or self.tree.has_header
        self.tree = tree
        if not isinstance(tree, TailTree):
            self._tail = None
