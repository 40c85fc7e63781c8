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
LETTERLESS_LOOP_COPIES = 32
LETTERLESS_LONG_LOOP_TOKENS = 4096
LETTERLESS_LONG_LOOP_COPIES = 8
LOOP_CHECK_EVERY = 16
LONG_LOOP_PERIODS = 2048
"""About a hundred lines."""
LONG_LOOP_CHECK_EVERY = 128
"""So seldom that a token costs as many comparisons as for the short periods."""


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
            if has_to_stop(ids, is_letterless):
                return "repetition"
            if is_cancelled():
                break
            logits = steps.after(token)
        return "cancelled"
    finally:
        steps.close()


def has_to_stop(token_ids: Sequence[int], is_letterless: Callable[[int], bool]) -> bool:
    """Whether a reply repeats itself without end; to be asked after every token of it."""
    count = len(token_ids)
    if count % LOOP_CHECK_EVERY:
        return False
    if is_looping(token_ids, is_letterless):
        return True
    return count % LONG_LOOP_CHECK_EVERY == 0 and is_looping_far(token_ids, is_letterless)


def is_looping_far(token_ids: Sequence[int], is_letterless: Callable[[int], bool]) -> bool:
    """Whether the ids end in at least four copies of a period of 129 to 2,048 tokens.

    Where no token of the period holds a letter there must be more: see `_letterless_span`.
    """
    last, count = token_ids[-1], len(token_ids)
    for period in range(LOOP_PERIODS + 1, min(LONG_LOOP_PERIODS, count // LOOP_COPIES) + 1):
        # Most periods fail at the last id, the others at the few before it.
        if token_ids[-1 - period] != last or not _repeats(token_ids, period, period + LOOP_TOKENS):
            continue
        span = LOOP_COPIES * period
        if not _repeats(token_ids, period, span):
            continue
        if _is_loop(token_ids, period, is_letterless):
            return True
    return False


def is_looping(token_ids: Sequence[int], is_letterless: Callable[[int], bool]) -> bool:
    """Whether the ids end in at least four copies of one period of at most 128 tokens.

    The copies must span 48 tokens, and more where no token of the period holds a letter: see
    `_letterless_span`.
    """
    for period in range(1, LOOP_PERIODS + 1):
        span = max(LOOP_COPIES * period, LOOP_TOKENS)
        if len(token_ids) < span:
            return False
        if _repeats(token_ids, period, span) and _is_loop(token_ids, period, is_letterless):
            return True
    return False


def _is_loop(token_ids: Sequence[int], period: int, is_letterless: Callable[[int], bool]) -> bool:
    """Whether ids that repeat every `period` so often do not do so by nature."""
    if not all(is_letterless(token) for token in set(token_ids[-period:])):
        return True
    span = _letterless_span(period)
    return len(token_ids) >= span and _repeats(token_ids, period, span)


def _letterless_span(period: int) -> int:
    """So many ids without a letter may repeat by nature.

    Rules, borders and indentation are long runs, and the rows of a matrix of zeros, of an empty
    board or of a picture made of signs are alike.
    """
    rows = min(LETTERLESS_LOOP_COPIES * period, LETTERLESS_LONG_LOOP_TOKENS)
    return max(rows, LETTERLESS_LOOP_TOKENS, LETTERLESS_LONG_LOOP_COPIES * period)


def _repeats(token_ids: Sequence[int], period: int, span: int) -> bool:
    """Whether the last `span` ids repeat every `period`."""
    if token_ids[-1] != token_ids[-1 - period]:
        return False
    return token_ids[-span:-period] == token_ids[-span + period :]
