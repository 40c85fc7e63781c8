"""`tui-chat ask --turns` over a kept cache gives the ids of a model that reads all anew."""

import contextlib
import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import CONFIGS, byte_level_tokenizer, tiny_model

from tui_chat.config import Options
from tui_chat.headless import Ask, run_ask

pytestmark = pytest.mark.engine

TURNS = (
    "Hello world, how are you today?",
    "the quick brown fox jumps over the lazy dog the quick brown fox jumps over the lazy dog",
    "Hello world, how are you today? the quick brown fox",
    "and again",
)
NEW_TOKENS = 40


def ask(folder: Path, turns: Path) -> list[dict[str, Any]]:
    """The JSON objects of the replies of `tui-chat ask --turns --greedy --json --dump-ids`."""
    request = Ask(turns=turns, as_json=True, dump_ids=True, greedy=True)
    options = Options(model=str(folder), device="cpu", max_new_tokens=NEW_TOKENS)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run_ask(request, options) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("kind", CONFIGS)
def test_greedy_replies_of_a_conversation_are_those_of_a_fresh_model(
    kind: str, tmp_path: Path
) -> None:
    model = tiny_model(kind)
    folder = tmp_path / kind
    model.save_pretrained(folder)
    byte_level_tokenizer().save_pretrained(folder)
    turns = tmp_path / "turns"
    turns.write_text("\n".join(TURNS), encoding="utf-8")

    replies = ask(folder, turns)

    assert len(replies) == len(TURNS)
    for reply in replies:
        prompt = torch.tensor([reply["prompt_ids"]])
        fresh = model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
        assert reply["new_ids"] == fresh[0, prompt.shape[1] :].tolist()[: len(reply["new_ids"])]
        assert reply["completion_tokens"] == len(reply["new_ids"]) > 0
    for before, reply in itertools.pairwise(replies):
        # Either the turn before is reused or the reply says why it was not.
        assert reply["cached_tokens"] >= len(before["prompt_ids"]) or reply["cache_note"]
