"""The grammar of `/postdoc verb args`: which lines of a comment command something, and whether they make sense.

One table of verbs feeds parsing, help and the README. Only what a reader sees as plain text commands: quotes, code,
links, headings and HTML are skipped. Not covered: who may command, which is checked when the command is carried out.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from bot.conversation.permissions import Tier
from bot.conversation.recipe_rules import setting_problem
from bot.conversation.visible import has_bidi, visible_text, without_comments
from bot.domain.budget import Spend
from bot.domain.inert import clipped, code
from bot.domain.recipe import Scalar, normalised_value

PREFIX = "/postdoc"
LONGEST_BODY = 65_536
"""GitHub's limit of a comment; anything beyond cannot have come from there."""
LONGEST_LINK = 2_048
MOST_ARMS = 8
"""Of one ablation."""
MOST_COMMANDS = 20
"""Per comment: more is a slip or mischief, and each one costs an answer."""


@dataclass(frozen=True, slots=True)
class Verb:
    name: str
    usage: str
    """After `/postdoc `."""
    summary: str
    """One line, for help and the README."""
    tier: Tier
    """The least that its author must be allowed."""
    spends: bool = False
    """True when carrying it out may cost money or machine time."""


_TABLE = (
    Verb("help", "help [verb]", "Explain the commands, or one of them.", Tier.READ),
    Verb("status", "status", "Say where the goal stands, what it has spent and what happens next.", Tier.READ),
    Verb("plan", "plan [again]", "Price and explain the next run; `again`: have the first plan rethought.", Tier.PLAN),
    Verb("run", "run [sha]", "Agree to train the recipe at this commit, within the goal's budget.", Tier.TRAIN, True),
    Verb("stop", "stop", "End the running job and train nothing more. The record stays.", Tier.PLAN),
    Verb("resume", "resume [+N]", "Go on after an end; `+2` grants two more runs.", Tier.TRAIN, True),
    Verb("set", "set key=value ...", "Change lines of `recipe.yaml`, as one commit.", Tier.TRAIN),
    Verb("accept", "accept D3|goal", "Commit what diagnosis D3 suggests, proposal P2, or the edited goal.", Tier.TRAIN),
    Verb("budget", "budget +5usd", "Raise a ceiling of the goal: `+5usd`, `+2runs`, `+1h`.", Tier.ADMIN, True),
    Verb("publish", "publish", "Put the best model on the Hub with its card.", Tier.ADMIN),
    Verb("vouch", "vouch sha", "Copy a fork's commit to a branch of this repository.", Tier.TRAIN),
    Verb("halt", "halt [off]", "Stop all spending in this repository, or allow it again.", Tier.ADMIN),
    Verb("ablate", "ablate key=a,b", "Try values of one key side by side; each is a run.", Tier.TRAIN, True),
    Verb("compare", "compare 2 5", "Compare two runs on the same items; `base` is the base model.", Tier.READ),
    Verb("reproduce", "reproduce 3", "Train a run again and compare.", Tier.TRAIN, True),
    Verb("ask", "ask question", "Ask a language model about this experiment's record.", Tier.PLAN, True),
)
VERBS: dict[str, Verb] = {verb.name: verb for verb in _TABLE}
# Words that other bots and other moods use for the same thing.
_SYNONYMS = {"train": "run", "start": "run", "cancel": "stop", "abort": "stop", "continue": "resume", "usage": "help"}

# Verbs that no line can spell stand for lines that are not read, so that a journal keeps them like any other.
_UNREADABLE = {
    "(too many)": f"Only the first {MOST_COMMANDS} commands of a comment are read. Write the others in a new one.",
    "(bidi)": "This line has characters that turn the reading direction. Type it again by hand.",
}

_SHA = re.compile(r"[0-9a-f]{7,40}", re.IGNORECASE)
_DIAGNOSIS = re.compile(r"[DPdp][1-9][0-9]{0,3}")
_LONGEST_WISH = 300
_RUN = re.compile(r"[1-9][0-9]{0,3}")
_MEASURED = re.compile(r"base|[1-9][0-9]{0,3}", re.IGNORECASE)
_EXTRA = re.compile(r"\+?([1-9][0-9]?)(?:runs?)?", re.IGNORECASE)
_RAISE = re.compile(r"\+([0-9]{1,6}(?:\.[0-9]{1,2})?)(usd|h|hours?|runs?)", re.IGNORECASE)
_LINE = re.compile(r" {0,3}/postdoc(?=[ \t]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ParsedCommand:
    """A command that makes sense; whether it may be carried out is another question."""

    verb: str
    args: tuple[str, ...]
    line: int
    """1-based, in the comment; 0 when it did not come from one."""
    text: str

    @property
    def spec(self) -> Verb:
        return VERBS[self.verb]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A line that was meant as a command and cannot be carried out."""

    verb: str
    args: tuple[str, ...]
    line: int
    text: str
    problem: str
    """What is wrong and what to write instead; safe to post."""
    suggestion: str | None = None
    """The nearest verb, when the verb is unknown."""


def parse_commands(body: str) -> list[ParsedCommand | Mistake]:
    """The commands in a comment, top to bottom. Never raises."""
    found: list[ParsedCommand | Mistake] = []
    for number, line in _command_lines(body):
        if len(found) == MOST_COMMANDS:
            found.append(checked("(too many)", (), line=number, text=clipped(line, 200)))
            break
        found.append(_parsed(number, line))
    return found


def checked(verb: str, args: Sequence[str], *, line: int = 0, text: str = "") -> ParsedCommand | Mistake:
    """The same answer that parsing gave, from a verb and its arguments alone: what a journal keeps of a command."""
    args = tuple(args)
    text = text or " ".join((PREFIX, verb, *args)).strip()
    problem: str | None
    suggestion = None
    if verb in _UNREADABLE:
        problem = _UNREADABLE[verb]
    elif verb not in VERBS:
        suggestion = _nearest(verb)
        problem = _unknown(verb, suggestion)
    else:
        check = _CHECKS.get(verb)
        problem = check(args) if check is not None else None
    if problem is None:
        return ParsedCommand(verb, args, line, text)
    return Mistake(verb, args, line, text, problem, suggestion)


def recipe_settings(args: Sequence[str]) -> dict[str, Scalar]:
    """Keys and values of a checked `set`, numbers as numbers (`1e-5` is one, whatever YAML 1.1 thinks)."""
    settings: dict[str, Scalar] = {}
    for argument in args:
        key, _, value = argument.partition("=")
        settings[key.strip()] = _scalar(value)
    return settings


def ablation_arms(args: Sequence[str]) -> tuple[str, list[Scalar]]:
    """Key and values of a checked `ablate`."""
    key, _, values = args[0].partition("=")
    return key.strip(), [_scalar(value) for value in values.split(",")]


def consent_sha(args: Sequence[str]) -> str | None:
    """The commit, or its beginning, that a checked `run` names."""
    return args[0].lower() if args else None


def diagnosis_label(args: Sequence[str]) -> str:
    """`D3`, of a checked `accept` that names a diagnosis; `P2`, of one that names a proposal."""
    return args[0].upper()


def reproduced_number(args: Sequence[str]) -> int:
    """The run that a checked `reproduce` names."""
    return int(args[0])


def extra_runs(args: Sequence[str]) -> int:
    """Runs that a checked `resume` grants beyond the budget."""
    match = _EXTRA.fullmatch(args[0]) if args else None
    return int(match[1]) if match else 0


def budget_raise(args: Sequence[str]) -> Spend:
    """What a checked `budget` adds. An hour is one of job time and one on the clock: neither is of use alone."""
    more = Spend()
    for argument in args:
        match = _RAISE.fullmatch(argument)
        assert match is not None, "checked before"
        amount, unit = float(match[1]), match[2].lower()
        if unit == "usd":
            more += Spend(usd=amount)
        elif unit.startswith("h"):
            more += Spend(gpu_hours=amount, wall_hours=amount)
        else:
            more += Spend(runs=int(amount))
    return more


def compared_runs(args: Sequence[str]) -> tuple[int, int]:
    """The two runs of a checked `compare`, 0 for the base model."""
    first, second = (0 if argument.lower() == "base" else int(argument) for argument in args)
    return first, second


def help_topic(args: Sequence[str]) -> str | None:
    """The verb that a checked `help` asks about."""
    return args[0].lower().removeprefix(PREFIX).strip() if args else None


def help_rows() -> list[tuple[str, str, str]]:
    """(usage, summary, tier) of each verb, for help and the README."""
    return [(f"{PREFIX} {verb.usage}", verb.summary, str(verb.tier)) for verb in VERBS.values()]


def commands_table() -> str:
    """The README's table of commands, in Markdown."""
    rows = [f"| `{usage}` | {summary} | {tier} |" for usage, summary, tier in help_rows()]
    return "\n".join(["| Command | What it does | Needs |", "| --- | --- | --- |", *rows])


# --- which lines of a comment command something


def _block_parser() -> MarkdownIt:
    """CommonMark's block structure alone: no inline parsing, whose cost grows faster than the text."""
    markdown = MarkdownIt("commonmark")
    markdown.core.ruler.enableOnly(["normalize", "block"])
    # Reference definitions would take the line after them into account; a paragraph is what they are to us.
    markdown.block.ruler.disable(["reference"])
    return markdown


_MARKDOWN = _block_parser()


def _command_lines(body: str) -> list[tuple[int, str]]:
    """(1-based line number, line) of each line that a reader sees as a command of its own."""
    body = body[:LONGEST_BODY]
    if PREFIX not in body.lower():
        return []
    body = body.replace("\r\n", "\n").replace("\r", "\n")
    lines = body.split("\n")
    found: list[tuple[int, str]] = []
    quotes = 0
    previous: Token | None = None
    for token in _MARKDOWN.parse(body):
        quotes += (token.type == "blockquote_open") - (token.type == "blockquote_close")
        if token.type == "inline" and not quotes and previous is not None and previous.type == "paragraph_open":
            first, last = token.map or (0, 0)
            found += _commands_in(lines[first:last], first + 1)
        previous = token
    return found


def _commands_in(paragraph: Sequence[str], first_number: int) -> list[tuple[int, str]]:
    """Command lines of one paragraph that do not begin inside code, a link or a comment spanning several lines."""
    covered = _covered_spans("\n".join(paragraph))
    found: list[tuple[int, str]] = []
    position = span = 0
    for offset, line in enumerate(paragraph):
        while span < len(covered) and covered[span][1] <= position:
            span += 1
        inside = span < len(covered) and covered[span][0] < position
        if not inside and _LINE.match(line):
            found.append((first_number + offset, line))
        position += len(line) + 1
    return found


_MARKS = re.compile(r"\\.|`+|<!--|-->|!?\[|\]\(|\]\[|\)|\]", re.DOTALL)


def _covered_spans(text: str) -> list[tuple[int, int]]:
    """Sorted, disjoint (start, end) of code spans, HTML comments and links in a paragraph, in linear time."""
    marks = [(match.group(), match.start(), match.end()) for match in _MARKS.finditer(text)]
    later_runs: dict[str, list[int]] = {}
    for index in range(len(marks) - 1, -1, -1):
        later_runs.setdefault(marks[index][0], []).append(index)
    spans: list[tuple[int, int]] = []
    brackets: list[int] = []
    index = 0
    while index < len(marks):
        mark, start, end = marks[index]
        closing = mark if mark.startswith("`") else "-->" if mark == "<!--" else None
        if closing is not None:
            waiting = later_runs.get(closing, [])
            while waiting and waiting[-1] <= index:
                waiting.pop()
            if waiting:
                index = waiting[-1]
                spans.append((start, marks[index][2]))
        elif mark.endswith("["):
            if mark == "][" and brackets:
                spans.append((brackets.pop(), end))
            else:
                brackets.append(start)
        elif mark == "](" and brackets:
            spans.append((brackets.pop(), text.find(")", end, end + LONGEST_LINK) + 1 or end))
        elif mark == "]" and brackets:
            brackets.pop()
        index += 1
    return _merged(spans)


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


# --- what a line says


def _parsed(number: int, line: str) -> ParsedCommand | Mistake:
    text = clipped(line.strip(), 500)
    if has_bidi(line):
        return checked("(bidi)", (), line=number, text=text)
    shown = visible_text(without_comments(line)).strip()
    verb, _, rest = shown[len(PREFIX) :].strip().partition(" ")
    verb = verb.strip(".,;:!`*").lower() or "help"
    verb = _SYNONYMS.get(verb, verb)
    return checked(clipped(verb, 60), _arguments(verb, rest.strip()), line=number, text=text)


def _arguments(verb: str, rest: str) -> tuple[str, ...]:
    """Words as a shell would split them; a question keeps its own words, apostrophes included."""
    if not rest:
        return ()
    if verb == "ask":
        return (rest,)
    try:
        words = shlex.split(rest)
    except ValueError:
        words = rest.split()
    return tuple(stripped for word in words if (stripped := word.strip("`")))[:40]


def _scalar(value: str) -> Scalar:
    """A YAML scalar, with `1e-5` as the number it is meant to be."""
    try:
        parsed = yaml.safe_load(value) if value.strip() else ""
    except (yaml.YAMLError, ValueError, RecursionError, IndexError):
        return value
    if not (parsed is None or isinstance(parsed, (str, int, float, bool))):
        return value
    normal = normalised_value(parsed)
    return normal if normal is None or isinstance(normal, (str, int, float, bool)) else value


# --- arguments of each verb: a problem, or None


def _check_help(args: Sequence[str]) -> str | None:
    if not args:
        return None
    topic = args[0].lower().removeprefix(PREFIX).strip()
    return None if topic in VERBS else _unknown(args[0], _nearest(topic))


def _check_run(args: Sequence[str]) -> str | None:
    if len(args) > 1:
        return f"`run` takes at most a commit. Write `{PREFIX} run`, or `{PREFIX} run <sha>`."
    if args and not _SHA.fullmatch(args[0]):
        return f"{code(args[0], 60)} is not a commit. Write 7 to 40 hexadecimal digits, `{PREFIX} run 1a2b3c4` say."
    return None


def _check_resume(args: Sequence[str]) -> str | None:
    if not args or (len(args) == 1 and _EXTRA.fullmatch(args[0])):
        return None
    return f"Write `{PREFIX} resume`, or `{PREFIX} resume +2` to grant two more runs (at most 99)."


def _check_accept(args: Sequence[str]) -> str | None:
    if args and args[0].lower() == "goal":
        valid = len(args) == 1 or (len(args) == 2 and _SHA.fullmatch(args[1]))
        return None if valid else f"Write `{PREFIX} accept goal`, or with the hash that the contract shows after it."
    if len(args) == 1 and _DIAGNOSIS.fullmatch(args[0]):
        return None
    return (
        f"Write one diagnosis by its label, as its comment shows it: `{PREFIX} accept D3`; `{PREFIX} accept P2` for a "
        f"proposal of the language model; or `{PREFIX} accept goal` "
        "for the goal that the edited issue now states."
    )


def _check_set(args: Sequence[str]) -> str | None:
    if not args:
        return f"Write what to change: `{PREFIX} set learning_rate=1e-5`."
    seen: set[str] = set()
    for argument in args:
        key, equals, value = argument.partition("=")
        key = key.strip()
        if not equals:
            return f"{code(argument, 60)} is not `key=value`. Write `{PREFIX} set learning_rate=1e-5`, without spaces."
        if not value.strip():
            return f"{code(key, 60)} has no value. Write `{PREFIX} set learning_rate=1e-5`, without spaces."
        if key in seen:
            return f"{code(key, 60)} is set twice. Write it once."
        seen.add(key)
        problem = setting_problem(key, _scalar(value)) or _quote_problem(key, value)
        if problem is not None:
            return problem
    return None


def _check_ablate(args: Sequence[str]) -> str | None:
    hint = f"Write one key with its values, without spaces: `{PREFIX} ablate learning_rate=1e-5,3e-5`."
    key, equals, listed = args[0].partition("=") if len(args) == 1 else ("", "", "")
    if not equals or not listed.strip():
        return hint
    if key.strip().startswith("data_"):
        return f"{code(key, 60)} changes the training set, and an ablation compares on the same one. Use `set`."
    values = listed.split(",")
    if not 2 <= len({repr(_scalar(value)) for value in values}) == len(values) <= MOST_ARMS:
        return f"An ablation takes 2 to {MOST_ARMS} different values. {hint}"
    problems = (setting_problem(key.strip(), _scalar(value)) or _quote_problem(key, value) for value in values)
    return next((problem for problem in problems if problem is not None), None)


def _check_compare(args: Sequence[str]) -> str | None:
    hint = f"Write two runs by their numbers, `{PREFIX} compare 2 5`, or `{PREFIX} compare base 5`."
    if len(args) != 2 or not all(_MEASURED.fullmatch(argument) for argument in args):
        return hint
    return None if args[0].lower() != args[1].lower() else f"A run does not differ from itself. {hint}"


def _quote_problem(key: str, value: str) -> str | None:
    return f"`{key}` has a quotation mark that is not closed." if value.count('"') % 2 else None


def _check_budget(args: Sequence[str]) -> str | None:
    hint = f"Write `{PREFIX} budget +5usd`, `+2runs` or `+1h`; several may follow each other."
    if not args:
        return hint
    for argument in args:
        match = _RAISE.fullmatch(argument)
        if match is None:
            return f"{code(argument, 60)} raises nothing. {hint}"
        if float(match[1]) == 0 or (match[2].lower().startswith("run") and "." in match[1]):
            return f"{code(argument, 60)} is not an amount. {hint}"
    return None


def _check_reproduce(args: Sequence[str]) -> str | None:
    if len(args) == 1 and _RUN.fullmatch(args[0]):
        return None
    return f"Write one run by its number, as the ledger has it: `{PREFIX} reproduce 3`."


def _check_halt(args: Sequence[str]) -> str | None:
    # Any other wording halts: what saves money is never refused for its wording.
    return None if not args or args[0].lower() != "off" or len(args) == 1 else f"Write `{PREFIX} halt off`."


def _check_plan(args: Sequence[str]) -> str | None:
    if args and args[0].lower() == "again" and len(" ".join(args)) > _LONGEST_WISH:
        return f"That is longer than {_LONGEST_WISH} characters: say in fewer what the plan should do differently."
    return None


def rethought(args: Sequence[str]) -> str | None:
    """What a checked `plan again` asks for, empty for nothing in particular; None for a plain `plan`."""
    return " ".join(args[1:]) if args and args[0].lower() == "again" else None


def _check_vouch(args: Sequence[str]) -> str | None:
    if len(args) == 1 and _SHA.fullmatch(args[0]):
        return None
    return f"Write the commit that you have looked at: `{PREFIX} vouch 1a2b3c4d`, 7 to 40 hexadecimal digits."


_CHECKS: dict[str, Callable[[Sequence[str]], str | None]] = {
    "help": _check_help,
    "run": _check_run,
    "resume": _check_resume,
    "plan": _check_plan,
    "ablate": _check_ablate,
    "accept": _check_accept,
    "set": _check_set,
    "budget": _check_budget,
    "halt": _check_halt,
    "reproduce": _check_reproduce,
    "vouch": _check_vouch,
    "compare": _check_compare,
}
# `stop please` stops, and so does `stop, it diverges`: what saves money is never refused for its wording.


def _nearest(verb: str) -> str | None:
    close = difflib.get_close_matches(verb.lower()[:40], list(VERBS), n=1, cutoff=0.6)
    return close[0] if close else None


def _unknown(verb: str, suggestion: str | None) -> str:
    if suggestion is not None:
        return f"There is no command {code(verb, 40)}. Did you mean `{PREFIX} {VERBS[suggestion].usage}`?"
    return f"There is no command {code(verb, 40)}. `{PREFIX} help` lists those there are."
