import json

import pytest
import torch
from test_graph_decoder import PLENTY, RECORD, failing, model_of

from tui_chat.bench import gpu, run
from tui_chat.bench.harness import BenchError, Row, Setup
from tui_chat.engine.cuda_graph import Record
from tui_chat.engine.forward import ForwardPass
from tui_chat.engine.graph_decoder import GraphDecoder

pytestmark = pytest.mark.engine


def silent(line: str) -> None:
    pass


def subject_of(record: Record, window: int = 400) -> gpu.LoadedSubject:
    forward = ForwardPass(model_of("llama"))
    decoder = GraphDecoder(forward, window, lambda: PLENTY, record)
    decoder.prepare()
    return gpu.LoadedSubject("tiny", forward, decoder, window)


def rows_of(subject: gpu.LoadedSubject, tokens: int = 6) -> list[Row]:
    setup = Setup(runs=1, tokens=tokens)
    return list(gpu.rows_of(subject, setup, silent, copied_bytes=1 << 16))


def test_each_row_compares_with_generate_and_says_how_it_was_decoded() -> None:
    subject = subject_of(RECORD)

    rows = rows_of(subject)

    assert [row.row for row in rows] == ["gpu-decode 128", "gpu-decode 330", "gpu-first-token"]
    assert all(row.ratio > 0 and row.before > 0 and row.after > 0 for row in rows)
    assert all(f"captured, {subject.decoder.attention}" in row.note for row in rows)


def test_a_figure_that_is_eager_says_why() -> None:
    rows = rows_of(subject_of(failing(RuntimeError("operation not permitted"))))

    reason = "Decoding without a CUDA graph: its capture failed (operation not permitted)."
    assert all(reason in row.note for row in rows)


def test_a_window_that_is_too_small_is_said() -> None:
    with pytest.raises(BenchError, match="too small; lower --tokens"):
        rows_of(subject_of(RECORD, window=100), tokens=90)


def test_a_step_reads_every_weight_once_but_only_a_row_of_its_own_embedding() -> None:
    apart, tied = model_of("llama"), model_of("qwen3")
    both = sum(parameter.nbytes for parameter in apart.parameters())

    assert gpu.read_bytes(apart) == both - apart.get_input_embeddings().weight.nbytes
    assert gpu.read_bytes(tied) == sum(parameter.nbytes for parameter in tied.parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_the_row_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gpu", "--model", "guide"]) == 1
    assert "There is no CUDA device" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_cuda_device_the_built_in_model_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["gpu", "--model", "guide", "--runs", "1", "--tokens", "8", "--json"]) == 0
    assert all("captured" in row["note"] for row in json.loads(capsys.readouterr().out))
