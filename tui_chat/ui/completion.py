"""What may be typed next: /commands, their arguments, and paths after an @."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tui_chat.ui.commands import Action, is_command
from tui_chat.ui.ink import file_size

PATH_ACTIONS = frozenset({"attach", "save", "export"})
"""Actions whose argument is a path."""
MOST_ENTRIES = 20_000
"""Entries of one folder that are looked at."""
MOST_SHOWN = 200

Value = tuple[str, str]
"""An argument and a few words about it."""

_MENTION = re.compile(r'(?:^|(?<=[\s(\[]))@(?:"([^"]*)|([^\s"]*))$')


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing that the word may become."""

    shown: str
    note: str
    text: str
    """What stands in place of the word."""
    ends: bool = True
    """Whether the word is complete then; a folder is not."""


@dataclass(frozen=True, slots=True)
class Word:
    """The word that is being typed on the row of the cursor."""

    kind: Literal["command", "argument", "path"]
    start: int
    end: int
    typed: str
    """Without the slash or the @ and the quote."""
    action: Action | None = None
    """Whose argument it is."""

    @property
    def names_path(self) -> bool:
        """Whether it is the path of a file."""
        by_action = self.action is not None and self.action.id in PATH_ACTIONS
        return self.kind == "path" or by_action


def word_at(text: str, row: str, column: int, actions: Iterable[Action]) -> Word | None:
    """The word before the cursor that can be completed, or None.

    `text` is all of the box, `row` the line of the cursor.
    """
    if is_command(text):
        if "\n" in text or column != len(row):
            return None
        name, space, rest = row.partition(" ")
        if not space:
            return Word("command", 0, len(row), row[1:].lower())
        action = next((a for a in actions if a.command and f"/{a.command}" == name.lower()), None)
        argument = rest.lstrip()
        if action is None:
            return None
        return Word("argument", len(row) - len(argument), len(row), argument, action)
    if match := _MENTION.search(row[:column]):
        return Word("path", match.start(), column, match[1] or match[2] or "")
    return None


def command_candidates(word: Word, actions: Sequence[Action]) -> list[Candidate]:
    """The commands that a name may become, an exact one first."""
    named = [a for a in actions if a.command and a.command.startswith(word.typed)]
    named.sort(key=lambda action: (action.command != word.typed, not action.slash))
    return [
        Candidate(
            f"/{action.command} {action.argument}".rstrip(),
            action.help,
            f"/{action.command} " if action.argument else f"/{action.command}",
        )
        for action in named
    ]


def value_candidates(word: Word, values: Iterable[Value]) -> list[Candidate]:
    """The arguments that fit what is typed: first those that begin with it."""
    typed = word.typed.casefold()
    begin: list[Candidate] = []
    hold: list[Candidate] = []
    for value, note in values:
        at = value.casefold().find(typed)
        if at >= 0:
            (hold if at else begin).append(Candidate(value, note, value))
    return [*begin, *hold][:MOST_SHOWN]


def path_candidates(word: Word) -> list[Candidate]:
    """The files and folders whose names begin with what is typed. Reads the disk."""
    folder, _, name = word.typed.rpartition("/")
    place = os.path.expanduser(f"{folder}/" if "/" in word.typed else "./")
    if word.typed == "~":
        return [_path_candidate(word, "~/", "home", ends=False)]
    found = []
    try:
        with os.scandir(place) as entries:
            for number, entry in enumerate(entries):
                if number >= MOST_ENTRIES:
                    break
                if not entry.name.casefold().startswith(name.casefold()):
                    continue
                if entry.name.startswith(".") and not name.startswith("."):
                    continue
                found.append(entry)
    except (OSError, ValueError):
        return []
    found.sort(key=lambda entry: (not entry.name.startswith(name), entry.name.casefold()))
    base = word.typed[: len(word.typed) - len(name)]
    return [_entry_candidate(word, base, entry) for entry in found[:MOST_SHOWN]]


def _entry_candidate(word: Word, base: str, entry: "os.DirEntry[str]") -> Candidate:
    try:
        if entry.is_dir():
            return _path_candidate(word, f"{base}{entry.name}/", "folder", ends=False)
        note = file_size(entry.stat().st_size) if entry.is_file() else "no regular file"
    except OSError:
        note = ""
    return _path_candidate(word, base + entry.name, note, ends=True)


def _path_candidate(word: Word, path: str, note: str, *, ends: bool) -> Candidate:
    text = path
    if word.kind == "path":
        # A folder keeps its quote open: its files come next.
        quoted = bool(re.search(r'[\s"()\[\]]', path))
        text = f'@"{path}' + ('" ' if ends else "") if quoted else f"@{path}" + " " * ends
    return Candidate(path, note, text, ends)
