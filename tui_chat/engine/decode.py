"""The steps of a reply: prefill in chunks, then one token after another.

Knows ids and tensors only; text, settings and the choice of what to reuse are elsewhere.
"""

from collections.abc import Callable, Generator, Sequence

from torch import Tensor

from tui_chat.engine.forward import ForwardPass, KVCache
from tui_chat.engine.sampling import Sampler
from tui_chat.engine.speculation import Steps
from tui_chat.types import FinishReason, PrefillProgress

LOOP_PERIODS = 128
LOOP_COPIES = 4
LOOP_TOKENS = 48
LETTERLESS_LOOP_TOKENS = 400
LOOP_CHECK_EVERY = 16


def prefill(
    forward: ForwardPass,
    prompt_ids: Sequence[int],
    cache: KVCache,
    is_cancelled: Callable[[], bool],
) -> Generator[PrefillProgress, None, Tensor | None]:
    """Read what `cache` does not hold of the prompt, chunk by chunk.

    Yields progress before the first chunk and after each. Returns the logits that follow the
    prompt, or None when cancelled; what was read stays in the cache.
    """
    total = len(prompt_ids)
    done = len(cache.token_ids)
    logits: Tensor | None = None
    yield PrefillProgress(done, total)
    while done < total:
        if is_cancelled():
            return None
        chunk = prompt_ids[done : done + forward.chunk]
        logits = forward(chunk, cache)
        done += len(chunk)
        yield PrefillProgress(done, total)
    return logits


def decode(
    steps: Steps,
    logits: Tensor,
    sampler: Sampler,
    *,
    end_ids: frozenset[int],
    max_new_tokens: int,
    is_letterless: Callable[[int], bool],
    is_cancelled: Callable[[], bool],
    earlier: Sequence[int] = (),
) -> Generator[int, None, FinishReason]:
    """Generate from the `logits` of a prefill; yields each id, the end-of-turn id included.

    Each id is drawn when it is asked for, so that `sampler` and `steps` may be changed between
    two of them. `earlier` is the beginning of a reply that goes on. Returns why it ended: stop,
    length, cancelled or repetition. The last id that was yielded is not in the cache.

    Raises:
        FloatingPointError: see `Sampler.sample`.
    """
    ids = list(earlier)
    most = len(ids) + max_new_tokens
    try:
        while not is_cancelled():
            token = sampler.sample(logits)
            ids.append(token)
            yield token
            if token in end_ids:
                return "stop"
            if len(ids) >= most:
                return "length"
            if len(ids) % LOOP_CHECK_EVERY == 0 and is_looping(ids, is_letterless):
                return "repetition"
            if is_cancelled():
                break
            logits = steps.after(token)
        return "cancelled"
    finally:
        steps.close()


def is_looping(token_ids: Sequence[int], is_letterless: Callable[[int], bool]) -> bool:
    """Whether the ids end in at least four copies of one period of at most 128 tokens.

    The copies must span 48 tokens, and 400 where no token of the period holds a letter: rules,
    borders, indentation and matrices of zeros are long runs by nature.
    """
    for period in range(1, LOOP_PERIODS + 1):
        span = max(LOOP_COPIES * period, LOOP_TOKENS)
        if len(token_ids) < span:
            return False
        if not _repeats(token_ids, period, span):
            continue
        if not all(is_letterless(token) for token in set(token_ids[-period:])):
            return True
        longer = max(span, LETTERLESS_LOOP_TOKENS)
        if len(token_ids) >= longer and _repeats(token_ids, period, longer):
            return True
    return False


def _repeats(token_ids: Sequence[int], period: int, span: int) -> bool:
    """Whether the last `span` ids repeat every `period`."""
    if token_ids[-1] != token_ids[-1 - period]:
        return False
    return token_ids[-span:-period] == token_ids[-span + period :]
