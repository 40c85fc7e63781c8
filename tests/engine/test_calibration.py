import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from tui_chat import files
from tui_chat.engine import calibration
from tui_chat.engine.calibration import assumed_plan, measure, plan_for, without_onednn
from tui_chat.engine.cpu_plans import FILE_NAME, KEPT_PLANS, CpuPlan, read_plans
from tui_chat.engine.threads import usable_cores

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def worth_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "WORTH_MEASURING_BYTES", 1)


def kept() -> Any:
    return json.loads((files.cache_dir() / FILE_NAME).read_text())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "qwen3_next"])
def test_measuring_chooses_something_possible_and_leaves_torch_as_it_was(
    kind: str, dtype: Any
) -> None:
    plan = measure(tiny_model(kind, dtype=dtype))

    assert plan.decode_threads in range(1, usable_cores() + 1)
    assert plan.prefill_threads in range(1, usable_cores() + 1)
    assert not (plan.widens_products and dtype == torch.float32)
    assert not (plan.packs_attention and kind == "gpt_neox")
    assert torch.get_num_threads() == 1
    assert torch._C._get_mkldnn_enabled()


def test_the_number_of_threads_is_the_users_if_the_environment_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    plan = measure(tiny_model())

    assert (plan.decode_threads, plan.prefill_threads) == (None, None)


def test_a_plan_is_kept_and_the_next_start_does_not_measure() -> None:
    model = tiny_model()
    plan = plan_for(model)
    entries = kept()
    assert list(entries.values()) == [asdict(plan)]

    other = replace(plan, avoids_onednn=not plan.avoids_onednn)
    entries[next(iter(entries))] = asdict(other)
    (files.cache_dir() / FILE_NAME).write_text(json.dumps(entries))

    assert plan_for(tiny_model(seed=1)) == other
    assert plan_for(tiny_model("qwen3")) is not None
    assert len(kept()) == 2


def test_tiny_models_are_not_worth_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "WORTH_MEASURING_BYTES", 10**6)

    plan = plan_for(tiny_model())

    assert (plan.decode_threads, plan.prefill_threads) == (1, 1)
    assert not files.cache_dir().exists()


def test_only_so_many_plans_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = asdict(plan_for(tiny_model()))
    many = {f"model {number}": plan for number in range(KEPT_PLANS + 5)}
    (files.cache_dir() / FILE_NAME).write_text(json.dumps(many))

    plan_for(tiny_model())

    assert len(kept()) == KEPT_PLANS
    assert "model 0" not in kept()


@given(
    st.one_of(
        st.binary(max_size=40),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
            lambda inner: st.dictionaries(
                st.sampled_from([*CpuPlan.__dataclass_fields__, "key"]), inner
            ),
            max_leaves=10,
        ).map(lambda value: json.dumps({"key": value}).encode()),
    )
)
@settings(deadline=None, max_examples=60)
@example(content=b"[" * 100_000)
def test_a_damaged_file_is_ignored(content: bytes) -> None:
    place = files.cache_dir() / FILE_NAME
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)

    for plan in read_plans(place, usable_cores()).values():
        assert type(plan.avoids_onednn) is bool
        assert plan.decode_threads is None or 0 < plan.decode_threads <= usable_cores()


def test_a_folder_that_cannot_be_written_costs_only_the_memory_of_it() -> None:
    files.cache_dir().parent.mkdir(parents=True)
    files.cache_dir().write_text("a file, not a folder")

    assert isinstance(plan_for(tiny_model()), CpuPlan)


def test_the_plan_is_told_in_one_line() -> None:
    plan = replace(assumed_plan(tiny_model(dtype=torch.bfloat16)), decode_threads=3)

    line = plan.describe()

    assert "oneDNN off for single rows" in line
    assert "3 to decode" in line
    assert "\n" not in line


def test_onednn_is_on_again_after_an_exception() -> None:
    with pytest.raises(RuntimeError, match="planted"), without_onednn(True):
        assert not torch._C._get_mkldnn_enabled()
        raise RuntimeError("planted")
    assert torch._C._get_mkldnn_enabled()
