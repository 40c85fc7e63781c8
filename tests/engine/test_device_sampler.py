import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sampling import all_words, plain_probabilities

from tui_chat.engine.device_sampler import DeviceSampler
from tui_chat.engine.sampling import Sampler, SamplingSettings

pytestmark = pytest.mark.engine

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def device_sampler(
    chosen: SamplingSettings, size: int, reply: list[int] | None = None, device: str = "cpu"
) -> DeviceSampler:
    """One that begins a reply, having seen `reply` of it."""
    host = Sampler(chosen, device, all_words, prompt_ids=reply or [], continued=len(reply or []))
    ours = DeviceSampler(size, device)
    ours.begin(host)
    return ours


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([5, 200, 400, 3000]),
    spread=st.sampled_from([0.05, 1.0, 5.0]),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 20, 256, 5000]),
    top_p=st.sampled_from([0.1, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.9]),
    penalty=st.sampled_from([1.0, 1.1, 0.8]),
)
def test_distribution_is_that_of_the_plain_processors_or_said_not_to_be_settled(
    seed: int,
    size: int,
    spread: float,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalty: float,
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=random) * spread
    reply = torch.randint(0, min(size, 4), (12,), generator=random).tolist()
    chosen = SamplingSettings(True, temperature, top_k, top_p, min_p, penalty, seed=1)
    ours = device_sampler(chosen, size, reply)

    probabilities, is_settled = ours.probabilities(logits)
    plain = plain_probabilities(logits, chosen, reply)

    assert ours.can_draw(chosen)
    if not is_settled:
        # Only a nucleus that may be wider than what was put in order is left to the host.
        assert size > 256 and top_p < 1.0
        assert int((plain > 0).sum()) >= 255 or min_p > 0.0
        return
    difference = (probabilities > 0) != (plain > 0)
    # Where the sum of the kept tokens meets top-p within rounding, one token more may be in.
    assert int(difference.sum()) <= 1
    if not difference.any():
        torch.testing.assert_close(probabilities, plain, atol=1e-5, rtol=1e-3)


def test_equal_logits_at_the_limit_of_top_k_are_all_kept_as_in_transformers() -> None:
    logits = torch.zeros(3000, dtype=torch.bfloat16)
    logits[7] = 1.0
    chosen = SamplingSettings(True, top_k=10)

    ours, is_settled = device_sampler(chosen, 3000).probabilities(logits)

    assert is_settled
    torch.testing.assert_close(ours, plain_probabilities(logits, chosen, []))


def test_a_nucleus_wider_than_the_candidates_is_not_settled_and_never_cut_off() -> None:
    logits = torch.linspace(0.0, 0.01, 5000)

    outcome = device_sampler(SamplingSettings(True, top_p=0.9), 5000)(logits)
    whole = device_sampler(SamplingSettings(True), 5000)(logits)
    min_p = device_sampler(SamplingSettings(True, min_p=0.5), 5000).probabilities(logits)

    assert outcome[1:].tolist() == [1, 0]
    assert whole[1:].tolist() == [1, 1]
    assert int((min_p[0] > 0).sum()) == 5000


@pytest.mark.parametrize(
    "chosen",
    [
        SamplingSettings(True, top_p=0.5, seed=11),
        SamplingSettings(True, temperature=0.7, seed=12),
        SamplingSettings(True, temperature=1.3, top_k=30, top_p=0.9, min_p=0.02, seed=13),
    ],
    ids=["top-p", "everything", "all limits"],
)
def test_draws_follow_the_distribution(chosen: SamplingSettings, device: str) -> None:
    logits = torch.randn(300, generator=torch.Generator().manual_seed(3)) * 2
    ours = device_sampler(chosen, 300, device=device)
    expected = plain_probabilities(logits, chosen, [])
    draws, on_device = 6000, logits.to(device)

    drawn = torch.stack([ours(on_device)[0] for _ in range(draws)]).cpu()
    counts = torch.bincount(drawn, minlength=300).float()

    assert int(counts[expected == 0].sum()) == 0
    # Rare tokens are counted together, as the test wants at least a few of each.
    often = expected * draws >= 5
    observed = torch.cat([counts[often], counts[~often].sum().view(1)])
    mean = torch.cat([expected[often], expected[~often].sum().view(1)]) * draws
    observed, mean = observed[mean > 0], mean[mean > 0]
    chi_square = float(((observed - mean) ** 2 / mean).sum())
    freedom = len(mean) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


def test_same_seed_draws_the_same_tokens(device: str) -> None:
    logits = torch.randn(500, generator=torch.Generator().manual_seed(3)).to(device)

    def drawn(seed: int) -> list[int]:
        ours = device_sampler(SamplingSettings(True, seed=seed), 500, device=device)
        return [int(ours(logits)[0]) for _ in range(20)]

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)


@pytest.mark.parametrize(
    "chosen",
    [SamplingSettings(), SamplingSettings(True, temperature=0.0, top_p=0.1)],
    ids=["greedy", "cold"],
)
def test_greedy_takes_the_best_token_and_the_penalty_sees_it(
    chosen: SamplingSettings, device: str
) -> None:
    logits = torch.tensor([0.1, 3.0, 2.9], device=device)
    ours = device_sampler(chosen, 3, device=device)
    host = Sampler(
        SamplingSettings(repetition_penalty=1.2), device, all_words, prompt_ids=[1], continued=1
    )

    assert ours(logits).tolist() == [1, 1, 1]
    ours.follow(host)
    assert ours(logits).tolist() == [2, 1, 1]
    assert ours.seen.tolist() == [False, True, True]
    assert ours(logits).tolist() == [1, 1, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "chosen",
    [SamplingSettings(), SamplingSettings(True), SamplingSettings(True, top_p=0.9)],
    ids=["greedy", "plain", "top-p"],
)
def test_numbers_that_are_none_are_told(chosen: SamplingSettings, bad: float, device: str) -> None:
    logits = torch.zeros(3000, device=device)
    logits[5] = bad
    nothing = torch.full((10,), -math.inf, device=device)

    assert int(device_sampler(chosen, 3000, device=device)(logits)[1]) == 0
    assert int(device_sampler(chosen, 10, device=device)(nothing)[1]) == 0


def test_what_needs_the_host_is_told_in_advance() -> None:
    ours = DeviceSampler(3000, "cpu")

    assert ours.can_draw(SamplingSettings(True, top_k=256))
    assert ours.can_draw(SamplingSettings(True, top_k=3000))
    assert ours.can_draw(SamplingSettings(False, top_k=257))
    assert not ours.can_draw(SamplingSettings(True, top_k=257))
    assert not ours.can_draw(SamplingSettings(no_repeat_ngram_size=3))
