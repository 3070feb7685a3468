"""The goal that an issue states, from our form or in prose, and everything that is wrong or missing in it.

Form bodies are plain Markdown that anybody may edit afterwards, so headings are found defensively and every value is
checked again. Only visible text is read, values are typed, and nothing becomes a command or an unchecked path.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bot.conversation.goal_fields import LABELS, REQUIRED, World, empty_field, goal_of, known_name
from bot.conversation.goal_file import goal_from_yaml, goal_yaml
from bot.conversation.policy import Policy
from bot.conversation.visible import visible_markdown, visible_text
from bot.domain.data_source import SUFFIXES
from bot.domain.goal import Goal
from bot.domain.inert import code
from bot.domain.metrics import DEFAULT, Metric, metric_named

__all__ = ["ParsedGoal", "goal_from_yaml", "goal_yaml", "parse_goal"]

LONGEST_BODY = 65_536
_MOST_PROBLEMS = 20
_NO_RESPONSE = frozenset({"_no response_", "no response", "none", "n/a", "na", "-", "_none_", "*no response*", ""})
_ONE_OF_MANY_LINES = frozenset({"recipe", "notes", "acknowledgement", "licences"})
_ALIASES = {
    "model": "base_model",
    "base": "base_model",
    "start from": "base_model",
    "task": "benchmark",
    "goal": "target",
    "data": "dataset",
    "dataset": "dataset",
    "data set": "dataset",
    "data licence": "data_licence",
    "data license": "data_licence",
    "licence of data": "data_licence",
    "license of the data": "data_licence",
    "recipe": "recipe",
    "start from this recipe": "recipe",
    "script": "script",
    "training script": "script",
    "licence": "licences",
    "licences": "licences",
    "license": "licences",
    "licenses": "licences",
    "licenses allowed": "licences",
    "runs": "runs",
    "budget runs": "runs",
    "gpu hours": "gpu_hours",
    "budget gpu hours": "gpu_hours",
    "usd": "usd",
    "budget usd": "usd",
    "budget": "usd",
    "hours": "wall_hours",
    "wall hours": "wall_hours",
    "budget wall hours": "wall_hours",
}
_NAMES = {label.lower(): name for name, label in LABELS.items()} | _ALIASES
_HEADING = re.compile(r" {0,3}#{2,4}[ \t]+(\S[^\n]{0,200}?)[ \t]*#*[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[^\n`]*")
_LABELLED = re.compile(
    r"[ \t]{0,3}(?:[-*+][ \t]+)?[*_]{0,2}([A-Za-z][A-Za-z ]{1,30}?)[*_]{0,2}[ \t]*[:=][*_]{0,2}[ \t]*(\S.*)"
)


class ParsedGoal(NamedTuple):
    goal: Goal | None
    """None unless both lists are empty."""
    problems: list[str]
    """What is wrong, each with what to write instead."""
    questions: list[str]
    """What is missing, each with the line to add."""


def parse_goal(
    title: str,
    body: str,
    *,
    known_benchmarks: Sequence[str],
    model_exists: Callable[[str], str | None],
    metric_of: Callable[[str], str | None] | None = None,
    policy: Policy | None = None,
) -> ParsedGoal:
    """The goal in an issue. Never raises; its time grows no faster than the text."""
    world = World(known_benchmarks, model_exists, metric_of, policy or Policy())
    body = visible_markdown(body[:LONGEST_BODY])
    sections, unknown = _sections(body)
    if len(sections) >= 2:
        return _from_form(title, sections, unknown, world)
    return _from_prose(title, body, world)


# --- the form


class _Section(NamedTuple):
    name: str
    text: str


def _sections(body: str) -> tuple[list[_Section], list[str]]:
    """The form's sections in order, and the headings that name no field. Headings inside code are text."""
    sections: list[_Section] = []
    unknown: list[str] = []
    name, lines, fence = "", list[str](), ""
    for line in body.split("\n"):
        opening = _FENCE.fullmatch(line)
        if fence:
            fence = "" if line.strip().startswith(fence) and not line.strip().strip(fence[0]) else fence
        elif opening:
            fence = opening[1]
        elif name != "notes" and (heading := _HEADING.fullmatch(line)):
            sections.append(_Section(name, "\n".join(lines)))
            name, lines = _NAMES.get(_plain(heading[1]), ""), []
            if not name:
                unknown.append(heading[1])
            continue
        elif name == "notes" and (heading := _HEADING.fullmatch(line)) and _plain(heading[1]) == "acknowledgement":
            sections.append(_Section(name, "\n".join(lines)))
            name, lines = "acknowledgement", []
            continue
        lines.append(line)
    sections.append(_Section(name, "\n".join(lines)))
    return [section for section in sections if section.name], unknown


def _plain(heading: str) -> str:
    """A heading without decoration: `**Base model:** (required)` is `base model`."""
    text = re.sub(r"\([^()]{0,80}\)", "", heading)
    return " ".join(re.sub(r"[^a-z0-9 ]", " ", text.lower()).split())


def _from_form(title: str, sections: Sequence[_Section], unknown: Sequence[str], world: World) -> ParsedGoal:
    problems: list[str] = []
    texts: dict[str, str] = {}
    for name, text in sections:
        if name in texts:
            problems.append(f"The field {LABELS[name]} appears twice: keep one of the two.")
            continue
        texts[name] = value = _value(name, text)
        if name not in _ONE_OF_MANY_LINES and "\n" in value:
            problems.append(f"{LABELS[name]} has several lines: write a single one.")
            texts[name] = ""
    problems += [_unknown_field(heading) for heading in unknown]
    problems += [empty_field(name) for name in REQUIRED if not texts.get(name) and not _reported(name, problems)]
    ticked = texts.get("acknowledgement")
    if ticked is not None and "[ ]" in ticked:
        problems.append("Acknowledgement is not ticked: tick its box, or write `- [x]` before its sentence.")
    goal, found = goal_of(texts, title, world)
    problems += [problem for item in found for problem in item.split("\n")]
    return ParsedGoal(None if problems else goal, _at_most(problems), [])


def _reported(name: str, problems: Sequence[str]) -> bool:
    return any(problem.startswith(LABELS[name]) for problem in problems)


def _value(name: str, text: str) -> str:
    """What a person filled in, without the form's own words and without decoration."""
    if name == "recipe":
        fenced = _fenced(text)
        text = text if fenced is None else fenced
        return "" if text.strip().lower() in _NO_RESPONSE else text
    text = visible_text(text).strip()
    if text.lower() in _NO_RESPONSE:
        return ""
    if name in _ONE_OF_MANY_LINES:
        return text
    lines = [line.strip() for line in text.split("\n") if line.strip() and not _FENCE.fullmatch(line)]
    return "\n".join(_undecorated(line) for line in lines)


def _undecorated(line: str) -> str:
    line = re.sub(r"^[-*+][ \t]+(?=[^0-9.])", "", line.strip())
    return line.strip("*`\"' ").strip() or line


def _fenced(text: str) -> str | None:
    """The content of the first code block, None when there is none. One that is not closed runs to the end."""
    fence, lines = "", list[str]()
    for line in text.split("\n"):
        opening = _FENCE.fullmatch(line)
        if fence and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            return "\n".join(lines)
        if fence:
            lines.append(line)
        elif opening:
            fence = opening[1]
    return "\n".join(lines) if fence else None


def _unknown_field(heading: str) -> str:
    labels = [label for name, label in LABELS.items() if name != "acknowledgement"]
    close = difflib.get_close_matches(heading.lower()[:80], [label.lower() for label in labels], n=1, cutoff=0.6)
    if close:
        label = next(label for label in labels if label.lower() == close[0])
        return f"There is no field {code(heading, 60)}: did you mean `{label}`?"
    return f"There is no field {code(heading, 60)}: write free text below the heading `### Notes`."


def _at_most(problems: Sequence[str]) -> list[str]:
    kept = list(dict.fromkeys(problems))
    rest = len(kept) - _MOST_PROBLEMS
    return kept if rest <= 0 else [*kept[:_MOST_PROBLEMS], f"And {rest} more of the same kind."]


# --- prose

_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@+-]{0,199}")
_ADDRESS = re.compile(r"(?:hf:|https?://|(?:huggingface|hf)\.co/)[^\s<>()\[\]`\"'|,;\\]{1,900}", re.IGNORECASE)
_MODEL_PAGE = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface|hf)\.co/([\w.-]+/[\w.-]+)/?", re.IGNORECASE)
_NO_OWNER = frozenset({"datasets", "spaces", "papers", "docs", "blog", "collections", "models", "organizations"})
_SIZED = re.compile(
    r"[A-Za-z][A-Za-z0-9._-]{0,80}[0-9]{1,4}(?:\.[0-9]{1,3})?[bBmM](?:[-._][A-Za-z0-9._-]{1,40})?(?:@.+)?"
)
_AMOUNT = r"(-?[0-9][0-9.,]{0,12})"
_RATE = re.compile(rf"(?<![\w.,-]){_AMOUNT}\s?(?:%|percent\b|per cent\b)", re.IGNORECASE)
_AIMED = re.compile(
    rf"(?:\bto|\breach(?:es|ing)?|\bat least|\babove|\bover|\btarget(?: of)?|>=|≥)\s{{1,3}}"
    rf"((?:{_AMOUNT}\s?(?:%|percent\b|per cent\b))|-?0?[.,][0-9]{{1,6}}\b)",
    re.IGNORECASE,
)
_AIMED_NUMBER = re.compile(
    rf"(?:\bto|\bbelow|\bunder|\bat most|\btarget(?: of)?|<=|≤|<)\s{{0,3}}{_AMOUNT}(?![0-9.,]|\s?%|\s?per ?cent\b)",
    re.IGNORECASE,
)
"""A target of a metric that is no share: a perplexity of 25."""
_METRIC_SAID = re.compile(
    r"\b(word[ _-]perplexity|perplexity|bits[ _-]per[ _-]byte|word error rate|wer|character error rate|cer)\b",
    re.IGNORECASE,
)
"""Metrics that a sentence names by a word which means nothing else; accuracy is said of any."""
_METRIC_NAMES = {"word_error_rate": "wer", "character_error_rate": "cer"}
_PROSE_BUDGET = {
    "usd": re.compile(rf"(?<![\w.,-])(?:{_AMOUNT}\s?(?:USD|US\$|dollars?\b|\$)|(?:US)?\$\s?{_AMOUNT})", re.IGNORECASE),
    "runs": re.compile(rf"(?<![\w.,-]){_AMOUNT}\s(?:training\s)?runs?\b", re.IGNORECASE),
    "gpu_hours": re.compile(rf"(?<![\w.,-]){_AMOUNT}\s?GPU[ -]?(?:hours?|h)\b", re.IGNORECASE),
    "wall_hours": re.compile(rf"(?<![\w.,-]){_AMOUNT}\s?(?:wall[ -]?)?(?:hours?|h)\b", re.IGNORECASE),
    "seed": re.compile(r"\bseed\s{0,3}(?:of|is|:|=)?\s{0,3}([0-9]{1,10})\b", re.IGNORECASE),
}
_ROWS = tuple(suffix for suffix in SUFFIXES if suffix != ".json")
_BENCHMARKS = re.compile(r"bench|eval", re.IGNORECASE)
"""What tells `benchmarks/ours.yaml` from any other YAML file that a sentence names."""
_METHOD = re.compile(r"\b(SFT|DPO|GRPO)\b", re.IGNORECASE)
_ON = re.compile(r"\bon\s{1,3}(?:the\s{1,3})?[`*\"']{0,2}([A-Za-z0-9][A-Za-z0-9._/-]{1,80})", re.IGNORECASE)
_EXAMPLE_LINES = {
    "base_model": "Which model should be trained? Add a line to the issue: `Base model: Qwen/Qwen3-1.7B`",
    "benchmark": "Which benchmark decides? Add a line to the issue: `Benchmark: gsm8k`",
    "target": "Which value should be reached? Add a line to the issue: `Target: 90 %`",
}


def _from_prose(title: str, body: str, world: World) -> ParsedGoal:
    texts: dict[str, str] = {}
    recipe = _fenced(body)
    if recipe is not None and _looks_like_recipe(recipe):
        texts["recipe"] = recipe
    prose = _without_fences_and_quotes(body)
    rest: list[str] = []
    for line in visible_text(prose).split("\n"):
        labelled = _LABELLED.fullmatch(line)
        name = _NAMES.get(_plain(labelled[1])) if labelled else None
        if labelled and name and name not in ("recipe", "notes", "acknowledgement"):
            value = _undecorated(labelled[2])
            texts.setdefault(name, "" if value.lower() in _NO_RESPONSE else value)
        else:
            rest.append(line)
    questions = _read_sentences(f"{visible_text(title)}\n" + "\n".join(rest), texts, world)
    goal, found = goal_of(texts, title, world)
    problems = [problem for item in found for problem in item.split("\n")]
    asked = {name for name in REQUIRED if not texts.get(name)}
    questions += [_question(name, world) for name in REQUIRED if name in asked and not _asked(name, questions)]
    return ParsedGoal(None if problems or questions else goal, _at_most(problems), questions)


def _asked(name: str, questions: Sequence[str]) -> bool:
    return any(f"`{LABELS[name]}:" in question for question in questions)


def _question(name: str, world: World) -> str:
    known = list(world.known_benchmarks or ())
    if name == "benchmark" and known:
        shown = ", ".join(f"`{item}`" for item in known[:8]) + (" and others" if len(known) > 8 else "")
        return f"Which benchmark decides? Add a line to the issue: `Benchmark: {known[0]}` (known: {shown})."
    return _EXAMPLE_LINES[name] + "."


def _looks_like_recipe(block: str) -> bool:
    return re.search(r"^[a-z][a-z0-9_]{1,60}[ \t]*:", block, re.MULTILINE) is not None


def _without_fences_and_quotes(body: str) -> str:
    kept: list[str] = []
    fence = ""
    for line in body.split("\n"):
        opening = _FENCE.fullmatch(line)
        if fence:
            fence = "" if line.strip().startswith(fence) and not line.strip().strip(fence[0]) else fence
        elif opening:
            fence = opening[1]
        elif not line.lstrip().startswith(">"):
            kept.append(line)
    return "\n".join(kept)


def _read_sentences(text: str, texts: dict[str, str], world: World) -> list[str]:
    """Fill the fields that sentences state, and return a question for each that they state in two ways."""
    questions: list[str] = []
    addresses = [address.rstrip(".:!?*_") for address in _ADDRESS.findall(text)]
    # Out of the way: `hf:acme/sums-2` would otherwise be taken for a model called `acme/sums-2`.
    text = _ADDRESS.sub(" ", text)
    tokens = [token.rstrip(".-+/") for token in _TOKEN.findall(text)]
    candidates = {
        "benchmark": _benchmarks_in(text, tokens, world.known_benchmarks or ()),
        "base_model": _models_in(tokens, world.known_benchmarks or ()) + _model_pages_in(addresses),
        "target": _targets_in(text),
        "method": [name.lower() for name in _METHOD.findall(text)],
        "dataset": [token for token in tokens if token.endswith(_ROWS)] + _data_sets_in(addresses),
        "script": [token for token in tokens if token.endswith(".py")],
    }
    said = [re.sub(r"[ -]", "_", word.lower()) for word in _METRIC_SAID.findall(text)]
    candidates["metric"] = [_METRIC_NAMES.get(word, word) for word in said]
    if not _measure(texts, candidates, world).is_share:
        candidates["target"] = [amount.rstrip(".,") for amount in _AIMED_NUMBER.findall(text)]
    spent = text
    for name, pattern in _PROSE_BUDGET.items():
        candidates[name] = ["".join(groups) for groups in map(_groups, pattern.finditer(spent))]
        # `2 GPU hours` are not two hours of waiting as well.
        spent = pattern.sub(" ", spent)
    for name, found in candidates.items():
        distinct = list(dict.fromkeys(found))
        if texts.get(name) or not distinct:
            continue
        if len(distinct) == 1:
            texts[name] = distinct[0]
        elif name in REQUIRED or name in _PROSE_BUDGET or name == "dataset":
            shown = ", ".join(code(item, 60) for item in distinct[:4])
            label = LABELS[name]
            questions.append(
                f"The text names several values ({shown}). Add the one meant: `{label}: {distinct[0][:60]}`."
            )
            texts.pop(name, None)
    return questions


def _measure(texts: Mapping[str, str], candidates: Mapping[str, Sequence[str]], world: World) -> Metric:
    """The metric that a target in the text is one of."""
    named = texts.get("metric") or next(iter(candidates["metric"]), "")
    benchmark = texts.get("benchmark") or next(iter(candidates["benchmark"]), "")
    usual = world.metric_of(benchmark) if world.metric_of is not None and benchmark else None
    return metric_named(named or usual or DEFAULT)


def _groups(match: re.Match[str]) -> list[str]:
    return [group for group in match.groups() if group]


def _targets_in(text: str) -> list[str]:
    aimed = [match[1].strip() for match in _AIMED.finditer(text)]
    if aimed:
        return aimed
    anywhere = [match.group().strip() for match in _RATE.finditer(text)]
    return anywhere if len(set(anywhere)) == 1 else []


def _data_sets_in(addresses: Sequence[str]) -> list[str]:
    """Those that can only be meant as training data; a paper's address or a model's page is not."""
    return [
        address
        for address in addresses
        if address.lower().startswith("hf:") or "/datasets/" in address or address.lower().endswith(SUFFIXES)
    ]


def _model_pages_in(addresses: Sequence[str]) -> list[str]:
    pages = [match[1] for address in addresses if (match := _MODEL_PAGE.fullmatch(address))]
    return [page for page in pages if page.partition("/")[0].lower() not in _NO_OWNER]


def _benchmarks_in(text: str, tokens: Sequence[str], known: Sequence[str]) -> list[str]:
    by_token = {token: name for token in dict.fromkeys(tokens) if (name := known_name(token, known)) is not None}
    files = [token for token in tokens if token.lower().endswith((".yaml", ".yml")) and _BENCHMARKS.search(token)]
    if by_token or files:
        return list(dict.fromkeys([*by_token.values(), *files]))
    after_on = [match[1].rstrip(".,-/") for match in _ON.finditer(text)]
    return [name for name in after_on if not _is_model(name) and name.lower() not in {"a", "an", "our", "this", "it"}][
        :1
    ]


def _models_in(tokens: Sequence[str], known: Sequence[str]) -> list[str]:
    unnamed = [token for token in dict.fromkeys(tokens) if known_name(token, known) is None]
    return [token for token in unnamed if _is_model(token)][:10]


def _is_model(token: str) -> bool:
    """`Qwen/Qwen3-1.7B` and `Qwen3-1.7B` are; `and/or`, `data/x.jsonl` and `24/7` are not."""
    if token.endswith((*SUFFIXES, ".py", ".yaml", ".yml", ".md")) or not token[0].isalpha():
        return False
    owner, slash, name = token.partition("@")[0].partition("/")
    if slash:
        return bool(owner and name) and "/" not in name and re.search(r"[0-9-]", name) is not None
    return _SIZED.fullmatch(token) is not None
