"""The engine on a server, against a server on loopback that answers as scripted."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from random import Random

import pytest
from fake_server import (
    EVENTS,
    FakeServer,
    Out,
    bytes_of,
    chunk,
    events,
    json_page,
    page,
    reply,
    usage,
)

from tui_chat.bench.fuzz_files import damaged, odd
from tui_chat.engine import open_engine, server_engine
from tui_chat.engine.base import Engine, EngineError, LoadCancelled, LoadError
from tui_chat.types import (
    EngineEvent,
    EngineNotice,
    GenerationFinished,
    GenerationSettings,
    LoadProgress,
    Message,
    ModelSpec,
    PrefillProgress,
    Role,
    ServerSpec,
    TextDelta,
)

KEY = "sk-Geheim-0123456789"
SETTINGS = GenerationSettings(max_new_tokens=50, seed=7)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer().running() as running:
        yield running


def message(role: Role, content: str, reasoning: str = "") -> Message:
    return Message(content, role, content, datetime(2026, 1, 1, tzinfo=UTC), reasoning=reasoning)


QUESTION = [message(Role.USER, "Why is the sky blue?")]
TALK = [*QUESTION, message(Role.ASSISTANT, "Because of"), message(Role.USER, "Go on.")]
CUT = [*QUESTION, message(Role.ASSISTANT, "Because of")]


def open_server(spec: ServerSpec, context_window: int | None = None) -> Engine:
    model = ModelSpec(f"server:{spec.name}", server=spec, context_window=context_window)
    return open_engine(model, lambda _: None, threading.Event())


class Reply:
    """What an engine made of one request."""

    def __init__(
        self,
        engine: Engine,
        messages: Sequence[Message] = QUESTION,
        settings: GenerationSettings = SETTINGS,
        cancel: threading.Event | None = None,
    ) -> None:
        stream = engine.stream(messages, lambda: settings, cancel or threading.Event())
        self.events: list[EngineEvent] = list(stream)
        last = self.events[-1]
        assert isinstance(last, GenerationFinished)
        assert sum(isinstance(event, GenerationFinished) for event in self.events) == 1
        self.finished = last
        self.metrics = last.metrics
        self.deltas = [event for event in self.events if isinstance(event, TextDelta)]
        self.text = "".join(item.text for item in self.deltas if item.kind == "content")
        self.reasoning = "".join(item.text for item in self.deltas if item.kind == "reasoning")
        notices = [event for event in self.events if isinstance(event, EngineNotice)]
        self.notes = [notice.text for notice in notices if not notice.passing]
        self.waits = [notice.text for notice in notices if notice.passing]


def ask(server: FakeServer, **spec: object) -> Reply:
    return Reply(open_server(server.spec(**spec)))


# ---- a reply ----


def test_a_reply_streams_in_its_deltas_with_the_counts_of_the_server(server: FakeServer) -> None:
    server.answers = [reply("Hel", "lo ", "wörld", counts=usage(21, 5, cached=8))]
    made = ask(server)
    assert (made.text, made.finished.finish_reason, made.finished.error) == (
        "Hello wörld",
        "stop",
        "",
    )
    assert [delta.text for delta in made.deltas] == ["Hel", "lo ", "wörld"]
    metrics = made.metrics
    assert (metrics.prompt_tokens, metrics.cached_tokens, metrics.completion_tokens) == (21, 8, 5)
    assert not metrics.approximate
    assert metrics.prefill_seconds > 0


def test_the_request_has_the_messages_and_the_settings_of_the_mode(server: FakeServer) -> None:
    settings = GenerationSettings(
        max_new_tokens=64,
        temperature=0.5,
        top_p=0.9,
        top_k=20,
        min_p=0.05,
        repetition_penalty=1.1,
        seed=3,
        stop_strings=("END",),
        thinking=False,
    )
    Reply(open_server(server.spec()), [message(Role.SYSTEM, "Be brief."), *TALK], settings)
    (body,) = server.chats
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why is the sky blue?"},
        {"role": "assistant", "content": "Because of"},
        {"role": "user", "content": "Go on."},
    ]
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (64, 0.5, 0.9)
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (20, 0.05, 1.1)
    assert (body["seed"], body["stop"]) == (3, ["END"])
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_what_a_setting_leaves_open_is_left_to_the_server(server: FakeServer) -> None:
    Reply(open_server(server.spec()), settings=GenerationSettings(repetition_penalty=1.0))
    (body,) = server.chats
    assert set(body) == {"model", "messages", "stream", "stream_options", "max_tokens"}


def test_a_greedy_reply_asks_for_temperature_zero_alone(server: FakeServer) -> None:
    settings = GenerationSettings(do_sample=False, temperature=0.8, top_p=0.9, top_k=5)
    Reply(open_server(server.spec()), settings=settings)
    (body,) = server.chats
    assert body["temperature"] == 0.0
    assert not {"top_p", "top_k"} & set(body)


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_in_a_field_of_its_own_is_kept_apart(server: FakeServer, field: str) -> None:
    thought = [chunk(**{field: "Light "}), chunk(**{field: "scatters."})]
    server.answers = [events(*thought, chunk("Blue."), chunk(finish_reason="stop"), "[DONE]")]
    made = ask(server)
    assert (made.reasoning, made.text) == ("Light scatters.", "Blue.")


def test_reasoning_between_tags_is_kept_apart_however_they_are_cut(server: FakeServer) -> None:
    server.answers = [reply("<th", "ink>\nHm", "m.\n</thi", "nk>\n\n", "Blue <think>.")]
    made = ask(server)
    assert (made.reasoning, made.text) == ("Hmm.", "Blue <think>.")


def test_a_reply_without_the_done_mark_ends_with_its_finish_reason(server: FakeServer) -> None:
    server.answers = [events(chunk("Blue."), chunk(finish_reason="length"))]
    made = ask(server)
    assert (made.text, made.finished.finish_reason, made.finished.error) == ("Blue.", "length", "")


def test_a_reply_whose_connection_stays_open_after_the_end_ends(server: FakeServer) -> None:
    def answer(out: Out) -> None:
        out.head()
        out.event(chunk("Blue."))
        out.event(chunk(finish_reason="stop"))
        out.until_left()

    server.answers = [answer]
    made = ask(server, between_tokens_seconds=0.2)
    assert (made.text, made.finished.finish_reason, made.finished.error) == ("Blue.", "stop", "")
    assert server.was_left.wait(5)


def test_a_server_that_does_not_stream_gives_its_reply_at_once(server: FakeServer) -> None:
    choice = {"message": {"content": "Blue."}, "finish_reason": "stop"}
    server.answers = [json_page(200, {"choices": [choice], "usage": usage(9, 3)})]
    made = ask(server)
    assert (made.text, made.finished.finish_reason) == ("Blue.", "stop")
    assert (made.metrics.prompt_tokens, made.metrics.completion_tokens) == (9, 3)


def test_counts_that_come_with_each_chunk_are_the_live_figures(server: FakeServer) -> None:
    chunks = [chunk(text, usage=usage(9, n)) for text, n in (("Two words", 2), (" and more", 4))]
    server.answers = [events(*chunks, chunk(finish_reason="stop"), "[DONE]")]
    made = ask(server)
    figures = [(delta.completion_tokens, delta.approximate) for delta in made.deltas]
    assert figures == [(2, False), (4, False)]
    assert made.metrics.completion_tokens == 4


def test_without_counts_of_the_server_the_figures_say_that_they_are_estimates(
    server: FakeServer,
) -> None:
    made = ask(server)
    assert made.metrics.approximate
    assert made.metrics.completion_tokens == 2
    assert made.metrics.prompt_tokens > 0
    assert all(delta.approximate for delta in made.deltas)


def test_the_timings_of_llama_cpp_tell_what_was_reused(server: FakeServer) -> None:
    timings = {"prompt_n": 4, "cache_n": 30, "predicted_n": 2, "prompt_ms": 7.5}
    progress = {"processed": 20, "total": 34, "cache": 0, "time_ms": 4}
    read = json.dumps({"choices": [], "prompt_progress": progress})
    end = chunk(finish_reason="stop", timings=timings)
    server.answers = [events(read, chunk("Blue."), end, "[DONE]")]
    made = ask(server)
    assert PrefillProgress(20, 34) in made.events
    metrics = made.metrics
    assert (metrics.prompt_tokens, metrics.cached_tokens, metrics.completion_tokens) == (34, 30, 2)
    assert not metrics.approximate


def test_a_reply_that_comes_byte_by_byte_is_whole(server: FakeServer) -> None:
    texts = ["Bläue ", "世界 ", "🙂"]

    def answer(out: Out) -> None:
        out.head()
        for byte in bytes_of(texts):
            out.raw(bytes([byte]))

    server.answers = [answer]
    made = ask(server)
    assert (made.text, made.finished.finish_reason) == ("Bläue 世界 🙂", "stop")


def test_replies_that_come_in_random_pieces_are_whole(server: FakeServer) -> None:
    random = Random(1)
    engine = open_server(server.spec())
    for _ in range(50):
        texts = ["".join(random.choices('ab ü世🙂\n<"', k=5)) for _ in range(random.randint(1, 40))]
        data = bytes_of(texts)

        def answer(out: Out, data: bytes = data) -> None:
            chunked = random.random() < 0.5
            length = b"Transfer-Encoding: chunked" if chunked else b"Connection: close"
            out.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%s\r\n\r\n" % length)
            at = 0
            while at < len(data):
                piece = data[at : at + random.randint(1, 200)]
                out.raw(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                at += len(piece)
            out.raw(b"0\r\n\r\n" if chunked else b"")

        server.answers = [answer]
        made = Reply(engine)
        assert (made.text, made.finished.error) == ("".join(texts), "")


def test_a_reply_without_end_is_given_up(server: FakeServer) -> None:
    server.answers = [page(200, '{"choices": "' + "x" * 9_000_000, "application/json")]
    assert "something else than the API" in ask(server).finished.error


def test_an_empty_reply_is_a_reply(server: FakeServer) -> None:
    server.answers = [events(chunk(finish_reason="stop"), "[DONE]")]
    made = ask(server)
    assert (made.text, made.finished.finish_reason, made.finished.error) == ("", "stop", "")


def test_lone_surrogates_are_sent_as_something_that_json_can_hold(server: FakeServer) -> None:
    Reply(open_server(server.spec()), [message(Role.USER, "a\ud800b")])
    assert server.chats[0]["messages"][0]["content"] == "a\ufffdb"


# ---- stopping ----


def cancel_when(server: FakeServer, answer: object, *, after: int) -> Reply:
    """Cancel as soon as the engine has yielded `after` texts."""
    server.answers = [answer]  # type: ignore[list-item]
    engine = open_server(server.spec())
    cancel = threading.Event()
    found: list[EngineEvent] = []
    for event in engine.stream(QUESTION, lambda: SETTINGS, cancel):
        found.append(event)
        if sum(isinstance(item, TextDelta) for item in found) == after and not cancel.is_set():
            threading.Timer(0.05, cancel.set).start()
    made = Reply.__new__(Reply)
    made.events = found
    assert isinstance(found[-1], GenerationFinished)
    made.finished = found[-1]
    made.metrics = made.finished.metrics
    made.deltas = [event for event in found if isinstance(event, TextDelta)]
    made.text = "".join(delta.text for delta in made.deltas)
    return made


def test_cancel_before_the_first_byte_closes_the_connection(server: FakeServer) -> None:
    started = time.monotonic()
    made = cancel_when(server, Out.until_left, after=0)
    assert made.finished.finish_reason == "cancelled"
    assert server.was_left.wait(5)
    assert time.monotonic() - started < 5


def test_cancel_in_the_middle_keeps_the_text_and_closes_the_connection(server: FakeServer) -> None:
    def answer(out: Out) -> None:
        out.head()
        out.event(chunk("Because "))
        out.event(chunk("of"))
        out.until_left()

    made = cancel_when(server, answer, after=2)
    assert (made.finished.finish_reason, made.text) == ("cancelled", "Because of")
    assert made.metrics.completion_tokens == 2
    assert made.metrics.approximate
    assert server.was_left.wait(5)


def test_a_dropped_iterator_closes_the_connection(server: FakeServer) -> None:
    def answer(out: Out) -> None:
        out.head()
        out.event(chunk("Because "))
        out.until_left()

    server.answers = [answer, reply("Again.")]
    engine = open_server(server.spec())
    stream = engine.stream(QUESTION, lambda: SETTINGS, threading.Event())
    assert any(isinstance(event, TextDelta) for event in stream)
    stream.close()  # type: ignore[attr-defined]
    assert server.was_left.wait(5)
    assert Reply(engine).text == "Again."


def test_close_ends_a_running_reply(server: FakeServer) -> None:
    server.answers = [Out.until_left]
    engine = open_server(server.spec())
    stream = engine.stream(QUESTION, lambda: SETTINGS, threading.Event())
    assert isinstance(next(stream), PrefillProgress)
    threading.Timer(0.05, engine.close).start()
    *_, last = stream
    assert isinstance(last, GenerationFinished)
    assert last.finish_reason == "cancelled"


def test_the_next_reply_after_a_cancelled_one_is_complete(server: FakeServer) -> None:
    server.answers = [Out.until_left, reply("Blue.")]
    engine = open_server(server.spec())
    cancel = threading.Event()
    threading.Timer(0.1, cancel.set).start()
    assert Reply(engine, cancel=cancel).finished.finish_reason == "cancelled"
    assert Reply(engine).text == "Blue."


# ---- faults ----


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (json_page(401, {"error": {"message": "No key."}}), r"wants a key \(401\).*key_env"),
        (json_page(403, {"detail": "Forbidden"}), r"wants a key \(403\).*Forbidden"),
        (json_page(404, {"error": {"message": "no such model"}}), r"no model tiny \(404\)"),
        (json_page(500, {"error": "out of memory"}), r"failed \(500\).*out of memory"),
        (json_page(400, {"message": "prompt too long", "object": "error"}), "prompt too long"),
        (
            json_page(422, {"detail": [{"loc": ["body", "messages"], "msg": "bad"}]}),
            "messages: bad",
        ),
        (json_page(418, {}), "status 418"),
        (page(500, "<html><h1>Oh no</h1></html>"), r"failed \(500\)"),
        (page(200, "<html>Log in to the network</html>"), "something else than the API"),
        (page(200, "garbage", "application/json"), "no JSON"),
        (events("{not json"), "no JSON"),
        (
            json_page(429, {}, Retry_After="9999"),
            r"busy or limits requests \(429\); ask again in 9999 s",
        ),
        (events('{"error": {"message": "worker died"}}'), "worker died"),
        (events('{"error": "worker died"}'), "worker died"),
        (events('{"object": "error", "message": "worker died", "code": 500}'), "worker died"),
        (events(chunk(finish_reason="content_filter"), "[DONE]"), "content filter"),
        (events(chunk(finish_reason="tool_calls"), "[DONE]"), "call a tool"),
        (page(200, "", "text/event-stream"), "closed the connection"),
    ],
)
def test_a_fault_is_one_sentence(server: FakeServer, answer: object, sentence: str) -> None:
    server.answers = [answer]  # type: ignore[list-item]
    made = ask(server)
    assert made.finished.finish_reason == "error"
    assert made.finished.error[-1] in ".!?…"
    assert "\n" not in made.finished.error
    import re

    assert re.search(sentence, made.finished.error), made.finished.error


@pytest.mark.parametrize(
    ("then", "sentence"),
    [
        (None, "closed the connection before the reply was complete"),
        ('{"error": {"message": "CUDA out of memory"}}', "CUDA out of memory"),
        ("{torn", "no JSON"),
    ],
)
def test_a_fault_in_the_middle_keeps_what_came(
    server: FakeServer, then: str | None, sentence: str
) -> None:
    data = [chunk("Because "), chunk("of"), *([then] if then else [])]
    server.answers = [events(*data)]
    made = ask(server)
    assert (made.text, made.finished.finish_reason) == ("Because of", "error")
    assert sentence in made.finished.error


def damaged_answer(chance: Random) -> bytes:
    """All that a server sends for a reply, with accidents to its bytes or odd values in it."""
    ends = [chunk(finish_reason="stop"), json.dumps({"choices": [], "usage": usage(3, 4, 1)})]
    data = [json.loads(each) for each in (*map(chunk, ("Bec", "ause 世", "🙂 of")), *ends)]
    if chance.random() < 0.6:
        at = chance.randrange(len(data))
        data[at] = odd(data[at], chance)
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in [*data, "[DONE]"]).encode()
    framing = b"Connection: close"
    if chance.random() < 0.5:
        framing = b"Transfer-Encoding: chunked"
        size = chance.randint(1, 300)
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in [*pieces, b""])
    kind = chance.choice([EVENTS, "application/json", f"{EVENTS}; charset=x", ""]).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n\r\n" % (kind, framing)
    if chance.random() < 0.5:
        return head + damaged(body, chance)
    return damaged(head + body, chance)


def test_any_answer_is_a_reply_or_one_sentence(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_engine, "BACK_OFF_SECONDS", (0.0,))
    for seed in range(80):
        data = damaged_answer(Random(seed))
        server.answers = [lambda out, data=data: out.raw(data)]  # type: ignore[misc]
        spec = server.spec(first_token_seconds=0.5, between_tokens_seconds=0.5)
        finished = Reply(open_server(spec)).finished
        told = finished.error
        assert (finished.finish_reason == "error") == bool(told), seed
        assert not told or told[-1] in ".!?…", (seed, told)
        assert told.isprintable() and "could not be read (" not in told, (seed, told)


def test_a_reset_in_the_middle_keeps_what_came(server: FakeServer) -> None:
    def answer(out: Out) -> None:
        out.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        out.raw(b"Transfer-Encoding: chunked\r\n\r\n")
        data = f"data: {chunk('Because')}\n\n".encode()
        out.raw(b"%x\r\n%s\r\n" % (len(data), data))
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        out._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        out._handler.connection.close()

    server.answers = [answer]
    made = ask(server)
    assert (made.text, made.finished.finish_reason) == ("Because", "error")
    assert "was lost" in made.finished.error


def test_silence_before_the_first_token_is_given_up_in_time(server: FakeServer) -> None:
    server.answers = [Out.until_left]
    made = ask(server, first_token_seconds=0.2)
    assert made.finished.error == "The server test sent nothing for 0.2 s."
    assert server.was_left.wait(5)


def test_silence_between_tokens_is_given_up_and_the_text_is_kept(server: FakeServer) -> None:
    def answer(out: Out) -> None:
        out.head()
        out.event(chunk("Because"))
        out.until_left()

    server.answers = [answer]
    made = ask(server, between_tokens_seconds=0.2)
    assert (made.text, made.finished.error) == (
        "Because",
        "The server test sent nothing for 0.2 s.",
    )


def test_comments_keep_a_slow_reply_alive(server: FakeServer) -> None:
    def answer(out: Out) -> None:
        out.head()
        for _ in range(8):
            out.raw(b": still here\n\n")
            time.sleep(0.1)
        out.event(chunk("Blue."))
        out.event("[DONE]")

    server.answers = [answer]
    made = ask(server, first_token_seconds=0.5)
    assert (made.text, made.finished.error) == ("Blue.", "")


# ---- once more ----


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again_and_the_wait_is_told(server: FakeServer, status: int) -> None:
    busy = json_page(status, {"error": "busy"}, Retry_After="0.1")
    server.answers = [busy, busy, reply("Blue.")]
    made = ask(server)
    assert made.text == "Blue."
    assert len(made.waits) == 2
    assert f"({status})" in made.waits[0] and "0.1 s" in made.waits[0]


def test_a_wait_for_a_busy_server_can_be_cancelled(server: FakeServer) -> None:
    server.answers = [json_page(503, {}, Retry_After="60")]
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    made = Reply(open_server(server.spec()), cancel=cancel)
    assert made.finished.finish_reason == "cancelled"
    assert len(server.chats) == 1


def test_a_reply_that_began_is_not_asked_for_again(server: FakeServer) -> None:
    server.answers = [events(chunk("Because")), reply("Other.")]
    assert ask(server).text == "Because"
    assert len(server.chats) == 1


def test_a_server_that_is_still_starting_is_waited_for_in_sight(server: FakeServer) -> None:
    told: list[LoadProgress] = []
    server.pages["/late/models"] = lambda _: (
        {"data": [{"id": "tiny"}]} if told[1:] else json_page(503, {"error": "Loading model"})
    )
    spec = server.spec(url=f"{server.address}/late")
    opened = open_engine(ModelSpec("server:test", server=spec), told.append, threading.Event())
    assert opened.name == "tiny"
    assert (told[1].stage, "(503)" in told[1].detail) == ("waiting for the server", True)


def test_the_wait_for_a_server_can_be_cancelled() -> None:
    cancel = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as free:
        spec = ServerSpec("late", f"http://127.0.0.1:{free.getsockname()[1]}/v1")

    def on_progress(progress: LoadProgress) -> None:
        if "waiting" in progress.stage:
            cancel.set()

    with pytest.raises(LoadCancelled):
        open_engine(ModelSpec("server:late", server=spec), on_progress, cancel)


def test_where_nothing_listens_the_sentence_comes_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        spec = ServerSpec("gone", f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    with pytest.raises(LoadError, match=r"Nothing answers at .*connection refused.*start"):
        open_server(spec)


def test_a_server_that_goes_away_is_asked_again_and_told() -> None:
    with FakeServer().running() as server:
        engine = open_server(server.spec())
    cancel = threading.Event()
    notices: list[str] = []
    for event in engine.stream(QUESTION, lambda: SETTINGS, cancel):
        if isinstance(event, EngineNotice):
            notices.append(event.text)
            cancel.set()
    assert notices == ["connection refused; asking again in 0.5 s"]


# ---- parameters that a server refuses ----


@pytest.mark.parametrize(
    "refusal",
    [
        json_page(422, {"detail": "Unexpected fields in the request: {'repetition_penalty'}"}),
        json_page(400, {"error": {"message": "Unsupported", "param": "repetition_penalty"}}),
        json_page(
            422,
            {
                "detail": [
                    {"loc": ["body", "repetition_penalty"], "msg": "Extra inputs", "input": 1}
                ]
            },
        ),
    ],
)
def test_a_refused_parameter_is_dropped_with_a_note_and_for_the_session(
    server: FakeServer, refusal: object
) -> None:
    server.answers = [refusal, reply("Blue.")]  # type: ignore[list-item]
    engine = open_server(server.spec())
    settings = GenerationSettings(repetition_penalty=1.2, top_k=4)
    made = Reply(engine, settings=settings)
    assert (made.text, made.finished.error) == ("Blue.", "")
    assert made.notes == ["The server refuses repetition_penalty; replies are made without."]
    again = Reply(engine, settings=settings)
    assert again.notes == []
    assert ["repetition_penalty" in body for body in server.chats] == [True, False, False]
    assert all(body["top_k"] == 4 for body in server.chats)


def test_the_newer_name_of_the_length_limit_is_used_where_the_old_one_is_refused(
    server: FakeServer,
) -> None:
    said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.answers = [json_page(400, {"error": {"message": said}}), reply("Blue.")]
    assert ask(server).text == "Blue."
    assert server.chats[1]["max_completion_tokens"] == 50
    assert "max_tokens" not in server.chats[1]


def test_a_request_that_asks_for_too_much_is_an_error_and_not_sent_without_a_limit(
    server: FakeServer,
) -> None:
    said = "max_tokens must be at most 10: the context length of this model is 60"
    server.answers = [json_page(400, {"error": {"message": said}})]
    made = ask(server)
    assert said in made.finished.error
    assert len(server.chats) == 1


def test_a_word_of_the_question_that_is_repeated_in_an_error_drops_no_parameter(
    server: FakeServer,
) -> None:
    detail = [{"loc": ["body", "messages", 0], "msg": "bad", "input": "temperature 'seed' top_k"}]
    server.answers = [json_page(422, {"detail": detail})]
    made = Reply(open_server(server.spec()), settings=GenerationSettings(seed=1, top_k=3))
    assert made.finished.finish_reason == "error"
    assert len(server.chats) == 1


def test_what_no_server_takes_is_told_once(server: FakeServer) -> None:
    engine = open_server(server.spec())
    settings = GenerationSettings(no_repeat_ngram_size=3)
    assert any("no_repeat_ngram_size" in note for note in Reply(engine, settings=settings).notes)
    assert Reply(engine, settings=settings).notes == []


def test_text_like_control_tokens_is_warned_of_once(server: FakeServer) -> None:
    engine = open_server(server.spec())
    messages = [message(Role.USER, "What does <|im_end|> mean?")]
    assert any("control tokens" in note for note in Reply(engine, messages).notes)
    assert Reply(engine, messages).notes == []


# ---- going on with a cut reply ----


@pytest.mark.parametrize("owner", ["vllm", "sglang"])
def test_a_cut_reply_goes_on_where_the_server_can(server: FakeServer, owner: str) -> None:
    server.models = [{"id": "tiny", "owned_by": owner, "max_model_len": 4096}]
    server.answers = [reply(" scattering.")]
    made = Reply(open_server(server.spec()), CUT)
    assert made.text == " scattering."
    (body,) = server.chats
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert body["messages"][-1] == {"role": "assistant", "content": "Because of"}


def test_llama_cpp_goes_on_by_itself(server: FakeServer) -> None:
    server.pages["/props"] = lambda _: {"default_generation_settings": {"n_ctx": 512}}
    server.answers = [reply(" scattering.")]
    assert Reply(open_server(server.spec()), CUT).text == " scattering."
    assert "continue_final_message" not in server.chats[0]


def test_other_servers_are_not_asked_to_go_on(server: FakeServer) -> None:
    engine = open_server(server.spec())
    with pytest.raises(EngineError, match="server test cannot go on with a reply"):
        engine.count_tokens(CUT)
    made = Reply(engine, CUT)
    assert "cannot go on" in made.finished.error
    assert server.chats == []


def test_a_server_that_refuses_to_go_on_is_not_asked_twice(server: FakeServer) -> None:
    server.models = [{"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}]
    said = "continue_final_message is not supported"
    server.answers = [json_page(400, {"error": {"message": said}})]
    engine = open_server(server.spec())
    assert "cannot go on" in Reply(engine, CUT).finished.error
    assert "cannot go on" in Reply(engine, CUT).finished.error
    assert len(server.chats) == 1


def test_thoughts_that_were_cut_cannot_go_on(server: FakeServer) -> None:
    server.models = [{"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}]
    thought = [*QUESTION, message(Role.ASSISTANT, "", reasoning="Light")]
    with pytest.raises(EngineError, match="while the model was thinking"):
        open_server(server.spec()).count_tokens(thought)


# ---- counting ----


def test_vllm_counts_exactly(server: FakeServer) -> None:
    server.models = [{"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}]
    server.pages["/tokenize"] = lambda body: {"count": 10 * len(body["messages"])}
    engine = open_server(server.spec())
    assert engine.exact_counts
    assert engine.context_window == 4096
    assert (engine.count_tokens(QUESTION), engine.count_tokens(TALK)) == (10, 30)
    assert engine.count_tokens(TALK) == 30
    assert sum(asked.path == "/tokenize" for asked in server.asked) == 2


def test_llama_cpp_counts_exactly_old_and_new(server: FakeServer) -> None:
    server.pages["/props"] = lambda _: {"default_generation_settings": {"n_ctx": 2048}}
    server.pages["/apply-template"] = lambda body: {"prompt": "x" * 7}
    server.pages["/tokenize"] = lambda body: {"tokens": list(range(len(body["content"])))}
    old = open_server(server.spec())
    assert (old.count_tokens(QUESTION), old.context_window) == (7, 2048)
    server.pages["/v1/chat/completions/input_tokens"] = lambda body: {"input_tokens": 12}
    assert open_server(server.spec()).count_tokens(QUESTION) == 12


def test_a_server_that_stops_counting_is_estimated_and_says_so(server: FakeServer) -> None:
    server.models = [{"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}]
    engine = open_server(server.spec())
    assert engine.count_tokens(QUESTION) > 0
    assert not engine.exact_counts


def test_a_server_that_is_silent_about_a_count_is_asked_again_later(server: FakeServer) -> None:
    server.models = [{"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}]
    server.pages["/tokenize"] = lambda _: json_page(503, {"error": "busy"})
    engine = open_server(server.spec())
    assert engine.count_tokens(QUESTION) > 0
    assert not engine.exact_counts
    assert engine.count_tokens(TALK) > 0
    assert sum(asked.path == "/tokenize" for asked in server.asked) == 1


def test_counts_that_a_reply_proves_wrong_are_estimates_from_then_on(server: FakeServer) -> None:
    server.models = [{"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}]
    server.pages["/tokenize"] = lambda _: {"count": 10}
    server.answers = [reply("Blue.", counts=usage(12, 2))]
    engine = open_server(server.spec())
    made = Reply(engine)
    assert any("estimates from now on" in note for note in made.notes)
    assert not engine.exact_counts
    assert made.metrics.prompt_tokens == 12


def test_a_reply_corrects_the_estimate_of_the_next_prompt(server: FakeServer) -> None:
    text = "word " * 400
    server.answers = [reply("Blue.", counts=usage(1000, 2))]
    engine = open_server(server.spec())
    messages = [message(Role.USER, text)]
    assert not engine.exact_counts
    before = engine.count_tokens(messages)
    assert 300 < before < 700
    Reply(engine, messages)
    assert engine.count_tokens(messages) == 1000
    longer = [*messages, message(Role.ASSISTANT, "Blue."), message(Role.USER, text)]
    assert 1900 < engine.count_tokens(longer) < 2100


def test_a_prompt_count_that_leaves_out_the_cache_corrects_nothing(server: FakeServer) -> None:
    server.answers = [reply("Blue.", counts=usage(1, 2))]
    engine = open_server(server.spec())
    messages = [message(Role.USER, "word " * 400)]
    before = engine.count_tokens(messages)
    Reply(engine, messages)
    assert engine.count_tokens(messages) == before


# ---- opening ----


def test_the_only_model_is_taken_and_a_named_one_is_asked_for(server: FakeServer) -> None:
    assert open_server(server.spec()).name == "tiny"
    engine = open_server(server.spec(model="Org/Other"))
    assert engine.name == "Org/Other"
    assert any("does not list" in note for note in engine.notes)
    Reply(engine)
    assert server.chats[0]["model"] == "Org/Other"


def test_of_several_models_one_must_be_chosen_unless_one_is_loaded(server: FakeServer) -> None:
    server.models = [{"id": "one"}, {"id": "two"}]
    with pytest.raises(LoadError, match=r"has 2 models; .*server:test/one: one, two"):
        open_server(server.spec())
    server.models[1]["status"] = {"value": "loaded"}
    assert open_server(server.spec()).name == "two"


def test_a_server_without_a_list_needs_the_name_of_a_model(server: FakeServer) -> None:
    server.models = []
    with pytest.raises(LoadError, match="lists no model; name one"):
        open_server(server.spec())
    assert open_server(server.spec(model="typed")).name == "typed"


def test_the_context_window_is_told_assumed_or_limited(server: FakeServer) -> None:
    engine = open_server(server.spec())
    assert engine.context_window == 8192
    assert any("8,192 tokens are assumed" in note for note in engine.notes)
    assert open_server(server.spec(), context_window=2000).context_window == 2000
    assert open_server(server.spec(context_window=16000)).context_window == 16000
    server.models[0]["max_model_len"] = 1024
    assert open_server(server.spec()).context_window == 1024
    assert open_server(server.spec(), context_window=512).context_window == 512


def test_ollama_tells_the_window_of_what_is_loaded(server: FakeServer) -> None:
    server.pages["/api/ps"] = lambda _: {"models": [{"model": "tiny", "context_length": 4096}]}
    assert open_server(server.spec()).context_window == 4096


def test_lm_studio_tells_the_window_of_what_is_loaded(server: FakeServer) -> None:
    loaded = {"id": "tiny", "max_context_length": 32768, "loaded_context_length": 8000}
    server.pages["/api/v0/models"] = lambda _: {"data": [loaded]}
    assert open_server(server.spec()).context_window == 8000


@pytest.mark.parametrize("address", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_an_address_means_the_same_in_all_its_forms(server: FakeServer, address: str) -> None:
    from tui_chat.servers import server_at

    spec = server_at(f"{server.address}{address}".removeprefix("http://"))
    assert Reply(open_server(spec)).text == "Hello there"


def test_an_address_that_is_no_server_is_one_sentence(server: FakeServer) -> None:
    with pytest.raises(LoadError, match=r"no model list .*\(404\)"):
        open_server(server.spec(url=f"{server.address}/elsewhere"))
    server.pages["/page/models"] = lambda _: page(200, "<html>Welcome</html>")
    with pytest.raises(LoadError, match="something else than the API"):
        open_server(server.spec(url=f"{server.address}/page"))


def test_an_unknown_server_is_one_sentence() -> None:
    with pytest.raises(LoadError, match=r"no server for server:nowhere.*\[servers\.NAME\]"):
        open_engine(ModelSpec("server:nowhere"), lambda _: None, threading.Event())


# ---- the key ----


def test_the_key_goes_to_the_server_and_nowhere_else(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TEST_KEY", KEY)
    spoken = f"Invalid key: Bearer {KEY}"
    server.answers = [
        reply("Blue."),
        json_page(401, {"error": {"message": spoken}}),
        events(chunk("Be"), json.dumps({"error": spoken})),
    ]
    engine = open_server(server.spec(key_env="TEST_KEY"))
    made = [Reply(engine) for _ in range(3)]
    assert all(asked.headers["Authorization"] == f"Bearer {KEY}" for asked in server.asked)
    assert [bool(item.finished.error) for item in made] == [False, True, True]
    shown = repr([item.events for item in made]) + repr(vars(engine)) + engine.tokenizer_id
    assert KEY not in shown
    assert KEY not in caplog.text


def test_a_key_comes_from_a_command(server: FakeServer) -> None:
    engine = open_server(server.spec(key_command=f"printf '{KEY}\\nsecond line'"))
    Reply(engine)
    assert server.asked[-1].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ({"key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ({"key_command": "false"}, "failed with exit code 1"),
        ({"key_command": "no-such-command-at-all"}, "cannot be run"),
        ({"key_command": "true"}, "printed nothing"),
        ({"key_command": "'"}, "cannot be read as a command"),
        ({"key_command": "echo two words"}, "is not a key"),
    ],
)
def test_a_key_that_cannot_be_had_is_one_sentence(
    server: FakeServer, key: dict[str, str], sentence: str
) -> None:
    with pytest.raises(LoadError, match=sentence):
        open_server(server.spec(**key))
    assert server.asked == []


def test_a_redirect_to_another_host_gets_neither_key_nor_prompt(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with FakeServer().running() as other:
        target = f"{other.address}/v1/chat/completions"
        server.answers = [json_page(307, {}, Location=target)]
        made = ask(server, key_env="TEST_KEY")
        assert made.finished.error.startswith(f"The server test sends us on to {other.address};")
        assert other.asked == []


def test_a_redirect_on_the_same_host_is_followed(server: FakeServer) -> None:
    server.pages["/v2/chat"] = lambda _: reply("Blue.")
    server.answers = [json_page(308, {}, Location="/v2/chat")]
    assert ask(server).text == "Blue."


def test_redirects_in_a_circle_end(server: FakeServer) -> None:
    server.answers = [json_page(307, {}, Location="/v1/chat/completions")]
    assert "sends us on" in ask(server).finished.error


def test_no_proxy_stands_between_us_and_this_machine(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert ask(server).text == "Hello there"


def test_the_proxy_of_the_environment_is_used_for_other_hosts(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.address)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    url = "http://models.example/v1"
    server.pages[f"{url}/models"] = lambda _: {"data": [{"id": "far", "max_model_len": 99}]}
    assert open_server(ServerSpec("far", url)).name == "far"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("HTTPS_PROXY", "nonsense://me:secret@host", "proxy that .* names cannot be used"),
        ("SSL_CERT_FILE", "/nowhere/at/all.pem", "SSL_CERT_FILE .* cannot be read"),
    ],
)
def test_an_environment_that_cannot_be_used_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(LoadError, match=sentence) as error:
        open_server(ServerSpec("far", "https://models.invalid/v1"))
    assert "secret" not in str(error.value)


def test_a_server_on_the_newer_loopback_is_reached_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(LoadError, match=r"Nothing answers at http://\[::1\]:9/v1|was lost"):
        open_server(ServerSpec("six", "http://[::1]:9/v1"))


def test_a_server_that_does_not_speak_tls_is_one_sentence(server: FakeServer) -> None:
    url = server.spec().url.replace("http:", "https:")
    with pytest.raises(LoadError, match="does not speak TLS; perhaps its address begins with http"):
        open_server(server.spec(url=url))
