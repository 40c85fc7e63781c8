"""Words for models of random weights: tokens that, read in their order, are a Markdown text.

Each token is another one, and each begins with a space, so that a text reads back as its own
tokens. What makes the text Markdown hangs at the ends of its words: the line end, the mark of the
next item, the fence of a code block.
"""

import random
from collections.abc import Sequence
from itertools import pairwise

SPECIALS = ("<|im_start|>", "<|im_end|>")
PASSAGES = 32
"""How many different replies there are."""
FIRST_OPENER = 256 + len(SPECIALS)
LINE_END = "Ċ"
LONGEST_BLOCK = 45
"""Words."""
_ONSETS = ("b", "br", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea")
Block = list[tuple[str, str]]
"""What stands before and after each of its words."""
_CODAS = ("", "", "", "n", "r", "s", "l", "t", "nd")


def passage_starts(size: int) -> range:
    """Ids of the words that follow the openers in a vocabulary of `size`."""
    first = FIRST_OPENER + PASSAGES
    stride = (size - first) // PASSAGES
    return range(first, first + PASSAGES * stride, stride)


def markdown_vocabulary(size: int) -> list[str]:
    """`size` different byte-level tokens: 256 bytes, the specials, openers, then words.

    An opener begins a reply, so no space stands before it. The words are paragraphs with strong
    and code words, lists, titles and code blocks; each passage begins with a new block.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    rng = random.Random(0)
    tokens = dict.fromkeys((*sorted(ByteLevel.alphabet()), *SPECIALS))
    while len(tokens) < FIRST_OPENER + PASSAGES:
        tokens.setdefault("".join(rng.choice(s) for s in (_ONSETS, _VOWELS, _ONSETS)).title())
    for start, end in pairwise([*passage_starts(size), size]):
        for before, after in _passage(end - start, rng):
            count = len(tokens)
            while len(tokens) == count:
                tokens.setdefault(f"Ġ{before}{_word(rng)}{after}")
    return list(tokens)


def as_text(tokens: Sequence[str]) -> str:
    """What byte-level tokens say."""
    return "".join(tokens).replace("Ġ", " ").replace(LINE_END, "\n")


def _word(rng: random.Random) -> str:
    syllables = rng.choices((1, 2, 3, 4), (3, 5, 3, 1))[0]
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables)
    )


def _passage(size: int, rng: random.Random) -> Block:
    """Blocks of `size` words together, the first and the last of them paragraphs."""
    words: Block = []
    while (left := size - len(words)) > 0:
        make = rng.choice(_BLOCKS) if words and left > LONGEST_BLOCK else _paragraph
        opening, block = make(rng)
        if words:
            before, after = words[-1]
            words[-1] = (before, after + opening)
        words += block[:left]
    words[-1] = ("", ".ĊĊ")
    return words


def _paragraph(rng: random.Random) -> tuple[str, Block]:
    """What the block before it ends with, and its words."""
    marks = (("", ""), ("", ","), ("", "."), ("**", "**"), ("*", "*"), ("`", "`"))
    words = rng.choices(marks, (72, 11, 8, 4, 2, 3), k=rng.randint(20, LONGEST_BLOCK))
    return "", [*words, ("", ".ĊĊ")]


def _list(rng: random.Random) -> tuple[str, Block]:
    items = [rng.randint(3, 7) for _ in range(rng.randint(3, 6))]
    words = [(("", ""), ("**", ":**"))[number == 0] for item in items for number in range(item)]
    position = -1
    for item in items:
        position += item
        words[position] = ("", ".Ċ-")
    words[-1] = ("", ".ĊĊ")
    return "-", words


def _title(rng: random.Random) -> tuple[str, Block]:
    return "##", [*[("", "")] * rng.randint(1, 4), ("", "ĊĊ")]


def _code(rng: random.Random) -> tuple[str, Block]:
    marks = (("", ""), ("", "(),"), ("", "="), ("'", "'"), ("", "()Ċ"), ("", ":Ċ"))
    words = rng.choices(marks, (4, 2, 2, 1, 2, 1), k=rng.randint(15, 40))
    return "```pythonĊ", [*words, ("", "()Ċ```ĊĊ")]


_BLOCKS = (_paragraph, _paragraph, _list, _title, _code)
