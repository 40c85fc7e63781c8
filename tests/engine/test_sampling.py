import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList, MinPLogitsWarper
from transformers.generation.logits_process import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tui_chat.engine.sampling import Sampler, SamplingSettings

pytestmark = pytest.mark.engine


def all_words(token_id: int) -> bool:
    return False


def sampler(chosen: SamplingSettings, is_wordless: Callable[[int], bool] = all_words) -> Sampler:
    return Sampler(chosen, "cpu", is_wordless)


def plain_probabilities(
    logits: torch.Tensor, chosen: SamplingSettings, reply: list[int]
) -> torch.Tensor:
    """The distribution that transformers' own processors make."""
    processors = LogitsProcessorList()
    if chosen.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(chosen.repetition_penalty))
    if chosen.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(chosen.no_repeat_ngram_size))
    processors.append(TemperatureLogitsWarper(chosen.temperature))
    if chosen.top_k:
        processors.append(TopKLogitsWarper(chosen.top_k))
    if chosen.top_p < 1.0:
        processors.append(TopPLogitsWarper(chosen.top_p))
    if chosen.min_p > 0.0:
        processors.append(MinPLogitsWarper(chosen.min_p))
    ids = torch.tensor([reply], dtype=torch.long)
    return torch.softmax(processors(ids, logits[None].float()), dim=-1)[0]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([5, 400, 3000]),
    spread=st.sampled_from([0.05, 1.0, 5.0]),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 20, 1500, 5000]),
    top_p=st.sampled_from([0.1, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.9]),
    penalty=st.sampled_from([1.0, 1.1, 0.8]),
    ngram=st.sampled_from([0, 1, 2, 3]),
)
def test_distribution_is_that_of_the_plain_processors(
    seed: int,
    size: int,
    spread: float,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalty: float,
    ngram: int,
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=random) * spread
    reply = torch.randint(0, min(size, 4), (12,), generator=random).tolist()
    if ngram == 1:
        reply = reply[:1]
    chosen = SamplingSettings(True, temperature, top_k, top_p, min_p, penalty, ngram, seed=1)
    ours = sampler(chosen)
    for token in reply:
        ours.append(token)

    probabilities = ours.probabilities(logits)
    plain = plain_probabilities(logits, chosen, reply)

    # Where the sum of the kept tokens meets top-p within rounding, one token more may be in.
    difference = (probabilities > 0) != (plain > 0)
    assert int(difference.sum()) <= 1
    if not difference.any():
        torch.testing.assert_close(probabilities, plain, atol=1e-5, rtol=1e-3)


def test_flat_distribution_falls_back_to_the_whole_vocabulary() -> None:
    logits = torch.linspace(0.0, 0.01, 5000)

    probabilities = sampler(SamplingSettings(True, top_p=0.9)).probabilities(logits)

    assert 4400 < int((probabilities > 0).sum()) < 4600


def test_equal_logits_at_the_limit_of_top_k_are_all_kept_as_in_transformers() -> None:
    logits = torch.zeros(3000, dtype=torch.bfloat16)
    logits[7] = 1.0
    chosen = SamplingSettings(True, top_k=10)

    ours = sampler(chosen).probabilities(logits)

    torch.testing.assert_close(ours, plain_probabilities(logits, chosen, []))


def test_draws_follow_the_distribution() -> None:
    logits = torch.randn(2000, generator=torch.Generator().manual_seed(3)) * 2
    chosen = SamplingSettings(True, top_p=0.5, seed=11)
    ours = sampler(chosen)
    expected = plain_probabilities(logits, chosen, [])
    draws = 4000

    counts = torch.zeros(2000)
    for _ in range(draws):
        counts[ours.sample(logits)] += 1

    kept = expected > 0
    assert int(counts[~kept].sum()) == 0
    mean = expected[kept] * draws
    freedom = int(kept.sum()) - 1
    chi_square = float(((counts[kept] - mean) ** 2 / mean).sum())
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


def test_same_seed_draws_the_same_tokens() -> None:
    logits = torch.randn(500, generator=torch.Generator().manual_seed(3))
    first, second, other = (sampler(SamplingSettings(True, seed=seed)) for seed in (5, 5, 6))

    drawn = [first.sample(logits) for _ in range(20)]

    assert drawn == [second.sample(logits) for _ in range(20)]
    assert drawn != [other.sample(logits) for _ in range(20)]


@pytest.mark.parametrize(
    "chosen", [SamplingSettings(), SamplingSettings(True, temperature=0.0)], ids=["greedy", "cold"]
)
def test_greedy_takes_the_best_token(chosen: SamplingSettings) -> None:
    logits = torch.tensor([0.1, 3.0, 2.9])

    assert sampler(chosen).sample(logits) == 1
    assert sampler(chosen).probabilities(logits).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "chosen",
    [SamplingSettings(), SamplingSettings(True), SamplingSettings(True, top_p=0.9)],
    ids=["greedy", "plain", "top-p"],
)
def test_numbers_that_are_none_raise_instead_of_choosing(
    chosen: SamplingSettings, bad: float
) -> None:
    logits = torch.zeros(3000)
    logits[5] = bad

    with pytest.raises(FloatingPointError, match="no valid number"):
        sampler(chosen).sample(logits)


def test_nothing_left_to_choose_raises() -> None:
    with pytest.raises(FloatingPointError):
        sampler(SamplingSettings(True)).sample(torch.full((10,), -math.inf))


def test_ngrams_of_signs_alone_are_never_blocked() -> None:
    pipe, dashes, word = 0, 1, 2
    ours = sampler(SamplingSettings(no_repeat_ngram_size=3), lambda token: token != word)
    for token in (pipe, dashes, pipe, dashes, pipe, word, pipe, dashes, pipe, word):
        ours.append(token)

    # pipe, word -> pipe has been there; dashes, pipe -> dashes too, but holds no word.
    assert ours.sample(torch.tensor([3.0, 2.0, 1.0])) == dashes
    ours = sampler(SamplingSettings(no_repeat_ngram_size=3), lambda token: token != word)
    for token in (pipe, dashes, pipe, dashes, pipe):
        ours.append(token)
    assert ours.sample(torch.tensor([1.0, 3.0, 2.0])) == dashes


def test_scope_context_penalises_what_the_prompt_holds_and_scope_reply_does_not() -> None:
    logits = torch.tensor([3.0, 2.9, 1.0, 0.5])
    prompt, reply = [0, 2], [3]

    for scope, seen in (("reply", reply), ("context", prompt + reply)):
        chosen = SamplingSettings(True, repetition_penalty=1.3, penalty_scope=scope)  # type: ignore[arg-type]
        ours = Sampler(chosen, "cpu", all_words, prompt_ids=prompt)
        ours.append(3)
        torch.testing.assert_close(
            ours.probabilities(logits), plain_probabilities(logits, chosen, seen)
        )


def test_scope_context_blocks_ngrams_of_the_prompt() -> None:
    logits = torch.tensor([3.0, 2.0, 1.0])
    chosen = SamplingSettings(no_repeat_ngram_size=2)
    prompt = [1, 0, 2, 1]

    assert Sampler(chosen, "cpu", all_words, prompt_ids=prompt).sample(logits) == 0
    wide = replace(chosen, penalty_scope="context")
    assert Sampler(wide, "cpu", all_words, prompt_ids=prompt).sample(logits) == 1


def test_reply_that_goes_on_is_penalised_for_its_beginning() -> None:
    logits = torch.tensor([3.0, 2.9, 1.0, 0.5])
    chosen = SamplingSettings(True, repetition_penalty=1.3, no_repeat_ngram_size=1)
    ours = Sampler(chosen, "cpu", all_words, prompt_ids=[0, 2, 3], continued=1)

    torch.testing.assert_close(ours.probabilities(logits), plain_probabilities(logits, chosen, [3]))


@pytest.mark.parametrize("start", [SamplingSettings(), SamplingSettings(True, seed=3)])
def test_changed_settings_know_what_came_before_them(start: SamplingSettings) -> None:
    random = torch.Generator().manual_seed(5)
    careful = SamplingSettings(True, 0.7, 40, 0.9, 0.0, 1.2, 2, seed=9)
    ours = sampler(start)
    reply = [ours.sample(torch.randn(30, generator=random)) for _ in range(25)]
    logits = torch.randn(30, generator=random)

    ours.change(careful)
    changed = ours.probabilities(logits)
    ours.change(start)

    torch.testing.assert_close(changed, plain_probabilities(logits, careful, reply))
    torch.testing.assert_close(ours.probabilities(logits), sampler(start).probabilities(logits))


def test_change_in_the_middle_keeps_the_row_of_draws() -> None:
    logits = torch.randn(500, generator=torch.Generator().manual_seed(3))
    chosen = SamplingSettings(True, seed=5)
    whole, switched = sampler(chosen), sampler(chosen)

    expected = [whole.sample(logits) for _ in range(20)]
    drawn = [switched.sample(logits) for _ in range(10)]
    switched.change(replace(chosen, seed=6))

    assert drawn + [switched.sample(logits) for _ in range(10)] == expected


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 2048, 2049, 5000])
def test_every_size_of_vocabulary_keeps_what_the_plain_processors_keep(size: int) -> None:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(size))
    for top_k, top_p in ((0, 0.95), (255, 1.0), (256, 1.0), (2048, 0.999), (3000, 0.9)):
        chosen = SamplingSettings(True, 1.0, top_k, top_p)

        ours = sampler(chosen).probabilities(logits)

        torch.testing.assert_close(ours, plain_probabilities(logits, chosen, []))
