"""The decoder of the captured step, on the CPU with stand-ins for a graph, on CUDA for real."""

import gc
import logging
import math
import threading
import weakref
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from test_decode import PROMPT, all_words, drain, never
from tiny_models import GREEDY as GREEDY_REPLY
from tiny_models import make_engine, run, talk, tiny_model

from tui_chat.engine.base import EngineError
from tui_chat.engine.cuda_attention import SPLIT_KV, USED_LENGTH
from tui_chat.engine.cuda_graph import Graph, Record, record_cuda_graph
from tui_chat.engine.decode import prefill
from tui_chat.engine.forward import ForwardPass
from tui_chat.engine.graph_decoder import GraphDecoder, eager_note, open_graph_decoder
from tui_chat.engine.local import LocalEngine
from tui_chat.engine.sampling import Sampler, SamplingSettings
from tui_chat.engine.window_cache import WindowLayer
from tui_chat.types import GenerationFinished

pytestmark = pytest.mark.engine

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WINDOW = 1024
PLENTY = 10**10
GREEDY = SamplingSettings()
SAMPLED = SamplingSettings(True, temperature=0.9, top_p=0.9, top_k=40, seed=7)


class FakeGraph:
    """A graph whose replay calls the step."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        self.call()


def fake_record(call: Callable[[], None], device: torch.device) -> Graph:
    call()
    call()
    return FakeGraph(call)


RECORD = record_cuda_graph if DEVICE == "cuda" else fake_record


def model_of(kind: str) -> Any:
    return tiny_model(kind).to(DEVICE)


def decoder_of(
    model: Any, *, captured: bool = False, window: int = WINDOW, free: int = PLENTY
) -> GraphDecoder:
    decoder = GraphDecoder(ForwardPass(model), window, lambda: free, RECORD)
    if captured:
        decoder.prepare()
        assert decoder.is_captured, decoder.why_eager
    return decoder


def reply(
    decoder: GraphDecoder,
    prompt: list[int] = PROMPT,
    settings: SamplingSettings = GREEDY,
    *,
    end_ids: frozenset[int] = frozenset(),
    max_new_tokens: int = 24,
    is_cancelled: Callable[[], bool] = never,
) -> tuple[list[int], str, int]:
    """The ids, why they ended, and how many tokens of the prompt were kept."""
    sampler = Sampler(settings, DEVICE, all_words, prompt_ids=prompt)
    cache = decoder.reuse(prompt)
    kept = len(cache.token_ids)
    _, logits = drain(prefill(decoder._forward, prompt, cache, is_cancelled))
    if logits is None:
        return [], "cancelled", kept
    steps = decode(decoder, logits, sampler, end_ids, max_new_tokens, is_cancelled)
    ids, reason = drain(steps)
    return ids, reason, kept


def decode(
    decoder: GraphDecoder,
    logits: torch.Tensor,
    sampler: Sampler,
    end_ids: frozenset[int] = frozenset(),
    max_new_tokens: int = 24,
    is_cancelled: Callable[[], bool] = never,
) -> Generator[int, None, str]:
    return decoder.decode(
        logits,
        sampler,
        end_ids=end_ids,
        max_new_tokens=max_new_tokens,
        is_letterless=all_words,
        is_cancelled=is_cancelled,
    )


def logits_of(decoder: GraphDecoder, prompt: list[int]) -> torch.Tensor:
    """The logits that follow a prompt, which the cache then holds."""
    logits: torch.Tensor = drain(prefill(decoder._forward, prompt, decoder.reuse(prompt), never))[1]
    return logits


def plain_logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits (tokens, vocabulary) of one pass without a cache."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids], device=DEVICE)).logits[0]
    return logits


def generated(model: Any, prompt: list[int] = PROMPT, count: int = 24) -> list[int]:
    """What transformers' own generate gives."""
    ids = model.generate(
        torch.tensor([prompt], device=DEVICE), max_new_tokens=count, do_sample=False
    )
    return ids[0, len(prompt) :].tolist()


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt_neox"])
def test_both_twins_give_the_ids_of_generate(kind: str, captured: bool) -> None:
    expected = generated(model_of(kind))

    ids, reason, kept = reply(decoder_of(model_of(kind), captured=captured))

    assert (ids, reason, kept) == (expected, "length", 0)
    assert len(set(expected)) > 8


@pytest.mark.parametrize("attention", [USED_LENGTH, SPLIT_KV])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt_neox"])
def test_every_way_to_attend_gives_the_ids_of_generate(kind: str, attention: str) -> None:
    expected = generated(model_of(kind))
    model = model_of(kind)
    model.set_attn_implementation(attention)

    decoder = decoder_of(model, captured=True)

    assert decoder.attention == attention
    assert reply(decoder)[0] == expected


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("kept", [0, 1, 15, 39])
def test_a_kept_prefix_changes_no_id(kept: int, captured: bool) -> None:
    other = [*PROMPT[:kept], *(399 - token for token in PROMPT[kept:]), 5, 6, 7]
    decoder = decoder_of(model_of("llama"), captured=captured)
    reply(decoder, other)

    ids, _, found = reply(decoder)

    assert ids == generated(model_of("llama"))
    assert found == kept


def test_the_next_turn_keeps_prompt_and_reply_and_a_shorter_one_what_it_shares() -> None:
    decoder = decoder_of(model_of("llama"), captured=True)
    first, _, _ = reply(decoder)
    following = [*PROMPT, *first, 11, 12, 13]

    second, _, kept = reply(decoder, following)
    again, _, shared = reply(decoder, PROMPT)

    assert second == generated(model_of("llama"), following)
    assert (kept, shared) == (len(following) - 4, len(PROMPT) - 1)
    assert again == first


def test_prompt_longer_than_a_chunk_is_read_in_chunks() -> None:
    model = model_of("llama")
    decoder = decoder_of(model)
    decoder._forward.chunk = 13  # three chunks of 13 and one single token

    assert reply(decoder)[0] == generated(model_of("llama"))


def test_prepare_in_the_middle_of_a_conversation_keeps_what_is_held() -> None:
    decoder = decoder_of(model_of("llama"))
    first, _, _ = reply(decoder)
    held = len(decoder._held.token_ids)
    layers = decoder._held.past_key_values.layers
    before = [layer.keys[:, :, :held].clone() for layer in layers]

    decoder.prepare()
    after = [layer.keys[:, :, :held].clone() for layer in layers]
    again, _, kept = reply(decoder, [*PROMPT, *first[:5]])

    assert decoder.is_captured
    assert all(map(torch.equal, before, after))
    assert kept == len(PROMPT) + 4
    assert again == generated(model_of("llama"), [*PROMPT, *first[:5]])


def test_a_token_is_read_only_after_the_step_that_feeds_it_was_started() -> None:
    decoder = decoder_of(model_of("llama"))
    order: list[str] = []
    run, wait = decoder._run, decoder._reader.wait
    decoder._run = lambda: (order.append("step"), run())[1]
    decoder._reader.wait = lambda: (order.append("read"), wait())[1]  # type: ignore[method-assign]

    ids, _, _ = reply(decoder, max_new_tokens=4)

    assert order == ["step", "read", "step", "read", "step", "read", "read"]
    assert ids == generated(model_of("llama"))[:4]


@pytest.mark.parametrize("at", [0, 1, 7])
def test_every_end_id_ends_the_reply_and_is_held_already(at: int) -> None:
    decoder = decoder_of(model_of("llama"), captured=True)
    expected = generated(model_of("llama"))
    end = expected[at]
    cut = expected[: expected.index(end) + 1]

    ids, reason, _ = reply(decoder, end_ids=frozenset({399, end}))
    following = [*PROMPT, *cut, 3, 4]
    second, _, kept = reply(decoder, following)

    assert (ids, reason) == (cut, "stop")
    assert kept == len(PROMPT) + len(cut)
    assert second == generated(model_of("llama"), following)


@pytest.mark.parametrize("settings", [SamplingSettings(), SAMPLED], ids=["greedy", "sampled"])
def test_a_cancelled_or_abandoned_reply_leaves_a_cache_that_is_exact(
    settings: SamplingSettings,
) -> None:
    decoder = decoder_of(model_of("llama"), captured=True)
    asked = iter(range(100))

    ids, reason, _ = reply(decoder, settings=settings, is_cancelled=lambda: next(asked) >= 5)
    sampler = Sampler(settings, DEVICE, all_words)
    steps = decode(decoder, logits_of(decoder, [*PROMPT, *ids]), sampler)
    more = [next(steps) for _ in range(5)]
    steps.close()
    following = [*PROMPT, *ids, *more, 9, 9, 8]

    assert reason == "cancelled"
    assert ids and more
    held = decoder._held
    assert held.token_ids == following[:-3]
    assert int(held.past_key_values.length) == len(held.token_ids)
    assert reply(decoder, following)[0] == generated(model_of("llama"), following)


def test_cancel_during_the_prompt_keeps_what_was_read() -> None:
    decoder = decoder_of(model_of("llama"))
    decoder._forward.chunk = 10

    ids, reason, _ = reply(decoder, is_cancelled=lambda: len(decoder._held.token_ids) >= 20)
    again, _, kept = reply(decoder)

    assert (ids, reason, kept) == ([], "cancelled", 20)
    assert again == generated(model_of("llama"))


def test_endless_repetition_is_stopped() -> None:
    model = model_of("llama")
    model.register_forward_hook(lambda *call: call[-1].logits[..., 70].fill_(1e4) and None)

    ids, reason, _ = reply(decoder_of(model), max_new_tokens=200)

    assert reason == "repetition"
    assert 48 <= len(ids) <= 64


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
def test_draws_are_those_of_the_seed_in_both_twins(captured: bool) -> None:
    expected = reply(decoder_of(model_of("llama")), settings=SAMPLED)[0]
    decoder = decoder_of(model_of("llama"), captured=captured)

    assert reply(decoder, settings=SAMPLED)[0] == expected
    assert reply(decoder, settings=SAMPLED)[0] == expected
    assert reply(decoder, settings=SamplingSettings(True, seed=8))[0] != expected
    assert expected != generated(model_of("llama"))


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(repetition_penalty=1.3),
        SamplingSettings(repetition_penalty=1.3, no_repeat_ngram_size=2),
        SamplingSettings(True, top_k=1, repetition_penalty=1.3),
    ],
    ids=["penalty", "n-grams by the host", "best token of a draw"],
)
def test_penalties_give_the_ids_of_the_sampler_of_the_host(
    settings: SamplingSettings, captured: bool
) -> None:
    model = model_of("llama")
    sampler = Sampler(settings, DEVICE, all_words)
    expected: list[int] = []
    with torch.no_grad():
        for _ in range(24):
            logits = model(input_ids=torch.tensor([[*PROMPT, *expected]], device=DEVICE)).logits[
                0, -1
            ]
            expected.append(sampler.sample(logits))

    ids, _, _ = reply(decoder_of(model_of("llama"), captured=captured), settings=settings)

    assert ids == expected
    assert expected != generated(model_of("llama"))


def test_settings_that_change_hold_from_the_next_token_on() -> None:
    strict = SamplingSettings(
        repetition_penalty=3.0, no_repeat_ngram_size=2, penalty_scope="context"
    )
    penalty = SamplingSettings(repetition_penalty=5.0, penalty_scope="context")
    changes = {5: strict, 10: penalty, 15: GREEDY}
    model = model_of("llama")

    def by_hand() -> list[int]:
        sampler, ids = Sampler(GREEDY, DEVICE, all_words, prompt_ids=PROMPT), []
        with torch.no_grad():
            for place in range(24):
                if place in changes:
                    sampler.change(changes[place])
                logits = model(input_ids=torch.tensor([[*PROMPT, *ids]], device=DEVICE)).logits[
                    0, -1
                ]
                ids.append(sampler.sample(logits))
        return ids

    sampler = Sampler(GREEDY, DEVICE, all_words, prompt_ids=PROMPT)
    decoder = decoder_of(model_of("llama"), captured=True)
    ids: list[int] = []
    for token in decode(decoder, logits_of(decoder, PROMPT), sampler):
        ids.append(token)
        if len(ids) in changes:
            sampler.change(changes[len(ids)])

    assert ids == by_hand()
    plain = generated(model_of("llama"))
    assert ids[:5] == plain[:5]
    assert ids != plain


def test_what_the_candidates_do_not_settle_is_drawn_from_the_whole_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tui_chat.engine.device_sampler.CANDIDATES", 3)
    flat = SamplingSettings(True, temperature=50.0, top_p=0.99, seed=3)
    decoder = decoder_of(model_of("llama"), captured=True)

    ids, _, _ = reply(decoder, settings=flat)
    following = [*PROMPT, *ids, 1, 2]

    model = model_of("llama")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*PROMPT, *ids]], device=DEVICE)).logits[
            0, len(PROMPT) - 1 :
        ]
    ranks = [int((row > row[token]).sum()) for row, token in zip(logits, ids, strict=False)]
    assert len(ids) == 24
    assert max(ranks) > 100
    assert reply(decoder, following)[0] == generated(model_of("llama"), following)


@pytest.mark.parametrize("settings", [SamplingSettings(), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("attention", [USED_LENGTH, SPLIT_KV, "sdpa"])
def test_a_model_that_computes_no_number_raises_and_the_next_reply_is_right(
    settings: SamplingSettings, attention: str
) -> None:
    model = model_of("llama")
    model.set_attn_implementation(attention)
    decoder = decoder_of(model)
    passes = iter(range(1000))

    def spoil(module: Any, args: Any, output: Any) -> Any:
        return output * math.nan if next(passes) == 4 else output

    hook = model.model.layers[0].register_forward_hook(spoil)
    with pytest.raises(FloatingPointError, match="no valid number"):
        reply(decoder, settings=settings)
    hook.remove()
    decoder.drop()

    assert reply(decoder)[0] == generated(model_of("llama"))


def test_a_pass_that_fails_is_not_reused() -> None:
    model = model_of("llama")
    decoder = decoder_of(model)
    passes = iter(range(1000))

    def fail(*call: Any) -> None:
        if next(passes) == 6:
            raise RuntimeError("planted")

    hook = model.model.layers[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="planted"):
        reply(decoder)
    hook.remove()

    ids, _, kept = reply(decoder)
    assert (ids, kept) == (generated(model_of("llama")), 0)


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
def test_a_cache_that_starts_small_grows_in_the_middle_of_a_reply(
    captured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui_chat.engine.window_cache.FIRST_TOKENS", 256)
    model = model_of("llama")
    model.set_attn_implementation(SPLIT_KV)
    decoder = decoder_of(model, captured=captured)
    prompt = PROMPT * 6
    before = decoder.memory_bytes

    ids, _, _ = reply(decoder, prompt)

    assert ids == generated(model_of("llama"), prompt)
    assert decoder.memory_bytes == 2 * before
    assert decoder.is_captured is captured


def test_a_prompt_for_which_there_is_no_room_is_an_error_with_the_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tui_chat.engine.window_cache.FIRST_TOKENS", 256)
    model = model_of("llama")
    model.set_attn_implementation(SPLIT_KV)
    decoder = decoder_of(model, captured=True)
    decoder._free_bytes = lambda: 0

    with pytest.raises(EngineError, match="no room for a conversation of 280 tokens"):
        reply(decoder, PROMPT * 7)
    ids, reason, _ = reply(decoder, PROMPT * 6)

    # 240 tokens are read and 16 fed; the last of the reply is not.
    assert (len(ids), reason) == (17, "length")
    assert ids == generated(model_of("llama"), PROMPT * 6)[:17]


def test_a_cache_that_runs_out_of_memory_while_it_grows_is_not_reused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tui_chat.engine.window_cache.FIRST_TOKENS", 256)
    model = model_of("llama")
    model.set_attn_implementation(SPLIT_KV)
    decoder = decoder_of(model)
    prompt = PROMPT * 6
    allocate = WindowLayer.lazy_initialization
    layers: list[WindowLayer] = []

    def exhausted(layer: WindowLayer, *states: torch.Tensor) -> None:
        layers.append(layer)
        if len(layers) == 2:
            raise torch.OutOfMemoryError("planted")
        allocate(layer, *states)

    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(WindowLayer, "lazy_initialization", exhausted)
        reply(decoder, prompt)

    ids, _, kept = reply(decoder, prompt)
    assert (ids, kept) == (generated(model_of("llama"), prompt), 0)


def test_a_trial_that_fails_leaves_the_decoder_eager_with_the_reason() -> None:
    model = model_of("llama")
    decoder = decoder_of(model)
    decoder.drop()

    def fail(*call: Any) -> None:
        raise RuntimeError("planted")

    hook = model.model.layers[1].register_forward_hook(fail)
    decoder.prepare()
    hook.remove()

    assert "its trial failed (planted)" in decoder.why_eager
    assert reply(decoder)[0] == generated(model_of("llama"))


def failing(fault: Exception) -> Record:
    def record(call: Callable[[], None], device: torch.device) -> Graph:
        call()
        raise fault

    return record


class StandingGraph(FakeGraph):
    """A graph that does nothing."""

    def replay(self) -> None:
        pass


class FrozenGraph(FakeGraph):
    """A graph that knows only the position it was captured at, as a frozen branch would."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(call)
        cache = call.cache  # type: ignore[attr-defined]
        self.length, self.position = cache.length, int(cache.length)

    def replay(self) -> None:
        before = int(self.length)
        self.length.fill_(self.position)
        self.call()
        self.length.fill_(before + 1)


class DeafGraph(FakeGraph):
    """A graph whose random numbers are always the same."""

    def replay(self) -> None:
        generator = self.call.sampler.generator  # type: ignore[attr-defined]
        state = generator.get_state()
        self.call()
        generator.set_state(state)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (failing(RuntimeError("operation not permitted")), "its capture failed (operation not"),
        (failing(torch.OutOfMemoryError("no memory")), "its capture failed (no memory)"),
        (lambda call, device: StandingGraph(call), "the cache holds"),
        (lambda call, device: FrozenGraph(call), "other logits"),
        (lambda call, device: DeafGraph(call), "random numbers stand still"),
    ],
    ids=["raises", "no memory", "does nothing", "frozen position", "frozen draws"],
)
def test_a_capture_that_fails_or_is_not_proven_is_decoded_eagerly_with_the_reason(
    record: Record, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = GraphDecoder(ForwardPass(model_of("llama")), WINDOW, lambda: PLENTY, record)
    first, _, _ = reply(decoder, max_new_tokens=6)

    with caplog.at_level(logging.INFO):
        decoder.prepare()
    following = [*PROMPT, *first]
    ids, _, kept = reply(decoder, following)

    assert not decoder.is_captured
    assert decoder.why_eager.startswith("Decoding without a CUDA graph: ")
    assert reason in decoder.why_eager
    assert decoder.why_eager in caplog.text
    assert kept == len(following) - 1
    assert ids == generated(model_of("llama"), following)


def test_a_captured_step_is_what_decodes() -> None:
    graphs: list[FakeGraph] = []

    def record(call: Callable[[], None], device: torch.device) -> Graph:
        graphs.append(FakeGraph(call))
        return graphs[-1]

    decoder = GraphDecoder(ForwardPass(model_of("llama")), WINDOW, lambda: PLENTY, record)
    decoder.prepare()
    before = graphs[0].replays
    reply(decoder, max_new_tokens=10)
    decoder.prepare()

    assert len(graphs) == 1
    assert graphs[0].replays - before == 9


def graph_engine(record: Record = RECORD, **options: Any) -> LocalEngine:
    def opened(forward: ForwardPass, window: int) -> tuple[GraphDecoder | None, str]:
        return GraphDecoder(forward, window, lambda: PLENTY, record), ""

    return make_engine(model=model_of("llama"), open_graph_decoder=opened, **options)


def captured_engine() -> LocalEngine:
    engine = graph_engine()
    wait_for_capture(engine)
    return engine


def wait_for_capture(engine: LocalEngine) -> None:
    for thread in threading.enumerate():
        if thread.name == "capture":
            thread.join()


def test_the_engine_replies_by_the_captured_step_as_it_does_without() -> None:
    plain, graph = make_engine(model=model_of("llama")), captured_engine()
    first, second = talk("Hello"), talk("Hello", "Good", "And then?")

    for messages in (first, second, first):
        known = graph.count_cached(messages)
        text, finished, _ = run(graph, messages)
        assert known == finished.metrics.cached_tokens
        expected, plainly, _ = run(plain, messages)
        assert (text, finished.new_ids) == (expected, plainly.new_ids)
        assert finished.finish_reason == "length"
        assert finished.metrics.cached_tokens == plainly.metrics.cached_tokens
    assert graph._graph is not None and graph._graph.is_captured
    assert graph.notes == plain.notes


def test_a_mode_that_changes_in_mid_reply_is_followed() -> None:
    strict = replace(GREEDY_REPLY, repetition_penalty=3.0, no_repeat_ngram_size=2)
    found = []
    for engine in (make_engine(model=model_of("llama")), captured_engine()):
        answers = iter([GREEDY_REPLY] * 8 + [strict] * 100)
        events = engine.stream(talk("Hello"), partial(next, answers), threading.Event())
        finished = list(events)[-1]
        assert isinstance(finished, GenerationFinished)
        found.append(finished.new_ids)

    assert found[0] == found[1]


def test_why_a_capture_failed_becomes_a_note_of_the_engine() -> None:
    engine = graph_engine(failing(RuntimeError("operation not permitted")))
    wait_for_capture(engine)

    assert engine.notes[-1].startswith("Decoding without a CUDA graph: its capture failed")
    assert run(engine, talk("Hi"))[1].new_ids == run(captured_engine(), talk("Hi"))[1].new_ids


def test_why_a_gpu_decodes_the_plain_way_is_a_note_and_the_plain_way_is_taken() -> None:
    reason = eager_note("LLM.int8 waits for the device in every layer")
    engine = make_engine(
        model=model_of("llama"), open_graph_decoder=lambda forward, window: (None, reason)
    )

    assert engine.notes[-1] == reason
    assert run(engine, talk("Hi"))[1].new_ids == run(captured_engine(), talk("Hi"))[1].new_ids


def test_the_plain_way_is_taken_without_a_word_on_a_cpu() -> None:
    model = tiny_model()
    assert open_graph_decoder(ForwardPass(model), WINDOW) == (None, "")


def test_drafts_are_not_verified_and_the_figures_say_why() -> None:
    settings = replace(GREEDY_REPLY, speculation=True)

    finished = run(captured_engine(), talk("again and again and again"), settings)[1]

    assert finished.metrics.drafted_tokens == 0
    assert "takes one token at a time" in finished.metrics.speculation_note


def test_an_error_is_told_and_the_next_reply_starts_with_an_empty_cache() -> None:
    engine = graph_engine(failing(RuntimeError("none")))
    wait_for_capture(engine)
    expected = run(engine, talk("Hello"))[1].new_ids
    assert engine._forward is not None
    layer = engine._forward.model.model.layers[0]
    hook = layer.register_forward_hook(lambda module, args, output: output * math.nan)

    broken = run(engine, talk("Another"))[1]
    hook.remove()
    mended = run(engine, talk("Hello"))[1]

    assert "no valid number" in broken.error
    assert (mended.new_ids, mended.metrics.cached_tokens) == (expected, 0)


def test_closed_engine_frees_model_and_cache() -> None:
    engine = captured_engine()
    run(engine, talk("Hello"))
    assert engine._forward is not None and engine._graph is not None
    alive = [weakref.ref(engine._forward.model), weakref.ref(engine._graph)]

    engine.close()
    gc.collect()

    assert [reference() for reference in alive] == [None, None]


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_cuda_device_the_step_is_captured_and_flash_attention_taken(
    dtype: torch.dtype,
) -> None:
    model = tiny_model(dtype=dtype).to(DEVICE)
    decoder, why_eager = open_graph_decoder(ForwardPass(model), WINDOW)
    assert decoder is not None, why_eager

    decoder.prepare()

    assert decoder.is_captured, decoder.why_eager
    assert decoder.attention == (USED_LENGTH if dtype == torch.bfloat16 else SPLIT_KV)
    assert len(reply(decoder, settings=SAMPLED)[0]) == 24
