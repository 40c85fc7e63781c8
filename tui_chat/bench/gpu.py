"""The captured decode step of a GPU against transformers' `generate`, on the user's own card."""

import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from tui_chat.bench.desk import subject_of
from tui_chat.bench.harness import BenchError, Report, Row, Setup, gain, interleave
from tui_chat.types import ModelSpec

if TYPE_CHECKING:
    from tui_chat.engine.forward import ForwardPass
    from tui_chat.engine.graph_decoder import GraphDecoder

CONTEXTS = (128, 4096)
RUNS, TOKENS = 3, 128
NEW_TOKENS = 64
"""Tokens of a turn behind a context that is kept."""
COPIED_BYTES = 1 << 30
COPIES = 5


@dataclass(frozen=True, slots=True)
class LoadedSubject:
    """A model on a device, and what decodes it our way."""

    name: str
    forward: "ForwardPass"
    decoder: "GraphDecoder"
    window: int


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Tokens per second at two lengths of context, and the first token with a prefix kept.

    Raises:
        BenchError: there is no CUDA device, or the model is not decoded by a captured step there.
    """
    import torch

    if not torch.cuda.is_available():
        raise BenchError(
            "There is no CUDA device, or torch was built without CUDA; decode-speed measures"
            " the CPU."
        )
    from tui_chat.engine.base import EngineError
    from tui_chat.engine.forward import ForwardPass
    from tui_chat.engine.graph_decoder import open_graph_decoder
    from tui_chat.engine.loader import load_model

    chosen = subject_of(setup, report)
    spec = ModelSpec(chosen.name, device="cuda")
    try:
        loaded = load_model(Path(chosen.folder), spec, _ignore, Event(), name=chosen.name)
    except EngineError as error:
        raise BenchError(str(error)) from error
    forward, window = ForwardPass(loaded.model), loaded.context_window
    decoder, why_eager = open_graph_decoder(forward, window)
    if decoder is None:
        raise BenchError(f"{why_eager} Only decode-speed measures this model.")
    decoder.prepare()
    subject = LoadedSubject(f"{loaded.name} {loaded.precision}", forward, decoder, window)
    yield from rows_of(subject, setup, report, copied_bytes=COPIED_BYTES)


def rows_of(
    subject: LoadedSubject, setup: Setup, report: Report, *, copied_bytes: int
) -> Iterator[Row]:
    """The rows of `subject`; their notes say so where a figure is not one of a captured step.

    Args:
        copied_bytes: size of the copies that the bandwidth is measured with.
    """
    tokens, runs = setup.tokens or TOKENS, setup.runs or RUNS
    model, decoder = subject.forward.model, subject.decoder
    rate = bandwidth(model.device, copied_bytes)
    how = f"captured, {decoder.attention}" if decoder.is_captured else decoder.why_eager
    longest = subject.window - tokens - NEW_TOKENS
    if longest < 1:
        raise BenchError(f"The context window of {subject.name} is too small; lower --tokens.")
    for context in sorted({min(context, longest) for context in CONTEXTS}):
        ids = made_up_ids(model, context)
        found = interleave(
            {
                f"generate at {context}": partial(generate_rate, model, ids, tokens),
                f"tui-chat at {context}": partial(our_rate, subject, ids, tokens),
            },
            runs,
            report,
        )
        before, after = found.values()
        share = statistics.median(after) * read_bytes(model) / rate
        note = f"{subject.name}; {how}; {share:.0%} of what {rate / 1e9:.0f} GB/s allow"
        yield gain(f"gpu-decode {context}", before, after, unit="tokens/s", note=note)
    kept = made_up_ids(model, min(CONTEXTS[-1], longest))
    turn = [*kept, *made_up_ids(model, NEW_TOKENS)]
    found = interleave(
        {
            "first token, nothing kept": partial(first_token, subject, turn, ()),
            "first token, prefix kept": partial(first_token, subject, turn, kept),
        },
        runs,
        report,
    )
    before, after = found.values()
    note = f"{subject.name}; {how}; {len(kept)} tokens kept and {NEW_TOKENS} read, or all read"
    yield gain("gpu-first-token", before, after, unit="ms", note=note)


def made_up_ids(model: Any, count: int) -> list[int]:
    """Ids that `model` has; how fast it is does not depend on what they say."""
    size = model.config.get_text_config().vocab_size
    return [(7919 * n + 13) % size for n in range(count)]


def bandwidth(device: Any, size: int) -> float:
    """Bytes read and written per second by the fastest of a few copies of `size` bytes."""
    import torch

    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(COPIES):
        started = time.perf_counter()
        target.copy_(source)
        target[-1].item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return 2 * size / min(seconds)


def read_bytes(model: Any) -> int:
    """Bytes of weights that one step reads: all but an embedding of its own, of which one row."""
    sizes = {id(parameter): parameter.nbytes for parameter in model.parameters()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and embedding.weight is not head.weight:
        del sizes[id(embedding.weight)]
    return sum(sizes.values())


def generate_rate(model: Any, ids: Sequence[int], tokens: int) -> float:
    """Tokens per second of `generate`, greedy, without the prefill and the first token."""
    import torch

    prompt = torch.tensor([list(ids)], device=model.device)

    def seconds(count: int) -> float:
        started = time.perf_counter()
        found = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            repetition_penalty=1.0,
            min_new_tokens=count,
            max_new_tokens=count,
        )
        found[0, -1].item()  # waits for the device
        return time.perf_counter() - started

    return tokens / max(1e-9, seconds(tokens + 1) - seconds(1))


def our_rate(subject: LoadedSubject, ids: Sequence[int], tokens: int) -> float:
    """Tokens per second of our decoder, greedy, from the first token to the last."""
    times = [time.perf_counter() for _ in _tokens(subject, ids, tokens + 1)]
    return (len(times) - 1) / (times[-1] - times[0])


def first_token(subject: LoadedSubject, ids: Sequence[int], kept: Sequence[int]) -> float:
    """Milliseconds to the first token behind `ids` when the cache holds `kept` of them."""
    subject.decoder.drop()
    if kept:
        next(_tokens(subject, kept, 1))
    started = time.perf_counter()
    next(_tokens(subject, ids, 1))
    return 1000 * (time.perf_counter() - started)


def _tokens(subject: LoadedSubject, ids: Sequence[int], count: int) -> Generator[int, None, None]:
    """`count` tokens behind `ids`; nothing ends them earlier."""
    from tui_chat.engine.decode import prefill
    from tui_chat.engine.sampling import Sampler, SamplingSettings

    logits = _result(prefill(subject.forward, ids, subject.decoder.reuse(ids), lambda: False))
    yield from subject.decoder.decode(
        logits,
        Sampler(SamplingSettings(), logits.device, lambda token: False),
        end_ids=frozenset(),
        max_new_tokens=count,
        is_letterless=lambda token: True,
        is_cancelled=lambda: False,
    )


def _result(steps: Generator[Any, None, Any]) -> Any:
    """What `steps` returns when it is run to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _ignore(progress: object) -> None:
    pass
