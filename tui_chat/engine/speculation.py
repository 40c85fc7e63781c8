"""Prompt-lookup speculation: drafts copied from the context, verified several at a time.

Each token is still drawn from the model's own distribution at its place. A draft that is drawn
spares a forward pass, for its logits are there already; so a draft x is taken with probability
p(x) and otherwise replaced by a draw from p without x, which is rejection sampling for a draft
that is certain (Leviathan et al. 2023; lookup as in Saxena 2023, "Prompt Lookup Decoding").
"""

import time
from collections.abc import Sequence

from torch import Tensor

from tui_chat.engine.forward import ForwardPass, KVCache
from tui_chat.engine.prompt_cache import cut_back, cut_limit

DRAFT_SIZES = (3, 7, 15)
"""Lengths of drafts; few, because every number of rows has its own cost to learn."""
WORTHWHILE = 1.1
"""The gain that must be expected before drafts are verified."""
LOSS_STEPS, LOSS_SHARE = 1.5, 0.02
"""What drafts may lose in one reply, all told: one and a half steps, and 2 % of its time."""
ASSUMED_COST_PER_ROW = 0.1
"""What one row more is assumed to cost, in steps, until it was measured."""
STALE_AFTER = 512
"""Forward passes after which a cost that looked too high is tried again."""
_CLASS_STARTS = (3, 4, 8, 16)
_CLASS_PRIORS = (0.1, 0.2, 0.5, 0.8, 0.95)
"""Chance that the next token is as foretold, by how many tokens matched so far: 2, 3, 4 …"""
_PRIOR_WEIGHT, _MEMORY = 2.0, 0.95


class PromptLookup:
    """Foretells tokens by what followed the same tokens earlier; constant work per token."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        """Begin with what is there of the context."""
        self._ids: list[int] = []
        self._pairs: dict[tuple[int, int], int] = {}
        self._triples: dict[tuple[int, int, int], int] = {}
        self._source = -1
        self.matched = 0
        """How many of the last tokens stand at the earlier place too; 0 when there is none."""
        for token_id in token_ids:
            self.append(token_id)

    def append(self, token_id: int) -> None:
        """Note the next token of the context."""
        ids, end = self._ids, len(self._ids)
        foretold = self.matched > 0 and ids[self._source] == token_id
        if end >= 2:
            self._pairs[ids[-2], ids[-1]] = end
        if end >= 3:
            self._triples[ids[-3], ids[-2], ids[-1]] = end
        ids.append(token_id)
        if foretold:
            # A copy that goes on stays with its source, also over words that stand twice.
            self._source += 1
            self.matched += 1
            return
        self.matched = 0
        if end >= 2 and (source := self._triples.get((ids[-3], ids[-2], token_id))):
            self._source, self.matched = source, 3
        elif end >= 1 and (source := self._pairs.get((ids[-2], token_id))):
            self._source, self.matched = source, 2

    def draft(self, count: int) -> list[int]:
        """The `count` tokens that are to be expected; none when nothing matches.

        Where the earlier place reaches up to the end of the context, the draft goes on in
        circles, as repetitions do.
        """
        if not self.matched:
            return []
        drafted = self._ids[self._source : self._source + count]
        period = len(drafted)
        while len(drafted) < count:
            drafted.append(drafted[-period])
        return drafted

    def foretells(self, token_id: int) -> bool:
        """Whether `token_id` is the first that a draft would hold."""
        return self.matched > 0 and self._ids[self._source] == token_id


class Acceptance:
    """How often the next token is as foretold in this reply, by the length of the match.

    It learns from every token, also from those that were not drafted.
    """

    def __init__(self) -> None:
        self._hits = [0.0] * len(_CLASS_PRIORS)
        self._tries = [0.0] * len(_CLASS_PRIORS)

    def note(self, matched: int, hit: bool) -> None:
        """Note whether a token was as foretold after `matched` matching tokens."""
        at = _match_class(matched)
        self._hits[at] = self._hits[at] * _MEMORY + hit
        self._tries[at] = self._tries[at] * _MEMORY + 1

    def expected_tokens(self, matched: int, drafted: int) -> float:
        """Tokens that a verification of `drafted` draft tokens is expected to yield."""
        chance, tokens = 1.0, 1.0
        for ahead in range(drafted):
            at = _match_class(matched + ahead)
            prior = _CLASS_PRIORS[at] * _PRIOR_WEIGHT
            chance *= (self._hits[at] + prior) / (self._tries[at] + _PRIOR_WEIGHT)
            tokens += chance
        return tokens


class PassCosts:
    """Measured seconds of forward passes by their rows; kept over the replies of a model."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._noted_at: dict[int, int] = {}
        self._passes = 0

    def note(self, rows: int, seconds: float) -> None:
        """Note a pass; the first of its size is left out, for it sets things up."""
        self._passes += 1
        first = rows not in self._noted_at
        self._noted_at[rows] = self._passes
        if first:
            return
        before = self._seconds.get(rows, seconds)
        # Half of what one slow pass, of a busy machine, would say.
        self._seconds[rows] = before + 0.25 * (min(seconds, 3 * before) - before)

    def step(self) -> float:
        """Seconds of a plain step; 0.0 before one was measured."""
        return self._seconds.get(1, 0.0)

    def of(self, rows: int) -> float:
        """Seconds of a pass over `rows` rows, assumed from a plain step where not measured."""
        assumed = self.step() * (1 + ASSUMED_COST_PER_ROW * (rows - 1))
        measured = self._seconds.get(rows)
        if measured is None:
            return assumed
        stale = self._passes - self._noted_at[rows] > STALE_AFTER
        return min(measured, assumed) if stale else measured


class Steps:
    """The forward passes of one reply, with or without speculation.

    Between two calls the cache may hold drafts that nobody has drawn yet; `close` removes them.
    """

    def __init__(
        self, forward: ForwardPass, cache: KVCache, costs: PassCosts, *, most_ids: int
    ) -> None:
        """Begin after a prefill.

        Args:
            forward: runs the model.
            cache: holds the prompt.
            costs: what passes cost; learns from this reply.
            most_ids: how many ids `cache` may hold, drafts included.
        """
        self.speculates = False
        """Whether drafts may be verified; may be switched at any token."""
        self.drafted_tokens = 0
        """How many drawn tokens were drafted."""
        self._forward, self._cache, self._costs = forward, cache, costs
        self._cut_limit, self._refusal = cut_limit(cache.past_key_values)
        self._most_ids = min(most_ids, self._cut_limit)
        self._acceptance = Acceptance()
        self._lookup: PromptLookup | None = None
        self._spent = self._lost = 0.0
        self._drafts: list[int] = []
        self._rows: Tensor | None = None
        self._drawn = 0

    @property
    def why_not_speculating(self) -> str:
        """Why drafts cannot be verified although they may; empty where they can."""
        blocked = self.speculates and len(self._cache.token_ids) >= self._cut_limit
        return self._refusal if blocked else ""

    def after(self, token_id: int) -> Tensor:
        """Logits (vocabulary,) that follow `token_id`, which was drawn from the last ones."""
        self._note(token_id)
        if self._rows is not None:
            if self._drafts[self._drawn] == token_id:
                return self._next_row(self._rows)
            self.close()
        count = self._worthwhile_draft()
        drafts = self._lookup.draft(count) if self._lookup is not None and count else []
        start = time.perf_counter()
        if not drafts:
            logits = self._forward((token_id,), self._cache)
            self._pay(1, time.perf_counter() - start)
            return logits
        self._rows = self._forward.verify((token_id, *drafts), self._cache)
        self._drafts, self._drawn = drafts, 0
        self._pay(1 + count, time.perf_counter() - start)
        return self._rows[0]

    def close(self) -> None:
        """Cut the drafts that were not drawn out of the cache."""
        if self._rows is None:
            return
        undrawn = len(self._drafts) - self._drawn
        self._rows = None
        if refusal := cut_back(self._cache, len(self._cache.token_ids) - undrawn):
            self._cache.is_intact = False
            raise RuntimeError(f"drafts are left in the cache: {refusal}")

    def _next_row(self, rows: Tensor) -> Tensor:
        self._drawn += 1
        self.drafted_tokens += 1
        self._lost -= self._costs.step()
        if self._drawn == len(self._drafts):
            self._rows = None
        return rows[self._drawn]

    def _note(self, token_id: int) -> None:
        """Let the lookup know the token, and learn from whether it was foretold."""
        if not self.speculates:
            self._lookup = None
            return
        if self._lookup is None:
            held = self._cache.token_ids
            undrawn = len(self._drafts) - self._drawn if self._rows is not None else 0
            self._lookup = PromptLookup(held[: len(held) - undrawn])
        if matched := self._lookup.matched:
            self._acceptance.note(matched, self._lookup.foretells(token_id))
        self._lookup.append(token_id)

    def _worthwhile_draft(self) -> int:
        """How many draft tokens promise the highest gain; 0 where a plain step is as good."""
        lookup, best, gain = self._lookup, 0, WORTHWHILE
        if lookup is None or not lookup.matched:
            return 0
        step = self._costs.step()
        may_lose = LOSS_STEPS * step + LOSS_SHARE * self._spent - self._lost
        room = self._most_ids - len(self._cache.token_ids) - 1
        for count in DRAFT_SIZES:
            if count > room:
                break
            cost = self._costs.of(1 + count)
            if not step or cost - step > may_lose:
                continue
            here = self._acceptance.expected_tokens(lookup.matched, count) * step / cost
            if here > gain:
                best, gain = count, here
        return best

    def _pay(self, rows: int, seconds: float) -> None:
        self._costs.note(rows, seconds)
        self._spent += seconds
        if rows > 1:
            self._lost += seconds - self._costs.step()


def _match_class(matched: int) -> int:
    return sum(matched >= start for start in _CLASS_STARTS)
