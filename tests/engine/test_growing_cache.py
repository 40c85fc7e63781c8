import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CONFIGS
from transformers import DynamicCache

from tui_chat.engine.growing_cache import GrowingLayer, growing_cache, grows_only

pytestmark = pytest.mark.engine


@given(st.lists(st.one_of(st.integers(1, 400), st.integers(-60, -1)), max_size=12))
@settings(deadline=None, max_examples=40)
def test_it_holds_what_a_dynamic_cache_holds(steps: list[int]) -> None:
    plain, growing = DynamicCache(), DynamicCache()
    growing.layers = [GrowingLayer()]
    for number, step in enumerate(steps):
        if step > 0:
            rows = torch.randn(1, 2, step, 4, generator=torch.Generator().manual_seed(number))
            expected = plain.update(rows, -rows, 0)
            torch.testing.assert_close(growing.update(rows, -rows, 0), expected, atol=0, rtol=0)
        elif plain.get_seq_length() > -step:
            plain.crop(step)
            growing.crop(step)
        assert growing.get_seq_length() == plain.get_seq_length()


def test_appending_a_row_does_not_copy_the_others() -> None:
    layer = GrowingLayer()
    layer.update(torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5, 4))
    place = layer.keys.data_ptr()

    layer.crop(-2)
    layer.update(torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4))

    assert layer.keys.data_ptr() == place
    assert layer.keys[0, 0, :, 0].tolist() == [0, 0, 0, 1]


def test_it_can_be_written_outside_of_inference_mode_and_reset() -> None:
    layer = GrowingLayer()
    with torch.inference_mode():
        layer.update(torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5, 4))
    layer.update(torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4))
    assert layer.get_seq_length() == 6

    layer.reset()
    keys, _ = layer.update(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
    assert keys.shape[2] == 3


@pytest.mark.parametrize("kind", CONFIGS)
def test_only_layers_of_full_attention_grow_in_place(kind: str) -> None:
    config = CONFIGS[kind]()
    plain, growing = DynamicCache(config=config), growing_cache(config)

    assert len(growing.layers) == len(plain.layers)
    for ours, theirs in zip(growing.layers, plain.layers, strict=True):
        assert isinstance(ours, type(theirs))
    assert grows_only(growing) is (kind not in ("gemma3", "lfm2", "qwen3_next"))
