"""The key of a server, from the environment or from a command; it is held in memory alone."""

import os
import shlex
import subprocess

from tui_chat.engine.base import LoadError
from tui_chat.types import ServerSpec

COMMAND_SECONDS = 60.0
"""A keyring may ask the user to unlock it."""


def read_key(server: ServerSpec) -> str:
    """The key of `server`; empty where it has none.

    Raises:
        LoadError: it is missing or unusable; one sentence that never holds it.
    """
    if server.key_env:
        key = os.environ.get(server.key_env, "").strip()
        where = f"The environment variable {server.key_env}"
        if not key:
            raise LoadError(
                f"{where} is not set, so the server {server.name} cannot be asked; set it and "
                "start again."
            )
    elif server.key_command:
        key = _printed(server)
        where = f"What the key_command of the server {server.name} prints"
    else:
        return ""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise LoadError(f"{where} is not a key: it has spaces or signs that no header can hold.")
    return key


def _printed(server: ServerSpec) -> str:
    name = f"The key_command of the server {server.name}"
    try:
        done = subprocess.run(
            shlex.split(server.key_command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        why = f"did not end within {COMMAND_SECONDS:.0f} s"
    except subprocess.CalledProcessError as error:
        why = f"failed with exit code {error.returncode}"
    except OSError as error:
        why = f"cannot be run ({error.strerror})"
    except ValueError:
        why = "cannot be read as a command"
    else:
        key = done.stdout.decode("utf-8", "replace").strip().partition("\n")[0].strip()
        if key:
            return key
        why = "printed nothing"
    raise LoadError(f"{name} {why}; run it by hand to see why.") from None
