"""The next token from logits: penalties, blocked n-grams, temperature, top-k, top-p, min-p.

The order and the result are those of transformers' own processors; the cost is not, because
the whole vocabulary is sorted only where its best part does not settle the matter.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tui_chat.types import PenaltyScope

CANDIDATES = (256, 2048)
"""How many of the best logits are looked at, first and second; then the whole vocabulary."""

NO_NUMBER = "The model computed no valid number; try another precision or a smaller context."


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How to choose; every value is set. 0 switches top-k and the n-gram block off."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    penalty_scope: PenaltyScope = "reply"
    seed: int | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the best token is always taken."""
        return not self.do_sample or self.temperature <= 0


class NgramTable:
    """Which tokens would repeat an n-gram; constant work per token."""

    def __init__(self, size: int, is_wordless: Callable[[int], bool]) -> None:
        self._size = size
        self._is_wordless = is_wordless
        self._followers: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
        self._tail: tuple[int, ...] = ()

    def append(self, token_id: int) -> None:
        """Note the next token."""
        start = self._tail
        if len(start) == self._size - 1:
            # Rules and table borders repeat signs by nature; blocking them breaks Markdown.
            if not all(self._is_wordless(token) for token in (*start, token_id)):
                self._followers[start].add(token_id)
            start = start[1:] if start else start
        self._tail = (*start, token_id) if self._size > 1 else ()

    def blocked(self) -> set[int]:
        """Ids that would complete an n-gram for the second time."""
        if len(self._tail) < self._size - 1:
            return set()
        return self._followers.get(self._tail, set())


class Sampler:
    """Chooses the tokens of one reply and remembers them for the penalties."""

    def __init__(
        self,
        settings: SamplingSettings,
        device: torch.device | str,
        is_wordless: Callable[[int], bool],
        *,
        prompt_ids: Sequence[int] = (),
        continued: int = 0,
    ) -> None:
        """Begin a reply.

        Args:
            settings: how to choose.
            device: where the logits are.
            is_wordless: whether a token holds no letter and no digit.
            prompt_ids: what the reply answers; the penalties look at it in the scope "context".
            continued: how many of the last `prompt_ids` are the beginning of the reply.
        """
        self._device = torch.device(device)
        self._is_wordless = is_wordless
        self._ids = list(prompt_ids)
        self._reply_start = len(self._ids) - continued
        self._generator: torch.Generator | None = None
        self.change(settings)

    def change(self, settings: SamplingSettings) -> None:
        """Choose by `settings` from the next token on; what was seen so far stays known.

        The draws of a reply come from one generator, so its first seed holds to its end.
        """
        self.settings = settings
        if self._generator is None and not settings.is_greedy:
            self._generator = torch.Generator(device=self._device)
            if settings.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(settings.seed)
        start = 0 if settings.penalty_scope == "context" else self._reply_start
        penalised = self._ids[start:] if settings.repetition_penalty != 1.0 else []
        self._seen = set(penalised)
        self._seen_ids = torch.tensor(list(self._seen), dtype=torch.long, device=self._device)
        size = settings.no_repeat_ngram_size
        self._ngrams = NgramTable(size, self._is_wordless) if size > 0 else None
        if self._ngrams is not None:
            for token_id in self._ids[start:]:
                self._ngrams.append(token_id)

    @property
    def penalised_ids(self) -> Tensor:
        """The ids that the repetition penalty looks at, on the device of the logits."""
        return self._seen_ids

    def sample(self, logits: Tensor) -> int:
        """Choose the next token from `logits` of shape (vocabulary,) and note it.

        Raises:
            FloatingPointError: the logits hold NaN or infinity, or nothing is left to choose.
        """
        scores = self._penalised(logits)
        if self.settings.is_greedy:
            best, index = scores.max(dim=-1)
            _check(best)
            token = int(index)
        else:
            probabilities, ids = self._candidates(scores.div_(self.settings.temperature))
            drawn = torch.multinomial(probabilities, 1, generator=self._generator)
            token = int(ids[drawn]) if ids is not None else int(drawn)
        self.append(token)
        return token

    def probabilities(self, logits: Tensor) -> Tensor:
        """The distribution that `sample` draws from, as float32 of shape (vocabulary,)."""
        scores = self._penalised(logits)
        result = torch.zeros_like(scores)
        if self.settings.is_greedy:
            best, index = scores.max(dim=-1)
            _check(best)
            result[index] = 1.0
            return result
        probabilities, ids = self._candidates(scores.div_(self.settings.temperature))
        if ids is None:
            return probabilities
        result[ids] = probabilities
        return result

    def append(self, token_id: int) -> None:
        """Note a token of the reply, so that the penalties know it."""
        self._ids.append(token_id)
        if self._ngrams is not None:
            self._ngrams.append(token_id)
        if self.settings.repetition_penalty != 1.0 and token_id not in self._seen:
            self._seen.add(token_id)
            added = torch.tensor([token_id], device=self._device)
            self._seen_ids = torch.cat([self._seen_ids, added])

    def _penalised(self, logits: Tensor) -> Tensor:
        """A float32 copy of `logits` after repetition penalty and n-gram block."""
        scores = logits.to(torch.float32, copy=True)
        penalty = self.settings.repetition_penalty
        if self._seen:
            seen = scores[self._seen_ids]
            scores[self._seen_ids] = torch.where(seen < 0, seen * penalty, seen / penalty)
        if self._ngrams is not None and (blocked := self._ngrams.blocked()):
            scores[torch.tensor(sorted(blocked), device=self._device)] = -math.inf
        return scores

    def _candidates(self, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """Probabilities of the tokens that may be drawn and their ids (None: all, in order)."""
        settings, size = self.settings, scores.shape[-1]
        if not (0 < settings.top_k < size or settings.top_p < 1.0 or settings.min_p > 0.0):
            _check(scores.max())
            return torch.softmax(scores, dim=-1), None
        for count in CANDIDATES:
            if settings.top_k < count < size:
                values, ids = scores.topk(count)
                kept = self._kept(values, scores)
                # Where all of them pass, others may as well.
                if kept < count:
                    return torch.softmax(values[:kept], dim=-1), ids[:kept]
        values, ids = scores.sort(descending=True)
        kept = self._kept(values, scores)
        return torch.softmax(values[:kept], dim=-1), ids[:kept]

    def _kept(self, values: Tensor, scores: Tensor) -> int:
        """How many of `values`, the best of `scores` in falling order, may be drawn."""
        settings = self.settings
        _check(values[0])
        keep = torch.isfinite(values)
        mass = scores
        if 0 < settings.top_k < scores.shape[-1]:
            keep &= values >= values[settings.top_k - 1]
            mass = values[keep]
        if settings.top_p < 1.0:
            shares = torch.exp(values - torch.logsumexp(mass, dim=-1))
            before = torch.cumsum(shares, dim=-1) - shares
            keep &= before < settings.top_p
        if settings.min_p > 0.0:
            keep &= values >= values[0] + math.log(settings.min_p)
        return max(1, int(keep.sum()))


def _check(best: Tensor) -> None:
    """Raise where the best score is NaN or infinite; torch's `max` hands a NaN on."""
    if not math.isfinite(float(best)):
        raise FloatingPointError(NO_NUMBER)
