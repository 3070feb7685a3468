"""A language model at work: what was said is kept step by step, shortened when it grows, and stopped when it circles.

- `transcript`: the conversation on the disk, one line a step, resumed after a kill with no turn paid twice
- `compaction`: a conversation that has grown is told again shortly, with what must not be forgotten word for word
- `circles`: the same thing done again and again, told by what was done and not by how it was spelt
- `turns`: the loop: ask, carry out, keep, within a budget and a number of turns
"""
