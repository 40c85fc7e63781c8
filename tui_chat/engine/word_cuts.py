"""Where a text may be cut between two words so that its pieces have the ids of the whole.

Byte-level BPE splits a text by a pattern before it merges anything, and the patterns of the large
families end a piece between a letter and a space that a letter follows, whatever stands around;
they look at nothing before. Whatever is not one of these counts as not proven.
"""

import json
import re
from typing import Any

_CUT = re.compile("[A-Za-z](?= [A-Za-z])")
_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = (
    _HEAD + r"\p{N}{1,3}" + _TAIL,  # Llama 3
    _HEAD + r"\p{N}" + _TAIL,  # Qwen 2 and later
)


def can_cut_words(backend: Any) -> bool:
    """Whether a `tokenizers` backend is proven to encode the pieces of a cut text as the whole.

    Added tokens are found before; a text that holds one must not be cut.
    """
    # NFC changes neither a space nor, across it, a letter.
    if _form_of(backend.normalizer) not in ({}, {"type": "NFC"}):
        return False
    if type(backend.model).__name__ != "BPE" or backend.model.dropout:
        return False
    if any(" " in token.content for token in backend.get_added_tokens_decoder().values()):
        return False
    splitter = _form_of(backend.pre_tokenizer)
    steps = splitter.get("pretokenizers", [splitter])
    # Byte-level comes last; by itself it splits as GPT-2 does.
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return False
    match steps[:-1]:
        case []:
            return bool(steps[-1].get("use_regex"))
        case [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"} as split]:
            known = pattern in _PATTERNS and not split.get("invert")
            return known and not steps[-1].get("use_regex")
    return False


def _form_of(part: Any) -> dict[str, Any]:
    """What a part of a backend writes about itself; empty where there is no such part."""
    form: dict[str, Any] = json.loads(part.__getstate__()) if part is not None else {}
    return form


def last_cut(text: str, start: int = 0) -> int:
    """The last place in `text` behind `start` where it may be cut; `start` if there is none."""
    place = start
    end = len(text)
    # From the end, in growing windows: a text that is typed has a cut close to it.
    for window in (64, 512, end):
        low = max(start, end - window)
        for found in _CUT.finditer(text, low):
            place = found.end()
        if place > start or low == start:
            break
    return place


def is_cut(text: str, place: int) -> bool:
    """Whether `text` may be cut at `place`."""
    return place > 0 and _CUT.match(text, place - 1) is not None
