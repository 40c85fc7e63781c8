from dataclasses import replace
from pathlib import Path

import pytest

from tui_chat.engine.base import LoadError
from tui_chat.engine.checkpoint import Checkpoint
from tui_chat.engine.hardware import (
    Device,
    Hardware,
    cpu_device,
    detect_hardware,
    estimate,
    kv_bytes_per_token,
    kv_cache_bytes,
    weights_needed,
)
from tui_chat.engine.ladder import plan_ladder
from tui_chat.types import MemoryUse, ModelSpec, Precision

pytestmark = pytest.mark.engine

GB = 1_000_000_000
LLAMA_8B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
}
MODEL = Checkpoint(
    folder=Path("llama-8b"),
    config=LLAMA_8B,
    shards=(),
    weights_bytes=16 * GB,
    parameters=8 * GB,
    embedding_parameters=1 * GB,
    dtype="BF16",
    quantization="",
)
GPU_RUNGS = (Precision.INT4, Precision.INT8, Precision.FP16)
CPU = Device("cpu", "CPU", 64 * GB, 64 * GB)


def gpu(free: int, name: str = "cuda:0") -> Device:
    return Device(name, "Test GPU", free, 80 * GB)


def obstacles(hardware: Hardware, model: Checkpoint = MODEL, **spec: object) -> list[str]:
    """The rungs that are tried whatever happens, and whether each is."""
    steps = plan_ladder(model, ModelSpec(**spec), hardware)  # type: ignore[arg-type]
    return [
        f"{step.precision} {step.device} {'no' if step.obstacle else 'yes'}"
        for step in steps
        if not step.for_want_of_memory
    ]


def small_machine(free: int) -> list[str]:
    """All rungs on a CPU with `free` bytes, and what keeps each from being tried."""
    steps = plan_ladder(MODEL, ModelSpec(), Hardware(Device("cpu", "CPU", free, 64 * GB)))[3:]
    return [f"{step.precision}: {step.obstacle or 'fits'}" for step in steps]


def test_this_machine_has_memory() -> None:
    cpu = detect_hardware().cpu
    assert 0 < cpu.free_bytes <= cpu.total_bytes


def test_limit_of_a_container_counts_as_the_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert cpu_device(tmp_path) == Device("cpu", "CPU", 600_000, 1_000_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert cpu_device(tmp_path).total_bytes > 1_000_000


def test_cache_of_grouped_query_heads_is_counted_once_per_group() -> None:
    assert kv_bytes_per_token(LLAMA_8B) * 8192 == 1_073_741_824
    assert kv_bytes_per_token({**LLAMA_8B, "num_key_value_heads": None}) == 4 * kv_bytes_per_token(
        LLAMA_8B
    )
    assert kv_bytes_per_token({**LLAMA_8B, "head_dim": 256}) == 2 * kv_bytes_per_token(LLAMA_8B)


SLIDING = {**LLAMA_8B, "num_hidden_layers": 6, "sliding_window": 1000}
ONE_LAYER = kv_bytes_per_token(LLAMA_8B) // 32


@pytest.mark.parametrize(
    ("config", "tokens_kept"),
    [
        (SLIDING, 6 * 4000),  # which layers slide is not known: all count in full
        ({**SLIDING, "model_type": "mistral"}, 6 * 1000),
        ({**SLIDING, "model_type": "mistral", "sliding_window": None}, 6 * 4000),
        ({**SLIDING, "model_type": "gemma2"}, 3 * 1000 + 3 * 4000),
        ({**SLIDING, "sliding_window_pattern": 6}, 5 * 1000 + 4000),
        ({**SLIDING, "layer_types": ["sliding_attention"] * 5 + ["full_attention"]}, 9000),
        ({**SLIDING, "layer_types": ["conv"] * 4 + ["full_attention"] * 2}, 8000),
        ({**SLIDING, "layer_types": ["something_new"] * 6}, 6 * 4000),
        ({**SLIDING, "layer_types": ["conv"]}, 6 * 4000),  # not one for each layer
        ({**SLIDING, "num_hidden_layers": 8, "model_type": "qwen3_next"}, 2 * 4000),
    ],
)
def test_layers_that_slide_or_keep_a_state_are_counted_as_what_they_keep(
    config: dict[str, object], tokens_kept: int
) -> None:
    assert kv_cache_bytes(config, 4000) == tokens_kept * ONE_LAYER


def test_numbers_of_four_bytes_take_twice_the_memory() -> None:
    assert kv_cache_bytes(LLAMA_8B, 100, 4) == 2 * kv_cache_bytes(LLAMA_8B, 100)
    small = replace(MODEL, parameters=10_000_000, weights_bytes=20_000_000)
    fit = plan_ladder(small, ModelSpec(), Hardware(CPU))[3]
    assert fit.dtype == "float32" and fit.needed_bytes > 40_000_000


def test_what_a_loaded_model_holds_counts_as_free_where_it_is() -> None:
    memory = MemoryUse(5 * GB, 1 * GB, 7 * GB, 2 * GB, 80 * GB)
    hardware = Hardware(CPU, (gpu(2 * GB), gpu(3 * GB, "cuda:1")))
    after = hardware.after_freeing("cuda:0", memory)
    assert [device.free_bytes for device in after.gpus] == [9 * GB, 3 * GB]
    assert after.cpu == CPU
    cpu = replace(CPU, free_bytes=60 * GB)
    held = Hardware(cpu).after_freeing("cpu", memory).cpu.free_bytes - cpu.free_bytes
    assert 0 <= held <= 4 * GB


@pytest.mark.parametrize("config", [{}, {"num_hidden_layers": "x"}, {"hidden_size": -1}])
def test_odd_configs_have_no_known_cache_size(config: dict[str, object]) -> None:
    assert kv_bytes_per_token(config) == 0


def test_each_precision_needs_less_than_the_next() -> None:
    needed = [weights_needed(MODEL, p) for p in GPU_RUNGS]
    assert needed == sorted(needed)
    assert 5.5 * GB < needed[0] < 6.5 * GB
    assert needed[2] == 16 * GB


def test_estimate_says_what_is_needed_and_what_is_short() -> None:
    fits = [estimate(MODEL, precision, gpu(10 * GB)) for precision in GPU_RUNGS]
    assert [bool(fit.shortage) for fit in fits] == [False, True, True]
    assert fits[1].shortage == "8-bit needs about 10.5 GB but only 10.0 GB is free in cuda:0."
    assert not estimate(MODEL, Precision.CPU, CPU).shortage


def test_cache_of_the_window_asked_for_counts_up_to_what_the_model_holds() -> None:
    def needed(model: Checkpoint, window: int) -> int:
        return estimate(model, Precision.FP16, gpu(10 * GB), window).needed_bytes

    token = kv_bytes_per_token(LLAMA_8B)
    assert needed(MODEL, 100_000) - needed(MODEL, 0) == (100_000 - 4096) * token
    short = replace(MODEL, config={**LLAMA_8B, "max_position_embeddings": 1000})
    assert needed(short, 100_000) == needed(short, 0) == needed(MODEL, 1000)


def test_cache_of_a_long_window_can_cost_a_rung() -> None:
    hardware = Hardware(CPU, (gpu(20 * GB),))
    assert obstacles(hardware)[2] == "16-bit cuda:0 yes"
    assert obstacles(hardware, context_window=65_536)[2] == "16-bit cuda:0 no"


def test_best_gpu_is_chosen_and_others_can_be_named() -> None:
    hardware = Hardware(CPU, (gpu(40 * GB, "cuda:1"), gpu(20 * GB)))
    assert obstacles(hardware)[0] == "4-bit cuda:1 yes"
    assert obstacles(hardware, device="cuda:0")[0] == "4-bit cuda:0 yes"


def test_rungs_that_do_not_fit_are_not_tried() -> None:
    assert obstacles(Hardware(CPU, (gpu(8 * GB),))) == [
        "4-bit cuda:0 yes",
        "8-bit cuda:0 no",
        "16-bit cuda:0 no",
        "cpu cpu yes",
    ]


def test_fewer_bits_on_a_cpu_are_for_want_of_memory_alone() -> None:
    steps = plan_ladder(MODEL, ModelSpec(), Hardware(CPU))[3:]
    assert [(s.precision, s.for_want_of_memory) for s in steps] == [
        (Precision.CPU, False),
        (Precision.INT8, True),
        (Precision.INT4, True),
    ]


def test_what_fits_in_memory_decides_among_the_rungs_of_a_cpu() -> None:
    assert small_machine(20 * GB)[0] == "cpu: fits"
    assert small_machine(12 * GB) == [
        "cpu: The model needs about 16.5 GB but only 12.0 GB is free in memory.",
        "8-bit: fits",
        "4-bit: fits",
    ]
    assert [rung[-5:] == " fits" for rung in small_machine(8 * GB)] == [False, False, True]
    assert all(rung.endswith("is free in memory.") for rung in small_machine(4 * GB))


def test_experts_and_odd_widths_are_not_quantised_on_a_cpu() -> None:
    def reasons(model: Checkpoint) -> list[str]:
        return [step.obstacle for step in plan_ladder(model, ModelSpec(), Hardware(CPU))[4:]]

    experts = replace(MODEL, config={**LLAMA_8B, "num_local_experts": 8})
    assert reasons(experts) == ["A mixture of experts is not quantised on a CPU."] * 2
    eight, four = reasons(replace(MODEL, whole_blocks=False))
    assert eight == "" and "blocks of 64" in four


def test_weights_quantised_in_advance_are_only_tried_as_they_are() -> None:
    awq = replace(MODEL, quantization="awq", weights_bytes=5 * GB)
    assert obstacles(Hardware(CPU, (gpu(8 * GB),)), awq) == [
        "4-bit cuda:0 no",
        "8-bit cuda:0 no",
        "16-bit cuda:0 yes",
        "cpu cpu yes",
    ]


def test_apple_gpu_computes_in_sixteen_bits() -> None:
    hardware = Hardware(CPU, (gpu(40 * GB, "mps"),))
    assert obstacles(hardware)[:3] == ["4-bit mps no", "8-bit mps no", "16-bit mps yes"]
    with pytest.raises(LoadError, match="use --precision 16-bit"):
        obstacles(hardware, precision=Precision.INT4)


def test_types_follow_the_checkpoint_and_the_device() -> None:
    def dtype(model: Checkpoint, device: Device) -> str:
        return plan_ladder(model, ModelSpec(), Hardware(CPU, (device,)))[2].dtype

    assert dtype(MODEL, gpu(40 * GB)) == "bfloat16"
    assert dtype(replace(MODEL, dtype="F16"), gpu(40 * GB)) == "float16"
    assert dtype(MODEL, replace(gpu(40 * GB), bfloat16=False)) == "float16"
    cpu = Hardware(CPU)
    assert plan_ladder(replace(MODEL, dtype="F16"), ModelSpec(), cpu)[3].dtype == "bfloat16"
    assert plan_ladder(replace(MODEL, dtype="F32"), ModelSpec(), cpu)[3].dtype == "float32"


def test_contradicting_wishes_are_an_error() -> None:
    hardware = Hardware(CPU, (gpu(40 * GB),))
    with pytest.raises(LoadError, match="contradict each other"):
        obstacles(hardware, precision=Precision.CPU, device="cuda")
