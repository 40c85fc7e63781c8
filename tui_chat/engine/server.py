"""Opens a model on a server that speaks the OpenAI-compatible API, and lists what it has."""

import threading
from collections.abc import Sequence

from tui_chat.engine.base import LoadCancelled, LoadError, OnProgress
from tui_chat.engine.server_engine import BACK_OFF_SECONDS, ServerEngine
from tui_chat.engine.server_faults import NOT_FOUND, ServerError, tidy
from tui_chat.engine.server_http import IsCancelled, RequestLeft, ServerClient
from tui_chat.engine.server_key import read_key
from tui_chat.engine.server_probe import Listed, list_models, probe
from tui_chat.servers import model_name
from tui_chat.types import LoadProgress, ModelSpec, ServerSpec

ABSENT_SECONDS = 1.0
"""The longest of the waits for a server that does not answer at all."""


def open_server(spec: ModelSpec, on_progress: OnProgress, cancel: threading.Event) -> ServerEngine:
    """Ask the server that `spec` names for its models, and stand for one of them.

    Raises:
        LoadError: one sentence that says what is wrong and what to do.
        LoadCancelled: `cancel` was set.
    """
    server = spec.server
    if server is None:
        raise LoadError(
            f"There is no server for {tidy(spec.model)}; config.toml needs a table [servers.NAME], "
            "or give an address such as http://127.0.0.1:8000."
        )
    client = _client(server)
    try:
        on_progress(LoadProgress("asking the server", detail=server.url))
        listed, notes = _patient_list(client, on_progress, cancel)
        model = server.model or _only_model(server, listed)
        entry = next((item for item in listed if item.id == model), None)
        if listed and entry is None:
            notes += (f"The server {server.name} does not list a model of this name.",)
        facts = probe(client, model, entry, cancel.is_set)
        return ServerEngine(client, model, facts, spec.context_window, notes)
    except RequestLeft:
        client.close()
        raise LoadCancelled(f"Asking the server {server.name} was cancelled.") from None
    except ServerError as fault:
        client.close()
        raise LoadError(str(fault)) from fault
    except BaseException:
        client.close()
        raise


def models_of(server: ServerSpec, is_cancelled: IsCancelled = lambda: False) -> tuple[str, ...]:
    """The names of the models of `server`, as the server calls them. Not for an event loop.

    Raises:
        EngineError: it does not tell them; one sentence.
    """
    client = _client(server)
    try:
        return tuple(model.id for model in list_models(client, is_cancelled))
    finally:
        client.close()


def _client(server: ServerSpec) -> ServerClient:
    try:
        return ServerClient(server, read_key(server))
    except ServerError as fault:
        raise LoadError(str(fault)) from fault


def _patient_list(
    client: ServerClient, on_progress: OnProgress, cancel: threading.Event
) -> tuple[list[Listed], tuple[str, ...]]:
    """The models of a server that may still be starting, and what there is to say of the list."""
    waits = iter(BACK_OFF_SECONDS)
    while True:
        try:
            return list_models(client, cancel.is_set), ()
        except ServerError as fault:
            if fault.status == NOT_FOUND and client.server.model:
                return [], (f"The server {client.server.name} has no list of its models.",)
            wait = next(waits, None)
            # Where nothing listens the address is likely to be wrong.
            if not fault.passing or wait is None or (not fault.status and wait > ABSENT_SECONDS):
                raise
            detail = f"{fault.why}, again in {wait:g} s"
            on_progress(LoadProgress("waiting for the server", detail=detail))
            if cancel.wait(wait):
                raise RequestLeft("The load was cancelled.") from None


def _only_model(server: ServerSpec, listed: Sequence[Listed]) -> str:
    """The model that a server has, or the one that it has loaded."""
    loaded = [model for model in listed if model.is_loaded]
    if len(listed) == 1 or len(loaded) == 1:
        return (loaded or listed)[0].id
    if not listed:
        raise LoadError(
            f"The server {server.name} lists no model; name one, such as "
            f"{model_name(server, 'MODEL')}."
        )
    names = ", ".join(model.id for model in listed[:5])
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    raise LoadError(
        f"The server {server.name} has {len(listed)} models; choose one of them, such as "
        f"{model_name(server, listed[0].id)}: {names}{more}."
    )
