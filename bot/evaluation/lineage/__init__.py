"""Lineage: whether the final weights descend from the declared base, and what else was changed beside them.

`weights` reads safetensors, `distance` compares two models tensor by tensor, `files` compares everything that is not a
weight, `published` holds fingerprints of other people's models, and `check` puts them together into a `Lineage`.
Measuring needs numpy and nothing of the training stack; the bot lets a process of its own do it (`child`).
"""

from bot.domain.lineage import Lineage, LineageVerdict

__all__ = ["Lineage", "LineageVerdict"]
