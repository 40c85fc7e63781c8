"""The next token as tensor arithmetic that never waits for the device: part of a decode step.

The distribution is that of `sampling.Sampler`. The settings are tensors, so a step that was
captured once serves every mode and reply.
"""

import math

import torch
from torch import Tensor

from tui_chat.engine.sampling import Sampler, SamplingSettings

CANDIDATES = 256
"""How many of the best logits are put in order; what they do not settle is said, not cut off."""
SMALLEST_TOP_P = 1e-6
"""The best token is always kept."""


class DeviceSampler:
    """Chooses tokens of one reply on the device and remembers them for the penalty."""

    def __init__(self, vocabulary: int, device: torch.device | str) -> None:
        """Args: vocabulary: how many logits there are. device: where they are."""
        self._device = torch.device(device)
        self._candidates = min(CANDIDATES, vocabulary)
        self.generator = _generator(self._device)
        self.seen = torch.zeros(vocabulary, dtype=torch.bool, device=self._device)
        """Which tokens the reply holds."""
        self._is_greedy = self._setting(True, torch.bool)
        self._temperature = self._setting(1.0)
        self._top_k = self._setting(0, torch.long)
        self._top_p = self._setting(1.0)
        self._log_min_p = self._setting(-math.inf)
        self._penalty = self._setting(1.0)

    def _setting(self, value: float, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.full((), value, dtype=dtype, device=self._device)

    def can_draw(self, settings: SamplingSettings) -> bool:
        """Whether these settings can be followed here.

        A block of n-grams needs the table that the host keeps, and a top-k above the number of
        candidates the whole order; such replies are drawn by `Sampler` from the same logits.
        """
        if settings.no_repeat_ngram_size > 0:
            return False
        whole = settings.is_greedy or settings.top_k >= self.seen.shape[0]
        return whole or settings.top_k <= self._candidates

    def begin(self, sampler: Sampler) -> None:
        """Begin the reply of `sampler`: follow it, and seed the draws.

        The draws of one seed are the same each time, but not those of `sampler` itself.
        """
        self.follow(sampler)
        seed = sampler.settings.seed
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)

    def follow(self, sampler: Sampler) -> None:
        """Draw by the settings of `sampler` from now on, having seen what it has seen."""
        settings = sampler.settings
        greedy = settings.is_greedy
        top_k = settings.top_k if settings.top_k <= self._candidates else 0
        self._is_greedy.fill_(greedy)
        self._temperature.fill_(1.0 if greedy else settings.temperature)
        self._top_k.fill_(top_k)
        self._top_p.fill_(max(settings.top_p, SMALLEST_TOP_P))
        self._log_min_p.fill_(math.log(settings.min_p) if settings.min_p > 0 else -math.inf)
        self._penalty.fill_(settings.repetition_penalty)
        self.seen.zero_()
        self.seen[sampler.penalised_ids] = True

    def __call__(self, logits: Tensor) -> Tensor:
        """Choose from `logits` of shape (vocabulary,) and note the token.

        Returns int64 (3,): the token, whether the best logit is a number, and whether the
        candidates settled the choice. Where they did not, the token is not to be used.
        """
        weights, best, index, is_settled = self._weigh(logits)
        noise = torch.empty_like(weights).exponential_(1.0, generator=self.generator)
        # The largest of p / Exp(1) falls on each token as often as its p says; multinomial
        # draws one sample so, too. A token that is left out must lose against p = 0 as well.
        drawn = torch.where(weights < 0, weights, weights / noise).argmax(-1)
        token = torch.where(self._is_greedy, index, drawn)
        self.seen.scatter_(0, token.view(1), True)
        is_number = torch.isfinite(best)
        return torch.stack((token, is_number.long(), (is_settled | self._is_greedy).long()))

    def probabilities(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution of a draw, float32 (vocabulary,), and whether it is settled."""
        weights, _, _, is_settled = self._weigh(logits)
        kept = weights.clamp(min=0.0)
        return kept / kept.sum(), is_settled

    def _weigh(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What each token weighs in the draw (below 0: left out), the best score and its index.

        The last is whether the candidates were enough: all of them being in a nucleus, others
        may be in it as well.
        """
        scores = logits.float()
        divided = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
        scores = torch.where(self.seen, divided, scores) / self._temperature
        best, index = scores.max(dim=-1)
        values, ids = scores.topk(self._candidates)
        last = values.gather(0, (self._top_k - 1).clamp(min=0).view(1))
        k_floor = last.masked_fill(self._top_k <= 0, -math.inf)
        floor = torch.maximum(k_floor, best + self._log_min_p)
        mass = scores.masked_fill(scores < k_floor, -math.inf).logsumexp(-1)
        shares = (values - mass).exp()
        before = shares.cumsum(-1) - shares
        in_nucleus = (before < self._top_p) & (values >= floor)
        has_top_p = self._top_p < 1.0
        nucleus = torch.zeros_like(self.seen).scatter_(0, ids, in_nucleus)
        keep = torch.where(has_top_p, nucleus, scores >= floor)
        weights = (scores - best).exp().masked_fill(~keep, -1.0)
        is_whole = self._candidates == scores.shape[-1]
        is_settled = ~(has_top_p & in_nucleus[-1]) | is_whole
        return weights, best, index, is_settled


def _generator(device: torch.device) -> torch.Generator:
    """On CUDA the device's own, which every graph knows without being told."""
    if device.type != "cuda":
        return torch.Generator(device=device)
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
