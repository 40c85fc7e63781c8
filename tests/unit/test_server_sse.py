"""A streamed answer in any pieces comes out as what was sent."""

import json
from itertools import pairwise

import pytest
from fake_server import chunk
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_chat.engine.reasoning import Piece
from tui_chat.engine.server_reply import ReplyReader
from tui_chat.engine.server_sse import MOST_EVENT_BYTES, EventParser, EventTooLong

DATA = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))
TOKENS = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=40)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


def parse(pieces: list[bytes]) -> list[str]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.push(piece)] + parser.finish()


@given(
    events=st.lists(st.lists(DATA, min_size=1, max_size=3), max_size=6),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    places=st.lists(st.integers(0, 10_000), max_size=30),
    comment=st.sampled_from(["", ": ping", "event: message", "id: 7"]),
)
def test_events_come_out_as_they_were_sent_however_they_are_cut(
    events: list[list[str]], line_end: str, places: list[int], comment: str
) -> None:
    lines: list[str] = []
    for event in events:
        lines += [comment] if comment else []
        lines += [*(f"data: {line}" for line in event), ""]
    stream = "".join(line + line_end for line in lines).encode()
    assert parse(cut(stream, places)) == ["\n".join(event) for event in events]


@settings(max_examples=1000, deadline=None)
@given(
    tokens=TOKENS,
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    places=st.lists(st.integers(0, 100_000), max_size=60),
    escaped=st.booleans(),
    pings=st.booleans(),
)
def test_no_token_of_a_reply_is_lost_in_a_thousand_streams(
    tokens: list[str], line_end: str, places: list[int], escaped: bool, pings: bool
) -> None:
    parts = []
    for token in tokens:
        data = json.loads(chunk(token))
        parts += [": ping", ""] if pings else []
        parts += [f"data: {json.dumps(data, ensure_ascii=escaped)}", ""]
    parts += [f"data: {chunk(finish_reason='stop')}", "", "data: [DONE]", ""]
    stream = line_end.join([*parts, ""]).encode("utf-8", "surrogatepass")
    reader = ReplyReader(continues=True)
    found = [piece for event in parse(cut(stream, places)) for piece in reader.push(event)]
    whole = [token.encode("utf-8", "surrogatepass") for token in tokens]
    if not escaped:  # bytes that are no text are marked, but nothing around them is lost
        whole = [token.decode("utf-8", "replace").encode() for token in whole]
    assert [
        piece.text.encode("utf-8", "surrogatepass") for piece in found if isinstance(piece, Piece)
    ] == whole
    assert reader.chunks == len(tokens)
    assert reader.ended and reader.reason() == "stop"


@given(tokens=TOKENS, places=st.lists(st.integers(0, 1000), max_size=20))
def test_tags_at_the_beginning_part_thoughts_from_the_answer_in_any_pieces(
    tokens: list[str], places: list[int]
) -> None:
    answer = "".join(tokens).replace("<", "").lstrip("\n")
    text = f"<think>Let me see.</think>\n\n{answer}"
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    reader = ReplyReader()
    found: list[Piece] = []
    for a, b in pairwise(edges):
        found += [piece for piece in reader.push(chunk(text[a:b])) if isinstance(piece, Piece)]
    found += reader.finish()
    assert "".join(piece.text for piece in found if piece.kind == "reasoning") == "Let me see."
    assert "".join(piece.text for piece in found if piece.kind == "content") == answer


def test_an_event_without_its_blank_line_counts_at_the_end() -> None:
    assert parse([b"data: one\n\ndata: two"]) == ["one", "two"]


def test_an_error_field_of_older_servers_is_read() -> None:
    assert parse([b'error: {"message": "no"}\n\n']) == ['{"message": "no"}']


def test_an_event_that_never_ends_is_given_up() -> None:
    parser = EventParser()
    with pytest.raises(EventTooLong):
        for _ in range(10):
            parser.push(b"data: " + b"x" * (MOST_EVENT_BYTES // 8))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists))
def test_chunks_of_the_wrong_form_are_passed_over(value: object) -> None:
    reader = ReplyReader()
    shapes = [{"choices": value}, {"choices": [value]}, {"choices": [{"delta": value}]}]
    shapes += [{"choices": [{"delta": {"content": value}}]}, {"usage": value}, {"timings": value}]
    shapes += [{"usage": {"prompt_tokens": value}}, {"prompt_progress": value}, {"data": value}]
    for shape in [*shapes, value]:
        for found in reader.push(json.dumps(shape)):
            assert isinstance(found, Piece)
