"""The onboarding pull request's words: what the App will do and not do, what it sees, what it costs, how to undo it."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

from bot.conversation.messages.keys import within_limit
from bot.conversation.policy import POLICY_PATH, Policy
from bot.domain.inert import code

ONBOARDING = "onboarding"
LONGEST_ADDRESS = 8_000
"""GitHub's servers refuse longer ones; nothing documents the number, so some room is left below 8 KiB."""


@dataclass(frozen=True, slots=True)
class OnboardingFacts:
    full_name: str
    page: str
    """The repository's address in a browser."""
    branch: str
    """The default branch."""
    label: str
    files: tuple[str, ...]
    """What the pull request adds."""
    workflow: str
    workflow_path: str
    first_form: bool
    """True when the repository had no issue templates of its own before."""
    private: bool
    bot: str
    """The App's slug."""


def onboarding_key(full_name: str, installation_id: int, asked_by: int) -> str:
    """Key of the pull request of one installation; `asked_by` is the comment that asked for another one."""
    return f"{full_name}/{ONBOARDING}/{installation_id}/{asked_by}"


def onboarding_title() -> str:
    return "Configure Postdoc"


def new_goal_address(facts: OnboardingFacts) -> str:
    return f"{facts.page}/issues/new?template=goal.yml"


def new_workflow_address(facts: OnboardingFacts) -> str | None:
    """The page on GitHub that makes the workflow file, filled in; None when the address would be too long."""
    branch = urllib.parse.quote(facts.branch, safe="/")
    query = urllib.parse.urlencode(
        {"filename": facts.workflow_path, "value": facts.workflow}, quote_via=urllib.parse.quote, safe="/"
    )
    address = f"{facts.page}/new/{branch}?{query}"
    return address if len(address) <= LONGEST_ADDRESS else None


def onboarding_body(facts: OnboardingFacts, key: str) -> str:
    """The pull request's text. `key` becomes its hidden first line."""
    public = "" if facts.private else " This repository is public, so everybody can read those."
    parts = [
        "**Merging this configures Postdoc; until then it does nothing here, and closing it is a no.** "
        "Postdoc post-trains language models through pull requests.",
        "This adds:\n\n" + "\n".join(f"- `{path}`: {_purpose(path)}" for path in facts.files),
        _templates_note(facts),
        "### What it will do",
        f"Whoever may write here opens [a goal]({new_goal_address(facts)}) (the form is there once this is merged), "
        f"or puts the label {code(facts.label, 60)} on an issue written in prose. Postdoc answers with the goal as it "
        "understood it, and opens a pull request with a training script, a recipe and a dataset card. It evaluates the "
        "untouched base model, trains, evaluates, and reviews its own run, with each diagnosis on the line of the "
        "recipe that it blames.",
        "### What it will not do",
        "It merges nothing, commits to branches of its own only (`postdoc/...`), and never trains what a fork "
        "proposes. Issues without the label are left alone.",
        "### What it costs",
        "Nothing until a person agrees, goal by goal, with `/postdoc run`, or until you grant an amount in "
        f"`{POLICY_PATH}`. With the file as it is proposed:\n\n" + "\n".join(f"- {line}" for line in Policy().lines()),
        "### What it sees",
        "Code, issues, pull requests and checks of the repositories that the App is installed on. It has no permission "
        "for secrets, workflows or settings. What it finds out (results, recipes, the ends of logs) is written into "
        f"pull requests.{public}",
        "### Without a server, if you like" if new_workflow_address(facts) else "",
        _workflow(facts),
        "### To undo it",
        "Close this pull request: it is not opened again, unless the App is installed anew or somebody who may write "
        "comments `/postdoc help` here. Later: remove the files, or uninstall the App "
        f"({code(facts.bot, 60)}) in the settings; what it wrote stays.",
    ]
    return within_limit(f"<!-- postdoc:{key} -->\n" + "\n\n".join(part for part in parts if part) + "\n")


def _templates_note(facts: OnboardingFacts) -> str:
    if not facts.first_form:
        return ""
    return (
        "GitHub shows an organisation's default issue templates only where a repository has none of its own. If you "
        f"rely on those, leave `{facts.files[-1]}` out: the label works without the form."
    )


def _purpose(path: str) -> str:
    if path == POLICY_PATH:
        return "who may ask for what, and how far spending may go. Every value in it is the default."
    return "the form in which a goal is written."


def _workflow(facts: OnboardingFacts) -> str:
    address = new_workflow_address(facts)
    if address is None:
        return ""
    return (
        f"[This page]({address}) has a workflow filled in that pursues one goal on a self-hosted machine of yours when "
        "somebody starts it. An App that is not allowed to change workflows cannot propose it here, and Postdoc does "
        "not ask to be."
    )
