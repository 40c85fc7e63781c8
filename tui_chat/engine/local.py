"""A Hugging Face model in this process: messages in, reply events out, one reply at a time."""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from tui_chat.engine.base import EngineError, PollSettings
from tui_chat.engine.calibration import plan_for
from tui_chat.engine.decode import decode, prefill
from tui_chat.engine.forward import ForwardPass
from tui_chat.engine.graph_decoder import GraphDecoder, open_graph_decoder
from tui_chat.engine.loader import LoadedModel
from tui_chat.engine.memory import PeakMemory, device_memory, free_unused
from tui_chat.engine.prompt_cache import PromptCache
from tui_chat.engine.running_reply import RunningReply, figures_line
from tui_chat.engine.sampling import Sampler, SamplingSettings
from tui_chat.engine.speculation import PassCosts, Steps
from tui_chat.engine.text_stream import TextStream
from tui_chat.engine.tokenizer import ChatTokenizer, EncodedPrompt
from tui_chat.types import (
    EngineEvent,
    FinishReason,
    GenerationFinished,
    GenerationSettings,
    MemoryUse,
    Message,
    TextDelta,
)

logger = logging.getLogger(__name__)

WARM_UP_TOKENS = 4
TEXT_CONTEXT = 4
"""So many ids of a reply that goes on decide how the next ones are decoded."""
LOCK_POLL_SECONDS = 0.05
CLOSE_WAIT_SECONDS = 10.0

OpenGraphDecoder = Callable[[ForwardPass, int], tuple[GraphDecoder | None, str]]
"""See `graph_decoder.open_graph_decoder`."""


class LocalEngine:
    """An `Engine` on transformers; see `tui_chat.engine.base.Engine` for the contract."""

    def __init__(
        self, loaded: LoadedModel, open_graph_decoder: OpenGraphDecoder = open_graph_decoder
    ) -> None:
        """Take over a loaded model and run it once, so that the first reply is not slower.

        On CUDA the decode step is captured afterwards, in idle time.
        """
        self.name = loaded.name
        self.revision = loaded.revision
        self.context_window = loaded.context_window
        self.precision = loaded.precision
        self.device = loaded.device
        self.dtype = loaded.dtype
        self.rungs = loaded.rungs
        self.exact_counts = True
        self.counts_here = True
        self._weights_bytes = loaded.weights_bytes
        self._tokenizer = ChatTokenizer(loaded.tokenizer)
        self.tokenizer_id = self._tokenizer.tokenizer_id
        self.notes = (*loaded.notes, *self._tokenizer.notes)
        self._generation_config = loaded.model.generation_config
        self._end_ids = end_ids(loaded.model) | self._tokenizer.end_ids
        plan = plan_for(loaded.model) if self.device == "cpu" else None
        self._forward: ForwardPass | None = ForwardPass(loaded.model, plan)
        self._graph, why_eager = open_graph_decoder(self._forward, self.context_window)
        self.notes += (why_eager,) if why_eager else ()
        self._cache: PromptCache | GraphDecoder = self._graph or PromptCache(loaded.model.config)
        self._costs = PassCosts()
        self._peak = PeakMemory(self._forward.device)
        self._last_ids: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        """The prompt and the reply that were generated last."""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        if self._graph is None:
            self.warm_up()
        else:
            threading.Thread(
                target=self._capture, args=(self._graph,), name="capture", daemon=True
            ).start()

    def count_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """Exact length of the prompt that `messages` render to, from any thread.

        Raises:
            EngineError: the chat template refuses this conversation.
        """
        return self._tokenizer.count_tokens(messages, thinking)

    def count_cached(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """How many tokens of that prompt are in the cache now; raises as `count_tokens`."""
        ids, _ = self._as_generated(self._tokenizer.encode(messages, thinking))
        return self._cache.count_shared(ids)

    def can_take_back(self, tokens: int) -> bool:
        """Whether the cache can be cut back after it has grown to `tokens`."""
        return self._cache.can_cut_back(tokens)

    def count_message(self, message: Message) -> int:
        """What one message adds to a prompt; cached."""
        return self._tokenizer.count_message(message)

    def warm_up(self) -> None:
        """Run a few tokens through the model: pages weights in and lets libraries set up."""
        if self._forward is None:
            return
        scratch = PromptCache(self._forward.model.config)
        ids = [0] * WARM_UP_TOKENS
        try:
            cache = scratch.reuse(ids)
            self._forward(ids, cache)
            self._forward(ids[:1], cache)
        except Exception:
            logger.exception("Warm-up failed; the first reply will say why")

    def _capture(self, graph: GraphDecoder) -> None:
        """Capture the decode step while no reply is generated; the first may be eager."""
        with self._lock:
            if not self._closing.is_set():
                graph.prepare()
        self.notes += (graph.why_eager,) if graph.why_eager else ()

    def stream(
        self,
        messages: Sequence[Message],
        settings: PollSettings,
        cancel: threading.Event,
    ) -> Iterator[EngineEvent]:
        """Generate the reply to `messages`; see `Engine.stream`."""

        def is_cancelled() -> bool:
            return cancel.is_set() or self._closing.is_set()

        reply = RunningReply()
        while not self._lock.acquire(timeout=LOCK_POLL_SECONDS):
            if is_cancelled():
                yield self._finished(reply, "cancelled")
                return
        try:
            error, out_of_memory = "", False
            reason: FinishReason = "error"
            self._peak.reset()
            try:
                reason = yield from self._generate(reply, messages, settings, is_cancelled)
            except Exception as fault:
                error = self._explain(fault, reply)
                out_of_memory = _is_out_of_memory(fault)
                # The traceback would keep the tensors of the failed step alive.
                fault.with_traceback(None)
            if error:
                self._recover()
            yield self._finished(reply, reason, error, out_of_memory=out_of_memory)
        finally:
            self._lock.release()

    def memory(self) -> MemoryUse | None:
        """Memory of the device now; None once the engine is closed."""
        if self._forward is None:
            return None
        used, free, total = device_memory(self._forward.device)
        return MemoryUse(
            weights_bytes=self._weights_bytes,
            cache_bytes=self._cache.memory_bytes,
            used_bytes=used,
            free_bytes=free,
            total_bytes=total,
        )

    def close(self) -> None:
        """End a running reply, then free the weights and the cache."""
        self._closing.set()
        held = self._lock.acquire(timeout=CLOSE_WAIT_SECONDS)
        try:
            self._forward = self._graph = None
            self._cache.drop()
            self._cache = PromptCache(None)
            free_unused()
        finally:
            if held:
                self._lock.release()

    def _generate(
        self,
        reply: RunningReply,
        messages: Sequence[Message],
        poll: PollSettings,
        is_cancelled: Callable[[], bool],
    ) -> Generator[EngineEvent, None, FinishReason]:
        """The events of one reply up to its end; fills `reply` and returns why it ended."""
        if self._forward is None:
            raise EngineError("The model was closed; choose one with Ctrl+L.")
        settings = poll()
        prompt = self._tokenizer.encode(messages, settings.thinking)
        reply.prompt_ids, reply.continued_ids = self._as_generated(prompt)
        reply.tokenize_seconds = prompt.seconds
        reply.started = time.perf_counter()
        room = self.context_window - len(reply.prompt_ids)
        if room < 1:
            raise EngineError(
                f"The prompt has {len(reply.prompt_ids)} tokens but the context window holds "
                f"{self.context_window}; shorten the message or start a new chat."
            )
        sampler = Sampler(
            resolve(settings, self._generation_config),
            self._forward.device,
            self._tokenizer.is_wordless,
            prompt_ids=reply.prompt_ids,
            continued=len(reply.continued_ids),
        )
        text = TextStream(
            self._tokenizer,
            in_reasoning=prompt.opens_reasoning,
            stop_strings=(*settings.stop_strings, *self._tokenizer.end_strings),
            before=self._text_context(reply.continued_ids),
        )
        cache = self._cache.reuse(reply.prompt_ids)
        reply.cached_tokens, reply.cache_note = len(cache.token_ids), self._cache.note
        logits = yield from prefill(self._forward, reply.prompt_ids, cache, is_cancelled)
        if logits is None:
            return "cancelled"
        most = min(settings.max_new_tokens, room)
        steps = Steps(self._forward, cache, self._costs, most_ids=len(reply.prompt_ids) + most)
        steps.speculates = bool(settings.speculation)

        def adapt() -> None:
            nonlocal settings
            if (wanted := poll()) is not settings:
                settings = wanted
                sampler.change(resolve(settings, self._generation_config))
                steps.speculates = bool(settings.speculation)

        run = partial(decode, steps) if self._graph is None else self._graph.decode
        tokens = run(
            logits,
            sampler,
            end_ids=self._end_ids,
            max_new_tokens=most,
            is_letterless=self._tokenizer.is_letterless,
            is_cancelled=is_cancelled,
            earlier=reply.continued_ids,
        )
        try:
            reason = yield from self._write(reply, text, tokens, adapt)
        finally:
            reply.drafted_tokens = steps.drafted_tokens
            reply.speculation_note = steps.why_not_speculating
            if steps.speculates and self._graph is not None:
                reply.speculation_note = "the captured step takes one token at a time"
            tokens.close()
            start = len(reply.prompt_ids) - len(reply.continued_ids)
            self._last_ids = reply.prompt_ids[:start], (*reply.continued_ids, *reply.new_ids)
        return reason

    def _as_generated(self, prompt: EncodedPrompt) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of `prompt`, and those of them that are the beginning of the reply.

        A reply that goes on has the ids that it was generated with, for its text may be encoded
        in another way, and the model goes on from the last id that it chose.
        """
        if not prompt.continued:
            return prompt.token_ids, ()
        before = prompt.token_ids[: -prompt.continued]
        encoded = prompt.token_ids[-prompt.continued :]
        last_prompt, last_reply = self._last_ids
        decode_ids = self._tokenizer.decode
        if before == last_prompt and decode_ids(last_reply) == decode_ids(encoded):
            return (*before, *last_reply), last_reply
        return prompt.token_ids, encoded

    def _text_context(self, continued_ids: tuple[int, ...]) -> tuple[int, ...]:
        """The last of `continued_ids`, from which on their text is whole characters."""
        for count in range(min(TEXT_CONTEXT, len(continued_ids)), 0, -1):
            if "\ufffd" not in self._tokenizer.decode(continued_ids[-count:]):
                return continued_ids[-count:]
        return ()

    def _write(
        self,
        reply: RunningReply,
        text: TextStream,
        tokens: Generator[int, None, FinishReason],
        adapt: Callable[[], None],
    ) -> Generator[TextDelta, None, FinishReason]:
        """Turn ids into text events until they end or a stop string is found.

        `adapt` is called before each token, so that changed settings count from it on.
        """
        reason: FinishReason
        try:
            while True:
                adapt()
                try:
                    token = next(tokens)
                except StopIteration as end:
                    reason = end.value
                    break
                reply.add(token)
                if token in self._end_ids:
                    continue
                for piece in text.push(token):
                    yield reply.delta(piece)
                if text.stopped:
                    return "stop"
        except Exception:
            for piece in text.finish():
                yield reply.delta(piece)
            raise
        for piece in text.finish():
            yield reply.delta(piece)
        return "stop" if text.stopped else reason

    def _finished(
        self,
        reply: RunningReply,
        reason: FinishReason,
        error: str = "",
        *,
        out_of_memory: bool = False,
    ) -> GenerationFinished:
        metrics = reply.metrics(self.precision, self._peak.bytes())
        logger.info("Reply (%s): %s", reason, figures_line(metrics))
        return GenerationFinished(
            finish_reason=reason,
            metrics=metrics,
            prompt_ids=reply.prompt_ids,
            new_ids=tuple(reply.new_ids),
            error=error,
            out_of_memory=out_of_memory,
        )

    def _explain(self, fault: Exception, reply: RunningReply) -> str:
        """One sentence for the reader; faults that nobody foresaw go to the log as well."""
        count = len(reply.new_ids)
        match fault:
            case EngineError() | FloatingPointError():
                return str(fault)
            case _ if not _is_out_of_memory(fault):
                logger.exception("Generation failed")
                return f"Generation failed ({type(fault).__name__}); the log has the details."
        on_gpu = isinstance(fault, torch.OutOfMemoryError) and self.device != "cpu"
        place = "the GPU's memory" if on_gpu or _is_cuda_memory_fault(str(fault)) else "memory"
        return (
            f"Out of {place} after {count} tokens; start a new chat, or use a smaller --context "
            "or model."
        )

    def _recover(self) -> None:
        """Give back what a failed reply held; the next one starts with an empty cache."""
        self._cache.drop("the cache was given up after an error")
        free_unused()


def resolve(settings: GenerationSettings, generation_config: Any) -> SamplingSettings:
    """Fill the values that `settings` leave open from the model's generation config.

    Sampling is on when either says so, or when neither says and one gives a temperature.
    """

    def pick(name: str, neutral: Any) -> Any:
        for source in (settings, generation_config):
            value = getattr(source, name, None)
            if value is not None:
                return value
        return neutral

    return SamplingSettings(
        do_sample=bool(pick("do_sample", pick("temperature", 0.0) > 0)),
        temperature=float(pick("temperature", 1.0)),
        top_k=int(pick("top_k", 0)),
        top_p=float(pick("top_p", 1.0)),
        min_p=float(pick("min_p", 0.0)),
        repetition_penalty=float(pick("repetition_penalty", 1.0)),
        no_repeat_ngram_size=int(pick("no_repeat_ngram_size", 0)),
        penalty_scope=settings.penalty_scope or "reply",
        seed=settings.seed,
    )


def end_ids(model: Any) -> frozenset[int]:
    """All end-of-turn ids that the model's generation config and config name."""
    ids: set[int] = set()
    for source in (model.generation_config, model.config.get_text_config(decoder=True)):
        value = getattr(source, "eos_token_id", None)
        if value is not None:
            ids.update([value] if isinstance(value, int) else value)
    return frozenset(ids)


def _is_out_of_memory(fault: Exception) -> bool:
    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(fault)
    return isinstance(fault, RuntimeError) and (
        "can't allocate memory" in text or _is_cuda_memory_fault(text)
    )


def _is_cuda_memory_fault(text: str) -> bool:
    return "CUDA error: out of memory" in text or "CUBLAS_STATUS_ALLOC_FAILED" in text
