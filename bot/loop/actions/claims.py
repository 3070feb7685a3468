"""Reviews the cards that a person pushed, on the very lines that the measurements deny."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bot.conversation import messages
from bot.conversation.github import InlineComment
from bot.data.card import size_category
from bot.data.card_claims import Measured, contradictions
from bot.domain.experiment import Experiment
from bot.domain.redaction import redact
from bot.loop.spending import data_key
from bot.loop.world import World

CARDS = ("README.md", "data/README.md")
MOST_COMMENTS = 10


async def review_cards(world: World, x: Experiment, sha: str, recipe: str, digests: Mapping[str, str]) -> None:
    """Comment on what is new in the experiment's cards at `sha` and contradicted by what was measured of the data that
    the recipe there builds. Nothing is said of data that has not been looked at yet."""
    checked = x.data.get(data_key(recipe, digests), {})
    if x.pull_request is None or not checked.get("build"):
        return
    repository = world.repository(x)
    comments = []
    for card in CARDS:
        path = f"{x.folder}/{card}"
        now = await repository.file(path, sha)
        before = await repository.file(path, x.head_sha) if now is not None else None
        if now is None or now == before:
            continue
        old, new = ((text or b"").decode("utf-8", "replace") for text in (before, now))
        for found in contradictions(old, new, measured(x, checked, card)):
            place = f"{card}/{found.line}/{found.about}"
            body = messages.card_comment(x, sha, place, found.about, found.found, found.instead)
            comments.append(InlineComment(path, found.line, redact(body, world.known_secrets)))
    if comments:
        await repository.review(
            x.pull_request,
            sha=sha,
            key_line=messages.hidden_key(x.goal_id, messages.card_review_name(sha)),
            body=messages.card_review(x, sha, len(comments)),
            comments=comments[:MOST_COMMENTS],
        )


def measured(x: Experiment, checked: Mapping[str, Any], card: str) -> Measured:
    """What is known of the head's data; of the model too where the card is the model's."""
    assert x.goal is not None
    build, scan, audit = checked.get("build") or {}, checked.get("scan"), checked.get("audit") or {}
    counts = {"training rows": build.get("rows"), "validation rows": build.get("validation_rows")}
    counts |= {f"rows of {source.get('path')}": source.get("rows") for source in build.get("sources") or ()}
    counts |= {f"rows with {column}": count for column, count in (audit.get("columns") or {}).items()}
    counts |= {f"dropped ({reason})": number for reason, number in (build.get("dropped") or {}).items()}
    licences = {gate["found"] for gate in checked.get("licences", {}).values() if gate.get("part", "data") == "data"}
    of_model = card == "README.md"
    output = (checked.get("combination") or {}).get("output")
    best = x.best_run
    shown = best.score if of_model and best is not None else None
    share = shown is not None and shown.measure.is_share
    return Measured(
        counts={what: int(count) for what, count in counts.items() if isinstance(count, int)},
        size="" if of_model or not isinstance(build.get("rows"), int) else size_category(build["rows"]),
        licence=output if of_model else licences.pop() if len(licences) == 1 else None,
        languages=audit.get("languages") or {},
        sensitive=audit.get("sensitive") or {},
        overlap=len({match["row"] for match in scan["flagged"]}) if scan else None,
        unscannable=int(scan["unscannable"]) if scan else 0,
        base_model=x.goal.base_model if of_model else "",
        results={x.goal.metric: 100 * shown.value} if shown is not None and share else {},
    )
