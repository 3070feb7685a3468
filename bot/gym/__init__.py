"""The gym: goals on tiny models that the real loop pursues, to see how often, and how soon, it reaches them.

`task_file` says what a task is, `tasks/` holds those that ship, `place` makes a repository of them, `host` runs their
jobs warm, `pursuing` opens the goals and follows them, `report` says how it went.
"""
