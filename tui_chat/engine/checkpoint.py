"""What a model folder holds, read without torch; refuses what must not or cannot be loaded.

Everything in the folder is untrusted: names of files are only followed inside it.
"""

import contextlib
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import psutil

from tui_chat import files
from tui_chat.engine.base import LoadError

INDEX = "model.safetensors.index.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
_TEXT_ENDINGS = ("CausalLM", "LMHeadModel", "ConditionalGeneration", "ImageTextToText")
_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "lm_head", "embed_out")
_BLOCK = 64
_MAX_HEADER_BYTES = 100_000_000
_MAX_JSON_BYTES = 200_000_000
_MAX_WORDS = 100
_READ_WHOLE = (".json", ".jinja", ".txt", ".model", ".tiktoken")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that passed every check which needs no torch."""

    folder: Path
    config: Mapping[str, Any]
    shards: tuple[Path, ...]
    weights_bytes: int
    """Bytes of all tensors as they are stored."""
    parameters: int
    embedding_parameters: int
    """Parameters of the embeddings and the output head, which quantisation leaves alone."""
    dtype: str
    """The type most bytes are stored in, in safetensors' words: `BF16`, `F16`, `F32`, `U8`."""
    quantization: str
    """The method the weights are already quantised with, or an empty text."""
    whole_blocks: bool = True
    """Whether the rows of all matrices divide into blocks of 64, as 4 bits on a CPU need."""

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The part of the config that describes the language model."""
        inner = self.config.get("text_config")
        return inner if isinstance(inner, Mapping) else self.config


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        LoadError: it is missing, unreadable, or not a JSON object.
    """
    try:
        data = json.loads(files.read_bytes(path, _MAX_JSON_BYTES).decode("utf-8-sig"))
    except FileNotFoundError:
        raise LoadError(f"{path.parent} is not a model folder: it has no {path.name}.") from None
    except OSError as error:
        raise LoadError(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise LoadError(f"{path} is damaged (not valid JSON); download the model again.")
    return data


def read_checkpoint(folder: Path) -> Checkpoint:
    """Check the model in `folder` and measure its weights from the files' headers.

    Raises:
        LoadError: the first thing that is wrong, naming the file or the field.
    """
    _check_files(folder)
    config = read_json(folder / "config.json")
    check_config(folder, config)
    shards = weight_files(folder)
    if not _has_tokenizer(folder):
        raise LoadError(f"{folder} has no tokenizer (tokenizer.json); download the model again.")
    stored: dict[str, int] = {}
    tensors = parameters = embedding = total = 0
    whole_blocks = True
    for shard in shards:
        for name, dtype, shape, size in _tensors(shard):
            tensors += 1
            count = math.prod(shape)
            parameters += count
            total += size
            stored[dtype] = stored.get(dtype, 0) + size
            if any(part in name for part in _EMBEDDINGS):
                embedding += count
            elif len(shape) == 2 and shape[1] % _BLOCK:
                whole_blocks = False
    checkpoint = Checkpoint(
        folder=folder,
        config=config,
        shards=shards,
        weights_bytes=total,
        parameters=parameters,
        embedding_parameters=embedding,
        dtype=max(stored, key=lambda dtype: stored[dtype], default=""),
        quantization=quantization_of(config),
        whole_blocks=whole_blocks,
    )
    layers = checkpoint.text_config.get("num_hidden_layers")
    if isinstance(layers, int) and layers > tensors:  # building them would never end
        raise LoadError(
            f"{folder / 'config.json'} is invalid: num_hidden_layers is {layers:,},"
            f" but the weights hold {tensors:,} tensors."
        )
    return checkpoint


def _check_files(folder: Path) -> None:
    """Refuse what the libraries would wait for or read without end."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file():
                    is_read = entry.name.endswith(_READ_WHOLE)
                    if is_read and entry.stat().st_size > _MAX_JSON_BYTES:
                        raise LoadError(
                            f"{folder / entry.name} is too large for what it should be;"
                            " download the model again."
                        )
                elif not entry.is_dir() and os.path.exists(entry.path):
                    raise LoadError(
                        f"{folder / entry.name} is neither a file nor a folder; remove it."
                    )
    except FileNotFoundError:
        return  # config.json is missing, too
    except OSError as error:
        raise LoadError(f"{folder} cannot be read ({error.strerror}).") from None


def check_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what is no chat model, and what wants to run code of its own.

    Raises:
        LoadError: one sentence that names the file.
    """
    path = folder / "config.json"
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise LoadError(f"{folder} is not a chat model: config.json lacks model_type.")
    for source in (
        path,
        folder / "tokenizer_config.json",
        folder / "generation_config.json",
    ):
        values = config if source == path else read_json(source) if source.is_file() else {}
        for key, value in _entries(values):
            if key == "auto_map":
                raise LoadError(
                    f"{source} wants to run its own Python code (auto_map), which tui-chat"
                    " refuses; choose a model that transformers supports itself."
                )
            if key.endswith("attn_implementation") and "/" in str(value):
                name = _words(key)
                raise LoadError(
                    f"{source} wants attention code from the network ({name}), which tui-chat"
                    f" refuses; remove {name} from the file."
                )
    names = config.get("architectures") or ()
    if not isinstance(names, list | tuple):
        raise LoadError(f"{path} is invalid: architectures must be a list.")
    if config.get("is_encoder_decoder") is True or (
        names and not any(str(name).endswith(_TEXT_ENDINGS) for name in names)
    ):
        what = _words(names[0] if names else config["model_type"])
        raise LoadError(f"{folder} is not a text-generation model ({what}); choose a chat model.")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of a nested JSON value, whatever the depth."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            for key, inner in item.items():
                yield str(key), inner
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _words(value: Any) -> str:
    """A value of the folder for a sentence, whatever it holds."""
    return " ".join(str(value)[:_MAX_WORDS].split())


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of the model in `folder`, all of them present.

    Raises:
        LoadError: there are none, a part is missing, or the index names a file elsewhere.
    """
    single = folder / "model.safetensors"
    if single.is_file():
        return (single,)
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise LoadError(f"{folder / INDEX} is damaged (no weight_map); download it again.")
        names = sorted({str(name) for name in weight_map.values()})
        for position, name in enumerate(names, start=1):
            if not _is_plain_name(name):
                raise LoadError(
                    f"{folder / INDEX} names a file outside the model folder; the model is refused."
                )
            if not (folder / name).is_file():
                raise LoadError(
                    f"Part {position} of {len(names)} of the weights ({_words(name)}) is missing"
                    f" in {folder}; download the model again."
                )
        return tuple(folder / name for name in names)
    for pattern, kind in (("*.gguf", "GGUF"), ("*.bin", ".bin"), ("*.pt*", ".pt")):
        if any(folder.glob(pattern)):
            raise LoadError(
                f"{folder} has {kind} weights only, which tui-chat does not load;"
                " choose a model with safetensors weights."
            )
    raise LoadError(f"{folder} has no weights (model.safetensors); download the model again.")


def _is_plain_name(name: str) -> bool:
    return (
        name not in ("", ".", "..")
        and name.endswith(".safetensors")
        and "\0" not in name
        and PurePosixPath(name).name == name
        and PureWindowsPath(name).name == name
    )


def _tensors(path: Path) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    """Name, dtype, shape and bytes of each tensor, from the header of `path`."""
    damaged = LoadError(f"{path} is damaged or incomplete; download the model again.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if start == b"version ":
                raise LoadError(
                    f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` there."
                )
            if len(start) < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
                raise damaged
            header = json.loads(file.read(length))
        end = 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, stop = entry["data_offsets"]
            end = max(end, stop)
            yield name, str(entry["dtype"]), tuple(map(int, entry["shape"])), stop - begin
    except OSError as error:
        raise LoadError(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise damaged from None
    if size != 8 + length + end:
        raise damaged


def quantization_of(config: Mapping[str, Any]) -> str:
    """The method that the weights are already quantised with, or an empty text."""
    found = config.get("quantization_config")
    if not isinstance(found, Mapping):
        return ""
    method = _words(found.get("quant_method") or "an unknown method")
    if method == "bitsandbytes":
        return "bitsandbytes 4-bit" if found.get("load_in_4bit") else "bitsandbytes 8-bit"
    return method


def read_ahead(checkpoint: Checkpoint) -> None:
    """Ask the system to read the weights from the disk by now; returns at once.

    Nothing is asked where they would not fit beside what memory already holds.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    if checkpoint.weights_bytes > psutil.virtual_memory().available:
        return

    def ask() -> None:
        for shard in checkpoint.shards:
            with contextlib.suppress(OSError), shard.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    threading.Thread(target=ask, name="read-ahead", daemon=True).start()


def is_complete(folder: Path) -> bool:
    """Whether config, tokenizer and every file of the weights are there; nothing is read."""
    try:
        weight_files(folder)
    except LoadError:
        return False
    return (folder / "config.json").is_file() and _has_tokenizer(folder)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def as_gigabytes(count: int) -> str:
    """`count` bytes for a reader: "5.1 GB", "12 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
