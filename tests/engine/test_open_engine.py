import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import tui_chat
from tui_chat.engine import open_engine
from tui_chat.engine.base import Engine, LoadCancelled, LoadError
from tui_chat.types import (
    GenerationFinished,
    GenerationSettings,
    LoadProgress,
    Message,
    ModelSpec,
    Precision,
    Role,
    TextDelta,
)

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: n for n, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}<|im_end|>{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def reply(engine: Engine) -> tuple[str, GenerationFinished]:
    prompt = [Message("m1", Role.USER, "hello", datetime(2026, 1, 1, tzinfo=UTC))]
    settings = GenerationSettings(max_new_tokens=8, do_sample=False)
    events = list(engine.stream(prompt, lambda: settings, threading.Event()))
    assert isinstance(events[-1], GenerationFinished)
    return "".join(e.text for e in events if isinstance(e, TextDelta)), events[-1]


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(tui_chat.__file__).parents[1])}
    command = [sys.executable, "-W", "default", "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_model_folder_opens_and_replies(folder: Path) -> None:
    seen: list[LoadProgress] = []
    engine = open_engine(ModelSpec(str(folder)), seen.append, threading.Event())
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages[:2] == ["importing torch", "importing transformers"]
    assert stages[-1] == "loading weights"
    assert (engine.name, engine.precision, engine.device) == ("tiny", Precision.CPU, "cpu")
    _, finished = reply(engine)
    assert finished.finish_reason in ("stop", "length"), finished.error
    assert finished.metrics.completion_tokens > 0
    engine.close()


def test_four_bits_on_the_cpu_reply_too(folder: Path) -> None:
    spec = ModelSpec(str(folder), precision=Precision.INT4, device="cpu")
    engine = open_engine(spec, lambda _: None, threading.Event())
    assert engine.precision is Precision.INT4
    assert reply(engine)[1].finish_reason in ("stop", "length")
    engine.close()


def test_refused_folder_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    seen: list[LoadProgress] = []
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LoadError, match=r"config\.json is damaged"):
        open_engine(ModelSpec(str(tmp_path)), seen.append, threading.Event())
    assert seen == []


def test_cancel_before_the_weights_ends_the_load(folder: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(LoadCancelled, match="Loading tiny was cancelled"):
        open_engine(ModelSpec(str(folder)), lambda _: None, cancel)


def test_echo_opens_with_its_rate_and_window(tmp_path: Path) -> None:
    (tmp_path / "reply.md").write_text("Hello there.")
    spec = ModelSpec(f"echo:{tmp_path / 'reply.md'}", context_window=99)
    engine = open_engine(spec, lambda _: None, threading.Event())
    assert engine.context_window == 99
    assert reply(engine)[0] == "Hello there."


def test_opening_echo_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    (tmp_path / "reply.md").write_text("Hello there.")
    code = """
import sys, threading
import tui_chat.engine, tui_chat.engine.hub, tui_chat.engine.ladder
from tui_chat.types import ModelSpec
tui_chat.engine.hub.installed_models()
tui_chat.engine.open_engine(ModelSpec("echo:" + sys.argv[1]), print, threading.Event())
heavy = ("torch", "transformers", "bitsandbytes", "accelerate", "textual")
print([name for name in heavy if name in sys.modules])
"""
    assert run_python(code, str(tmp_path / "reply.md")).stdout == "[]\n"


@pytest.mark.slow
def test_nothing_is_printed_while_a_model_loads(folder: Path) -> None:
    code = """
import sys, threading
from tui_chat.engine import open_engine
from tui_chat.types import ModelSpec, Precision
for precision in (None, Precision.INT8, Precision.INT4):
    spec = ModelSpec(sys.argv[1], precision=precision)
    open_engine(spec, lambda _: None, threading.Event()).close()
"""
    done = run_python(code, str(folder))
    assert (done.stdout, done.stderr) == ("", "")


def test_model_loads_where_standard_error_is_no_file(folder: Path) -> None:
    code = """
import multiprocessing, sys, threading
multiprocessing.set_start_method("spawn")
class Screen:
    def write(self, text): pass
    def flush(self): pass
    def fileno(self): return -1
sys.stderr = Screen()
from tui_chat.engine import open_engine
from tui_chat.types import ModelSpec
print(open_engine(ModelSpec(sys.argv[1]), lambda _: None, threading.Event()).name)
"""
    assert run_python(code, str(folder)).stdout == "tiny\n"
