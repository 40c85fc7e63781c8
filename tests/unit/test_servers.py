"""How servers are named: addresses, tables of the config file, flags."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_chat import files, servers
from tui_chat.config import (
    Config,
    Options,
    load_config,
    model_spec,
    parse_config,
    to_toml,
    with_model,
    with_options,
)
from tui_chat.types import ServerSpec

KEY = "sk-Geheim-0123456789"
TABLE = """
[servers.gpubox]
url = "http://gpubox:8000"
model = "Org/Big"
key_env = "GPUBOX_KEY"
context_window = 4096
between_tokens_seconds = 20
"""
GPUBOX = ServerSpec(
    "gpubox",
    "http://gpubox:8000/v1",
    model="Org/Big",
    key_env="GPUBOX_KEY",
    context_window=4096,
    between_tokens_seconds=20.0,
)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8000", "http://localhost:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
        ("https://api.example/v1", "https://api.example/v1"),
        ("https://api.example/v1/chat/completions", "https://api.example/v1"),
        ("https://api.example/openai/", "https://api.example/openai"),
        (" http://GPUBOX:80/v1 ", "http://gpubox:80/v1"),
    ],
)
def test_an_address_is_where_the_api_begins(text: str, url: str) -> None:
    assert servers.address(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://",
        "ftp://host/v1",
        "http://host:port",
        "http://host:99999",
        "http://[::1",
        "http://ho st/",
        "http://host/\x1b[2J",
        f"http://user:{KEY}@host:8000",
        f"http://{KEY}@host:8000",
        f"http://host:8000/v1?key={KEY}",
        f"http://host:8000/v1#{KEY}",
        f"{KEY}://host",
    ],
)
def test_what_is_no_address_is_one_sentence_that_repeats_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="address") as error:
        servers.address(text)
    assert KEY not in str(error.value)


@given(st.text())
def test_any_text_is_an_address_or_one_sentence(text: str) -> None:
    try:
        url = servers.address(text)
    except ValueError as error:
        assert str(error).endswith(".")
    else:
        assert servers.address(url) == url


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:1/v1", True),
        ("http://127.8.8.8/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://10.0.0.1/v1", False),
        ("http://localhost.example/v1", False),
    ],
)
def test_which_addresses_are_this_machine(url: str, local: bool) -> None:
    assert servers.is_local(url) is local


def test_a_table_of_the_config_file_is_a_server() -> None:
    config, problems = parse_config(TABLE)
    assert problems == ()
    assert config.servers == {"gpubox": GPUBOX}
    assert parse_config(to_toml(config))[0] == config


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "servers.a.url is missing"),
        ("url = 3", "servers.a.url must be an address"),
        (f'url = "http://user:{KEY}@host"', "servers.a.url must be an address"),
        (f'url = "http://host"\nkey = "{KEY}"', "servers.a.key must not be written here"),
        (f'url = "http://host"\nAPI_KEY = "{KEY}"', "servers.a.API_KEY must not be written here"),
        (f'url = "http://host"\nkey_env = "{KEY}"', "servers.a.key_env must be the name of"),
        ('url = "http://host"\nkey_env = "hf_aBcD"', "servers.a.key_env must be the name of"),
        ('url = "http://host"\nfirst_token_seconds = 0', "first_token_seconds must be a number"),
        ('url = "http://host"\ncolour = 3', "servers.a.colour is not a setting"),
    ],
)
def test_a_wrong_entry_is_one_sentence_that_repeats_no_key(line: str, sentence: str) -> None:
    config, problems = parse_config(f'theme = "foreshore"\n[servers.a]\n{line}\n')
    (problem,) = problems
    assert sentence in problem and problem.endswith(".") and "\n" not in problem
    assert config.theme == "foreshore"
    assert KEY not in f"{problems}{config}{to_toml(config)}" and "aBcD" not in to_toml(config)


@pytest.mark.parametrize("line", ["servers = 3", "servers.a = 3", '[servers."a b"]'])
def test_what_is_no_table_of_a_server_is_one_sentence(line: str) -> None:
    config, problems = parse_config(line)
    assert len(problems) == 1 and "servers" in problems[0]
    assert config == Config()


def test_a_model_of_a_server_is_chosen_by_name() -> None:
    config, _ = parse_config(TABLE)
    spec = model_spec(with_model(config, "server:gpubox"))
    assert (spec.model, spec.server) == ("server:gpubox", GPUBOX)
    spec = model_spec(with_model(config, "server:gpubox/Org/Small:7b"))
    assert spec.server == replace(GPUBOX, model="Org/Small:7b")
    assert model_spec(with_model(config, "server:elsewhere")).server is None
    assert model_spec(with_model(config, "Org/Local")).server is None


def test_an_address_is_a_model_too_and_stays_to_be_chosen_from() -> None:
    config = with_model(Config(), "http://10.0.0.1:8000")
    assert config.model == "server:10.0.0.1:8000"
    server = ServerSpec("10.0.0.1:8000", "http://10.0.0.1:8000/v1")
    assert model_spec(config).server == server
    other = model_spec(with_model(config, "server:10.0.0.1:8000/Org/Model"))
    assert other.server == replace(server, model="Org/Model")


@pytest.mark.parametrize(
    ("options", "model", "url"),
    [
        (Options(server="gpubox"), "server:gpubox", "http://gpubox:8000/v1"),
        (Options(server="gpubox", model="M"), "server:gpubox/M", "http://gpubox:8000/v1"),
        (Options(server="host:1"), "server:host:1", "http://host:1/v1"),
        (Options(server="http://host:1/v1", model="O/M"), "server:host:1/O/M", "http://host:1/v1"),
        (Options(model="http://host:1"), "server:host:1", "http://host:1/v1"),
        (Options(server="unknown"), "server:unknown", ""),
    ],
)
def test_flags_name_a_server_and_its_model(options: Options, model: str, url: str) -> None:
    config, _ = parse_config(f'model = "Org/Local"\n{TABLE}')
    spec = model_spec(with_options(config, options))
    assert spec.model == model
    assert (spec.server.url if spec.server else "") == url


@pytest.mark.parametrize(
    "arguments",
    [
        ["--server", f"http://u:{KEY}@host"],
        ["--model", f"http://u:{KEY}@host"],
        ["--server", "ftp://host"],
        ["--server", "two words"],
    ],
)
def test_a_flag_that_names_no_server_is_one_sentence_and_repeats_no_key(
    arguments: list[str],
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tui_chat", *arguments, "config"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "address" in done.stderr
    assert KEY not in done.stdout + done.stderr


def test_the_settings_that_are_printed_hold_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    files.make_private_dir(files.config_dir())
    path: Path = files.config_path()
    path.write_text(f'{TABLE}\ntoken = "{KEY}"\n', encoding="utf-8")
    monkeypatch.setenv("GPUBOX_KEY", KEY)
    done = subprocess.run(
        [sys.executable, "-m", "tui_chat", "config"], capture_output=True, text=True, check=True
    )
    assert 'key_env = "GPUBOX_KEY"' in done.stdout
    assert "must not be written here" in done.stdout
    assert KEY not in done.stdout + done.stderr
    assert KEY in path.read_text(encoding="utf-8")
    assert KEY not in repr(load_config())
