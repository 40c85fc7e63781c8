"""What names a server: addresses, `server:NAME/MODEL`, and the [servers.NAME] tables."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any
from urllib.parse import urlsplit

from tui_chat import settings
from tui_chat.types import ServerSpec

PREFIX = "server:"
_SCHEMES = ("http://", "https://")
_ENDPOINT = "/chat/completions"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\[\]-]{0,80}")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
NO_KEY_HERE = (
    "must not be written here: put the key into an environment variable and its name into "
    "key_env, or a command that prints the key into key_command"
)
KEY_WORDS = ("key", "api_key", "apikey", "token", "secret", "password", "bearer", "authorization")
"""Entries that someone who wants to write a key down would try."""


def address(text: str) -> str:
    """Where the API of the server at `text` begins: `host:8000` is `http://host:8000/v1`.

    Raises:
        ValueError: it is no address of a server; the message is one sentence that never repeats
            a part of it that could be a key.
    """
    text = text.strip()
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(
            "The address of the server cannot be read; it is like http://host:8000."
        ) from None
    if f"{parts.scheme}://" not in _SCHEMES or not host or not text.isprintable() or " " in text:
        raise ValueError("The address of a server begins with http:// or https:// and a host.")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "The address of a server must not hold a name or a password; "
            "name a variable in key_env, or a command in key_command."
        )
    if parts.query or parts.fragment:
        raise ValueError("The address of a server must not hold a question mark or a #.")
    path = parts.path.rstrip("/").removesuffix(_ENDPOINT).rstrip("/")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{path or '/v1'}"


def is_local(url: str) -> bool:
    """Whether the server of this address runs on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def server_at(text: str) -> ServerSpec:
    """A server that is given by its address alone; its name is host and port.

    Raises:
        ValueError: as `address`.
    """
    url = address(text)
    return ServerSpec(name=urlsplit(url).netloc, url=url)


def looks_like_address(text: str) -> bool:
    """Whether `text`, given as a server, is an address and not the name of a table."""
    return text == "localhost" or any(sign in text for sign in (":", ".", "/"))


def names_server(model: str) -> bool:
    """Whether a model of this name is one of a server."""
    return model.startswith((PREFIX, *_SCHEMES))


def model_name(server: ServerSpec, model: str = "") -> str:
    """The name under which a model of `server` is chosen; without one, its only model."""
    return f"{PREFIX}{server.name}{'/' if model else ''}{model}"


def find_server(model: str, servers: Mapping[str, ServerSpec]) -> ServerSpec | None:
    """The server that `model` names, with the model it is to be asked for; None if unknown."""
    if not model.startswith(PREFIX):
        return None
    name, _, wanted = model.removeprefix(PREFIX).partition("/")
    server = servers.get(name)
    return replace(server, model=wanted or server.model) if server else None


def check_address(value: Any) -> str:
    """The `url` of a table.

    Raises:
        ValueError: what it must be.
    """
    if not isinstance(value, str):
        raise ValueError('an address such as "http://127.0.0.1:8000/v1"')
    try:
        return address(value)
    except ValueError:
        raise ValueError(
            'an address such as "http://127.0.0.1:8000/v1", without a password or a question mark'
        ) from None


def check_variable(value: Any) -> str:
    """The `key_env` of a table: a name in capitals, which no key looks like.

    Raises:
        ValueError: what it must be.
    """
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ValueError(
            'the name of an environment variable in capitals, such as "VLLM_API_KEY", never the key'
        )
    return value


CHECKS: Mapping[str, settings.Check] = {
    "url": check_address,
    "model": settings.text,
    "key_env": check_variable,
    "key_command": settings.name,
    "context_window": settings.whole(64, 100_000_000),
    "first_token_seconds": settings.number(0.1, 86_400),
    "between_tokens_seconds": settings.number(0.1, 86_400),
}
"""What the entries of a table [servers.NAME] may be."""


def is_name(name: str) -> bool:
    """Whether a table [servers.NAME] can have this name."""
    return _NAME.fullmatch(name) is not None


def as_table(server: ServerSpec) -> dict[str, Any]:
    """The entries of the table of `server` that are not the default."""
    return {
        item.name: value
        for item in fields(ServerSpec)
        if item.name != "name" and (value := getattr(server, item.name)) != item.default
    }
