import pytest

from tui_chat.bench import plain
from tui_chat.bench.texts import Writer, pieces
from tui_chat.chat.reply import ReplyCleaner
from tui_chat.types import Role


def test_prose_of_some_tokens_is_cut_to_them() -> None:
    writer = Writer(("one", "two", "three"))
    text = writer.prose_of(50, lambda text: 3 * len(text.split(" ")))
    assert 45 <= 3 * len(text.split(" ")) <= 50


def test_a_history_alternates_and_no_message_comes_twice() -> None:
    history = Writer(("one", "two", "three", "four")).history(20, 30)
    assert [message.role for message in history] == [Role.USER, Role.ASSISTANT] * 10
    assert len({message.content for message in history}) == 20


@pytest.mark.parametrize("count", [1, 7, 512])
def test_pieces_are_the_text_in_order(count: int) -> None:
    text = "".join(map(str, range(300)))
    parts = list(pieces(text, count))
    assert "".join(parts) == text
    assert len(parts) <= count + 1


@pytest.mark.parametrize(
    "text",
    [
        "assistant\nHello there.<|im_end|>\n",
        "<|im_start|>assistant\n  A | B  </s></s>",
        "<start_of_turn>model\nNothing to take off the <eos> inside.",
    ],
)
def test_the_plain_way_cleans_to_the_same_text(text: str) -> None:
    cleaner = ReplyCleaner()
    ours = "".join(map(cleaner.feed, pieces(text, 9))) + cleaner.finish()
    assert plain.clean_while_streaming(list(pieces(text, 9))) == ours


class _Words:
    """Counts words, as a tokenizer."""

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [0] * len(text.split(" "))}


def test_the_plain_ways_to_trim_keep_the_newest_messages() -> None:
    history = Writer(("one", "two")).history(30, 10)
    for trim in (
        plain.trim_by_popping(_Words(), history, 100),
        plain.trim(_Words(), history, 100),
    ):
        assert trim == history[-len(trim) :]
        assert 80 < sum(len(message.content.split(" ")) for message in trim) <= 100
