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
