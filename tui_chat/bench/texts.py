"""Texts to measure with, made of words that a tokenizer knows."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tui_chat.types import Message, Role

_SPACES = "Ġ▁"
"""How byte-level and metaspace vocabularies write the space before a word."""
_TRIES = 4
_ENGLISH = (
    "the of and to in a is that it was for on are as with they be at one have this from by hot "
    "but what some we can out other were all there when up use your how said an each which their "
    "time will way about many then them write would like these her long make thing see him two "
    "has look more day could go come did number sound no most people over know water than call "
    "first who may down side been now find any new work part take get place made live where after "
    "back little only round man year came show every good me give our under name very through "
    "just form sentence great think say help low line differ turn cause much mean before move "
    "right boy old too same tell does set three want air well also play small end put home read"
)


@dataclass(slots=True)
class Writer:
    """Writes prose of a vocabulary's words; the same seed writes the same."""

    words: Sequence[str]
    seed: int = 0
    _random: random.Random = field(init=False)
    _number: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def prose(self, count: int) -> str:
        """`count` words."""
        return " ".join(self._random.choices(self.words, k=count))

    def message(self, role: Role, text: str) -> Message:
        """A message of its own."""
        self._number += 1
        return Message(f"m{self._number}", role, text, datetime.now(UTC))

    def history(self, count: int, words: int) -> list[Message]:
        """`count` messages, user and assistant in turn, of about `words` words each."""
        roles = (Role.USER, Role.ASSISTANT)
        return [
            self.message(
                roles[number % 2], self.prose(self._random.randint(words // 2, words * 3 // 2))
            )
            for number in range(count)
        ]

    def prose_of(self, tokens: int, count: Callable[[str], int]) -> str:
        """Prose that `count` finds to have about `tokens` tokens, never more."""
        words = self.prose(max(1, tokens)).split(" ")
        for _ in range(_TRIES):
            found = count(" ".join(words))
            if found <= tokens:
                break
            words = words[: max(1, len(words) * tokens // (found + 1))]
        return " ".join(words)


def english(count: int, seed: int = 0) -> str:
    """`count` common English words in sentences and paragraphs, as prose has them."""
    chance = random.Random(seed)
    words = chance.choices(_ENGLISH.split(), k=count)
    place = 0
    while place < count:
        for _ in range(chance.randint(3, 6)):
            end = min(place + chance.randint(6, 20), count)
            if place < end:
                words[place] = words[place].capitalize()
                words[end - 1] += "."
            place = end
        words[min(place, count) - 1] += "\n\n"
    return " ".join(words).replace("\n\n ", "\n\n").rstrip("\n")


def words_of(tokenizer: Any) -> tuple[str, ...]:
    """Words of letters that the vocabulary of `tokenizer` (transformers) holds as one token."""
    vocabulary = tokenizer.get_vocab()
    found = (token[1:] for token in vocabulary if token[:1] in _SPACES)
    words = tuple(
        sorted(word for word in found if len(word) > 2 and word.isascii() and word.isalpha())
    )
    return words or ("word", "other", "more")


def pieces(text: str, count: int) -> Iterator[str]:
    """`text` in `count` pieces, as tokens come."""
    size = max(1, -(-len(text) // count))
    for start in range(0, len(text), size):
        yield text[start : start + size]
