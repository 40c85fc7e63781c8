"""Replies by the step of `cuda_graph`: a prefix that is kept, then token after token, read late.

While the host reads a token, shows it and decides whether to go on, the device computes the next.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence

import torch
from torch import Tensor

from tui_chat.engine.base import EngineError
from tui_chat.engine.cuda_attention import follows_use
from tui_chat.engine.cuda_graph import (
    SPARE_STEPS,
    EagerStep,
    NotCaptured,
    Record,
    capture,
    choose_attention,
    record_cuda_graph,
    why_not_graph,
)
from tui_chat.engine.decode import has_to_stop
from tui_chat.engine.faults import first_line
from tui_chat.engine.forward import ForwardPass, KVCache
from tui_chat.engine.prompt_cache import common_prefix
from tui_chat.engine.sampling import NO_NUMBER, Sampler
from tui_chat.engine.window_cache import WindowCache, aligned, first_capacity, next_capacity
from tui_chat.types import FinishReason

logger = logging.getLogger(__name__)

TRIAL_TOKENS = 48
"""Length of the made-up prompt that the step is warmed up, captured and proven with."""


class LateReader:
    """Brings the outcome of a step to the host while the next one runs."""

    def __init__(self, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self._device = device
        self._host = torch.zeros(3, dtype=torch.long, pin_memory=is_cuda)
        # A blocking wait leaves the core to the screen.
        self._copied: torch.cuda.Event | None = None
        if is_cuda:
            self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def start(self, outcome: Tensor) -> None:
        """Enqueue the copy; what is enqueued behind it may overwrite `outcome`."""
        self._host.copy_(outcome, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))

    def wait(self) -> tuple[int, bool, bool]:
        """Token, whether it comes from numbers, whether it is settled; of the last `start`."""
        if self._copied is not None:
            self._copied.synchronize()
        token, is_number, is_settled = self._host.tolist()
        return token, bool(is_number), bool(is_settled)


def open_graph_decoder(forward: ForwardPass, window: int) -> tuple["GraphDecoder | None", str]:
    """The decoder for the model of `forward` where it can be captured; else None and a sentence.

    The sentence tells the reader why a GPU decodes the plain way; it is empty on a CPU.
    """
    device = forward.device
    if device.type != "cuda":
        return None, ""

    def free_bytes() -> int:
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)

    reason = why_not_graph(forward.model, window, free_bytes())
    if not reason:
        try:
            return GraphDecoder(forward, window, free_bytes), ""
        except Exception as error:
            logger.exception("The decoder of captured steps cannot be set up")
            reason = f"it cannot be set up ({first_line(error)})"
    logger.info("%s", eager_note(reason))
    return None, eager_note(reason)


def eager_note(reason: str) -> str:
    """The sentence for the reader about a `reason` not to decode by a captured step."""
    return f"Decoding without a CUDA graph: {reason}."


class GraphDecoder:
    """Decodes with a static cache: eagerly at first, by a captured step after `prepare`.

    `reuse`, `count_shared`, `can_cut_back`, `note`, `drop` and `memory_bytes` are as in
    `PromptCache`.
    """

    def __init__(
        self,
        forward: ForwardPass,
        window: int,
        free_bytes: Callable[[], int],
        record: Record = record_cuda_graph,
    ) -> None:
        """Allocate the cache and run a made-up prompt through the model.

        Args:
            forward: of a model that `why_not_graph` has nothing against.
            window: tokens that prompt and reply may have together.
            free_bytes: asks for the memory that is free on the model's device.
            record: captures a step.
        """
        self._forward = forward
        self._window = window
        self._free_bytes = free_bytes
        self._record = record
        self._reader = LateReader(forward.device)
        model = forward.model
        layers = model.config.get_text_config(decoder=True).num_hidden_layers
        trial_capacity = aligned(TRIAL_TOKENS + SPARE_STEPS)
        self._held = KVCache(WindowCache(layers, trial_capacity, forward.device))
        self._step = EagerStep(model, self._cache, self._read_trial())
        self._run: Callable[[], None] = self._step
        self.attention = choose_attention(self._step, self._held.token_ids)
        """How the model attends while it decodes; see `cuda_attention`."""
        self._bytes_per_token = self._cache.memory_bytes // trial_capacity
        capacity = first_capacity(
            window, self._bytes_per_token, free_bytes(), follows_use=follows_use(self.attention)
        )
        self._grow(capacity)
        self.why_eager = ""
        """Why `prepare` captured nothing, as a sentence for the reader."""
        self.note = ""
        """Why the last `reuse` started over where it had something to reuse; else empty."""
        self._loss = ""

    @property
    def _cache(self) -> WindowCache:
        cache: WindowCache = self._held.past_key_values
        return cache

    @property
    def memory_bytes(self) -> int:
        """Memory that the cache takes, used or not."""
        return self._cache.memory_bytes

    @property
    def is_captured(self) -> bool:
        """Whether tokens come from a captured step now."""
        return self._run is not self._step

    def prepare(self) -> None:
        """Capture the step, for idle time: a second at most. Failing, stay eager for good."""
        if self.is_captured or self.why_eager:
            return
        held = self._held
        if not (held.is_intact and 2 <= len(held.token_ids) <= self._cache.capacity - SPARE_STEPS):
            try:
                self._forget()
                self._read_trial()
            except Exception as error:
                logger.exception("The made-up prompt cannot be read")
                self._stay_eager(f"its trial failed ({first_line(error)})")
                return
        self._capture()

    def _read_trial(self) -> Tensor:
        """Read the made-up prompt into an empty cache; the logits that follow it."""
        size = self._forward.model.config.vocab_size
        return self._forward([(7919 * n) % size for n in range(TRIAL_TOKENS)], self._held)

    def _capture(self) -> None:
        try:
            self._run = capture(self._step, self._held.token_ids, self._record)
        except NotCaptured as reason:
            self._stay_eager(str(reason))

    def _stay_eager(self, reason: str) -> None:
        self.why_eager = eager_note(reason)
        logger.info("%s", self.why_eager)

    def reuse(self, prompt_ids: Sequence[int]) -> KVCache:
        """The cache for `prompt_ids`: `token_ids` of it need not be read again.

        At least the last id of the prompt is left to be read, because its logits are needed.

        Raises:
            EngineError: the device has no room for the prompt.
        """
        self.note, self._loss = self._loss, ""
        held = self._held
        if not held.is_intact:
            self._forget()
        keep = min(common_prefix(held.token_ids, prompt_ids), len(prompt_ids) - 1)
        del held.token_ids[keep:]
        self._cache.rewind(keep)
        if not self._has_room(len(prompt_ids)):
            raise EngineError(
                f"The GPU's memory has no room for a conversation of {len(prompt_ids):,} tokens;"
                " start a new chat, or use a smaller --context."
            )
        return held

    def count_shared(self, prompt_ids: Sequence[int]) -> int:
        """How many of `prompt_ids` `reuse` would find in the cache; from any thread."""
        held = self._held
        if not held.is_intact:
            return 0
        return min(common_prefix(held.token_ids, prompt_ids), len(prompt_ids) - 1)

    def can_cut_back(self, tokens: int) -> bool:
        """Whether what is held can be cut back once it has grown to `tokens`; any thread."""
        return self._held.is_intact and tokens <= self._cache.capacity

    def drop(self, loss: str = "") -> None:
        """Forget the prompt; `loss` is what the next `note` says.

        The memory stays, because a captured step knows its addresses. It is wiped by the next
        reply: after some faults the device can only be left alone.
        """
        self._held.is_intact = False
        self._loss = loss

    def decode(
        self,
        logits: Tensor,
        sampler: Sampler,
        *,
        end_ids: frozenset[int],
        max_new_tokens: int,
        is_letterless: Callable[[int], bool],
        is_cancelled: Callable[[], bool],
        earlier: Sequence[int] = (),
    ) -> Generator[int, None, FinishReason]:
        """Generate from the `logits` of a prefill of what `reuse` gave; as `decode.decode`.

        The settings of `sampler` are followed, also when they change; it draws itself only what
        the device cannot. The last id that was yielded is in the cache where the reply did not
        end for its length.

        Raises:
            FloatingPointError: the model computed no valid number.
        """
        ids = list(earlier)
        most = len(ids) + max_new_tokens
        tokens = self._tokens(logits, sampler, max_new_tokens)
        while not is_cancelled():
            token = next(tokens, None)
            if token is None:
                return "length"
            ids.append(token)
            yield token
            if token in end_ids:
                return "stop"
            if len(ids) >= most:
                return "length"
            if has_to_stop(ids, is_letterless):
                return "repetition"
        return "cancelled"

    def _forget(self) -> None:
        self._cache.forget()
        self._held.token_ids.clear()
        self._held.is_intact = True

    def _tokens(self, logits: Tensor, sampler: Sampler, limit: int) -> Iterator[int]:
        """At most `limit` tokens behind `logits`; fewer where the memory ends.

        Whenever it stands still, the cache holds exactly `token_ids`.
        """
        step, ids = self._step, self._held.token_ids
        drawn: list[int] = []  # tokens that `sampler` does not know yet
        settings = sampler.settings
        on_device = step.sampler.can_draw(settings)
        step.sampler.begin(sampler)
        step.choose(logits)
        for left in reversed(range(limit)):
            if sampler.settings is not settings:
                settings = sampler.settings
                _tell(sampler, drawn)
                on_device = step.sampler.can_draw(settings)
                step.sampler.follow(sampler)
                step.choose(step.logits)  # what was drawn ahead was drawn the old way
            goes_on = left > 0 and self._has_room(len(ids) + 1)
            if on_device:
                token, is_settled = self._drawn_ahead(goes_on)
                if is_settled:
                    drawn.append(token)
                    yield token
                    if left and not goes_on:
                        return
                    continue
                # Rare: more than the candidates may be drawn. The whole order is for the host.
                on_device = False
                _tell(sampler, drawn)
            token = sampler.sample(step.logits)
            yield token
            if not goes_on:
                return
            self._feed(token)

    def _drawn_ahead(self, goes_on: bool) -> tuple[int, bool]:
        """The token that the device has drawn, read while it is fed, and whether it is settled.

        Where it is not, the step is taken back, and its logits are there again.

        Raises:
            FloatingPointError: it was drawn from something else than numbers.
        """
        held, step = self._held, self._step
        self._reader.start(step.outcome)
        if goes_on:
            held.is_intact = False
            self._run()
        token, is_number, is_settled = self._reader.wait()
        if is_number and is_settled:
            if goes_on:
                held.token_ids.append(token)
                held.is_intact = True
            return token, True
        if not is_number:
            raise FloatingPointError(NO_NUMBER)
        last = held.token_ids.pop()
        step.cache.rewind(len(held.token_ids))
        self._feed(last)
        return token, False

    def _feed(self, token_id: int) -> None:
        """Append `token_id` to what is held; its logits are then those of the step."""
        self._held.is_intact = False
        self._step.token.fill_(token_id)
        self._run()
        self._held.token_ids.append(token_id)
        self._held.is_intact = True

    def _has_room(self, tokens: int) -> bool:
        """Whether the cache has room for `tokens`; it grows where the memory allows."""
        if tokens > self._cache.capacity:
            free = self._free_bytes()
            size = next_capacity(
                tokens, self._cache.capacity, self._window, self._bytes_per_token, free
            )
            if tokens <= size:
                self._grow(size)
        return tokens <= self._cache.capacity

    def _grow(self, capacity: int) -> None:
        """Move to a cache of `capacity` tokens; a captured step is captured again."""
        if capacity <= self._cache.capacity:
            return
        was_captured = self.is_captured
        self._run = self._step  # a graph writes to the addresses it knows
        self._held.is_intact = False  # for good where the memory ends half-way
        self._held.past_key_values = self._cache.grown(capacity, len(self._held.token_ids))
        self._held.is_intact = True
        self._step.cache = self._cache
        if was_captured:
            self._capture()


def _tell(sampler: Sampler, drawn: list[int]) -> None:
    """Let `sampler` know the tokens that were drawn without it."""
    for token_id in drawn:
        sampler.append(token_id)
    drawn.clear()
