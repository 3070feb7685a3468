"""Reads the end of a job's log: the last traceback that means something, and what is known by name.

Not covered: a log that ends without a word is not a crash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bot.diagnosis.signatures import signature_in
from bot.diagnosis.tracebacks import last_traceback, went_on
from bot.domain.diagnosis import Symptom


@dataclass(frozen=True, slots=True)
class Crash:
    """How a process ended, in its own words."""

    symptom: Symptom
    exception: str
    """`KeyError: 'text'`, at most 200 characters."""
    where: str
    """`train.py:88 in main`, the innermost frame that the traceback shows; empty without a traceback."""
    phase: str = ""
    """For out of memory: load, forward, backward, step, logps, vllm, or empty when the frames do not say."""
    script_line: tuple[str, int] | None = None
    """(`train.py`, 88): the innermost frame in the experiment's own files."""
    subject: str = ""
    """What the message is about: the column that is missing, the recipe's key that is refused."""
    columns: tuple[str, ...] = ()
    """The columns that the data has, where the message lists them."""


_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_][\w.]*\.)?([A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|Exhausted))\b:?(.*)$"
)
_FRAME = re.compile(r'^\s+File "([^"\n]{1,300})", line (\d+)(?:, in (\S+))?')

# Allocators in their own words: CUDA's caching allocator, PyTorch's CPU allocator, cuBLAS, the kernel, libstdc++.
_OUT_OF_MEMORY = re.compile(
    r"CUDA out of memory|OutOfMemoryError|DefaultCPUAllocator: can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED"
    r"|std::bad_alloc|^MemoryError|Cannot allocate memory|oom[-_]kill|Out of memory: Killed|HIP out of memory"
    r"|No available memory for the cache blocks|is less than desired GPU memory utilization",
    re.MULTILINE,
)
# Slurm, Hugging Face Jobs, GitHub Actions.
_OUT_OF_TIME = re.compile(
    r"DUE TO TIME LIMIT|Job timeout|job (?:has )?timed out|exceeded the maximum execution time"
    r"|time limit of \S+ exceeded|exceeded its time limit",
    re.IGNORECASE,
)
# The subject, where there is one, is the first group that matched.
_WRONG_COLUMNS = re.compile(
    r"Unexpected input keys|No columns in the dataset match the model's forward method"
    r"|(?:[Cc]olumns?|[Ff]ields?|[Kk]ey) [`'\"]?([\w.-]+)[`'\"]? (?:(?:is|was|are|were) )?(?:not "
    r"(?:found|in|present)|missing|absent)"
    r"|(?:no|missing) (?:column|field)s?(?: named)? [`'\"]?([\w.-]+)"
    r"|Column name [`'\"]?\[?'?([\w.-]+)'?\]?[`'\"]? not in the dataset"
    r"|does(?:n't| not) have (?:a|the) [`'\"]?([\w.-]+)[`'\"]? (?:column|field)",
    re.IGNORECASE,
)
_KEY_ERROR = re.compile(r"^KeyError: ['\"]?([^'\"\n]{1,80})['\"]?")
# Column names of TRL's dataset formats and of the datasets people bring.
_COLUMN_NAMES = frozenset(
    [
        "text",
        "prompt",
        "prompts",
        "completion",
        "completions",
        "messages",
        "chosen",
        "rejected",
        "question",
        "answer",
        "answers",
        "instruction",
        "output",
        "input",
        "response",
        "conversations",
        "conversation",
        "input_ids",
        "labels",
        "content",
        "query",
        "solution",
        "target",
    ]
)
_DATA_FRAME = re.compile(r"prepare\.py|datasets/|/data/|_trainer\.py|data_utils|collat|tokenize|preprocess")
_NO_ROWS = re.compile(r"num_samples=0|num_samples should be a positive integer value, but got num_samples=0")
# transformers and TRL refuse a chat template without generation markers when only assistant tokens are trained.
_NO_MASK = re.compile(
    r"assistant_only_loss.{0,200}(?:generation|template)|return_assistant_tokens_mask"
    r"|not training-compatible.{0,80}generation",
    re.DOTALL,
)
# A script's own refusal: one line on stderr, no traceback, exit code 2 (`train.py: max_length needs ...`).
_REFUSAL = re.compile(r"^([\w-]+\.py): (?:error: )?(.{3,})$", re.MULTILINE)
_LISTED_COLUMNS = re.compile(r"(?:the columns are|has the columns) ([\w.\- ,]+?)(?:[;:]|$)")
_NO_COLUMN = re.compile(
    r"is not a column of the data|which column to use|has the columns .*needs|no row is left of \d+ with the columns"
)
_NO_ROW_FITS = re.compile(r"no row is left to train on: all \d+ prompts fill max_length")
_REFUSED_KEY = re.compile(r"^(?:unknown key )?([a-z]\w*_\w+|\w+(?=:| needs| has no value| leaves))\b")
_ARGUMENT = re.compile(
    r"unexpected keyword argument '(\w+)'|unrecognized arguments: --?(\w+)|not used by the \w+: \['(\w+)'"
    r"|Some keys are not used.{0,80}?\['(\w+)'|unknown key[s]?:? [`'\"]?(\w+)|argument --(\w+):"
)


def last_crash(log: str, *, column_names: frozenset[str] = frozenset()) -> Crash | None:
    """The crash that the log ends with, None when it shows none.

    `column_names` are further names known to be columns (the recipe's); a KeyError about one of them is about data.
    """
    traceback, rest = last_traceback(log)
    tail = rest[-6000:]
    text = traceback or tail
    exception, where = _exception(traceback), _where(traceback)
    if _OUT_OF_MEMORY.search(traceback) if traceback else _ran_out(tail):
        return Crash(
            Symptom.OOM, _memory_line(text, exception), where, phase=_phase(text), script_line=_script_line(traceback)
        )
    if not traceback and _OUT_OF_TIME.search(tail):
        return Crash(Symptom.JOB_TIMEOUT, _line_matching(_OUT_OF_TIME, tail), "")
    if traceback and _NO_ROWS.search(traceback):
        return Crash(Symptom.TRUNCATION, exception, where, subject="num_samples=0")
    if traceback and _NO_MASK.search(traceback):
        return Crash(Symptom.ASSISTANT_MASK_EMPTY, exception, where, subject="assistant_only_loss")
    named = _environment(traceback, tail, exception, where)
    if named is not None:
        return named
    if not traceback and (refusal := _refusal(tail)) is not None:
        return refusal
    column = _missing_column(exception, traceback, column_names) if traceback else _missing_column_line(tail)
    if column is not None:
        return Crash(Symptom.WRONG_COLUMNS, exception or _line_matching(_WRONG_COLUMNS, tail), where, subject=column)
    if traceback:
        return Crash(
            Symptom.SCRIPT_ERROR, exception, where, subject=_blamed_key(traceback), script_line=_script_line(traceback)
        )
    return None


def _environment(traceback: str, tail: str, exception: str, where: str) -> Crash | None:
    """A fault of the machine, the network or the libraries, in their words. Warnings earlier in the log do not count:
    without a traceback only its last lines are read."""
    text = traceback or "\n".join(tail.rstrip().split("\n")[-LAST_LINES:])
    found = signature_in(text)
    if found is None:
        return None
    signature, match = found
    subject = _first_group(signature.subject.search(text)) if signature.subject is not None else ""
    words = exception if exception and match[0][:60] in exception else _line_matching(signature.pattern, text)
    return Crash(signature.symptom, words, where, subject=subject, script_line=_script_line(traceback))


def _ran_out(tail: str) -> bool:
    """Without a traceback: an allocator's words, after which nothing was trained any more."""
    found = list(_OUT_OF_MEMORY.finditer(tail))
    return bool(found) and not went_on(tail[found[-1].start() :])


def _memory_line(text: str, exception: str) -> str:
    return exception if exception and _OUT_OF_MEMORY.search(exception) else _line_matching(_OUT_OF_MEMORY, text)


# What a message is about, as a key of the recipe. TRL 1.16 and transformers 5.23 say these.
_KEY_WORDS = (
    (
        "num_generations",
        re.compile(r"divisible by (?:the number of generations|num_generations)|at least 2 generations"),
    ),
    ("reward_weights", re.compile(r"Number of reward weights")),
    ("eval_strategy", re.compile(r"evaluation requires an eval_dataset")),
    ("save_strategy", re.compile(r"save and eval strategy to match|load_best_model_at_end")),
    ("max_length", re.compile(r"When packing is enabled, `max_length`|longer than the (?:specified )?maximum")),
    ("packing", re.compile(r"Packing is not supported")),
    ("init_from", re.compile(r"size mismatch for \S+: copying a param|does not appear to have a file named")),
    ("attn_implementation", re.compile(r"flash attention implementation|attn_implementation")),
    ("lora_target_modules", re.compile(r"PEFT adapter to `lm_head`")),
)


def _blamed_key(traceback: str) -> str:
    argument = _first_group(_ARGUMENT.search(traceback))
    return argument or next((key for key, words in _KEY_WORDS if words.search(traceback)), "")


def _refusal(tail: str) -> Crash | None:
    """The script's own last line, when it refused its recipe or its data in words."""
    matches = list(_REFUSAL.finditer(tail))
    if not matches or tail[matches[-1].end() :].strip():
        return None
    script, message = matches[-1].groups()
    words = message.strip()[:300]
    listed = _LISTED_COLUMNS.search(message)
    columns = tuple(name.strip() for name in listed[1].split(",") if name.strip()) if listed else ()
    key = re.match(r"(data_\w+_column)\b", message) or re.search(
        r"name (?:one of )?them (?:in|with) (data_\w+_column)", message
    )
    if _NO_MASK.search(message):
        return Crash(Symptom.ASSISTANT_MASK_EMPTY, words, script, subject="assistant_only_loss")
    if _NO_ROW_FITS.search(message):
        return Crash(Symptom.TRUNCATION, words, script, subject="max_length")
    if _NO_COLUMN.search(message):
        return Crash(Symptom.WRONG_COLUMNS, words, script, subject=key[1] if key else "", columns=columns)
    refused = _REFUSED_KEY.match(message)
    subject = _first_group(_ARGUMENT.search(message)) or (refused[1] if refused else "")
    return Crash(Symptom.SCRIPT_ERROR, words, script, subject=subject)


LAST_LINES = 30
"""Lines at the end of a log without a traceback that say how it ended."""
# The files of an experiment; libraries have a folder before their own train.py.
_OWN_FILE = re.compile(r"(?:^|/)(train\.py|rewards\.py|data/prepare\.py|prepare\.py)$")


def _script_line(traceback: str) -> tuple[str, int] | None:
    for line in reversed(traceback.split("\n")):
        match = _FRAME.match(line)
        if match and "site-packages" not in match[1] and (own := _OWN_FILE.search(match[1])):
            name = "data/prepare.py" if own[1] == "prepare.py" else own[1]
            return name, int(match[2])
    return None


def _exception(traceback: str) -> str:
    for line in traceback.split("\n")[1:]:
        match = _EXCEPTION.match(line)
        if match:
            return f"{match[1]}:{match[2]}".strip().rstrip(":")[:200]
    lines = [line.strip() for line in traceback.split("\n")[1:] if line and not line.startswith(" ")]
    return lines[0][:200] if lines else ""


def _where(traceback: str) -> str:
    frames = [match for line in traceback.split("\n") if (match := _FRAME.match(line))]
    if not frames:
        return ""
    path, line, function = frames[-1].groups()
    return f"{path.rsplit('/', 1)[-1]}:{line}" + (f" in {function}" if function else "")


def _phase(text: str) -> str:
    """Which part of training ran out of memory; what helps differs."""
    for phase, marks in (
        ("vllm", ("vllm/", "cache blocks", "desired GPU memory utilization")),
        ("logps", ("per_token_logps", "_get_per_token", "selective_log_softmax")),
        ("backward", ("backward(", "in backward")),
        ("step", ("optimizer.step", "in step", "_multi_tensor_adam", "exp_avg")),
        ("load", ("from_pretrained", "load_state_dict", "_load_pretrained_model")),
        ("forward", ("in forward", "compute_loss", "training_step")),
    ):
        if any(mark in text for mark in marks):
            return phase
    return ""


def _missing_column(exception: str, traceback: str, column_names: frozenset[str]) -> str | None:
    match = _KEY_ERROR.match(exception)
    if match and "Unexpected input keys" in match[1]:
        return ""
    if match and "environ" not in traceback[-600:]:
        named = match[1] in _COLUMN_NAMES or match[1] in column_names
        return match[1] if named or _DATA_FRAME.search(_where(traceback)) else None
    match = _WRONG_COLUMNS.search(exception) or _WRONG_COLUMNS.search(traceback.rsplit("\n  ", 1)[-1])
    return _first_group(match) if match else None


def _missing_column_line(tail: str) -> str | None:
    """The column that a command's one-line refusal names (no traceback): only the last lines count."""
    for line in reversed(tail.strip().split("\n")[-5:]):
        match = _WRONG_COLUMNS.search(line)
        if match:
            return _first_group(match)
    return None


def _line_matching(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    if match is None:
        return ""
    start = text.rfind("\n", 0, match.start()) + 1
    return text[start:].split("\n", 1)[0].strip()[:200]


def _first_group(match: re.Match[str] | None) -> str:
    return next((group for group in match.groups() if group), "") if match else ""
