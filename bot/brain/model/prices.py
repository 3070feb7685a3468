"""What a turn costs: a table of list prices with the date they were read, or the price that the owner's setting names.

A model without a price is not asked: what it spends counts against a goal's budget, and an unknown number cannot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bot.brain.model.talk import Usage
from bot.errors import SettingsError

READ_ON = "2026-03-21"
"""When the table's figures were last checked against https://claude.com/pricing and reports of it."""
# A cache write for five minutes costs 1.25 times an input token and a read a tenth of one:
# https://docs.anthropic.com/en/docs/about-claude/pricing
_WRITE, _READ = 1.25, 0.1


@dataclass(frozen=True, slots=True)
class Price:
    """USD for a million tokens."""

    input: float
    output: float
    cache_read: float
    cache_write: float

    @classmethod
    def listed(cls, input: float, output: float) -> Price:
        return cls(input, output, input * _READ, input * _WRITE)

    @classmethod
    def uncached(cls, input: float, output: float) -> Price:
        """Of a provider whose cache, if it has one, makes nothing cheaper that we know of."""
        return cls(input, output, input, input)

    def of(self, usage: Usage) -> float:
        """USD."""
        return (
            usage.input * self.input
            + usage.output * self.output
            + usage.cache_read * self.cache_read
            + usage.cache_write * self.cache_write
        ) / 1e6

    @property
    def free(self) -> bool:
        return not (self.input or self.output or self.cache_read or self.cache_write)

    def most(self, context: int, reply_tokens: int) -> float:
        """USD that a turn can cost at most: everything written to the cache, nothing read from it."""
        return (context * max(self.input, self.cache_write) + reply_tokens * self.output) / 1e6


# Beginning of the model's name -> list price, as of READ_ON.
_LISTED = {
    "claude-opus-4-5": Price.listed(5.0, 25.0),
    "claude-opus-4-6": Price.listed(5.0, 25.0),
    "claude-sonnet-4-5": Price.listed(3.0, 15.0),
    "claude-sonnet-4-6": Price.listed(3.0, 15.0),
    "claude-haiku-4-5": Price.listed(1.0, 5.0),
}


def price_of(provider: str, model: str, stated: str = "") -> Price:
    """`stated` is the owner's own: "3/15", USD for a million input and output tokens, or "3/15/0.3/3.75" with reads
    from the cache and writes into it.

    Raises: SettingsError when there is none.
    """
    if stated:
        numbers = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:\s*/\s*\d+(?:\.\d+)?){1,3})\s*", stated)
        parts = [float(part) for part in stated.split("/")] if numbers else []
        if len(parts) not in (2, 4):
            raise SettingsError(
                f"POSTDOC_BRAIN_PRICE: {stated!r} is no price. Write USD for a million input and output tokens, "
                "3/15 for example, or 3/15/0.3/3.75 with cache reads and writes."
            )
        if len(parts) == 4:
            return Price(parts[0], parts[1], parts[2], parts[3])
        return Price.listed(*parts) if provider == "anthropic" else Price.uncached(*parts)
    if provider == "anthropic":
        for name, price in _LISTED.items():
            if re.fullmatch(re.escape(name) + r"(-\d{8})?", model):
                return price
    raise SettingsError(
        f"What {provider}:{model} costs is not known here. Set POSTDOC_BRAIN_PRICE to USD for a million input and "
        "output tokens, 3/15 for example (0/0 for a model of your own): it counts against each goal's budget."
    )
