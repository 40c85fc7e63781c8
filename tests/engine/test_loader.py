import gc
import json
import os
import pickle
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tui_chat.engine import loader
from tui_chat.engine.base import LoadCancelled, LoadError
from tui_chat.engine.checkpoint import Checkpoint
from tui_chat.engine.hardware import Device, Hardware
from tui_chat.engine.ladder import Step
from tui_chat.engine.loader import LoadedModel, load_model
from tui_chat.engine.template_watch import TemplateWatch
from tui_chat.types import LoadProgress, ModelSpec, Precision

pytestmark = pytest.mark.engine

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GB = 1_000_000_000
TEN_GIGABYTES = Hardware(Device("cpu", "CPU", 10 * GB, 32 * GB))
CPU_ONLY = Hardware(Device("cpu", "CPU", 16 * GB, 32 * GB))
ONE_GPU = Hardware(CPU_ONLY.cpu, (Device("cuda:0", "Test GPU", 24 * GB, 24 * GB),))


def save_tiny(folder: Path, **config: Any) -> Path:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["hello there, general reader"] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    values = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "eos_token_id": tokenizer.eos_token_id,
        **config,
    }
    LlamaForCausalLM(LlamaConfig(**values)).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def load(
    folder: Path,
    *,
    hardware: Hardware = CPU_ONLY,
    progress: Callable[[LoadProgress], None] = lambda _: None,
    cancel: threading.Event | None = None,
    load_weights: loader.LoadWeights = loader.load_weights,
    **spec: Any,
) -> LoadedModel:
    return load_model(
        folder,
        ModelSpec(str(folder), **spec),
        progress,
        cancel or threading.Event(),
        name=folder.name,
        hardware=hardware,
        load_weights=load_weights,
    )


def edit(path: Path, **values: Any) -> None:
    data = json.loads(path.read_text())
    data.update(values)
    path.write_text(json.dumps(data))


def set_config(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **values)


def drop_config(*keys: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = json.loads((folder / "config.json").read_text())
        for key in keys:
            del data[key]
        (folder / "config.json").write_text(json.dumps(data))

    return change


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def only(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").rename(folder / name)


def in_place_of(name: str, put: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        put(folder / name)

    return change


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**9)


def index(weight_map: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        only("part-1.safetensors")(folder)
        text = json.dumps({"metadata": {}, "weight_map": weight_map})
        (folder / "model.safetensors.index.json").write_text(text)

    return change


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def each(*changes: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for step in changes:
            step(folder)

    return change


KERNEL = {"_attn_implementation": "evil/kernel"}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
INFINITE = b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 0]}}'
AWQ = {"quant_method": "awq", "bits": 4}
MUTATIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "config missing": (remove("config.json"), "has no config.json"),
    "config not JSON": (write("config.json", b"{"), "config.json is damaged"),
    "config a list": (write("config.json", b"[]"), "config.json is damaged"),
    "config not text": (write("config.json", b"\xff\xfe\x00"), "config.json is damaged"),
    "config nested deep": (write("config.json", b"[" * 100_000), "config.json is damaged"),
    "no model_type": (drop_config("model_type"), "lacks model_type"),
    "model_type a number": (set_config(model_type=3), "lacks model_type"),
    "newer type": (set_config(model_type="llama9"), "newer transformers"),
    "encoder-decoder": (
        set_config(model_type="t5", architectures=["T5ForConditionalGeneration"]),
        "not a text-generation model",
    ),
    "classifier": (
        set_config(model_type="vit", architectures=["ViTForImageClassification"]),
        "not a text-generation model (ViTForImageClassification)",
    ),
    "vision type only": (
        each(set_config(model_type="vit"), drop_config("architectures")),
        "not a text-generation model",
    ),
    "custom code": (
        set_config(auto_map={"AutoModelForCausalLM": "evil.Model"}),
        "config.json wants to run its own Python code",
    ),
    "custom tokenizer code": (
        lambda f: edit(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}),
        "tokenizer_config.json wants to run its own Python code",
    ),
    "attention kernel": (set_config(**KERNEL), "attention code from the network"),
    "nested kernel": (set_config(text_config=KERNEL), "attention code from the network"),
    "wrong type": (set_config(hidden_size="many"), "config.json is invalid: hidden_size"),
    "heads do not divide": (set_config(num_attention_heads=5), "config.json is invalid"),
    "endless layers": (set_config(num_hidden_layers=10**9), "invalid: num_hidden_layers"),
    "no weights": (remove("model.safetensors"), "has no weights (model.safetensors)"),
    "pickle only": (only("pytorch_model.bin"), "has .bin weights only"),
    "gguf only": (only("model-q4.gguf"), "has GGUF weights only"),
    "truncated": (truncate, "model.safetensors is damaged or incomplete"),
    "garbage": (write("model.safetensors", b"\x07" * 500), "damaged or incomplete"),
    "empty": (write("model.safetensors", b""), "damaged or incomplete"),
    "odd header": (
        write("model.safetensors", (9).to_bytes(8, "little") + b'{"a": []}'),
        "damaged or incomplete",
    ),
    "infinite shape": (
        write("model.safetensors", (len(INFINITE)).to_bytes(8, "little") + INFINITE),
        "damaged or incomplete",
    ),
    "architecture of any length": (
        set_config(architectures=["x\n" * 3000]),
        "not a text-generation model (x x x",
    ),
    "type of any length": (
        each(
            set_config(model_type="y\n" * 3000, is_encoder_decoder=True),
            drop_config("architectures"),
        ),
        "not a text-generation model (y y y",
    ),
    "lfs pointer": (write("model.safetensors", LFS), "is a Git LFS pointer"),
    "shard elsewhere": (index({"a": "../../etc/passwd"}), "names a file outside"),
    "shard absolute": (index({"a": "/etc/x.safetensors"}), "names a file outside"),
    "shard on Windows": (index({"a": "..\\x.safetensors"}), "names a file outside"),
    "shard missing": (
        index({"a": "part-1.safetensors", "b": "part-2.safetensors"}),
        "Part 2 of 2 of the weights (part-2.safetensors) is missing",
    ),
    "index empty": (index({}), "index.json is damaged (no weight_map)"),
    "index not JSON": (
        each(only("part-1.safetensors"), write("model.safetensors.index.json", b"{")),
        "model.safetensors.index.json is damaged",
    ),
    "more layers": (set_config(num_hidden_layers=4), "weights that config.json asks for"),
    "other shapes": (set_config(vocab_size=999), "do not fit its config.json"),
    "no tokenizer": (remove("tokenizer.json"), "has no tokenizer (tokenizer.json)"),
    "tokenizer not JSON": (write("tokenizer.json", b"{"), "tokenizer.json is damaged"),
    "tokenizer empty": (write("tokenizer.json", b"{}"), "(tokenizer.json) cannot be read"),
    "tokenizer config not JSON": (
        write("tokenizer_config.json", b"{"),
        "tokenizer_config.json is damaged",
    ),
    "template broken": (
        write("chat_template.jinja", b"{% for m in %}"),
        "chat template in",
    ),
    "template no text": (
        each(
            remove("chat_template.jinja"),
            lambda f: edit(f / "tokenizer_config.json", chat_template=3),
        ),
        "chat template in",
    ),
    "generation config not JSON": (
        write("generation_config.json", b"{"),
        "generation_config.json is damaged",
    ),
    "config a pipe": (in_place_of("config.json", os.mkfifo), "config.json is neither a file nor"),
    "template a pipe": (
        in_place_of("chat_template.jinja", os.mkfifo),
        "chat_template.jinja is neither a file nor",
    ),
    "weights endless": (
        in_place_of("model.safetensors", endless),
        "model.safetensors is neither a file nor",
    ),
    "config a folder": (in_place_of("config.json", os.mkdir), "config.json cannot be read"),
    "tokenizer huge": (
        in_place_of("tokenizer.json", huge),
        "tokenizer.json is too large for what it should be",
    ),
    "quantised elsewhere": (set_config(quantization_config=AWQ), "needs the package gptqmodel"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_damaged_model_is_refused_with_one_sentence(name: str, folder: Path) -> None:
    mutate, sentence = MUTATIONS[name]
    mutate(folder)
    with pytest.raises(LoadError) as raised:
        load(folder)
    text = str(raised.value)
    assert sentence in text
    assert str(folder) in text
    assert "\n" not in text and "Traceback" not in text and len(text) < 500
    assert text.endswith(".") and not text.endswith("..")


def test_small_model_is_loaded_on_the_cpu_when_there_is_no_gpu(folder: Path) -> None:
    loaded = load(folder)
    assert (loaded.precision, loaded.device, loaded.dtype) == (Precision.CPU, "cpu", "float32")
    assert loaded.name == "tiny"
    assert not loaded.model.training
    assert loaded.weights_bytes == loaded.model.get_memory_footprint()
    assert [(rung.precision, rung.taken) for rung in loaded.rungs] == [
        (Precision.INT4, False),
        (Precision.INT8, False),
        (Precision.FP16, False),
        (Precision.CPU, True),
    ]
    assert {rung.reason for rung in loaded.rungs[:3]} == {"No GPU was found."}
    ids = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], return_tensors="pt", add_generation_prompt=True
    )
    with torch.inference_mode():
        assert loaded.model(**ids).logits.isfinite().all()


def test_tied_output_head_is_not_a_missing_weight(tmp_path: Path) -> None:
    assert load(save_tiny(tmp_path / "tied", tie_word_embeddings=True)).rungs[-1].taken


def test_a_model_from_the_cache_of_the_hub_knows_its_commit(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / "4af31bc"
    shutil.copytree(folder, snapshot)
    assert load(snapshot).revision == "4af31bc"
    assert load(folder).revision == ""


def test_weights_in_several_files_are_loaded(folder: Path) -> None:
    model = load(folder).model
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    assert not (folder / "model.safetensors").exists()
    again = load(folder).model
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_choosing_the_cpu_is_the_reason_of_the_gpu_rungs(folder: Path) -> None:
    loaded = load(folder, device="cpu", hardware=ONE_GPU)
    assert loaded.device == "cpu"
    assert "--device cpu" in loaded.rungs[0].reason


@pytest.mark.parametrize("precision", [Precision.INT4, Precision.INT8, Precision.FP16])
def test_every_precision_can_be_forced_on_the_cpu(precision: Precision, folder: Path) -> None:
    loaded = load(folder, precision=precision, device="cpu")
    assert (loaded.precision, loaded.dtype) == (precision, "bfloat16")
    assert [rung.taken for rung in loaded.rungs] == [True]
    full = load(folder, precision=Precision.FP16, device="cpu").weights_bytes
    assert loaded.weights_bytes < full or precision is Precision.FP16
    with torch.inference_mode():
        assert loaded.model(torch.tensor([[5, 6, 7]])).logits.isfinite().all()


def test_forced_precision_that_fails_is_an_error(folder: Path) -> None:
    def fail(*_: Any) -> Any:
        raise ImportError("Using `bitsandbytes` 4-bit quantization requires bitsandbytes")

    with pytest.raises(LoadError, match=r"tiny does not load \(4-bit\): bitsandbytes is not"):
        load(folder, precision=Precision.INT4, load_weights=fail)


def test_unknown_device_names_those_that_exist(folder: Path) -> None:
    with pytest.raises(LoadError, match="choose one of: auto, cpu, cuda:0"):
        load(folder, device="cuda:1", hardware=ONE_GPU)


def enlarge(folder: Path, parameters: int) -> None:
    """Make the weights look large without taking disk: a sparse file with an honest header."""
    shape = [parameters // 640, 640]
    entry = {"dtype": "BF16", "shape": shape, "data_offsets": [0, 2 * parameters]}
    names = [f"model.layers.{n}.weight" for n in range(3)]
    empty = {"dtype": "BF16", "shape": [0], "data_offsets": [2 * parameters] * 2}
    header = json.dumps({names[0]: entry, names[1]: empty, names[2]: empty}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * parameters)


class FakeRungs:
    """Stands in for `from_pretrained`: fails on the rungs it is told, else a tiny model."""

    def __init__(self, failures: dict[Precision, Callable[[], BaseException]]) -> None:
        self.failures = failures
        self.tried: list[Precision] = []
        self.failed: list[weakref.ref[Any]] = []

    def __call__(self, checkpoint: Checkpoint, config: Any, step: Step) -> Any:
        self.tried.append(step.precision)
        model = LlamaForCausalLM(config)
        if failure := self.failures.get(step.precision):
            self.failed.append(weakref.ref(model))
            try:
                model.half_loaded = model.lm_head
                raise KeyError("an inner fault, as accelerate's")
            except KeyError as inner:
                raise failure() from inner
        return model, {}


def out_of_memory() -> BaseException:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def missing_package() -> BaseException:
    return ImportError("Using `bitsandbytes` requires the latest version of bitsandbytes")


def test_ladder_takes_four_bits_where_there_is_a_gpu(folder: Path) -> None:
    enlarge(folder, 200_000_000)
    loaded = load(folder, hardware=ONE_GPU, load_weights=FakeRungs({}))
    assert (loaded.precision, loaded.device) == (Precision.INT4, "cuda:0")
    assert loaded.rungs[0].reason == "1 MB in 4-bit nf4 on cuda:0."


def test_ladder_falls_one_rung_after_another_and_says_why(folder: Path) -> None:
    enlarge(folder, 200_000_000)
    rungs = FakeRungs({Precision.INT4: missing_package, Precision.INT8: missing_package})
    loaded = load(folder, hardware=ONE_GPU, load_weights=rungs)
    assert rungs.tried == [Precision.INT4, Precision.INT8, Precision.FP16]
    assert loaded.precision is Precision.FP16
    assert "bitsandbytes is not installed" in loaded.rungs[0].reason


def test_out_of_memory_never_tries_a_rung_that_needs_more(folder: Path) -> None:
    enlarge(folder, 200_000_000)
    rungs = FakeRungs({Precision.INT4: out_of_memory})
    loaded = load(folder, hardware=ONE_GPU, load_weights=rungs)
    assert rungs.tried == [Precision.INT4, Precision.CPU]
    assert loaded.device == "cpu"
    assert loaded.rungs[0].reason == "It ran out of memory while the weights were loaded."
    assert loaded.rungs[1].reason == "4-bit ran out of memory, and this needs more."


def test_failed_rung_frees_its_memory(folder: Path) -> None:
    rungs = FakeRungs({Precision.FP16: out_of_memory})
    load(folder, hardware=ONE_GPU, load_weights=rungs)
    assert rungs.tried == [Precision.FP16, Precision.CPU]
    assert [reference() for reference in rungs.failed] == [None]


def test_model_that_is_refused_frees_its_memory_while_the_error_is_kept(folder: Path) -> None:
    rungs = FakeRungs({Precision.CPU: out_of_memory})
    with pytest.raises(LoadError, match="ran out of memory") as raised:
        load(folder, load_weights=rungs)
    gc.collect()
    assert raised.value.__context__ is None
    assert [reference() for reference in rungs.failed] == [None]


def test_quantising_a_small_model_is_not_tried(folder: Path) -> None:
    rungs = FakeRungs({})
    loaded = load(folder, hardware=ONE_GPU, load_weights=rungs)
    assert rungs.tried == [Precision.FP16]
    assert "quantising it would save next to nothing" in loaded.rungs[0].reason


def test_model_larger_than_the_gpu_goes_to_the_cpu_without_trying(folder: Path) -> None:
    enlarge(folder, 2_000_000_000)
    small = Hardware(CPU_ONLY.cpu, (Device("cuda:0", "Test GPU", GB, 2 * GB),))
    rungs = FakeRungs({})
    loaded = load(folder, hardware=small, load_weights=rungs)
    assert rungs.tried == [Precision.CPU]
    assert "but only 1.0 GB is free in cuda:0" in loaded.rungs[0].reason


def test_model_larger_than_all_memory_is_an_error(folder: Path) -> None:
    enlarge(folder, 20_000_000_000)
    with pytest.raises(
        LoadError, match=r"about 1\d\.\d GB but only 10\.0 GB is free in memory; choose a smaller"
    ):
        load(folder, hardware=TEN_GIGABYTES)


def test_cpu_with_little_memory_takes_eight_bits_and_says_why(folder: Path) -> None:
    enlarge(folder, 8_000_000_000)
    rungs = FakeRungs({})
    loaded = load(folder, hardware=TEN_GIGABYTES, load_weights=rungs)
    assert rungs.tried == [Precision.INT8]
    assert (loaded.precision, loaded.device, loaded.dtype) == (Precision.INT8, "cpu", "bfloat16")
    assert [rung.precision for rung in loaded.rungs[3:]] == [Precision.CPU, Precision.INT8]
    assert "The model needs about 16.0 GB but only 10.0 GB is free" in loaded.rungs[3].reason
    assert loaded.rungs[4].reason.endswith("in 8-bit on the CPU.")


def test_out_of_memory_on_the_cpu_tries_what_needs_less(folder: Path) -> None:
    enlarge(folder, 2_000_000_000)
    rungs = FakeRungs({Precision.CPU: MemoryError, Precision.INT8: MemoryError})
    loaded = load(folder, load_weights=rungs)
    assert rungs.tried == [Precision.CPU, Precision.INT8, Precision.INT4]
    assert loaded.precision is Precision.INT4


def test_fewer_bits_are_not_tried_where_memory_is_not_the_fault(folder: Path) -> None:
    rungs = FakeRungs({Precision.CPU: missing_package})
    with pytest.raises(LoadError, match=r"tiny does not load \(cpu\): bitsandbytes"):
        load(folder, load_weights=rungs)
    assert rungs.tried == [Precision.CPU]


def test_forced_precision_that_does_not_fit_names_a_smaller_one(folder: Path) -> None:
    enlarge(folder, 8_000_000_000)
    with pytest.raises(LoadError, match="choose a smaller model or --precision 4-bit"):
        load(folder, hardware=TEN_GIGABYTES, precision=Precision.FP16)


@pytest.mark.parametrize("stage", ["loading weights", "quantising weights"])
def test_eight_bit_load_on_the_cpu_can_be_cancelled_between_layers(
    stage: str, folder: Path
) -> None:
    cancel = threading.Event()
    seen: list[LoadProgress] = []

    def stop(progress: LoadProgress) -> None:
        seen.append(progress)
        if progress.stage == stage:
            cancel.set()

    with pytest.raises(LoadCancelled):
        load(folder, precision=Precision.INT8, progress=stop, cancel=cancel)
    assert seen[-1].stage == stage and (seen[-1].fraction or 0.0) < 1.0


def test_every_rung_that_was_tried_keeps_its_seconds(folder: Path) -> None:
    rungs = FakeRungs({Precision.FP16: out_of_memory})
    loaded = load(folder, hardware=ONE_GPU, load_weights=rungs)
    assert [rung.seconds > 0 for rung in loaded.rungs] == [False, False, True, True]


def test_progress_of_the_weights_ends_at_one(folder: Path) -> None:
    seen: list[LoadProgress] = []
    load(folder, progress=seen.append)
    fractions = [p.fraction for p in seen if p.stage == "loading weights"]
    assert fractions == sorted(fractions, key=lambda f: f or 0.0)
    assert fractions[0] == 0.0 and fractions[-1] == 1.0


def test_cancelled_load_ends_and_a_second_load_works(folder: Path) -> None:
    cancel = threading.Event()

    def stop_at_first_weight(progress: LoadProgress) -> None:
        if progress.stage == "loading weights" and progress.fraction:
            cancel.set()

    with pytest.raises(LoadCancelled, match="Loading tiny was cancelled"):
        load(folder, progress=stop_at_first_weight, cancel=cancel)
    assert load(folder).rungs[-1].taken


def test_context_window_is_the_models_own_or_the_limit(folder: Path) -> None:
    assert load(folder).context_window == 512
    assert load(folder, context_window=100).context_window == 100
    assert load(folder, context_window=9999).context_window == 512


def test_template_that_needs_other_roles_does_not_stop_the_load(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no user role') }}")
    assert load(folder).rungs[-1].taken


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 1 // 0 }}",
        "{{ 'a' * 10 ** 13 }}",
        "{{ messages[0].nothing.at_all }}",
        "",
    ],
)
def test_template_that_fails_in_another_way_does_not_stop_the_load(
    folder: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "TemplateWatch", lambda: TemplateWatch(0.2))
    (folder / "chat_template.jinja").write_text(text)
    assert load(folder).rungs[-1].taken


def test_no_code_in_a_model_folder_runs(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    act = f"import pathlib; pathlib.Path({str(canary)!r}).touch()"
    for name in ("modeling_evil.py", "tokenization_evil.py", "conftest.py", "setup.py"):
        (folder / name).write_text(act)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(act)))
    (folder / "training_args.bin").write_bytes(pickle.dumps(Bomb(act)))
    assert load(folder).rungs[-1].taken
    (folder / "model.safetensors").unlink()
    with pytest.raises(LoadError, match=r"has \.bin weights only"):
        load(folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(act)))
    with pytest.raises(LoadError, match="damaged or incomplete"):
        load(folder)
    shutil.copy(folder / "pytorch_model.bin", folder / "model.safetensors")
    for key, value in {
        "auto_map": {"AutoConfig": "modeling_evil.C", "AutoModelForCausalLM": "modeling_evil.M"},
        "custom_pipelines": {"x": {"impl": "modeling_evil.P"}},
    }.items():
        edit(folder / "config.json", **{key: value})
        with pytest.raises(LoadError):
            load(folder)
    assert not canary.exists()


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, act: str) -> None:
        self.act = act

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.act,)


def other(kind: type[Exception], text: str) -> Callable[[], BaseException]:
    return lambda: kind(text)


NO_MEMORY = {
    "torch": out_of_memory,
    "CUDA": other(RuntimeError, "CUDA error: out of memory"),
    "cuBLAS": other(RuntimeError, "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    "CPU": other(RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried"),
    "Python": MemoryError,
}
NO_PACKAGE = {
    "absent": missing_package,
    "broken": other(RuntimeError, "CUDA Setup failed despite GPU being available"),
    "no CUDA": other(AssertionError, "Torch not compiled with CUDA enabled"),
    "version": other(AttributeError, "module 'bitsandbytes' has no attribute 'nn'"),
}
LADDER = [Precision.INT4, Precision.INT8, Precision.FP16, Precision.CPU]


@pytest.mark.parametrize(
    ("fallen", "fault"), [(1, "broken"), (2, "no CUDA"), (3, "version"), (3, "absent")]
)
def test_any_fault_of_a_rung_leads_to_the_next_and_frees_its_model(
    folder: Path, fallen: int, fault: str
) -> None:
    enlarge(folder, 200_000_000)
    rungs = FakeRungs(dict.fromkeys(LADDER[:fallen], NO_PACKAGE[fault]))
    loaded = load(folder, hardware=ONE_GPU, load_weights=rungs)
    assert rungs.tried == LADDER[: fallen + 1]
    assert [reference() for reference in rungs.failed] == [None] * fallen
    reasons = [rung.reason for rung in loaded.rungs]
    assert all(reason.endswith(".") and "\n" not in reason for reason in reasons)


@pytest.mark.parametrize(("rung", "fault"), [(0, "torch"), (1, "CUDA"), (2, "cuBLAS"), (3, "CPU")])
def test_memory_that_is_short_on_any_rung_is_told_and_freed(
    folder: Path, rung: int, fault: str
) -> None:
    enlarge(folder, 200_000_000)
    failures = dict.fromkeys(LADDER[:rung], missing_package)
    rungs = FakeRungs({**failures, LADDER[rung]: NO_MEMORY[fault]})
    if LADDER[rung] is Precision.CPU:
        with pytest.raises(LoadError, match=r"ran out of memory.*choose a smaller model"):
            load(folder, hardware=ONE_GPU, load_weights=rungs)
    else:
        loaded = load(folder, hardware=ONE_GPU, load_weights=rungs)
        assert rungs.tried == [*LADDER[: rung + 1], Precision.CPU]
        assert "ran out of memory" in loaded.rungs[rung].reason
    gc.collect()
    assert len(rungs.failed) > rung
    assert {reference() for reference in rungs.failed} == {None}


def test_weights_the_model_does_not_use_are_mentioned(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=1)
    assert "9 tensors of the files are not used by this model." in load(folder).notes


def test_a_method_of_any_length_is_told_in_one_line(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "z\n" * 3000})
    (note,) = load(folder).notes
    assert "\n" not in note and len(note) < 200


def test_model_quantised_in_advance_is_loaded_as_it_is(folder: Path, tmp_path: Path) -> None:
    quantised = load(folder, precision=Precision.INT4, device="cpu")
    quantised.model.save_pretrained(tmp_path / "nf4")
    quantised.tokenizer.save_pretrained(tmp_path / "nf4")
    loaded = load(tmp_path / "nf4")
    assert loaded.notes == ("The weights are already quantised (bitsandbytes 4-bit).",)
    with pytest.raises(LoadError, match="already quantised"):
        load(tmp_path / "nf4", precision=Precision.INT8)
