"""A conversation with the server of llama-cpp-python, where it is installed."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_servers import serving
from tiny_models import byte_level_tokenizer, talk

from tui_chat.chat.session import Session
from tui_chat.engine import open_engine
from tui_chat.engine.base import Engine
from tui_chat.servers import server_at
from tui_chat.store.log import MemoryLog
from tui_chat.types import GenerationSettings, Mode, ModelSpec, ReplyFinished, TextDelta

gguf = pytest.importorskip("gguf", reason="writes the model of the server")
pytest.importorskip("llama_cpp.server.app", reason="the server of llama-cpp-python")

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SIZE, HIDDEN, HEADS = 64, 128, 4
SETTINGS = GenerationSettings(max_new_tokens=12, repetition_penalty=1.1, seed=1)


def write_model(path: Path) -> None:
    """One layer of random weights behind a byte-level vocabulary."""
    import numpy as np

    tokenizer = byte_level_tokenizer()
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    control = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(SIZE)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(SIZE // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([control[not token.startswith("<|")] for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    random = np.random.default_rng(0)
    square = (SIZE, SIZE)
    shapes = {f"blk.0.attn_{name}": square for name in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{name}": (HIDDEN, SIZE) for name in ("gate", "up")}
    shapes |= {"blk.0.ffn_down": (SIZE, HIDDEN)}
    shapes |= {name: (len(tokens), SIZE) for name in ("token_embd", "output")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.4, shape).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(SIZE, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("llama")
    write_model(folder / "tiny.gguf")
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(folder / "tiny.gguf")]
    command += ["--chat_format", "chatml", "--n_ctx", "512", "--n_threads", "1"]
    with serving(command, folder / "log", "/v1/models") as address:
        named = ModelSpec("server:llama", server=server_at(address))
        opened = open_engine(named, lambda _: None, threading.Event())
        yield opened
        opened.close()


def test_a_conversation_of_two_turns_is_held(engine: Engine) -> None:
    assert engine.name == "tiny.gguf"
    session = Session(engine, MemoryLog())
    for question in ("Hello there", "And then?"):
        events = list(
            session.reply(
                question,
                mode=lambda: Mode.ACCURACY,
                settings=lambda _: SETTINGS,
                cancel=threading.Event(),
            )
        )
        assert isinstance(events[-1], ReplyFinished)
        message = events[-1].message
        assert (message.status, message.error) == ("complete", "")
        texts = [event.text for event in events if isinstance(event, TextDelta)]
        assert message.content == "".join(texts)
        # This server tells no counts while it streams.
        assert message.metrics is not None and message.metrics.approximate
        assert message.metrics.completion_tokens > 0
    assert len(session.conversation.messages) == 4


def test_a_reply_can_be_stopped_and_the_next_one_comes(engine: Engine) -> None:
    cancel = threading.Event()
    long = GenerationSettings(max_new_tokens=400, seed=2)
    for event in engine.stream(talk("Tell me a long story"), lambda: long, cancel):
        cancel.set()
        last = event
    assert last.finish_reason == "cancelled"  # type: ignore[union-attr]
    *_, last = engine.stream(talk("Hello"), lambda: SETTINGS, threading.Event())
    assert last.error == ""  # type: ignore[union-attr]
