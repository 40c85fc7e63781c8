"""What a search compares, and the text around a hit."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

CONTEXT = 40
"""Characters before and behind a hit in its snippet."""
_FEW = 16
"""So many trigrams narrow a word down enough; the rest is compared anyway."""
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")  # SQLite ends a text at NUL and has no surrogates
_SPACE = re.compile(r"\s+")


def fold(text: str) -> str:
    """`text` as it is compared: no upper case, no compatibility forms, accents apart.

    Each character is mapped by itself, so lengths add up: `len(fold(a + b))` is
    `len(fold(a)) + len(fold(b))`.
    """
    if text.isascii():
        return text.lower().replace("\x00", "\ufffd")
    text = _NOT_TEXT.sub("\ufffd", text)
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())


def words_of(query: str) -> list[str]:
    """The folded words of a query; every sign in them is meant as it stands."""
    return list(dict.fromkeys(fold(query).split()))


def holds(folded: str, words: Sequence[str]) -> bool:
    """Whether a folded text has all the folded words; that of no words is true."""
    return all(word in folded for word in words)


def trigram_query(words: list[str]) -> str:
    """An FTS5 expression that every text with all `words` fulfils; empty if all are too short."""
    # Every third one and the last cover a word; more would only be looked up in vain.
    trigrams = dict.fromkeys(
        word[start : start + 3]
        for word in words[:_FEW]
        if len(word) > 2
        for start in (*range(0, len(word) - 3, 3)[:_FEW], len(word) - 3)
    )
    return " AND ".join('"' + trigram.replace('"', '""') + '"' for trigram in trigrams)


def snippet_of(text: str, word: str) -> tuple[str, int, int]:
    """The text around the first place of a folded `word`: one line, start and end of the hit."""
    folded = fold(text)
    position = max(0, folded.find(word))
    begin = _original(text, position)
    end = _original(text, position + len(word) - 1) + 1
    before = _SPACE.sub(" ", text[max(0, begin - CONTEXT) : begin])
    hit = _SPACE.sub(" ", text[begin:end])
    behind = _SPACE.sub(" ", text[end : end + CONTEXT])
    before = "…" + before.lstrip() if begin > CONTEXT else before.lstrip()
    behind = behind.rstrip() + "…" if end + CONTEXT < len(text) else behind.rstrip()
    return before + hit + behind, len(before), len(before) + len(hit)


def places(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Where the folded `words` stand in `text`, in order, start and end; overlaps are joined."""
    folded = fold(text)
    found: list[tuple[int, int]] = []
    for word in words:
        start = folded.find(word)
        while start >= 0:
            found.append((start, start + len(word)))
            start = folded.find(word, start + len(word))
    if not found:
        return []
    joined: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    if text.isascii():
        return joined
    sizes = {character: len(fold(character)) for character in set(text)}
    ends = list(accumulate(sizes[character] for character in text))
    return [(bisect_right(ends, start), bisect_left(ends, end) + 1) for start, end in joined]


def _original(text: str, position: int) -> int:
    """Which character of `text` the one at `position` of its folded form comes from."""
    if text.isascii():
        return position
    low, high = 0, len(text)  # fold(text[:low]) ends at or before `position`
    while high - low > 1:
        middle = (low + high) // 2
        if len(fold(text[:middle])) <= position:
            low = middle
        else:
            high = middle
    return low
