import pytest
import torch
from tiny_models import CONFIGS, tiny_model

from tui_chat.engine.decode import prefill
from tui_chat.engine.forward import ForwardPass
from tui_chat.engine.prompt_cache import PromptCache, common_prefix

pytestmark = pytest.mark.engine

PROMPT = [(7 * i) % 300 + 3 for i in range(40)]
CROPPABLE = ("llama", "qwen3", "mixtral", "gpt_neox")


def read(forward: ForwardPass, cache: PromptCache, ids: list[int]) -> tuple[torch.Tensor, int]:
    """Logits after `ids` and how many ids were reused."""
    kv = cache.reuse(ids)
    reused = len(kv.token_ids)
    steps = prefill(forward, ids, kv, lambda: False)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, reused


@pytest.fixture(params=CONFIGS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    "following",
    [
        [*PROMPT, 5, 6, 7, 8],
        [*PROMPT[:30], 5, 6, 7, 8],
        PROMPT[:12],
        PROMPT,
        [9, *PROMPT],
        PROMPT[:1],
    ],
    ids=["appended", "edited", "shortened", "repeated", "other", "single"],
)
def test_logits_from_a_reused_cache_are_those_of_a_fresh_one(
    kind: str, following: list[int]
) -> None:
    forward = ForwardPass(tiny_model(kind))
    kept = PromptCache(forward.model.config)
    read(forward, kept, PROMPT)

    reused, _ = read(forward, kept, following)
    fresh, _ = read(forward, PromptCache(forward.model.config), following)

    torch.testing.assert_close(reused, fresh, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kind", CROPPABLE)
def test_attention_models_keep_the_whole_common_prefix(kind: str) -> None:
    forward = ForwardPass(tiny_model(kind))
    cache = PromptCache(forward.model.config)
    read(forward, cache, PROMPT)

    assert read(forward, cache, [*PROMPT[:30], 5, 6])[1] == 30


def test_every_model_keeps_everything_when_the_prompt_only_grows(kind: str) -> None:
    forward = ForwardPass(tiny_model(kind))
    cache = PromptCache(forward.model.config)
    read(forward, cache, PROMPT)

    assert read(forward, cache, [*PROMPT, 5, 6])[1] == len(PROMPT)


@pytest.mark.parametrize("kind", ["gemma3", "lfm2", "qwen3_next"])
def test_models_that_cannot_be_cut_back_start_over(kind: str) -> None:
    forward = ForwardPass(tiny_model(kind))
    cache = PromptCache(forward.model.config)
    read(forward, cache, PROMPT)

    assert read(forward, cache, [*PROMPT[:30], 5, 6])[1] == 0


def test_sliding_window_that_is_not_full_can_be_cut_back() -> None:
    forward = ForwardPass(tiny_model("gemma3"))
    cache = PromptCache(forward.model.config)
    read(forward, cache, PROMPT[:12])

    assert read(forward, cache, [*PROMPT[:8], 5])[1] == 8


def test_the_last_id_of_a_prompt_is_always_read_again() -> None:
    forward = ForwardPass(tiny_model())
    cache = PromptCache(forward.model.config)
    read(forward, cache, PROMPT)

    assert read(forward, cache, PROMPT)[1] == len(PROMPT) - 1


def test_cache_of_a_failed_forward_pass_is_not_used_again() -> None:
    forward = ForwardPass(tiny_model())
    cache = PromptCache(forward.model.config)
    read(forward, cache, PROMPT)
    with pytest.raises(IndexError):
        forward([10**6], cache.reuse(PROMPT))

    assert read(forward, cache, PROMPT)[1] == 0


def test_dropped_cache_holds_no_memory() -> None:
    forward = ForwardPass(tiny_model())
    cache = PromptCache(forward.model.config)
    read(forward, cache, PROMPT)
    # 2 layers, keys and values, 2 heads of width 8, 4 bytes each.
    assert cache.memory_bytes == len(PROMPT) * 2 * 2 * 2 * 8 * 4

    cache.drop()

    assert cache.memory_bytes == 0


def test_common_prefix_ends_at_the_first_difference() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 3]) == 2
    assert common_prefix([], [1]) == 0
