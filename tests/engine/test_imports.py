import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import import_utils

import tui_chat
from tests.engine.tiny_models import CONFIGS, byte_level_tokenizer, tiny_model
from tui_chat.engine.checkpoint import read_checkpoint
from tui_chat.engine.imports import models_structure
from tui_chat.engine.ladder import Step
from tui_chat.engine.loader import load_weights
from tui_chat.types import Precision

pytestmark = pytest.mark.engine


def in_a_fresh_process(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(tui_chat.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_opening_a_model_imports_neither_the_compiler_nor_what_it_needs() -> None:
    code = """
import gc, sys, threading
from tui_chat.engine import open_engine
from tui_chat.types import ModelSpec
open_engine(ModelSpec("guide"), lambda _: None, threading.Event())
unused = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "bitsandbytes")
print([name for name in unused if name in sys.modules], gc.isenabled())
"""
    assert in_a_fresh_process(code) == "[] True\n"


def test_the_compiler_and_distributed_torch_still_work_after_the_imports() -> None:
    code = """
from tui_chat.engine.imports import import_transformers, quick_imports
with quick_imports():
    import torch
    import_transformers()
    from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.masking_utils import TransformGetItemToIndex
with TransformGetItemToIndex():
    pass
double = torch.compile(lambda x: x * 2, backend="eager", fullgraph=True)
print(double(torch.ones(2)).tolist(), torch.distributed.is_available())
import torch.distributed.tensor
"""
    assert in_a_fresh_process(code) == f"[2.0, 2.0] {torch.distributed.is_available()}\n"


def test_transformers_finds_the_same_models_as_by_its_own_scan() -> None:
    package = Path(transformers.__file__).parent / "models" / "__init__.py"
    assert models_structure(import_utils) == import_utils.define_import_structure(str(package))


@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_and_buffers_are_those_of_the_plain_way(kind: str, tmp_path: Path) -> None:
    tiny_model(kind, dtype=torch.bfloat16).save_pretrained(tmp_path)
    byte_level_tokenizer().save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    step = Step(Precision.CPU, "cpu", "bfloat16")
    ours, info = load_weights(read_checkpoint(tmp_path), config, step)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert not info["missing_keys"]
    assert not ours.training
    for mine, theirs in (
        (ours.named_parameters(), plain.named_parameters()),
        (ours.named_buffers(), plain.named_buffers()),
    ):
        expected = dict(theirs)
        found = dict(mine)
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert tensor.dtype == expected[name].dtype, name
            assert torch.equal(tensor, expected[name]), name
