"""A full-screen terminal chat for language models in this process, or on a server.

The floors, lowest first; a module imports downwards only (import-linter checks it):

1. `types`: the values that cross floors.
2. `files`: where our files live; atomic write, append, lock. `settings`: values that settings may
   have. `servers`: what names a server.
3. `engine` (messages in, reply events out; the only floor that knows torch), `store`
   (conversations on disk), `config` (config.toml). They do not know each other.
4. `chat`: what a turn is: session, context, reply cleaning, sanitising.
5. `ui` (everything that draws; the only floor that knows Textual), `headless` (`ask`, pipes,
   JSON) and `bench`: three front ends on the same session code.
6. `cli`: reads the command line and picks the front end.

`guide/` holds the built-in model: data and the script that trains it; nothing imports it.
"""

__version__ = "0.1.0"
