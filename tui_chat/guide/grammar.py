"""A small grammar for wordings: `(a|b)` is a choice, `[x]` is optional, `{name}` is a slot.

A wording stands for all texts that it expands to. It can draw one of them, and it can tell
whether a given text is one of them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random


class GrammarError(ValueError):
    """A wording is not well formed; `str()` quotes it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that is filled from a named list of wordings."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several sequences; an empty one makes the part optional."""

    options: tuple["Parts", ...]


Parts = tuple["str | Choice | Slot", ...]
Slots = Mapping[str, Sequence["Wording"]]


@dataclass(frozen=True, slots=True)
class Wording:
    """A parsed wording."""

    source: str
    parts: Parts

    def count(self, slots: Slots) -> int:
        """How many texts it stands for, the ones that are equal counted apart."""
        return _count(self.parts, slots)

    def draw(self, rng: Random, slots: Slots) -> str:
        """One of its texts."""
        return " ".join(_draw(self.parts, rng, slots).split())

    def pattern(self, slots: Slots) -> str:
        """A regular expression for its texts in the form that `normalise` gives."""
        return _pattern(self.parts, slots)


def normalise(text: str) -> str:
    """Letters and digits of `text` alone, in lower case: no spaces, no punctuation."""
    return "".join(char for char in text.lower() if char.isalnum())


def parse(source: str) -> Wording:
    """Parse a wording.

    Raises:
        GrammarError: a bracket is not closed or not opened.
    """
    parts, rest = _parse_parts(source, 0, source)
    if rest != len(source):
        raise GrammarError(f"A bracket is closed that was not opened: {source!r}")
    return Wording(source, parts)


def _parse_parts(text: str, start: int, source: str) -> tuple[Parts, int]:
    parts: list[str | Choice | Slot] = []
    at = start
    while at < len(text) and text[at] not in "|)]":
        char = text[at]
        if char in "([":
            choice, at = _parse_choice(text, at, source)
            parts.append(choice)
        elif char == "{":
            end = text.find("}", at)
            if end < 0:
                raise GrammarError(f"A slot is not closed: {source!r}")
            parts.append(Slot(text[at + 1 : end]))
            at = end + 1
        else:
            found = re.compile(r"[^()\[\]{|]+").match(text, at)
            if found is None:
                raise GrammarError(f"There is a stray sign: {source!r}")
            parts.append(found.group())
            at = found.end()
    return tuple(parts), at


def _parse_choice(text: str, start: int, source: str) -> tuple[Choice, int]:
    closing = ")" if text[start] == "(" else "]"
    options: list[Parts] = [()] if closing == "]" else []
    at = start
    while True:
        parts, at = _parse_parts(text, at + 1, source)
        options.append(parts)
        if at >= len(text) or text[at] not in ("|", closing):
            raise GrammarError(f"A bracket is not closed: {source!r}")
        if text[at] == closing:
            return Choice(tuple(options)), at + 1


def _slot(slot: Slot, slots: Slots) -> Sequence[Wording]:
    try:
        return slots[slot.name]
    except KeyError:
        raise GrammarError(f"There is no list named {slot.name!r}") from None


def _count(parts: Parts, slots: Slots) -> int:
    total = 1
    for part in parts:
        if isinstance(part, Choice):
            total *= sum(_count(option, slots) for option in part.options)
        elif isinstance(part, Slot):
            total *= sum(wording.count(slots) for wording in _slot(part, slots))
    return total


def _draw(parts: Parts, rng: Random, slots: Slots) -> str:
    texts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Choice):
            texts.append(_draw(rng.choice(part.options), rng, slots))
        else:
            texts.append(_draw(rng.choice(_slot(part, slots)).parts, rng, slots))
    return "".join(texts)


def _pattern(parts: Parts, slots: Slots) -> str:
    texts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(normalise(part))
        elif isinstance(part, Choice):
            options = "|".join(_pattern(option, slots) for option in part.options)
            texts.append(f"(?:{options})")
        else:
            options = "|".join(wording.pattern(slots) for wording in _slot(part, slots))
            texts.append(f"(?:{options})")
    return "".join(texts)
