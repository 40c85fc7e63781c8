"""From what goes wrong between us and a server to one sentence that a user can act on."""

import errno
import json
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from tui_chat.engine.base import EngineError
from tui_chat.engine.faults import causes
from tui_chat.types import ServerSpec

NOT_FOUND = 404
MOST_SERVER_TEXT = 300
LONGEST_WAIT_SECONDS = 120.0
"""A server that asks to be left alone for longer is not waited for."""
_PASSING = (429, 500, 502, 503, 504)


class ServerError(EngineError):
    """A request failed; `str()` is one sentence."""

    def __init__(
        self,
        sentence: str,
        *,
        status: int = 0,
        passing: bool = False,
        wait_seconds: float = 0.0,
        why: str = "",
        is_silence: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.is_silence = is_silence
        """Whether the server took the request but sent nothing."""
        self.status = status
        """Of the answer; 0 where there was none, or none that tells more."""
        self.passing = passing
        """Whether the same request may succeed a little later."""
        self.wait_seconds = wait_seconds
        """How long the server asks to wait; 0 where it does not say."""
        self.why = why
        """The fault in a few words, for the row that says what is waited for."""


class RequestRefused(ServerError):
    """The server does not like what the request says."""

    def __init__(self, sentence: str, complaint: str, parameter: str = "") -> None:
        super().__init__(sentence)
        self.complaint = complaint
        """What it says, as far as that is about the request and not a copy of it."""
        self.parameter = parameter
        """The parameter that it names in a field of its own."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What an error of a server says, without the request that some of them repeat."""

    text: str
    parameter: str = ""


def read_complaint(body: str) -> Complaint:
    """What the body of an error says; empty where it says nothing that can be shown."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return Complaint("" if "<" in body[:200] else tidy(body))
    return complaint_of(data)


def complaint_of(data: Any) -> Complaint:
    """What the JSON of an error says, in any of the forms that servers use."""
    if isinstance(data, str):
        return Complaint(tidy(data))
    if not isinstance(data, Mapping):
        return Complaint("")
    error = data.get("error")
    if isinstance(error, Mapping):
        inner = complaint_of(error)
        return inner if inner.text else Complaint(tidy(str(error.get("code") or "")))
    if isinstance(error, str):
        return Complaint(tidy(error))
    detail = data.get("detail")
    if isinstance(detail, list):
        return _of_details(detail)
    message = data.get("message") or detail or ""
    parameter = data.get("param")
    return Complaint(
        tidy(message) if isinstance(message, str) else "",
        parameter if isinstance(parameter, str) else "",
    )


def _of_details(details: Iterable[Any]) -> Complaint:
    """What a server built on pydantic says: a list of places and messages."""
    parts = []
    for detail in details:
        if isinstance(detail, Mapping):
            where = detail.get("loc")
            steps = where if isinstance(where, list) else []
            place = ".".join(str(step) for step in steps if step != "body")
            parts.append(": ".join(filter(None, [place, str(detail.get("msg") or "")])))
    return Complaint(tidy("; ".join(parts)))


def tidy(text: str) -> str:
    """A text of a server on one line, without what a terminal could take as a command."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[:2000]).split())
    return line if len(line) <= MOST_SERVER_TEXT else line[: MOST_SERVER_TEXT - 1] + "…"


def ended(text: str) -> str:
    """`text` with a full stop, where it has no sign of its end."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def connection_error(server: ServerSpec, fault: BaseException) -> ServerError:
    """Why the server could not be reached, or was lost before it answered."""
    chain = list(causes(fault))
    kinds = {kind.__name__ for item in chain for kind in type(item).__mro__}
    at = server.url
    for item in chain:
        if isinstance(item, ssl.SSLCertVerificationError):
            return ServerError(
                f"The certificate of {at} is not trusted ({tidy(item.verify_message)}); "
                "SSL_CERT_FILE can name the authority that signed it."
            )
        if isinstance(item, ssl.SSLError):
            return ServerError(f"{at} does not speak TLS; perhaps its address begins with http://.")
        if isinstance(item, socket.gaierror):
            return ServerError(f"The host of {at} was not found; check the address.")
        if isinstance(item, OSError) and item.errno == errno.ECONNREFUSED:
            return ServerError(
                f"Nothing answers at {at} (connection refused); start the server, or check its "
                "address.",
                passing=True,
                why="connection refused",
            )
    if "ProxyError" in kinds:
        return ServerError(
            f"The proxy refused the way to {at}; NO_PROXY can name hosts that need none."
        )
    if "TimeoutException" in kinds:
        return ServerError(
            f"{at} does not answer; check the address and the network.",
            passing=True,
            why="no answer",
        )
    return ServerError(
        f"The connection to {at} was lost; ask again.", passing=True, why="connection lost"
    )


def status_error(
    server: ServerSpec, status: int, headers: Mapping[str, str], body: str, *, model: str = ""
) -> ServerError:
    """What an answer that is no success means. `model` is what was asked for, if anything."""
    said = read_complaint(body)
    quoted = f" It says: {ended(said.text)}" if said.text else ""
    name = f"The server {server.name}"
    if status in (401, 403):
        way = f"check {server.key_env}" if server.key_env else "check key_command"
        if not server.key_env and not server.key_command:
            table = "NAME" if ":" in server.name else server.name
            way = f"name the variable that holds its key in key_env of a table [servers.{table}]"
        what = "wants a key" if way.startswith("name") else "does not accept the key"
        return ServerError(f"{name} {what} ({status}); {way}.{quoted}")
    if status == NOT_FOUND and not model:
        return ServerError(
            f"There is no model list at {server.url}/models (404); the address of a server "
            "usually ends in /v1.",
            status=status,
        )
    if status == NOT_FOUND:
        return ServerError(f"{name} has no model {tidy(model)} (404).{quoted}", status=status)
    if status in (400, 409, 413, 422):
        sentence = f"{name} refused the request ({status}).{quoted}"
        return RequestRefused(sentence, said.text, said.parameter)
    if status == 407:
        return ServerError(f"The proxy on the way to {server.url} wants a password (407).")
    if status in _PASSING:
        what = {429: "is busy or limits requests", 503: "is not ready"}.get(status, "failed")
        wait = retry_after(headers)
        when = f"in {wait:.0f} s" if wait else "in a while"
        return ServerError(
            f"{name} {what} ({status}); ask again {when}.{quoted}",
            status=status,
            passing=status != 500,
            wait_seconds=wait,
            why=f"the server {what} ({status})",
        )
    return ServerError(f"{name} answered with status {status}.{quoted}")


def redirect_error(server: ServerSpec, target: str) -> ServerError:
    """The server sends us to another host, where neither key nor prompt goes."""
    return ServerError(
        f"The server {server.name} sends us on to {tidy(target)}; neither your key nor your prompt "
        "was sent there. If you trust it, put that address into the config."
    )


def no_api_error(server: ServerSpec) -> ServerError:
    """The answer is a web page, or something else that is no API."""
    return ServerError(
        f"{server.url} answers with something else than the API, perhaps a web page; the address "
        "of a server usually ends in /v1."
    )


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the header Retry-After asks for; 0 where there is none to be read."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
