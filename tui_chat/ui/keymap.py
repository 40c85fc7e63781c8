"""The user's keys: the `[keymap]` table of the config file, put over the table of actions.

It imports nothing of Textual, so that the command line can read it.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import replace

from tui_chat.ui.commands import ACTIONS, BY_ID, TYPING_ACTIONS, Action

_NAMES = frozenset(
    {
        *("escape", "enter", "tab", "space", "backspace", "delete", "insert"),
        *("home", "end", "pageup", "pagedown", "up", "down", "left", "right"),
        *("at", "backslash", "minus", "plus", "slash", "underscore"),
        *(f"f{number}" for number in range(1, 25)),
    }
)
_ALSO = {"esc": "escape", "return": "enter", "pgup": "pageup", "pgdn": "pagedown", "del": "delete"}
_SIGNS = {"/": "slash", "\\": "backslash", "@": "at", "-": "minus", "+": "plus", "_": "underscore"}
_DISGUISED = {
    "ctrl+i": "Tab",
    "ctrl+m": "Enter",
    "ctrl+h": "Backspace",
    "ctrl+left_square_bracket": "Esc",
}
"""Keys that a terminal sends as another one."""


def apply_keymap(keymap: Mapping[str, str]) -> tuple[tuple[Action, ...], tuple[str, ...]]:
    """The table with the user's keys, and one sentence per entry that cannot be used.

    `keymap` maps an action id to key names separated by commas; an empty text takes the key
    away. A key that is given to one action is taken from every other that it could mean at that
    moment: while one walks, the keys of the messages come first.
    """
    problems = [
        f'keymap: there is no action "{action_id}"; F1 lists them all.'
        for action_id in keymap
        if action_id not in BY_ID
    ]
    wanted: dict[str, tuple[str, ...]] = {}
    for action_id, text in keymap.items():
        if action_id not in BY_ID:
            continue
        keys = []
        for name in filter(None, (part.strip().lower() for part in text.split(","))):
            key = _key(name)
            if fault := _fault(key, BY_ID[action_id]):
                problems.append(f'keymap: "{name}" for {action_id} {fault}.')
            else:
                keys.append(key)
        if keys or not text.strip(" ,"):
            wanted[action_id] = tuple(dict.fromkeys(keys))
    owners: dict[tuple[bool, str], str] = {}
    for action_id, chosen in wanted.items():
        walking = BY_ID[action_id].while_walking
        for key in chosen:
            owner = owners.setdefault((walking, key), action_id)
            if owner != action_id:
                problems.append(f'keymap: "{key}" is given to {owner} and to {action_id}.')
    actions = []
    for action in ACTIONS:
        keys_of = wanted.get(action.id, action.keys)
        walking = action.while_walking
        left = tuple(k for k in keys_of if owners.get((walking, k), action.id) == action.id)
        actions.append(replace(action, keys=left))
        if not left and action.id in TYPING_ACTIONS and (action.id == "send" or keys_of):
            problems.append(f"keymap: no key is left for {action.id}.")
        elif not left and action.keys and action.id not in keymap:
            taken = action.keys[0]
            problems.append(
                f'keymap: "{taken}" is {owners[walking, taken]} now, and {action.id} has no other '
                f'key; give it one, or "" for none.'
            )
    return tuple(actions), tuple(problems)


def _key(name: str) -> str:
    """A key as Textual names it: modifiers in order, signs by their names."""
    *modifiers, key = re.split(r"\+(?=.)", name)
    if len(key) == 1 and not key.isalnum():
        known = _SIGNS.get(key)
        key = known or re.sub(r"[ -]", "_", unicodedata.name(key, key)).lower()
    return "+".join([*sorted(modifiers), _ALSO.get(key, key)])


def _fault(key: str, action: Action) -> str:
    """Why a key cannot be had, or nothing."""
    *modifiers, last = key.split("+")
    sign = len(last) > 1 and last not in _NAMES
    if sign:
        # Textual writes the name of a sign with underscores for spaces and hyphens.
        words = last.upper().split("_")
        sign = any(_is_sign(joint.join(words)) for joint in (" ", "-"))
    known = last in _NAMES or sign or (len(last) == 1 and last.isalnum())
    if not known or not set(modifiers) <= {"ctrl", "alt", "shift", "super", "meta", "hyper"}:
        return 'is no key that is known, as "ctrl+n", "alt+up" and "f7" are; it is left out'
    if key in _DISGUISED:
        return f"is the same as {_DISGUISED[key]} in a terminal; it is left out"
    types = sign or len(last) == 1 or last in ("space", *_SIGNS.values())
    if types and set(modifiers) <= {"shift"} and not action.while_walking:
        return "is a sign that you type; add ctrl or alt to it, or take an F key"
    return ""


def _is_sign(name: str) -> bool:
    try:
        return unicodedata.lookup(name).isprintable()
    except KeyError:
        return False
