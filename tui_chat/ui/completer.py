"""Completes what is typed in the box: keeps the candidates, walks through them, puts one in."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tui_chat.ui.commands import Action
from tui_chat.ui.completion import (
    Candidate,
    Value,
    Word,
    command_candidates,
    path_candidates,
    value_candidates,
    word_at,
)

if TYPE_CHECKING:
    from tui_chat.ui.prompt_input import PromptInput

Values = Callable[[str], Sequence[Value]]
"""The arguments that the action with an id can have; may read the disk, on any thread."""

FREE_ARGUMENTS = frozenset({"model", "chats", "set", "save", "export"})
"""Actions that take other arguments than those that are offered."""


class Completer:
    """The candidates for the word at the cursor of one box."""

    def __init__(
        self,
        box: "PromptInput",
        actions: Sequence[Action],
        values: Values,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when there is something else to show, or to find."""
        self._changed = changed
        self._box = box
        self._actions = actions
        self._values = values
        self.candidates: Sequence[Candidate] = ()
        self.index = 0
        self._word: Word | None = None
        self._walked = False
        self._seen: tuple[str, tuple[int, int]] = ("", (0, 0))
        self._dismissed = False
        self._tab_waits = False
        self.needs: Word | None = None
        """The word whose candidates `find` must look for, outside the screen's thread."""

    @property
    def is_open(self) -> bool:
        """Whether there is anything to choose from."""
        return bool(self.candidates)

    def update(self) -> None:
        """Look at the box again."""
        seen = self._box.text, self._box.cursor_location
        if seen == self._seen:
            return
        if seen[0] != self._seen[0]:
            self._dismissed = False
        self._seen = seen
        row, column = seen[1]
        line = self._box.document[row]
        word = word_at(seen[0], line, column, self._actions)
        if self._dismissed or self._box.recalls:
            word = None
        if word is None and self._word is None:
            return
        if word is None or self._word is None or word.kind != self._word.kind:
            self.candidates = ()
        self._word, self._walked, self.index, self._tab_waits = word, False, 0, False
        self.needs = None
        if word is not None and word.kind == "command":
            self.candidates = command_candidates(word, self._actions)
        elif word is not None:
            self.needs = word
        self._changed()

    def find(self, word: Word) -> list[Candidate]:
        """The candidates of a word; not for the screen's thread."""
        if word.names_path:
            return path_candidates(word)
        if word.action is None:
            return []
        return value_candidates(word, self._values(word.action.id))

    def found(self, word: Word, candidates: Sequence[Candidate]) -> None:
        """Take what `find` has found, if it is still asked for."""
        if word != self.needs:
            return
        self.needs = None
        exact = [c for c in candidates if c.shown == word.typed and c.ends]
        self.candidates = () if len(candidates) == 1 and exact else candidates
        if self._tab_waits:
            self._tab_waits = False
            self.accept()
        self._changed()

    def dismiss(self) -> bool:
        """Close the list until something else is typed; False when there is none."""
        was_open = self.is_open
        self._dismissed, self._word, self.candidates, self.needs = was_open, None, (), None
        if was_open:
            self._changed()
        return was_open

    def move(self, step: int) -> bool:
        """Go to another candidate; False before the first one and where there is no list."""
        self.update()
        if not self.is_open or self.index + step < 0:
            return False
        if self._sends_typed():
            step = 0  # nothing was highlighted: the first one comes first
        self._walked = True
        self.index = min(self.index + step, len(self.candidates) - 1)
        self._changed()
        return True

    @property
    def highlighted(self) -> int:
        """The candidate that Enter would take, or -1."""
        return -1 if self._sends_typed() else self.index

    def _sends_typed(self) -> bool:
        """Whether Enter sends what is typed as it is, when no candidate was gone to."""
        word = self._word
        if word is None or not self.is_open or self.needs is not None:
            return True
        if self._walked:
            return False
        first = self.candidates[0]
        if word.kind == "command":
            return bool(word.typed) and any(a.command == word.typed for a in self._actions)
        if word.kind == "path" or word.action is None or word.action.id in FREE_ARGUMENTS:
            return True
        begins = first.shown.casefold().startswith(word.typed.casefold())
        return not word.typed or not begins or first.shown == word.typed

    def accept(self, index: int | None = None) -> bool:
        """Put the highlighted candidate in place of the word; False when there is no list."""
        self.update()
        word = self._word
        if word is not None and self.needs is not None:
            self._tab_waits = True
            return True
        if word is None or not self.is_open:
            return False
        candidate = self.candidates[self.index if index is None else index]
        row = self._box.cursor_location[0]
        self._box.put(candidate.text, (row, word.start), (row, word.end))
        return True

    def accept_for_send(self) -> bool:
        """Enter: put in what it takes; True when the text is not to be sent yet."""
        self.update()
        if self._sends_typed():
            return False
        word, candidate = self._word, self.candidates[self.index]
        self.accept()
        if word is None or word.kind == "path" or not candidate.ends:
            return True
        if word.kind == "command":
            name = candidate.text.strip().removeprefix("/")
            return any(a.command == name and a.needs_argument for a in self._actions)
        return False
