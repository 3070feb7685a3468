"""What is said between Postdoc and a language model, the same for every provider, as values a transcript can hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from bot.brain.model.prices import Price


class Role(StrEnum):
    USER = "user"
    """Postdoc: the task, what a person wrote, what the tools answered."""
    MODEL = "assistant"


class Stop(StrEnum):
    """Why a reply ended."""

    END = "end"
    TOOLS = "tools"
    """It waits for the answers of its calls."""
    LENGTH = "length"
    """The reply was cut at its token limit; a call in it may be half a call and is not to be carried out."""
    REFUSED = "refused"
    PAUSED = "paused"
    """The provider wants the same conversation again, with this reply at its end, and goes on then."""
    FULL = "full"
    """The context window is full: compact, then ask again."""


@dataclass(frozen=True, slots=True)
class Tool:
    """What the model may call. `schema` is the JSON Schema of the arguments, an object."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    malformed: str = ""
    """What the arguments were, where they are no JSON object; it is answered with an error, not carried out."""


@dataclass(frozen=True, slots=True)
class Result:
    """A tool's answer to the call `id`. Every call is answered in the next message, or providers refuse it."""

    id: str
    text: str
    failed: bool = False
    finishes: str = ""
    """What the work was finished with; the model is not told."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message."""

    role: Role
    text: str = ""
    calls: tuple[Call, ...] = ()
    results: tuple[Result, ...] = ()
    native: tuple[Mapping[str, Any], ...] = ()
    """The reply as its provider sent it, thinking and signatures included, to be sent back as it was received."""
    provider: str = ""
    """Which client `native` belongs to; another client rebuilds the message from the fields above."""

    def as_dict(self) -> dict[str, Any]:
        """What is empty is left out."""
        whole: dict[str, Any] = {
            "role": str(self.role),
            "text": self.text,
            "calls": [{"id": c.id, "name": c.name, "arguments": dict(c.arguments), "malformed": c.malformed}
                      for c in self.calls],
            "results": [{"id": r.id, "text": r.text, "failed": r.failed} for r in self.results],
            "native": [dict(block) for block in self.native],
            "provider": self.provider,
        }  # fmt: skip
        return {key: value for key, value in whole.items() if value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Said:
        return cls(
            Role(data["role"]),
            data.get("text", ""),
            tuple(Call(c["id"], c["name"], c["arguments"], c.get("malformed", "")) for c in data.get("calls", ())),
            tuple(Result(r["id"], r["text"], r.get("failed", False)) for r in data.get("results", ())),
            tuple(data.get("native", ())),
            data.get("provider", ""),
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. The four are counted and priced apart: `input` are those that came neither from nor into the cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
        )

    @property
    def context(self) -> int:
        """How much of the context window the conversation takes after this reply."""
        return self.input + self.output + self.cache_read + self.cache_write

    def as_dict(self) -> dict[str, int]:
        return {"input": self.input, "output": self.output, "cache_read": self.cache_read,
                "cache_write": self.cache_write}  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Usage:
        return cls(**{key: int(data.get(key, 0)) for key in ("input", "output", "cache_read", "cache_write")})


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered to a conversation, and what that cost."""

    said: Said
    stop: Stop
    usage: Usage
    usd: float
    """Of everything that was asked for it, broken attempts included."""
    model: str
    """As the provider names it."""
    request_id: str = ""
    attempts: int = 1
    wasted: Usage = field(default_factory=Usage)
    """Of the attempts that broke off; paid and not seen."""


Again = Callable[[float], Awaitable[bool]]
"""Whether a turn may be tried once more, after attempts that broke off have cost so many USD."""


class Model(Protocol):
    """A language model that can be asked. One value serves many conversations at once."""

    name: str
    """`provider:model`, as the setting has it."""
    context_tokens: int
    """The largest conversation that it takes."""
    price: Price

    async def reply(
        self, system: str, said: Sequence[Said], tools: Sequence[Tool] = (), *, most_tokens: int = 8192,
        again: Again | None = None,
    ) -> Reply:  # fmt: skip
        """The next message of the conversation `said`, of at most `most_tokens` tokens. `again` is asked before each
        further attempt at it; without one it is tried as often as patience has it.

        Raises: ModelRefused when the provider will not answer this however often it is asked; ModelBusy when it did
        not answer now; ContextFull when the conversation is too long for it.
        """
        ...

    async def close(self) -> None:
        """Give back its connections."""
        ...
