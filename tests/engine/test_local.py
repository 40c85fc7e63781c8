import gc
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_models import (
    CHATML,
    CONFIGS,
    GREEDY,
    CheapPasses,
    byte_level_tokenizer,
    make_engine,
    message,
    metaspace_tokenizer,
    run,
    talk,
    tiny_model,
)

from tui_chat.engine.local import LocalEngine, end_ids, resolve
from tui_chat.engine.prompt_cache import PromptCache
from tui_chat.types import (
    GenerationFinished,
    GenerationSettings,
    PrefillProgress,
    TextDelta,
)

pytestmark = pytest.mark.engine

SAMPLED = GenerationSettings(max_new_tokens=24, do_sample=True, top_p=0.9, seed=7)
LONG = GenerationSettings(max_new_tokens=200, do_sample=False)
QUESTION = talk("Hello world, how are you?", system="be kind")


class Planted:
    """Makes the forward pass misbehave from its n-th call on."""

    def __init__(
        self, engine: LocalEngine, at: int, act: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        forward = engine._forward
        assert forward is not None
        self._forward, self._run = forward, forward._run
        self._calls = 0
        self._at, self._act = at, act
        forward._run = self._run_planted  # type: ignore[method-assign]

    def _run_planted(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._calls += 1
        logits = self._run(*args, **kwargs)
        return self._act(logits) if self._calls > self._at else logits

    def remove(self) -> None:
        self._forward._run = self._run  # type: ignore[method-assign]


def raising(fault: Exception) -> Callable[[torch.Tensor], torch.Tensor]:
    def act(logits: torch.Tensor) -> torch.Tensor:
        raise fault

    return act


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_would_be_read_from_the_cache_is_known_before(kind: str) -> None:
    engine = make_engine(kind)
    assert engine.count_cached(QUESTION) == 0
    _, finished, _ = run(engine, QUESTION, GREEDY)
    answer = message("assistant", engine._tokenizer.decode(finished.new_ids))
    talks = [
        [*QUESTION, answer, message("user", "and then?")],
        [*talk("Hello world, how are you?", system="be brief"), answer, message("user", "why?")],
        talk("Hello world, how are you?"),
    ]
    for messages in talks:
        known = engine.count_cached(messages)
        _, finished, _ = run(engine, messages, GREEDY)
        assert known == finished.metrics.cached_tokens


def test_thinking_is_counted_as_it_is_sent() -> None:
    template = CHATML.replace(
        "{{ '<|im_start|>assistant\\n' }}",
        "{{ '<|im_start|>assistant\\n' }}"
        "{% if enable_thinking is defined and enable_thinking is false %}"
        "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}",
    )
    engine = make_engine(tokenizer=byte_level_tokenizer(template))
    for thinking in (None, True, False):
        _, finished, _ = run(engine, QUESTION, replace(GREEDY, thinking=thinking))
        assert engine.count_tokens(QUESTION, thinking) == finished.metrics.prompt_tokens
    assert engine.count_tokens(QUESTION, False) > engine.count_tokens(QUESTION)


@pytest.mark.parametrize("speculates", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
def test_greedy_replies_over_a_kept_cache_are_those_of_a_fresh_engine(
    kind: str, speculates: bool
) -> None:
    """Followed, repeated, shortened, edited and taken up again, also after drafts."""
    engine = make_engine(kind)
    engine._costs = CheapPasses()
    chosen = replace(GREEDY, speculation=speculates)
    question = talk("Hello world, how are you?")
    answer, _, _ = run(engine, question)
    followed = talk("Hello world, how are you?", answer, "and the weather?")
    edited = talk("Hello world, how is the fox?", "lazy", "and the dog?")

    for messages in (question, followed, followed, question, edited, followed):
        _, finished, _ = run(engine, messages, chosen)
        _, fresh, _ = run(make_engine(kind), messages)

        assert finished.prompt_ids == fresh.prompt_ids
        assert finished.new_ids == fresh.new_ids


def test_regenerated_reply_reads_one_token_alone() -> None:
    engine = make_engine()
    run(engine, QUESTION)

    _, finished, _ = run(engine, QUESTION)

    assert finished.metrics.cached_tokens == finished.metrics.prompt_tokens - 1


def test_cache_survives_a_change_of_settings() -> None:
    engine = make_engine()
    run(engine, QUESTION, SAMPLED)

    _, finished, _ = run(engine, QUESTION, replace(GREEDY, repetition_penalty=1.1))

    assert finished.metrics.cached_tokens == finished.metrics.prompt_tokens - 1


def switching(*settings: GenerationSettings, every: int) -> Callable[[], GenerationSettings]:
    """What an engine asks for its settings: the next ones after so many tokens."""
    asked = -2  # once for the reply, then once for each token

    def poll() -> GenerationSettings:
        nonlocal asked
        asked += 1
        return settings[max(0, asked) // every % len(settings)]

    return poll


@pytest.mark.parametrize("kind", ["llama", "gemma3", "qwen3_next"])
def test_mode_may_change_in_the_middle_of_a_reply_without_a_new_prefill(kind: str) -> None:
    fast = replace(GREEDY, speculation=True)
    careful = replace(GREEDY, repetition_penalty=1.3, no_repeat_ngram_size=2)
    engine = make_engine(kind)
    before = run(engine, QUESTION, replace(fast, max_new_tokens=8))[1].new_ids

    events = list(engine.stream(QUESTION, switching(fast, careful, every=8), threading.Event()))

    finished = events[-1]
    assert isinstance(finished, GenerationFinished)
    assert finished.new_ids[:8] == before
    assert len(finished.new_ids) == 24
    assert len([e for e in events if isinstance(e, PrefillProgress)]) <= 2
    # The careful part is what a careful reply goes on with after the first eight tokens.
    text = engine._tokenizer.hf.decode(before)
    going_on = make_engine(kind)
    going_on._last_ids = (finished.prompt_ids, before)
    _, rest, _ = run(
        going_on, [*QUESTION, message("assistant", text)], replace(careful, max_new_tokens=8)
    )
    assert finished.new_ids[8:16] == rest.new_ids
    assert run(engine, QUESTION)[1].new_ids == run(make_engine(kind), QUESTION)[1].new_ids


@pytest.mark.parametrize("kind", CONFIGS)
def test_cancelled_reply_leaves_a_cache_that_can_be_used(kind: str) -> None:
    engine = make_engine(kind)
    engine._costs = CheapPasses()
    chosen = replace(LONG, speculation=True)
    cancel = threading.Event()
    stream = engine.stream(QUESTION, lambda: chosen, cancel)
    events = []
    for event in stream:
        events.append(event)
        if sum(isinstance(e, TextDelta) for e in events) == 5:
            cancel.set()

    finished = events[-1]
    assert isinstance(finished, GenerationFinished)
    assert finished.finish_reason == "cancelled"
    assert isinstance(events[-2], TextDelta)
    assert len(finished.new_ids) < 20
    assert run(engine, QUESTION)[1].new_ids == run(make_engine(kind), QUESTION)[1].new_ids


def test_cancel_during_prefill_yields_no_text_and_keeps_what_was_read() -> None:
    engine = make_engine()
    assert engine._forward is not None
    engine._forward.chunk = 8
    cancel = threading.Event()
    events = []
    for event in engine.stream(QUESTION, lambda: GREEDY, cancel):
        events.append(event)
        if isinstance(event, PrefillProgress) and event.done == 16:
            cancel.set()

    assert [type(event) for event in events] == [PrefillProgress] * 3 + [GenerationFinished]
    assert events[-1].finish_reason == "cancelled"
    assert events[-1].metrics.completion_tokens == 0
    _, finished, _ = run(engine, QUESTION)
    assert finished.metrics.cached_tokens == 16
    assert finished.new_ids == run(make_engine(), QUESTION)[1].new_ids


def test_cancel_that_is_set_before_the_start_generates_nothing() -> None:
    cancel = threading.Event()
    cancel.set()

    text, finished, _ = run(make_engine(), QUESTION, GREEDY, cancel)

    assert (text, finished.finish_reason, finished.new_ids) == ("", "cancelled", ())


def test_abandoned_stream_leaves_the_engine_free() -> None:
    engine = make_engine()
    stream = engine.stream(QUESTION, lambda: GREEDY, threading.Event())
    for event in stream:
        if isinstance(event, TextDelta):
            break
    stream.close()  # type: ignore[attr-defined]

    assert run(engine, QUESTION)[1].new_ids == run(make_engine(), QUESTION)[1].new_ids


def test_second_reply_waits_for_the_first_and_can_be_cancelled_meanwhile() -> None:
    engine = make_engine()
    first = engine.stream(QUESTION, lambda: GREEDY, threading.Event())
    next(first)
    cancel = threading.Event()
    results: list[GenerationFinished] = []
    second = threading.Thread(
        target=lambda: results.append(run(engine, QUESTION, GREEDY, cancel)[1])
    )
    second.start()
    cancel.set()
    second.join()

    assert results[0].finish_reason == "cancelled"
    assert list(first)[-1].finish_reason == "length"


def test_streamed_text_is_the_decode_of_the_new_ids() -> None:
    engine = make_engine()

    for seed in range(8):
        text, finished, _ = run(engine, QUESTION, replace(SAMPLED, seed=seed, max_new_tokens=60))
        ids = [i for i in finished.new_ids if i not in engine._end_ids]
        tags = set(engine._tokenizer.think_ids or ())
        if not tags & set(ids):
            assert text == engine._tokenizer.hf.decode(ids, skip_special_tokens=True)


def test_every_delta_carries_the_figures_of_its_moment() -> None:
    _, finished, events = run(make_engine(), QUESTION)
    deltas = [event for event in events if isinstance(event, TextDelta)]

    counts = [delta.completion_tokens for delta in deltas]
    assert counts == sorted(counts)
    assert all(a.decode_seconds <= b.decode_seconds for a, b in pairwise(deltas))
    assert deltas[-1].decode_seconds <= finished.metrics.decode_seconds


def test_figures_of_a_reply_are_logged_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = make_engine()
    with caplog.at_level(logging.INFO):
        text, finished, _ = run(engine, QUESTION)
        run(engine, QUESTION)

    metrics = finished.metrics
    lines = [record.getMessage() for record in caplog.records if "Reply" in record.getMessage()]
    assert f"prefill {metrics.prompt_tokens} tok (0 reused)" in lines[0]
    assert f"24 tok (0 drafted) {metrics.decode_seconds * 1000:.0f} ms" in lines[0]
    assert f"{23 / metrics.decode_seconds:.1f} tok/s" in lines[0]
    assert f"prefill 1 tok ({metrics.prompt_tokens - 1} reused)" in lines[1]
    assert text not in caplog.text
    assert "how are you" not in caplog.text


@pytest.mark.parametrize("kind", ["gemma3", "lfm2", "qwen3_next", "llama"])
def test_cache_that_starts_over_says_why(kind: str) -> None:
    engine = make_engine(kind)
    first = run(engine, QUESTION)[1].metrics
    again = run(engine, QUESTION)[1].metrics

    reasons = {"gemma3": "sliding-window", "lfm2": "recurrent", "qwen3_next": "recurrent"}
    assert first.cache_note == ""
    assert reasons.get(kind, "") in again.cache_note
    assert bool(again.cache_note) is (kind in reasons)
    assert (again.cached_tokens == 0) is (kind in reasons)


def test_drafts_are_counted_and_the_rate_is_that_of_all_tokens() -> None:
    engine = make_engine()
    engine._costs = CheapPasses()

    def circling(logits: torch.Tensor) -> torch.Tensor:
        assert isinstance(engine._cache, PromptCache)
        assert engine._cache._kept is not None
        held = engine._cache._kept.token_ids[-len(logits) :]
        for row, token in zip(logits, held, strict=True):
            row[65 + (token - 64) % 9] = 1e4
        return logits

    Planted(engine, 0, circling)
    chosen = replace(GREEDY, speculation=True, max_new_tokens=40)
    _, finished, events = run(engine, QUESTION, chosen)

    metrics = finished.metrics
    assert metrics.drafted_tokens > 15
    assert metrics.completion_tokens == len(finished.new_ids) == 40
    assert metrics.tokens_per_second == pytest.approx(39 / metrics.decode_seconds)
    counts = [event.completion_tokens for event in events if isinstance(event, TextDelta)]
    assert counts == sorted(set(counts))


def test_metrics_add_up() -> None:
    engine = make_engine()
    start = time.perf_counter()
    _, finished, events = run(engine, QUESTION)
    wall = time.perf_counter() - start
    metrics = finished.metrics

    assert metrics.prompt_tokens == len(finished.prompt_ids) == engine.count_tokens(QUESTION)
    assert metrics.completion_tokens == len(finished.new_ids) == 24
    assert metrics.cached_tokens == 0
    assert min(metrics.tokenize_seconds, metrics.prefill_seconds, metrics.decode_seconds) > 0
    assert metrics.total_seconds <= wall
    assert metrics.precision is engine.precision
    assert metrics.peak_memory_bytes > 0
    progress = [event for event in events if isinstance(event, PrefillProgress)]
    assert progress[0] == PrefillProgress(0, metrics.prompt_tokens)
    assert progress[-1] == PrefillProgress(metrics.prompt_tokens, metrics.prompt_tokens)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("cut", [1, 9, 16])
def test_reply_that_was_cut_goes_on_from_its_last_token(kind: str, cut: int) -> None:
    whole, expected, _ = run(make_engine(kind), QUESTION)
    engine = make_engine(kind)
    begun, first, _ = run(engine, QUESTION, replace(GREEDY, max_new_tokens=cut))

    rest, second, _ = run(
        engine, [*QUESTION, message("assistant", begun)], replace(GREEDY, max_new_tokens=24 - cut)
    )

    assert (*first.new_ids, *second.new_ids) == expected.new_ids
    if not begun.endswith("\ufffd"):  # half a character cannot be shown
        assert begun + rest == whole
    assert second.prompt_ids == (*first.prompt_ids, *first.new_ids)
    assert second.metrics.cached_tokens == second.metrics.prompt_tokens - 1


def test_reply_may_go_on_twice_and_its_repetitions_are_known() -> None:
    careful = replace(GREEDY, repetition_penalty=1.3, no_repeat_ngram_size=2)
    whole, expected, _ = run(make_engine(), QUESTION, careful)
    engine = make_engine()
    text, ids = "", []
    for count in (7, 5, 12):
        messages = [*QUESTION, message("assistant", text)] if text else QUESTION
        more, finished, _ = run(engine, messages, replace(careful, max_new_tokens=count))
        text += more
        ids += finished.new_ids

    assert tuple(ids) == expected.new_ids
    assert text == whole


def test_words_of_a_reply_that_goes_on_are_kept_apart() -> None:
    """Metaspace tokenizers drop the space before the first word of a text."""
    tokenizer = metaspace_tokenizer()
    engine = make_engine(tokenizer=tokenizer, model=tiny_model(vocab_size=700))
    words = tokenizer.encode("Hello world the quick brown fox", add_special_tokens=False)
    at = 0

    def spell(logits: torch.Tensor) -> torch.Tensor:
        logits[..., words[at]] = 1e4
        return logits

    Planted(engine, 0, spell)
    text = ""
    for at in range(len(words)):  # noqa: B007
        messages = talk("Hello", text) if text else talk("Hello")
        more, _, _ = run(engine, messages, replace(GREEDY, max_new_tokens=1))
        text += more

    assert text.strip() == "Hello world the quick brown fox"


def test_same_seed_gives_the_same_reply_and_another_seed_another() -> None:
    engine = make_engine()
    first = run(engine, QUESTION, SAMPLED)[1].new_ids

    assert run(engine, QUESTION, SAMPLED)[1].new_ids == first
    assert run(make_engine(), QUESTION, SAMPLED)[1].new_ids == first
    assert run(engine, QUESTION, replace(SAMPLED, seed=8))[1].new_ids != first


def test_all_end_ids_of_model_and_tokenizer_end_a_reply() -> None:
    ids = run(make_engine(), QUESTION)[1].new_ids
    model = tiny_model()
    model.generation_config.eos_token_id = [398, ids[5]]
    assert end_ids(model) == {398, ids[5]}

    text, finished, _ = run(make_engine(model=model), QUESTION)

    assert finished.finish_reason == "stop"
    assert finished.new_ids == ids[: ids.index(ids[5]) + 1]
    tokenizer = byte_level_tokenizer()
    assert text == tokenizer.decode(ids[: ids.index(ids[5])], skip_special_tokens=True)


def test_reply_is_cut_at_a_stop_string() -> None:
    engine = make_engine()
    whole, _, _ = run(engine, QUESTION)
    stop = whole[8:12]

    text, finished, _ = run(engine, QUESTION, replace(GREEDY, stop_strings=(stop,)))

    assert text == whole[: whole.index(stop)]
    assert finished.finish_reason == "stop"
    assert len(finished.new_ids) < 24


def test_reply_ends_where_the_context_window_ends() -> None:
    size = make_engine().count_tokens(QUESTION)

    _, finished, _ = run(make_engine(context_window=size + 5), QUESTION)

    assert finished.finish_reason == "length"
    assert len(finished.new_ids) == 5


def test_prompt_longer_than_the_window_is_an_error_with_the_numbers() -> None:
    engine = make_engine(context_window=10)

    text, finished, _ = run(engine, QUESTION)

    size = engine.count_tokens(QUESTION)
    assert (text, finished.finish_reason) == ("", "error")
    assert str(size) in finished.error
    assert "10" in finished.error


def test_endless_repetition_is_stopped() -> None:
    engine = make_engine()

    def stuck(logits: torch.Tensor) -> torch.Tensor:
        logits[..., 70] = 1e4
        return logits

    Planted(engine, 0, stuck)
    _, finished, _ = run(engine, QUESTION, LONG)

    assert finished.finish_reason == "repetition"
    assert 48 <= len(finished.new_ids) <= 64


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    ("token", "factor"), [(0, math.nan), (1, math.nan), (6, math.nan), (6, -math.inf)]
)
def test_model_that_computes_no_number_is_an_error_and_the_text_is_kept(
    settings: GenerationSettings, token: int, factor: float
) -> None:
    engine = make_engine()
    planted = Planted(engine, token, lambda logits: logits.abs() * factor)

    text, finished, _ = run(engine, QUESTION, settings)

    assert finished.finish_reason == "error"
    assert "no valid number" in finished.error
    assert len(finished.new_ids) == token
    assert bool(text) == (token > 0)
    planted.remove()
    assert run(engine, QUESTION)[1].new_ids == run(make_engine(), QUESTION)[1].new_ids


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried ..."), "Out of memory after 3 tokens"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "Out of memory after 3"),
        (RuntimeError("CUDA error: out of memory"), "Out of the GPU's memory after 3 tokens"),
        (MemoryError(), "Out of memory after 3 tokens"),
        (KeyError("secret"), "Generation failed (KeyError); the log has the details."),
    ],
)
def test_fault_while_generating_is_one_sentence_and_the_text_is_kept(
    fault: Exception, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine()
    expected, _, _ = run(engine, QUESTION, replace(GREEDY, max_new_tokens=3))
    planted = Planted(engine, 3, raising(fault))

    with caplog.at_level(logging.ERROR):
        text, finished, _ = run(engine, QUESTION)

    assert finished.finish_reason == "error"
    assert finished.error.startswith(sentence)
    assert finished.out_of_memory == ("emory" in sentence)
    assert text == expected
    assert "how are you" not in caplog.text
    planted.remove()
    _, after, _ = run(engine, QUESTION)
    assert after.finish_reason == "length"
    assert after.metrics.cached_tokens == 0


def test_template_that_refuses_the_conversation_is_an_error_event() -> None:
    refusing = (
        "{% if 'no' == messages[0]['content'] %}{{ raise_exception('never') }}{% endif %}" + CHATML
    )
    engine = make_engine(tokenizer=byte_level_tokenizer(refusing))

    _, finished, _ = run(engine, talk("no"))

    assert "refuses this conversation (never)" in finished.error


def test_reasoning_is_streamed_apart() -> None:
    tokenizer = byte_level_tokenizer()
    close = tokenizer.convert_tokens_to_ids("</think>")
    tokenizer.chat_template = CHATML.replace("assistant\\n'", "assistant\\n<think>\\n'")
    engine = make_engine(tokenizer=tokenizer)
    calls = 0

    def close_at_third(logits: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        logits[..., close - 1] = -1e4
        logits[..., close] = 1e4 if calls == 3 else -1e4
        return logits

    Planted(engine, 0, close_at_third)
    text, finished, events = run(engine, talk("Hello"))

    reasoning = "".join(
        e.text for e in events if isinstance(e, TextDelta) and e.kind == "reasoning"
    )
    ids = list(finished.new_ids)
    assert ids[2] == close
    assert reasoning.strip("\n") == tokenizer.decode(ids[:2], skip_special_tokens=True).strip("\n")
    assert text == tokenizer.decode(ids[3:], skip_special_tokens=True).lstrip("\n")


def test_missing_template_ends_turns_at_the_text_of_the_marker() -> None:
    tokenizer = metaspace_tokenizer(None)
    marker = tokenizer.encode(" hello<|im_end|> more", add_special_tokens=False)
    engine = make_engine(tokenizer=tokenizer, model=tiny_model(vocab_size=700))
    calls = 0

    def spell_marker(logits: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        logits[..., marker[min(calls, len(marker) - 1)]] = 1e4
        calls += 1
        return logits

    Planted(engine, 0, spell_marker)
    text, finished, _ = run(engine, talk("Hello"), LONG)

    assert (text.strip(), finished.finish_reason) == ("hello", "stop")


def test_counts_are_exact_while_a_reply_is_generated() -> None:
    engine = make_engine()
    expected = make_engine().count_tokens(talk("something else <|im_end|>"))
    counted = []
    for event in engine.stream(QUESTION, lambda: GREEDY, threading.Event()):
        if isinstance(event, TextDelta):
            counted.append(engine.count_tokens(talk("something else <|im_end|>")))
            counted.append(expected)
            engine.count_message(message("user", f"number {len(counted)} <think>"))

    assert set(counted) == {expected}


def test_memory_counts_weights_and_cache() -> None:
    engine = make_engine()
    before = engine.memory()
    run(engine, QUESTION)
    after = engine.memory()

    assert before is not None
    assert after is not None
    assert before.cache_bytes == 0
    assert after.cache_bytes > 0
    assert 0 < after.weights_bytes < after.used_bytes < after.total_bytes


def test_closed_engine_frees_the_model_and_says_so_when_asked() -> None:
    model = tiny_model()
    engine = make_engine(model=model)
    run(engine, QUESTION)
    alive = weakref.ref(model)
    del model

    engine.close()
    gc.collect()

    assert alive() is None
    assert engine.memory() is None
    assert run(engine, QUESTION)[1].finish_reason in ("error", "cancelled")


def test_close_ends_a_running_reply() -> None:
    engine = make_engine()
    running = threading.Event()
    settings = replace(LONG, max_new_tokens=900)
    results: list[GenerationFinished] = []

    def reply() -> None:
        for event in engine.stream(QUESTION, lambda: settings, threading.Event()):
            running.set()
            if isinstance(event, GenerationFinished):
                results.append(event)

    thread = threading.Thread(target=reply)
    thread.start()
    running.wait()
    engine.close()
    thread.join()

    assert results[0].finish_reason == "cancelled"


def test_open_settings_are_taken_from_the_model() -> None:
    model = tiny_model()
    config = model.generation_config
    config.do_sample, config.temperature, config.top_k, config.top_p = True, 0.6, 20, 0.8

    open_settings = resolve(GenerationSettings(), config)
    closed = resolve(GenerationSettings(do_sample=False, temperature=1.5, top_k=0, seed=3), config)

    assert (open_settings.do_sample, open_settings.temperature) == (True, 0.6)
    assert (open_settings.top_k, open_settings.top_p, open_settings.min_p) == (20, 0.8, 0.0)
    assert open_settings.repetition_penalty == 1.0
    assert (closed.do_sample, closed.temperature, closed.top_k) == (False, 1.5, 0)
    assert (closed.top_p, closed.seed) == (0.8, 3)


def test_a_temperature_alone_means_sampling_and_nothing_means_greedy() -> None:
    config = tiny_model().generation_config

    assert resolve(GenerationSettings(temperature=0.7), config).do_sample
    assert not resolve(GenerationSettings(), config).do_sample


def test_thinking_is_switched_where_the_chat_template_knows_it() -> None:
    switch = "{% if not enable_thinking | default(true) %}<think></think>{% endif %}"
    engine = make_engine(tokenizer=byte_level_tokenizer(CHATML + switch))

    _, by_template, _ = run(engine, QUESTION)
    _, without, _ = run(engine, QUESTION, replace(GREEDY, thinking=False))

    assert len(without.prompt_ids) == len(by_template.prompt_ids) + 2
