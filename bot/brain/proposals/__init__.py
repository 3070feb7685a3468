"""What a language model may ask for, and what is checked about it before anything comes of it.

- `schema`: the one form that a proposal has, closed: nothing beside it is ever acted on
- `rules`: what no proposal may do, whatever its reason: one cause, nothing twice, no silent change of scope
- `keywords`: keyword arguments of a script against the signatures of the libraries that it will run with
- `asking`: what the model is told: rules, contract, evidence, ledger
- `tools`: the call that a thought ends with
"""

from bot.brain.proposals.asking import Asked, pinned_text, system_text
from bot.brain.proposals.keywords import unknown_keywords
from bot.brain.proposals.rules import Ground, problems_of
from bot.brain.proposals.schema import SCHEMA, Kind, Proposal, read_proposal
from bot.brain.proposals.tools import PROPOSE, PROPOSE_TOOL, Verdict

__all__ = [
    "PROPOSE",
    "PROPOSE_TOOL",
    "SCHEMA",
    "Asked",
    "Ground",
    "Kind",
    "Proposal",
    "Verdict",
    "pinned_text",
    "problems_of",
    "read_proposal",
    "system_text",
    "unknown_keywords",
]
