"""What the built-in guide answers: one text a topic, keys taken from the action table."""

import re
from collections.abc import Iterable, Mapping

from tui_chat.ui.commands import ACTIONS, Action, key_label

TOPICS: Mapping[str, str] = {
    "write": "{key:send} sends your message; {key:newline} starts a new line in it. "
    "{key2:newline} and {key3:newline} do that too, where the terminal can tell them apart.",
    "stop": "{key:stop} stops the reply, and the text written so far is kept. "
    "{key:continue} then goes on with it, {key:regenerate} writes it again.",
    "quit": "{key:quit} quits, and so does `{slash:quit}`, or {key:leave} pressed twice on an "
    "empty box. Your chat is saved already. ({key:suspend} only suspends.)",
    "mode": "{key:mode} (or {key2:mode}) switches between speed and accuracy, in the middle of a "
    "chat and without a reload. Speed mode guesses several tokens ahead and has no repetition "
    "penalty; accuracy uses a penalty of 1.1 and blocks repeated 3-grams of the reply.",
    "new": "{key:new} starts a new chat. The old one stays saved; {key:chats} opens it again.",
    "chats": "{key:chats} lists your earlier chats and searches them by title and text; "
    "{key:send} opens one. {key:new} starts a new one.",
    "rename": "Type `{usage:rename}` to give this chat another title. "
    "{key:chats} lists all chats by theirs.",
    "delete": "`{slash:delete}` moves this chat to the trash; `{slash:undo}` brings it back.",
    "copy": "{key:copy} copies the last reply; `{slash:copy} 2` takes its second code block. "
    "Instead of 2 there may be `code`, the last block, `prompt`, or `all`, the whole chat. "
    "Over SSH the text goes to your terminal's own clipboard (OSC 52).",
    "regen": "{key:regenerate} writes the reply again as another version; {key:version-previous} "
    "shows the old one. {key:history-previous} recalls your prompt if you want to change it first.",
    "edit": "{key:edit} (or `{slash:edit}`) opens the prompt in your `$EDITOR`. "
    "Save there and close it to come back.",
    "history": "Up and Down ({key:history-previous} {key:history-next}) recall your earlier "
    "prompts. {key:chats} opens earlier chats.",
    "scroll": "{key:page-up} and {key:page-down} scroll. {key:top} goes to the beginning, "
    "{key:follow} to the end, where the view follows the reply.",
    "help": "{key:help} shows all keys and commands. {key:palette} opens the command palette, "
    "and typing `/` lists the slash commands.",
    "queue": "Just type and press {key:send}: while the model loads or writes, your prompt waits, "
    "and it is sent when the model is ready.",
    "suspend": "{key:suspend} suspends tui-chat to the shell and `fg` comes back; the model stays "
    "in memory. {key:quit} quits instead.",
    "theme": "Colours: `{slash:theme}` lists the themes (light, dark or 16 colours), "
    "shows each one as you move, and keeps the one you take.",
    "keys": "Keys are changed in the `[keymap]` table of `config.toml`: an action and its key, "
    'such as `new = "{raw:new}"`. {key:help} lists the present ones.',
    "mouse": "Mouse: the wheel scrolls and dragging selects text. Hold Shift (Option on macOS) for "
    "the terminal's own selection; `mouse = false` in `config.toml` switches it off.",
    "model": "{key:model} (or `{slash:model}`) chooses and loads another model: a local folder, a "
    "Hugging Face name or one on a server. `model_dirs` in `config.toml` adds folders to its list. "
    "On the command line: `tui-chat --model PATH_OR_NAME`.",
    "formats": "A model is a folder in the Hugging Face layout: `config.json`, safetensors weights "
    "and the tokenizer. Pickled `.bin` weights are refused; GGUF needs a server, such as Ollama. "
    "{key:model} loads one.",
    "ladder": "On a GPU the model is tried in 4-bit first, then 8-bit, after that 16-bit and last "
    "on the CPU; the status bar shows which it is. `--precision` forces one. "
    "The smallest is nf4 with double quantisation.",
    "gpu": "No GPU is needed: one is used when it is there, else the CPU. "
    "`--device cpu` or `--device cuda` chooses.",
    "memory": "If a model does not fit, the next rung of the ladder is tried, then the CPU. "
    "Choose a smaller one with {key:model}, a lower `--precision` or a smaller `--context`, "
    "or a server (`--server`). The status bar shows the memory use.",
    "slow": "Faster replies come from a smaller model ({key:model}), a GPU, 4-bit weights, "
    "speed mode ({key:mode}) or a shorter chat ({key:new}).",
    "server": "Servers are not needed, but they work: `tui-chat --server URL` chats with a model "
    "on Ollama, vLLM, SGLang, llama.cpp, LM Studio or `transformers serve`. "
    "{key:model} lists the models of those that have a name in `config.toml`.",
    "apikey": "API keys stand in no file: `[servers.NAME]` in `config.toml` has the `url` of a "
    "server, and `key_env`, a variable that holds the key, or `key_command`, a program "
    "that prints it.",
    "privacy": "Nothing you type leaves this machine, unless you choose a server: "
    "that one gets the chat. There is no account and no telemetry, and it "
    "works offline; only the download of a model needs the network.",
    "download": "Start `tui-chat --model NAME` with a Hugging Face name: it is downloaded once "
    "into the Hugging Face cache and works offline afterwards. {key:model} does it on the screen.",
    "sampling": "Temperature, `top_p`, `seed` and others: `{slash:set} temperature 0.7` changes "
    "one for this chat, and `{slash:set}` lists them. For all chats they stand in "
    "`[modes.speed]` and `[modes.accuracy]` of `config.toml`.",
    "thinking": "Reasoning is turned off by `{slash:set} thinking false`, where the model has a "
    "switch for that. Thoughts are folded: {key:walk-up} goes to the reply, Enter opens them.",
    "preset": "Presets: `{slash:preset}` lists them, `{slash:preset} save NAME` makes one of this "
    "chat. Each is a file in the `presets` folder beside `config.toml`; "
    "`--preset` starts with one.",
    "attach": "`@PATH` in a message attaches a text file, and so does `{usage:attach}`; "
    "`{slash:detach}` takes it out again. Images and PDF are not read.",
    "paste": "Long pastes stand in the box as one label, but the whole text is sent. "
    "{key:unfold} shows it in full.",
    "export": "`{slash:export}` writes this chat to a file, `{usage:save}` the last reply. "
    "On the command line `tui-chat export` and `import` do it for many chats.",
    "pager": "`{slash:pager}` opens the chat in your `$PAGER`; `{slash:print}` puts it into the "
    "terminal's own scrollback (with `exit` behind it: when you quit).",
    "find": "{key:find} (or `{slash:find}`) finds words in this chat; {key:chats} searches all "
    "of your chats.",
    "pin": "`{slash:pin}` holds this chat at the top of the list, `{slash:archive}` hides it from "
    "there; the same again takes that back. In the list ({key:chats}) F4 and F5 do it, "
    "and F6 shows what is archived.",
    "branch": "Earlier messages can be changed: {key:walk-up} (or {key2:walk-up}) walks up to one, "
    "then `{key:message-edit}` edits it on a new branch and `{key:message-copy}` copies it. "
    "The old branch is kept.",
    "versions": "Versions of a reply or a prompt: {key:version-previous} and {key:version-next} "
    "switch them, and what stands below comes along. `2/3` is the second of three.",
    "exclude": "`{slash:message-exclude}` leaves the last turn out of what the model gets, or "
    "takes it in again. For an older turn walk there ({key:walk-up}) and press "
    "`{key:message-exclude}`.",
    "resume": "Start with `tui-chat --continue` to go on with the chat that was used last, or with "
    "`--resume` for the list of chats. In the app {key:chats} opens any.",
    "themefile": "Own themes are TOML files in the `themes` folder beside `config.toml`; `name` "
    "and `primary` are enough. `{slash:theme}` chooses one.",
    "access": 'Calm and plain: `reduced_motion = true` and `glyphs = "ascii"` in `config.toml`, '
    "or `NO_COLOR` in the environment. No state is told by colour alone.",
    "unload": "`{slash:unload}` frees the model and its memory; the chat stays open. "
    "{key:model} loads one again.",
    "length": "{key:continue} (or `{slash:continue}`) goes on with a reply that was cut off. "
    "It had reached `max_new_tokens`: raise that with `--max-new-tokens`, or for good in "
    "`config.toml`.",
    "loading": "While a model loads, the screen is up at once: the weights are read in the "
    "background, and you can already type.",
    "context": "When the context window is full, the oldest turns are left out and the screen says "
    "which; nothing is deleted. The system prompt and the newest turns stay. "
    "`{slash:context}` shows what is sent, `--context` limits the window.",
    "meter": "The meter in the status bar shows how many tokens of the context window are used, "
    "counted exactly by the model's own tokenizer. `{slash:context}` shows more.",
    "figures": "Under each reply stand the tokenize time, prefill tokens and their time, "
    "the generated tokens with theirs, the tokens per second (decode only) and the mode. "
    "{key:metrics} shows those of the whole chat.",
    "metrics": "{key:metrics} (or `{slash:metrics}`) shows the figures of the whole chat, with "
    "small plots; `{slash:metrics} copy` copies them as text.",
    "bench": "`tui-chat bench` measures the speed on your machine: each optimisation against the "
    "plain way, as a table or with `--json`. {key:mode} and a smaller model make replies faster.",
    "prefill": "Prefill is the reading of the prompt before the first new token; "
    "decode is the writing after it, one token after another.",
    "reused": "Reused prompt tokens were already in the KV cache from the last turn, "
    "so they did not have to be read again.",
    "token": "Tokens are pieces of text, each about three quarters of an English word: "
    "the unit that models read and write.",
    "system": "`{usage:system}` sets the system prompt of this chat; `edit` in place of the text "
    "opens your editor, `clear` takes it away. For all chats use `--system`, or "
    "`system_prompt` in `config.toml`.",
    "files": "Chats are JSONL files, one a chat, in the `chats` folder of the data directory "
    "(`~/.local/share/tui-chat/chats` on Linux). You can read, grep and copy them; "
    "`--data-dir` moves them.",
    "saved": "Saving is automatic: your message before the reply starts, the reply every "
    "2 seconds. A crash or a kill loses nothing before that.",
    "backup": "Copy the data folder (`~/.local/share/tui-chat` on Linux), or one `.jsonl` file of "
    "it, to back up chats or to move them to another machine.",
    "config": "Settings are in `config.toml` (`~/.config/tui-chat/config.toml` on Linux). "
    "`tui-chat config` prints the path and the values.",
    "ask": 'Without the screen: `tui-chat ask "question"` answers on the command line. '
    'Pipes work (`cat file | tui-chat ask "..."`), and `--json` is for machines.',
    "logs": "Errors go to the log file; {key:help} shows its path and `tui-chat config` prints it.",
    "install": "Python 3.11 or newer on Linux or macOS (Windows through WSL) is what it needs. "
    "Install it with `pip` in a virtual environment; the README has one line that does it all.",
    "version": "`tui-chat --version` prints the version. "
    "It is free and open source, under the MIT licence.",
    "ssh": "SSH and tmux work: run tui-chat on the GPU machine. It then sends less to the terminal "
    "by itself; `--no-ssh` prevents that. Use {key:newline} for a new line "
    "there; copying ({key:copy}) goes through OSC 52.",
    "hello": "Hello! I am guide, the small model built into tui-chat. "
    "Ask me about its keys, modes, models or files.",
    "thanks": "You are welcome! Is there anything else about tui-chat?",
    "bye": "Goodbye! {key:quit} quits, and this chat is saved.",
    "howareyou": "Fine, thanks! What would you like to know about tui-chat?",
    "who": "My name is guide: I am the small model built into tui-chat, a few million parameters, "
    "trained on this program alone. {key:model} loads a bigger one.",
    "about": "This is tui-chat, a full-screen terminal chat for language models that run in its "
    "own process, or on a server of yours.",
    "can": "Ask me about tui-chat: its keys, modes, models, files and figures. "
    "I can also show Markdown: a list, a table or some code. {key:help} shows all keys.",
    "wrong": "Sorry! I am a small model and make mistakes. "
    "{key:help} shows the facts; {key:model} loads a real model.",
    "praise": "Thank you! What else would you like to know?",
    "demo_list": "Here is a list:\n\n- {key:new} starts a new chat\n- {key:chats} opens an old "
    "one\n- {key:stop} stops the reply\n- {key:help} shows help",
    "demo_table": "| Key | Use |\n|---|---|\n| {key:send} | send |\n| {key:stop} | stop |\n"
    "| {key:help} | help |",
    "demo_code": '```python\ndef greet(name):\n    return f"Hello, {name}!"\n\n\n'
    'print(greet("world"))\n```',
    "refuse": "I am only the small built-in guide and know nothing but tui-chat. "
    "{key:help} shows help; {key:model} loads a real model.",
}

# Which topic explains an action of the table, and which a flag of the command line.
ACTION_TOPICS: Mapping[str, str] = {
    **{"send": "write", "newline": "write", "history-previous": "history", "edit": "edit"},
    **{"history-next": "history", "stop": "stop", "regenerate": "regen", "mode": "mode"},
    **{"copy": "copy", "page-up": "scroll", "page-down": "scroll", "top": "scroll"},
    **{"follow": "scroll", "new": "new", "chats": "chats", "model": "model", "palette": "help"},
    **{"theme": "theme", "help": "help", "suspend": "suspend", "quit": "quit", "leave": "quit"},
    **{"rename": "rename", "delete": "delete", "undo": "delete", "system": "system"},
    **{"context": "context", "continue": "length", "copy-code": "copy", "copy-chat": "copy"},
    **{"attach": "attach", "detach": "attach", "unfold": "paste", "find": "find"},
    **{"save": "export", "export": "export", "pager": "pager", "print": "pager"},
    **{"version-previous": "versions", "version-next": "versions", "amend": "branch"},
    **{"walk-up": "branch", "walk-down": "branch", "pin": "pin", "archive": "pin"},
    **{"unload": "unload", "metrics": "metrics", "preset": "preset", "set": "sampling"},
}
FLAG_TOPICS: Mapping[str, str] = {
    **{"--model": "model", "--device": "gpu", "--precision": "ladder", "--mode": "mode"},
    **{"--max-new-tokens": "length", "--system": "system", "--seed": "sampling"},
    **{"--context": "context", "--config": "config", "--data-dir": "files", "--json": "ask"},
    **{"--version": "version", "--help-keys": "help", "tui-chat ask": "ask"},
    **{"tui-chat config": "config", "tui-chat bench": "bench", "--server": "server"},
    **{"--preset": "preset", "--continue": "resume", "--resume": "resume", "--ssh": "ssh"},
    **{"--no-ssh": "ssh", "--no-mouse": "mouse", "--context-budget": "context"},
    **{"tui-chat export": "export", "tui-chat import": "export"},
}

REFUSE = "refuse"
TALK = ("hello", "thanks", "bye", "howareyou", "praise", "wrong")

_FIELD = re.compile(r"\{(key|key2|key3|raw|slash|usage):([a-z-]+)\}")


def _value(kind: str, action: Action) -> str:
    if kind == "slash":
        return f"/{action.slash}"
    if kind == "usage":
        return f"/{action.slash} {action.argument.strip('[]')}".rstrip()
    if kind == "raw":
        return action.keys[0]
    return key_label(action.keys[{"key": 0, "key2": 1, "key3": 2}[kind]])


def answer(topic: str, actions: Iterable[Action] = ACTIONS) -> str:
    """The answer to a topic, with the keys and commands of `actions`.

    Raises:
        KeyError: there is no such topic, or the text names an action that is not there.
        IndexError: an action has fewer keys than the text names.
    """
    table = {action.id: action for action in actions}
    return _FIELD.sub(lambda field: _value(field[1], table[field[2]]), TOPICS[topic])


def table_values(topic: str, actions: Iterable[Action] = ACTIONS) -> tuple[str, ...]:
    """The keys and commands in the answer to a topic that come from `actions`."""
    table = {action.id: action for action in actions}
    return tuple(_value(kind, table[name]) for kind, name in _FIELD.findall(TOPICS[topic]))
