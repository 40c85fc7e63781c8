"""One decode step as two twins: run kernel by kernel, or captured once and replayed.

At batch 1 a GPU waits for the calls that start its kernels, a thousand and more per token; a
CUDA graph starts them with one. torch.compile would do so as well, but it needs a C compiler and
20 to 60 seconds on the user's machine, compiles again for each cache length, and keeps its
graphs per thread; capturing takes a fraction of a second and replays from any thread.

What was run: both twins, the capture against stand-ins of a graph, and every refusal, on a CPU.
What was not run on a device yet: the capture itself (`record_cuda_graph`), flash attention and
the copy through pinned memory. So each capture is proven before it is used, and what fails the
proof is decoded eagerly.
"""

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tui_chat.engine.checkpoint import as_gigabytes
from tui_chat.engine.cuda_attention import attentions
from tui_chat.engine.device_sampler import DeviceSampler
from tui_chat.engine.faults import first_line
from tui_chat.engine.forward import cache_argument
from tui_chat.engine.hardware import kv_bytes_per_token
from tui_chat.engine.window_cache import WindowCache, first_capacity, has_plain_layers

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 3
"""Steps before a capture: libraries allocate their work spaces and load their kernels."""
SPARE_STEPS = WARM_UP_STEPS + 1
"""Tokens that must have room behind those held while a step is captured."""
CLOSE_LOGITS = {torch.float32: 1e-3}
CLOSE_LOGITS_HALF = 0.05
"""How far logits may be apart, as a share of their norm: kernels round differently."""


class NotCaptured(Exception):
    """A step cannot be replayed; `str()` is the reason, a clause for the reader."""


class Graph(Protocol):
    """A captured step."""

    def replay(self) -> None:
        """Run it once, enqueued on the current stream."""
        ...


Record = Callable[[Callable[[], None], torch.device], Graph]
"""Captures a call on a device; raises what it likes."""


def why_not_graph(model: Any, window: int, free_bytes: int) -> str:
    """The first reason why a captured step would fail or, worse, be wrong in silence; or "".

    Args:
        model: a transformers causal LM in eval mode.
        window: tokens that a conversation may have.
        free_bytes: of its device, beside the weights.
    """
    config = model.config.get_text_config(decoder=True)
    places = {parameter.device for parameter in model.parameters()}
    mapped = set((getattr(model, "hf_device_map", None) or {}).values())
    is_spread = len(places) > 1 or len(mapped) > 1
    parameters = inspect.signature(model.forward).parameters
    mixture = any("experts" in name.split(".") for name, _ in model.named_modules())
    # `batched_mm` picks the experts on the device; all others count tokens on the host.
    routes_on_host = getattr(config, "_experts_implementation", None) != "batched_mm"
    reasons = {
        "it also reads images or sound": config is not model.config,
        "its sliding-window or recurrent layers keep their length on the host": (
            "cache_params" in parameters or not has_plain_layers(config)
        ),
        "its mixture of experts waits for the device to route tokens": mixture and routes_on_host,
        "its rotary embedding looks at the position on the host": bool(
            _rope_types(config) & {"dynamic", "longrope"}
        ),
        "LLM.int8 waits for the device in every layer": getattr(model, "is_loaded_in_8bit", False),
        "its forward pass depends on the data": not getattr(model, "_can_compile_fullgraph", False),
        "it is spread over several devices": is_spread,
        "there is no CUDA device": torch.device(model.device).type != "cuda",
    }
    if reason := next((reason for reason, holds in reasons.items() if holds), ""):
        return reason
    per_token = kv_bytes_per_token(config.to_dict(), model.dtype.itemsize)
    if first_capacity(window, per_token, free_bytes, follows_use=True):
        return ""
    return f"its cache does not fit into the {as_gigabytes(free_bytes)} that are free"


def _rope_types(config: Any) -> set[str]:
    """How the positions are scaled; layers of one model may do it differently."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = (rope, *rope.values())
    return {str(kind.get("rope_type")) for kind in kinds if isinstance(kind, dict)}


class EagerStep:
    """A token in, a token out, both on the device: the plain twin.

    `token` is the next input and, after a call, the next output; the cache holds what came before
    it. A captured twin knows the addresses of everything here: tensors are written in place.
    """

    def __init__(self, model: Any, cache: WindowCache, logits: Tensor) -> None:
        """Args: logits: those of any forward pass of `model`, (vocabulary,)."""
        self.model = model
        self.cache = cache
        self._cache_name = cache_argument(model)
        self.sampler = DeviceSampler(logits.shape[-1], logits.device)
        self.logits = torch.zeros_like(logits)
        """What the token was chosen from."""
        self.token = torch.zeros(1, 1, dtype=torch.long, device=logits.device)
        self.outcome = torch.zeros(3, dtype=torch.long, device=logits.device)
        """See `DeviceSampler.__call__`."""

    @torch.no_grad()
    def __call__(self) -> None:
        """Feed `token`; the cache must have room, which the device would not survive otherwise."""
        output = self.model(
            input_ids=self.token,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_name: self.cache},
        )
        self.choose(output.logits[0, -1])

    @torch.no_grad()
    def choose(self, logits: Tensor) -> None:
        """Make the choice from `logits` (vocabulary,) the token that is fed next."""
        self.logits.copy_(logits)
        self.outcome.copy_(self.sampler(self.logits))
        self.token.copy_(self.outcome[:1].view(1, 1))

    def feed(self, token_id: int, held: int) -> None:
        """Make `token_id` the next input, behind the first `held` tokens of the cache."""
        self.cache.rewind(held)
        self.token.fill_(token_id)


@dataclass(frozen=True, slots=True)
class CapturedStep:
    """The other twin: does what the `EagerStep` it was captured from does, to the same tensors."""

    graph: Graph

    def __call__(self) -> None:
        """Replay the step."""
        self.graph.replay()


def record_cuda_graph(call: Callable[[], None], device: torch.device) -> Graph:
    """Capture `call` as a CUDA graph; it is run a few times before, and not by the capture."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream(device)
        stream.wait_stream(current)
        # Work spaces of cuBLAS belong to a stream, so the capture's own is warmed up.
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                call()
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate or ask for free memory meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            call()
    return graph


def capture(step: EagerStep, token_ids: Sequence[int], record: Record) -> CapturedStep:
    """Capture `step` and prove it; state, cache and random numbers are afterwards as before.

    Args:
        token_ids: what the cache holds, two at least; `SPARE_STEPS` more must fit.

    Raises:
        NotCaptured: it did not work, or a replay did not do what the step does.
    """
    held = len(token_ids)
    if held + SPARE_STEPS > step.cache.capacity:
        raise NotCaptured("the cache is full")
    try:
        with _Unchanged(step, held):
            captured = CapturedStep(record(step, step.token.device))
            # A position that is frozen into the graph shows at another one.
            for place in (held, held // 2):
                fed = token_ids[place] if place < held else 0
                if fault := _disproof(step, captured, fed, place):
                    raise NotCaptured(f"a replay does not do what the step does ({fault})")
    except NotCaptured:
        raise
    except Exception as error:
        logger.warning("Capturing the decode step failed", exc_info=True)
        raise NotCaptured(f"its capture failed ({first_line(error)})") from error
    return captured


class _Unchanged:
    """Puts back what a step behind `held` tokens moves: all it writes to, and the length."""

    def __init__(self, step: EagerStep, held: int) -> None:
        self._step = step
        self._held = held

    def __enter__(self) -> None:
        step = self._step
        written = [step.token, step.outcome, step.logits, step.sampler.seen]
        for layer in step.cache.layers:
            written += [states[:, :, self._held] for states in (layer.keys, layer.values)]
        self._before = [(tensor, tensor.clone()) for tensor in written]
        self._random = step.sampler.generator.get_state()

    def __exit__(self, *_: object) -> None:
        for tensor, before in self._before:
            tensor.copy_(before)
        self._step.sampler.generator.set_state(self._random)
        self._step.cache.rewind(self._held)


def _disproof(step: EagerStep, captured: CapturedStep, fed: int, held: int) -> str:
    """What a replay does differently from the step itself after `held` tokens; "" for nothing."""
    with _Unchanged(step, held):
        step.feed(fed, held)
        step()
        expected = step.logits.clone()
    with _Unchanged(step, held):
        step.feed(fed, held)
        random = step.sampler.generator.get_state()
        step.logits.zero_()
        captured()
        found, length = step.logits.clone(), int(step.cache.length)
        drew = not torch.equal(random, step.sampler.generator.get_state())
    if length != held + 1:
        return f"the cache holds {length} tokens instead of {held + 1}"
    if not are_close(found, expected):
        return "other logits"
    return "" if drew else "its random numbers stand still"


def are_close(found: Tensor, expected: Tensor) -> bool:
    """Whether logits (vocabulary,) are the same but for rounding, and lead to the same token.

    The best token may be another one only where the two are as good within rounding.
    """
    bound = CLOSE_LOGITS.get(expected.dtype, CLOSE_LOGITS_HALF)
    found, expected = found.float(), expected.float()
    error = (found - expected).norm()
    if not bool(error <= bound * expected.norm()):  # also where one of them is NaN
        return False
    behind = expected.max() - expected[found.argmax()]
    return bool(behind <= bound * expected.abs().max())


def choose_attention(step: EagerStep, token_ids: Sequence[int]) -> str:
    """Switch the model to the fastest way to attend that gives the logits of the stock way.

    It is tried with the last of `token_ids`, which the cache holds; afterwards it is as before.
    """
    *faster, stock = attentions(step.model)
    held = len(token_ids)
    with _Unchanged(step, held):
        expected = _logits_with(step, stock, token_ids[-1], held - 1)
        for name in faster:
            try:
                if are_close(_logits_with(step, name, token_ids[-1], held - 1), expected):
                    return name
                logger.warning("Attention %s is not used: other logits", name)
            except Exception as error:
                logger.warning("Attention %s is not used: %s", name, first_line(error))
    step.model.set_attn_implementation(stock)
    return stock


def _logits_with(step: EagerStep, attention: str, fed: int, held: int) -> Tensor:
    step.model.set_attn_implementation(attention)
    with _Unchanged(step, held):
        step.feed(fed, held)
        step()
        return step.logits.clone()
