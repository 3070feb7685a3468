"""Lasting Python sessions inside the sandbox of this machine.

- `walls`: a session is a job of a local runner of its own: the same walls, caps and supervisor, no network
- `postdoc`: what stands inside: the loop that runs the code, and the module through which code asks the bot
"""
