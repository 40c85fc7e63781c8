"""Rendered prompts to token ids, cut where a cut changes nothing, and what was encoded kept.

Text behind an added token is encoded on its own by every `tokenizers` backend: the added tokens
are found in the raw text first, and the rest goes through normalizer, pre-tokenizer and model
piece by piece. So a text may be cut before such a token (an *anchor*) and its pieces encoded,
and remembered, one by one.
"""

import re
import threading
from array import array
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import encode_marked_chat, mark_control_tokens

from tui_chat.engine.word_cuts import can_cut_words, is_cut, last_cut

_MARK_START, _MARK_END = "\U000f0000", "\U000f0001"
"""What transformers puts around a control token that stands in a message."""
_LONG = 4096
"""Tokens from which on a piece is kept as an array, which is small, and not as a tuple."""
_TUPLE_BYTES, _ARRAY_BYTES = 36, 4
"""Memory per token of either."""
_KEPT_BYTES = 64_000_000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping of bounded size that forgets what was not used for long.

    Two generations: when the young one is full it becomes the old one, and what is used again
    is young again. Every step is one operation on a dict, so threads need no lock; at worst
    something is forgotten early.
    """

    def __init__(self, size: int) -> None:
        """Keep entries that weigh `size` together, more or less."""
        self._size = size // 2
        self._weight = 0
        self._young: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}

    def get(self, key: K) -> V | None:
        """The value of `key`, or None."""
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.get(key)
            if entry is None:
                return None
            self.put(key, *entry)
        return entry[0]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Keep `value` under `key`."""
        if self._weight + weight > self._size:
            self._old, self._young, self._weight = self._young, {}, 0
        self._young[key] = (value, weight)
        self._weight += weight


class TextEncoder:
    """Encodes text so that nothing that stands in a message becomes a control token."""

    def __init__(
        self,
        tokenizer: Any,
        added_tokens: Mapping[str, int],
        text_markers: Sequence[str],
        rendered: str,
    ) -> None:
        """Examine a tokenizer of transformers; sets its `chat_control_tokens`.

        Args:
            tokenizer: the tokenizer.
            added_tokens: its added tokens and their ids.
            text_markers: what marks roles without being a token; broken where a message has it.
            rendered: some prompts of the chat template, to see which tokens it writes.
        """
        self._hf = tokenizer
        encode = getattr(type(tokenizer), "_encode_plus", None)
        usual = encode is PreTrainedTokenizerFast._encode_plus
        self._backend: Any = tokenizer._tokenizer if usual else None
        self.lock = threading.Lock()
        """The backend is switched between two ways of encoding; a second thread in between
        would get wrong ids."""
        control = [t for t in added_tokens if not t.isspace()]
        tokenizer.chat_control_tokens = control
        special = [str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special]
        self._control = _any_of([*control, *special])
        self.sanitizes = self._can_sanitize(control)
        """Whether every control token can be encoded as plain text."""
        broken = text_markers if self.sanitizes else [*control, *text_markers]
        # A single sign cannot be broken.
        self._broken = _any_of(text for text in broken if len(text) > 1)
        self.anchors = self._find_anchors(rendered)
        """Added tokens that text may be cut before, and their ids."""
        self._anchor = _any_of(self.anchors)
        self._pieces: Recent[str, Sequence[int]] = Recent(_KEPT_BYTES)
        self._cuts_words = self._backend is not None and can_cut_words(self._backend)
        self._typed = ("", "", 0)
        """What a text begins with that is being typed, what stands before it, and its length."""

    def neutral(self, text: str) -> str:
        """`text` of a message, its control tokens marked or broken so that they stay text."""
        while self._broken.search(text):
            text = self._broken.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        return str(mark_control_tokens(text, self._control)) if self.sanitizes else text

    def ids(self, text: str) -> list[int]:
        """Ids of a rendered prompt whose messages are `neutral`."""
        ids: list[int] = []
        for piece in self._cut(text):
            ids.extend(self._piece(piece))
        return ids

    def ids_at_start(self, text: str) -> list[int] | None:
        """Ids of `text` as the beginning of any text; None if they depend on what follows."""
        return None if text.endswith(_MARK_START) else self.ids(text)

    def ids_behind(self, anchor: str, text: str) -> Sequence[int] | None:
        """Ids of `text` as they are wherever it stands behind `anchor`.

        With an empty `anchor`: wherever it stands, which only what begins with an anchor has;
        None if the ids depend on more. Not kept.
        """
        if not text:
            return ()
        if text.startswith(_MARK_END) or text.endswith(_MARK_START):
            return None
        if not anchor and not self._anchor.match(text):
            return None
        ids = self._encode(anchor + text)
        return _compact(ids[1:] if anchor else ids)

    def count_behind(self, anchor: str, text: str) -> int | None:
        """How many ids `ids_behind` gives. Of a text that only grew little is encoded."""
        if not self._cuts_words or _MARK_START in text or _MARK_END in text:
            ids = self.ids_behind(anchor, text)
            return None if ids is None else len(ids)
        begin, before, count = self._typed
        if before != anchor or not text.startswith(begin) or not is_cut(text, len(begin)):
            begin, count = "", 0
        place = last_cut(text, len(begin))
        if place > len(begin):
            # The last word but one may still grow, so one more stays behind the cut.
            place = last_cut(text[:place], len(begin))
        if place > len(begin):
            more = self._count_from(anchor, text, len(begin), place)
            if more is None:
                return None
            count += more
            self._typed = text[:place], anchor, count
        rest = self._count_from(anchor, text, place, len(text))
        return None if rest is None else count + rest

    def _count_from(self, anchor: str, text: str, start: int, end: int) -> int | None:
        """Ids of a part of `text` that begins at its start or at a cut."""
        if start:
            return len(self._encode(text[start:end]))
        ids = self.ids_behind(anchor, text[:end])
        return None if ids is None else len(ids)

    def anchor_at_end(self, text: str) -> str:
        """The anchor that `text` ends with, or an empty string."""
        for anchor in self.anchors:
            if text.endswith(anchor):
                is_quoted = text[: -len(anchor)].endswith(_MARK_START)
                return "" if is_quoted else anchor
        return ""

    def plain_ids(self, text: str) -> list[int]:
        """Ids of plain text in the middle of a prompt; none of them is a control token."""
        if not text:
            return []
        text = self.neutral(text)
        if self.anchors:
            # Behind a token no tokenizer adds the space that it puts before a prompt.
            return self._encode(next(iter(self.anchors)) + text)[1:]
        newline, ids = self._encode("\n"), self._encode("\n" + text)
        if ids[: len(newline)] == newline:
            return ids[len(newline) :]
        return self._encode(text)

    def _cut(self, text: str) -> list[str]:
        """The pieces of `text`, each but the first beginning with an anchor."""
        cuts = [0]
        for found in self._anchor.finditer(text):
            at = found.start()
            if at == 0 or text[at - 1] != _MARK_START:
                cuts.append(at)
        pieces = [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]
        return [piece for piece in pieces if piece]

    def _piece(self, text: str) -> Sequence[int]:
        known = self._pieces.get(text)
        if known is None:
            known = _compact(self._encode(text))
            self._pieces.put(text, known, _weight_of(known) + len(text))
        return known

    def _encode(self, text: str) -> list[int]:
        with self.lock:
            if self.sanitizes and (_MARK_START in text or _MARK_END in text):
                return [int(i) for i in encode_marked_chat(self._hf, text)]
            if self._backend is None:
                ids: list[int] = self._hf.encode(text, add_special_tokens=False)
                return ids
            # What the line above comes to, without its copies and checks.
            if self._backend.truncation or self._backend.padding:
                self._backend.no_truncation()
                self._backend.no_padding()
            self._backend.encode_special_tokens = self._hf.split_special_tokens
            # Without the places of the tokens in the text, which nobody asks for here.
            [encoding] = self._backend.encode_batch_fast([text], add_special_tokens=False)
            ids = encoding.ids
        return ids

    def _can_sanitize(self, control: Sequence[str]) -> bool:
        with self.lock:
            try:
                encode_marked_chat(self._hf, mark_control_tokens(" ".join(control), self._control))
            except (ValueError, TypeError, NotImplementedError):
                return False
        return True

    def _find_anchors(self, rendered: str) -> dict[str, int]:
        """Tokens in `rendered` that are found wherever they stand and touch nothing before them.

        A token that another one holds or overlaps may not be found; one that looks at its
        neighbours or takes white space from before it is no place to cut.
        """
        tokens = dict(self._hf.added_tokens_decoder)
        if self._backend is None or any(t.single_word for t in tokens.values()):
            return {}
        texts = [str(token.content) for token in tokens.values()]
        anchors = {}
        for token_id, token in tokens.items():
            text = str(token.content)
            if text not in rendered or token.normalized or token.lstrip or text[0].isspace():
                continue
            if any(_overlaps(other, text) for other in texts):
                continue
            if self._encode(f"x{text}{text}x").count(token_id) == 2:
                anchors[text] = int(token_id)
        return anchors


def _weight_of(ids: Sequence[int]) -> int:
    """Bytes that `ids` take up."""
    return len(ids) * (_TUPLE_BYTES if isinstance(ids, tuple) else _ARRAY_BYTES) + 200


def _compact(ids: list[int]) -> Sequence[int]:
    return array("I", ids) if len(ids) >= _LONG else tuple(ids)


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Pattern that finds any of `texts`, the longest first."""
    longest_first = sorted(set(texts), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _overlaps(other: str, text: str) -> bool:
    """Whether `other` can stand in a text so that it holds a beginning of `text`, or all of it."""
    if other != text and text in other:
        return True
    return text[0] in other[1:] and any(
        other.endswith(text[:length]) for length in range(1, min(len(text), len(other)))
    )
