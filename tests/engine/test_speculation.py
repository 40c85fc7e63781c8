import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CONFIGS, CheapPasses, tiny_model
from transformers import DynamicCache

from tui_chat.engine.decode import decode, prefill
from tui_chat.engine.forward import ForwardPass, KVCache
from tui_chat.engine.sampling import Sampler, SamplingSettings
from tui_chat.engine.speculation import DRAFT_SIZES, PassCosts, PromptLookup, Steps

pytestmark = pytest.mark.engine

GREEDY = SamplingSettings()
PROMPT = [(7 * i) % 300 + 3 for i in range(20)] * 2
WINDOW = 1000


class DearPasses(CheapPasses):
    """Costs as measured where each row is as slow as a step."""

    def of(self, rows: int) -> float:
        return float(rows)


def never() -> bool:
    return False


def no_sign(token_id: int) -> bool:
    return False


class CopyingPass(ForwardPass):
    """A model that repeats what stood 11 tokens before, with its own opinion at times.

    Its logits get a push towards that token, so that drafts are often right and often not.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.passes = 0
        self.longest = 0

    def _run(self, token_ids: Sequence[int], cache: KVCache, keep: int) -> torch.Tensor:
        logits = super()._run(token_ids, cache, keep).clone()
        held = cache.token_ids
        for row in range(-len(logits), 0):
            end = len(held) + row + 1
            if end >= 11 and end % 13:
                logits[row, held[end - 11]] += 25.0
        self.passes += 1
        self.longest = max(self.longest, len(held))
        return logits


class Run:
    """One reply of the loop, with what is left behind."""

    def __init__(
        self,
        model: Any,
        *,
        speculates: bool,
        chosen: SamplingSettings = GREEDY,
        end_ids: frozenset[int] = frozenset(),
        max_new_tokens: int = 60,
        prompt: list[int] = PROMPT,
        costs: PassCosts | None = None,
        is_cancelled: Callable[["Run"], bool] = lambda run: False,
    ) -> None:
        self.forward = forward = CopyingPass(model)
        self.cache = KVCache(DynamicCache(config=model.config))
        logits = None
        reading = prefill(forward, prompt, self.cache, never)
        try:
            while True:
                next(reading)
        except StopIteration as end:
            logits = end.value
        self.steps = Steps(forward, self.cache, costs or CheapPasses(), most_ids=WINDOW)
        self.steps.speculates = speculates
        self.sampler = Sampler(chosen, "cpu", no_sign, prompt_ids=prompt)
        forward.passes = 0
        self.ids: list[int] = []
        self.reason = ""
        self.tokens = decode(
            self.steps,
            logits,
            self.sampler,
            end_ids=end_ids,
            max_new_tokens=max_new_tokens,
            is_letterless=no_sign,
            is_cancelled=lambda: is_cancelled(self),
        )

    @property
    def passes(self) -> int:
        return self.forward.passes

    def finish(self) -> "Run":
        while True:
            try:
                self.ids.append(next(self.tokens))
            except StopIteration as end:
                self.reason = end.value
                return self

    def assert_cache_is_exact(self, prompt: list[int] = PROMPT) -> None:
        """The cache holds prompt and reply up to, but not with, its last token."""
        assert self.cache.token_ids == prompt + self.ids[:-1]
        assert self.cache.past_key_values.get_seq_length() == len(self.cache.token_ids)


ATTENTION = ("llama", "qwen3", "mixtral", "gpt_neox")
SAMPLED = SamplingSettings(True, temperature=2.0, top_p=0.95, seed=4)
CAREFUL = SamplingSettings(repetition_penalty=1.1, no_repeat_ngram_size=7)


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("chosen", [SamplingSettings(), SAMPLED, CAREFUL], ids=str)
def test_verified_drafts_give_the_ids_of_the_plain_loop(
    kind: str, chosen: SamplingSettings
) -> None:
    plain = Run(tiny_model(kind), speculates=False, chosen=chosen).finish()
    quick = Run(tiny_model(kind), speculates=True, chosen=chosen).finish()

    assert quick.ids == plain.ids
    assert quick.steps.drafted_tokens > 10
    assert quick.passes + quick.steps.drafted_tokens == plain.passes
    quick.assert_cache_is_exact()


@pytest.mark.parametrize("kind", CONFIGS)
def test_models_whose_cache_cannot_be_cut_back_say_why_and_reply_the_same(kind: str) -> None:
    plain = Run(tiny_model(kind), speculates=False).finish()
    quick = Run(tiny_model(kind), speculates=True).finish()

    assert quick.ids == plain.ids
    reasons = {"gemma3": "sliding-window", "lfm2": "recurrent", "qwen3_next": "recurrent"}
    assert reasons.get(kind, "") in quick.steps.why_not_speculating
    assert bool(quick.steps.why_not_speculating) is (kind in reasons)
    assert (quick.steps.drafted_tokens > 0) is (kind not in reasons)
    assert plain.steps.why_not_speculating == ""


def test_sliding_window_is_speculated_over_until_it_is_full() -> None:
    def wider() -> Any:
        model = tiny_model("gemma3")
        model.config.sliding_window = 70
        for module in model.modules():
            if getattr(module, "sliding_window", None):
                module.sliding_window = 70
        return model

    plain = Run(wider(), speculates=False).finish()
    quick = Run(wider(), speculates=True).finish()

    assert quick.ids == plain.ids
    assert 3 < quick.steps.drafted_tokens <= 30
    assert quick.passes + quick.steps.drafted_tokens == plain.passes
    assert "sliding-window" in quick.steps.why_not_speculating


@pytest.mark.parametrize("stop_at", range(1, 40, 3))
def test_loop_may_be_left_at_any_token_and_the_cache_is_exact(stop_at: int) -> None:
    run = Run(tiny_model("llama"), speculates=True)
    for token in run.tokens:
        run.ids.append(token)
        if len(run.ids) == stop_at:
            break
    run.tokens.close()

    run.assert_cache_is_exact()


def test_end_id_inside_a_draft_ends_the_reply() -> None:
    plain = Run(tiny_model("llama"), speculates=False).finish()
    for at in (12, 20, 31):
        end = frozenset({plain.ids[at]})
        cut = Run(tiny_model("llama"), speculates=True, end_ids=end).finish()

        assert cut.ids == plain.ids[: plain.ids.index(plain.ids[at]) + 1]
        assert cut.reason == "stop"
        cut.assert_cache_is_exact()


@pytest.mark.parametrize("limit", [1, 2, 7, 33])
def test_limit_of_new_tokens_holds_inside_a_draft(limit: int) -> None:
    plain = Run(tiny_model("llama"), speculates=False).finish()
    run = Run(tiny_model("llama"), speculates=True, max_new_tokens=limit).finish()

    assert (run.ids, run.reason) == (plain.ids[:limit], "length")


def test_cancel_inside_a_draft_stops_within_one_token() -> None:
    run = Run(
        tiny_model("llama"), speculates=True, is_cancelled=lambda run: len(run.ids) >= 17
    ).finish()

    assert run.reason == "cancelled"
    assert len(run.ids) <= 18
    # The last token is in the cache when the cancel came before its successor was needed.
    assert run.cache.token_ids == PROMPT + run.ids[: len(run.cache.token_ids) - len(PROMPT)]
    assert run.cache.past_key_values.get_seq_length() == len(run.cache.token_ids)


def test_cache_never_holds_more_than_the_window_drafts_included() -> None:
    run = Run(tiny_model("llama"), speculates=True)
    run.steps._most_ids = len(PROMPT) + 30
    for _ in range(31):
        run.ids.append(next(run.tokens))
    run.tokens.close()

    assert run.steps.drafted_tokens > 0
    assert run.forward.longest == len(PROMPT) + 30


@pytest.mark.parametrize("switch_at", [1, 9, 14, 20])
def test_settings_may_change_inside_a_draft_from_the_next_token_on(switch_at: int) -> None:
    """Speculation on and off, and another way of choosing, at the same token in both loops."""
    results = []
    for speculates in (False, True):
        run = Run(tiny_model("llama"), speculates=speculates)
        for token in run.tokens:
            run.ids.append(token)
            if len(run.ids) == switch_at:
                run.sampler.change(CAREFUL)
                run.steps.speculates = False
            if len(run.ids) == 30:
                run.sampler.change(SamplingSettings())
                run.steps.speculates = speculates
        results.append(run)

    assert results[0].ids == results[1].ids
    assert results[1].steps.drafted_tokens > 0


def test_drafts_do_not_change_the_distribution() -> None:
    """Sequences of three tokens, counted with and without drafts against their exact chances."""
    random = torch.Generator().manual_seed(1)
    tables = torch.randn(4, 4, generator=random) * 1.2
    # Each pair of tokens is there, so there is a draft at every place.
    prompt = [0, 0, 1, 0, 2, 0, 3, 1, 1, 2, 1, 3, 2, 2, 3, 3, 0]
    draws = 6000
    counts = torch.zeros(4, 4, 4)
    chosen = SamplingSettings(True, temperature=0.9, top_k=3, seed=8)
    judge = Sampler(chosen, "cpu", no_sign)
    expected = torch.zeros(4, 4, 4)
    rows = [judge.probabilities(tables[token]) for token in range(4)]
    for a in range(4):
        for b in range(4):
            expected[a, b] = rows[prompt[-1]][a] * rows[a][b] * rows[b] * draws
    sampler = Sampler(chosen, "cpu", no_sign)
    drafted = 0
    for _ in range(draws):
        steps = Steps(_Table(tables), _table_cache(prompt), CheapPasses(), most_ids=100)
        steps.speculates = True
        ids = list(
            decode(
                steps,
                tables[prompt[-1]],
                sampler,
                end_ids=frozenset(),
                max_new_tokens=3,
                is_letterless=no_sign,
                is_cancelled=never,
            )
        )
        counts[tuple(ids)] += 1
        drafted += steps.drafted_tokens

    assert drafted > draws / 10
    kept = expected > 0
    assert int(counts[~kept].sum()) == 0
    freedom = int(kept.sum()) - 1
    chi_square = float(((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum())
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


class _Table:
    """A model of four tokens whose logits hang on the last token alone."""

    def __init__(self, tables: torch.Tensor) -> None:
        self._tables = tables

    def __call__(self, token_ids: Any, cache: KVCache) -> torch.Tensor:
        return self.verify(token_ids, cache)[-1]

    def verify(self, token_ids: Any, cache: KVCache) -> torch.Tensor:
        cache.token_ids.extend(token_ids)
        states = torch.zeros(1, 1, len(token_ids), 1)
        cache.past_key_values.update(states, states, 0)
        return self._tables[list(token_ids)]


def _table_cache(prompt: list[int]) -> KVCache:
    cache = KVCache(DynamicCache())
    states = torch.zeros(1, 1, len(prompt), 1)
    cache.past_key_values.update(states, states, 0)
    cache.token_ids.extend(prompt)
    return cache


def test_drafts_that_cost_what_they_spare_are_not_verified() -> None:
    run = Run(tiny_model("llama"), speculates=True, costs=DearPasses()).finish()

    assert run.steps.drafted_tokens == 0
    assert run.passes == len(run.ids) - 1


def test_wrong_drafts_end_after_a_few_tries() -> None:
    """A context full of pairs whose successors are never right."""
    random = torch.Generator().manual_seed(2)
    model = tiny_model("llama", vocab_size=40)
    prompt = torch.randint(0, 40, (400,), generator=random).tolist()
    chosen, costs = SamplingSettings(True, temperature=50.0, seed=1), _Costs()
    run = Run(
        model, speculates=True, chosen=chosen, max_new_tokens=300, prompt=prompt, costs=costs
    ).finish()

    assert run.passes >= 290
    assert costs.verifications < 10


class _Costs(CheapPasses):
    """A verification costs two steps, as on a CPU; counts them."""

    verifications = 0

    def of(self, rows: int) -> float:
        return 2.0

    def note(self, rows: int, seconds: float) -> None:
        self.verifications += rows > 1


def test_costs_leave_out_the_first_pass_and_follow_the_clock() -> None:
    costs = PassCosts()
    assert costs.step() == 0.0
    costs.note(1, 50.0)
    assert costs.step() == 0.0
    costs.note(1, 1.0)
    assert costs.step() == 1.0
    assert costs.of(4) == pytest.approx(1.3)
    costs.note(4, 99.0)
    costs.note(4, 3.0)
    assert costs.of(4) == 3.0
    for _ in range(30):
        costs.note(4, 1.5)
    assert costs.of(4) == pytest.approx(1.5, rel=0.01)
    costs.note(1, 1000.0)
    assert costs.step() < 2.0


def test_cost_that_was_too_high_is_tried_again_after_long() -> None:
    costs = PassCosts()
    for rows, seconds in ((1, 1.0), (1, 1.0), (4, 9.0), (4, 9.0)):
        costs.note(rows, seconds)
    assert costs.of(4) == 9.0
    for _ in range(600):
        costs.note(1, 1.0)

    assert costs.of(4) < 2.0


@settings(max_examples=200, deadline=None)
@given(
    ids=st.lists(st.integers(0, 3), max_size=60),
    count=st.sampled_from(DRAFT_SIZES),
    cut=st.integers(0, 60),
)
def test_lookup_foretells_what_followed_an_earlier_match(
    ids: list[int], count: int, cut: int
) -> None:
    lookup = PromptLookup(ids[:cut])
    for token in ids[cut:]:
        lookup.append(token)
    draft = lookup.draft(count)
    ends = [end for end in range(2, len(ids)) if ids[end - 2 : end] == ids[-2:]]

    assert bool(draft) is bool(ends)
    if draft:
        matched = lookup.matched
        assert len(draft) == count
        assert any(
            ids[end - matched : end] == ids[-matched:] and (ids + draft)[end : end + count] == draft
            for end in ends
        )


def test_copy_stays_with_its_source_over_words_that_stand_twice() -> None:
    text = [1, 2, 3, 4, 5, 6, 7, 8]
    other = [4, 5, 6, 99, 98]
    lookup = PromptLookup([*text, *other, 1, 2, 3, 4, 5, 6])

    assert lookup.draft(2) == [7, 8]
