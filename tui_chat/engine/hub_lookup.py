"""What a model on the hub would be, asked before anything large of it is downloaded."""

import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui_chat.engine.base import EngineError, LoadCancelled, LoadError
from tui_chat.engine.checkpoint import Checkpoint, check_config, quantization_of, read_json
from tui_chat.engine.hub import (
    check_online,
    default_cache_dir,
    download_failure,
    existing_parent,
    listed_files,
    unless_cancelled,
)

_TYPES = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on the hub, by its config and the sizes of its files."""

    checkpoint: Checkpoint
    """Estimated: the headers of the weights are not read."""
    download_bytes: int
    """What of it is not on this machine yet."""
    disk_free_bytes: int


def look_up(name: str, cancel: threading.Event, cache_dir: Path | None = None) -> HubModel:
    """Ask the hub for `name`; its config.json is downloaded, which a download needs anyway.

    Raises:
        LoadError: it is no model that can be loaded, or the hub cannot be asked; one sentence.
        LoadCancelled: `cancel` was set first.
    """
    place = cache_dir or default_cache_dir()
    check_online(name)
    try:
        return unless_cancelled(
            lambda: _asked(name, place), cancel, LoadCancelled(f"{name} is not asked for any more.")
        )
    except EngineError:
        raise
    except Exception as error:
        raise LoadError(download_failure(error, name)) from error


def _asked(name: str, cache_dir: Path) -> HubModel:
    from huggingface_hub import hf_hub_download  # half a second of imports

    files = listed_files(name, None, cache_dir)
    path = Path(hf_hub_download(name, "config.json", cache_dir=cache_dir))
    config = read_json(path)
    try:
        check_config(path.parent, config)
    except LoadError as error:
        raise LoadError(str(error).replace(str(path.parent), name)) from None
    weights = {f.filename: f.file_size or 0 for f in files if f.filename.endswith(".safetensors")}
    # Some hold all weights a second time, in a file for other programs.
    usual = {file: size for file, size in weights.items() if file.startswith("model")} or weights
    return HubModel(
        _estimated(path.parent, config, sum(usual.values())),
        sum(file.file_size or 0 for file in files if file.will_download),
        shutil.disk_usage(existing_parent(cache_dir)).free,
    )


def _estimated(folder: Path, config: Mapping[str, Any], weights_bytes: int) -> Checkpoint:
    inner = config.get("text_config")
    text = inner if isinstance(inner, Mapping) else config
    named = next((c.get(k) for c in (text, config) for k in ("dtype", "torch_dtype") if k in c), "")
    dtype, size = _TYPES.get(str(named), ("BF16", 2))
    numbers = [text.get(key) for key in ("vocab_size", "hidden_size")]
    vocabulary, width = (number if isinstance(number, int) else 0 for number in numbers)
    tables = 1 if text.get("tie_word_embeddings", config.get("tie_word_embeddings", True)) else 2
    parameters = weights_bytes // size
    return Checkpoint(
        folder=folder,
        config=config,
        shards=(),
        weights_bytes=weights_bytes,
        parameters=parameters,
        embedding_parameters=min(parameters, tables * vocabulary * width),
        dtype=dtype,
        quantization=quantization_of(config),
        whole_blocks=width % 64 == 0,
    )
