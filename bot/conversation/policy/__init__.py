"""A repository's policy, `.github/postdoc.yml` on its default branch, and the server's own, which bounds it."""

from bot.conversation.policy.bounds import load_server_policy
from bot.conversation.policy.form import policy_schema
from bot.conversation.policy.reading import POLICY_PATH, ParsedPolicy, parse_policy, policy_places, read_policy
from bot.conversation.policy.value import (
    DEFAULT_RECIPE_KEYS,
    NO_LICENCE,
    AutoApprove,
    Cut,
    Labels,
    Month,
    Policy,
    Publish,
    cut_words,
    skip_ci_trailer,
)

__all__ = [
    "DEFAULT_RECIPE_KEYS",
    "NO_LICENCE",
    "POLICY_PATH",
    "AutoApprove",
    "Cut",
    "Labels",
    "Month",
    "ParsedPolicy",
    "Policy",
    "Publish",
    "cut_words",
    "load_server_policy",
    "parse_policy",
    "policy_places",
    "policy_schema",
    "read_policy",
    "skip_ci_trailer",
]
