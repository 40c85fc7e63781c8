from collections.abc import Callable, Generator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tiny_models import CONFIGS, tiny_model
from transformers import AutoTokenizer, DynamicCache

from tui_chat.engine.attention import PACKED
from tui_chat.engine.decode import (
    LONG_LOOP_CHECK_EVERY,
    LONG_LOOP_PERIODS,
    LOOP_CHECK_EVERY,
    LOOP_PERIODS,
    decode,
    has_to_stop,
    is_looping,
    prefill,
)
from tui_chat.engine.forward import ForwardPass, KVCache
from tui_chat.engine.hub import guide_folder
from tui_chat.engine.sampling import Sampler, SamplingSettings
from tui_chat.engine.speculation import PassCosts, Steps
from tui_chat.engine.tokenizer import ChatTokenizer

pytestmark = pytest.mark.engine

PROMPT = [(7 * i) % 300 + 3 for i in range(40)]


def never() -> bool:
    return False


def all_words(token_id: int) -> bool:
    return False


def drain(steps: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    """What a generator yields and what it returns."""
    yielded = []
    while True:
        try:
            yielded.append(next(steps))
        except StopIteration as end:
            return yielded, end.value


def new_cache(forward: ForwardPass) -> KVCache:
    return KVCache(DynamicCache(config=forward.model.config))


def generate(
    forward: ForwardPass,
    cache: KVCache,
    *,
    end_ids: frozenset[int] = frozenset(),
    max_new_tokens: int = 20,
    is_cancelled: Callable[[], bool] = never,
) -> tuple[list[int], str]:
    _, logits = drain(prefill(forward, PROMPT, cache, never))
    sampler = Sampler(SamplingSettings(), "cpu", all_words)
    return drain(
        decode(
            Steps(forward, cache, PassCosts(), most_ids=1000),
            logits,
            sampler,
            end_ids=end_ids,
            max_new_tokens=max_new_tokens,
            is_letterless=all_words,
            is_cancelled=is_cancelled,
        )
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_greedy_ids_are_those_of_generate(kind: str) -> None:
    plain = tiny_model(kind)
    expected = plain.generate(torch.tensor([PROMPT]), max_new_tokens=20, do_sample=False)
    forward = ForwardPass(tiny_model(kind))

    ids, reason = generate(forward, new_cache(forward))

    assert ids == expected[0, len(PROMPT) :].tolist()
    assert reason == "length"


@pytest.mark.parametrize("kind", CONFIGS)
def test_prefill_in_chunks_gives_the_logits_of_one_pass(kind: str) -> None:
    forward = ForwardPass(tiny_model(kind))
    _, whole = drain(prefill(forward, PROMPT, new_cache(forward), never))

    forward.chunk = 7
    progress, chunked = drain(prefill(forward, PROMPT, new_cache(forward), never))

    torch.testing.assert_close(chunked, whole, atol=2e-4, rtol=2e-4)
    assert [step.done for step in progress] == [0, 7, 14, 21, 28, 35, 40]
    assert {step.total for step in progress} == {40}


@pytest.mark.parametrize("kind", CONFIGS)
def test_verified_rows_are_the_logits_of_single_steps(kind: str) -> None:
    forward = ForwardPass(tiny_model(kind))
    stepped, at_once = new_cache(forward), new_cache(forward)
    forward(PROMPT[:12], stepped)
    forward(PROMPT[:12], at_once)

    rows = forward.verify(PROMPT[12:20], at_once)

    one_by_one = torch.stack([forward([token], stepped) for token in PROMPT[12:20]])
    torch.testing.assert_close(rows, one_by_one, atol=2e-4, rtol=2e-4)
    assert at_once.token_ids == stepped.token_ids == PROMPT[:20]


def test_cancel_between_chunks_keeps_what_was_read() -> None:
    forward = ForwardPass(tiny_model())
    forward.chunk = 10
    cache = new_cache(forward)
    steps = prefill(forward, PROMPT, cache, lambda: len(cache.token_ids) >= 20)

    _, logits = drain(steps)

    assert logits is None
    assert cache.token_ids == PROMPT[:20]
    assert cache.past_key_values.get_seq_length() == 20


def test_every_end_id_ends_the_reply_and_is_yielded() -> None:
    forward = ForwardPass(tiny_model())
    ids, _ = generate(forward, new_cache(forward))

    for end in (ids[3], ids[7]):
        cut, reason = generate(forward, new_cache(forward), end_ids=frozenset({399, end}))
        assert (cut, reason) == (ids[: ids.index(end) + 1], "stop")


def test_cancelled_decode_stops_within_one_token_and_the_cache_is_exact() -> None:
    forward = ForwardPass(tiny_model())
    cache = new_cache(forward)

    ids, reason = generate(forward, cache, is_cancelled=lambda: len(cache.token_ids) >= 44)

    assert reason == "cancelled"
    assert len(ids) == 4
    assert cache.token_ids == PROMPT + ids
    assert cache.past_key_values.get_seq_length() == 44


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mixtral"])
def test_grouped_queries_are_packed_on_the_cpu(kind: str) -> None:
    assert ForwardPass(tiny_model(kind)).model.config._attn_implementation == PACKED


def test_models_without_grouped_queries_keep_their_attention() -> None:
    assert ForwardPass(tiny_model("gpt_neox")).model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("fails", [False, True])
def test_onednn_is_off_for_single_bfloat16_rows_alone_and_on_again_after(fails: bool) -> None:
    model = tiny_model(dtype=torch.bfloat16)
    forward = ForwardPass(model)
    cache = new_cache(forward)
    seen: list[tuple[int, bool]] = []

    def note(module: Any, args: Any, output: Any) -> None:
        seen.append((args[0].shape[1], torch._C._get_mkldnn_enabled()))
        if fails and args[0].shape[1] == 1:
            raise RuntimeError("planted")

    model.model.layers[0].mlp.register_forward_hook(note)
    forward([1, 2, 3], cache)
    try:
        forward([4], cache)
    except RuntimeError:
        assert fails
    assert torch._C._get_mkldnn_enabled()
    assert cache.is_intact is not fails
    assert seen == [(3, True), (1, False)]


@pytest.mark.parametrize("period", [1, 2, 7, 92, 128])
def test_exact_repetition_of_the_tail_is_a_loop(period: int) -> None:
    copies = max(4, -(-48 // period))
    ids = [900, 901, *(list(range(period)) * copies)]

    assert is_looping(ids, all_words)
    assert not is_looping([*ids[:-1], 902], all_words)
    assert not is_looping(ids[: -max(period, 48) + 1], all_words)


def test_long_rules_of_signs_are_no_loop() -> None:
    assert not is_looping([1, 2] * 190, lambda token: True)
    assert is_looping([1, 2] * 200, lambda token: True)


def test_lines_that_differ_a_little_are_no_loop() -> None:
    ids = [token for row in range(40) for token in (1, 2, 100 + row, 3)]

    assert not any(is_looping(ids[:end], all_words) for end in range(len(ids)))


def stopped_at(ids: list[int], is_letterless: Callable[[int], bool] = all_words) -> int | None:
    """After how many of the ids a reply of them is stopped."""
    lengths = range(LOOP_CHECK_EVERY, len(ids) + 1, LOOP_CHECK_EVERY)  # at others it is not looked
    return next((end for end in lengths if has_to_stop(ids[:end], is_letterless)), None)


@pytest.mark.parametrize("seed", range(40))
def test_a_loop_of_any_period_is_stopped_after_four_copies(seed: int) -> None:
    chance = Random(seed)
    most = LONG_LOOP_PERIODS if seed % 4 else LOOP_PERIODS
    period = chance.choice([LOOP_PERIODS, LOOP_PERIODS + 1, most, chance.randint(1, most)])
    # Of a few words or of many, so that parts of the period repeat as well.
    words = chance.choice([2, 5, 40, 5000])
    copy = [chance.randrange(words) for _ in range(period - 1)] + [words]
    before = [words + 1 + chance.randrange(words) for _ in range(chance.randint(1, 500))]
    loop = before + copy * 6 + copy * (LONG_LOOP_CHECK_EVERY // period)

    end = stopped_at(loop)

    assert end is not None
    least = max(4 * period, 48)
    assert len(before) + least <= end <= len(before) + least + LONG_LOOP_CHECK_EVERY


@pytest.mark.parametrize("seed", range(20))
def test_long_parts_that_are_not_quite_the_same_are_no_loop(seed: int) -> None:
    chance = Random(seed)
    period = chance.randint(LOOP_PERIODS + 1, 600)
    copy = [chance.randrange(300) for _ in range(period)]
    varied = [list(copy) for _ in range(9)]
    for number, each in enumerate(varied):
        each[chance.randrange(period)] = 1000 + number

    assert stopped_at([token for each in varied for token in each]) is None


def test_boards_of_signs_may_stand_there_more_often() -> None:
    def is_letterless(token: int) -> bool:
        return True

    for size, often in ((40, 32), (200, 20), (1000, 8)):
        board = list(range(size))
        assert stopped_at(board * (often - 1), is_letterless) is None
        assert stopped_at(board * (often + 4), is_letterless) is not None


def normal_texts() -> list[str]:
    """Prose, code, tables, rules and listings as replies have them."""
    root = Path(__file__).parents[2]
    sources = sorted([*root.glob("*.md"), *root.glob("tui_chat/*/*.py"), *root.glob("themes/*")])
    cells = [f"| {n:>4} | {n * n:>8} | {'ok' if n % 7 else 'no'} |" for n in range(60)]
    rule = "+------+----------+----+"
    drawn = [
        "\n".join([rule, *(f"{row}\n{rule}" for row in cells)]),
        "\n".join(["| a | b |", "|---|---|", *(f"| {n} | |" for n in range(80))]),
        "\n".join(f"{n:08x}  " + "00 " * 15 + f"{n:02x}  |................|" for n in range(40)),
        "=" * 80 + "\nTitle\n" + "=" * 80 + "\n" + "-" * 80 + "\n" + "* " * 30 + "\ntext",
        "\n".join("    " * (n % 9) + f"if x{n}:" for n in range(80)),
        "\n".join(" " * (40 - n) + "*" * (2 * n + 1) for n in range(40)),
        ", ".join(map(str, range(400))),
        "\n".join(f'{{"id": {n}, "value": null, "tags": []}},' for n in range(80)),
        "\n".join(f"- [ ] task number {n}" for n in range(80)),
        "\n".join("[" + ", ".join(["0"] * 10) + "]," for _ in range(10)),
        "\n".join("| 0.00 | 0.00 | 0.00 |" for _ in range(20)),
        "\n".join(f"{n:08x}  " + "00 " * 16 for n in range(0, 640, 16)),
        "ha" * 20 + " that is funny, and no loop",
    ]
    pieces = [
        text[start : start + 2500]
        for text in (path.read_text(encoding="utf-8") for path in sources)
        for start in range(0, len(text), 2500)
    ]
    return [*drawn, *pieces]


def test_normal_texts_are_no_loops() -> None:
    tokenizer = ChatTokenizer(AutoTokenizer.from_pretrained(guide_folder()))
    texts = normal_texts()
    assert len(texts) >= 200
    stopped = []
    for text in [*texts, *long_texts()]:
        ids = tokenizer.hf.encode(text, add_special_tokens=False)
        if stopped_at(ids, tokenizer.is_letterless) is not None:
            stopped.append(text[:200])
    assert stopped == []


def long_texts() -> list[str]:
    """What is regular over many lines, and sound."""
    stanza = "\n".join(f"{name} = {name}.strip() or default_{name}" for name in "abcdefghijklmno")
    board = "\n".join("+---" * 9 + "+\n" + f"| {' | '.join('123456789')} |" for _ in range(9))
    matrix = "\n".join(
        "[" + ", ".join("1" if x == y else "0" for x in range(30)) + "]," for y in range(30)
    )
    chorus = "\n".join(f"We sing the line of number {n} and the dance" for n in range(30))
    return [
        "\n\n".join(f"def load_{n}():\n{stanza}" for n in range(12)),
        "\n\n".join([stanza] * 3),
        f"before:\n{board}\nafter:\n{board}\n",
        "\n\n".join([matrix] * 3),
        "\n\n".join(f"Verse {n}\n\n{chorus}" for n in range(8)),
        "\n".join(f"{a} x {b} = {a * b}" for a in range(1, 21) for b in range(1, 21)),
        "\n".join("".join(" #"[(x & y) == 0] for x in range(64)) for y in range(64)),
        "\n".join("[" + ", ".join(["0"] * 20) + "]," for _ in range(20)),
        ("+---" * 9 + "+\n" + "|   " * 9 + "|\n") * 9,
        "\n".join([". " * 24] * 24),
        "\n".join(f"{n:04b} {n % 16:04b} {n % 2}" for n in range(500)),
    ]
