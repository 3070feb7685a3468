"""Rules about what a job was not given: a gated repository, an allowance of requests, a loading script, a library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bot.diagnosis.observations import Observations
from bot.diagnosis.rules.ends import crashed_by, logged_step
from bot.diagnosis.rules.finding import RECIPE, Answer, Basis, Rule, finding, seen
from bot.domain.diagnosis import Severity, Symptom

# Keys whose value names a repository of the Hub.
_REPOSITORY_KEYS = (
    "init_from",
    "model_name_or_path",
    "teacher",
    "data_sources",
    "dataset_name",
    "train_file",
    "hub_model_id",
)


def named_in(recipe: Mapping[str, Any], text: str, *preferred: str) -> str:
    """The key of the recipe whose value occurs in `text`, the first of `preferred` otherwise."""
    for key in _REPOSITORY_KEYS:
        value = str(recipe.get(key) or "")
        if len(value) > 2 and value.split("@")[0] in text:
            return key
    return next((key for key in preferred if key in recipe), preferred[0])


def refused_access(observations: Observations) -> Answer:
    """401, 403 or a gate: the repository is there, and this token may not read it."""
    crash = crashed_by(observations, Symptom.AUTH)
    if crash is None:
        return None
    repository = crash.subject
    key = named_in(observations.recipe, f"{repository} {crash.exception}", "init_from", "data_sources")
    return finding(
        observations,
        Symptom.AUTH,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.92,
        evidence=[
            seen("log", logged_step(observations), crash.exception),
            seen("repository", None, repository or str(observations.recipe.get(key, "unknown"))),
        ],
        cause=f"The Hub refused {repository or 'the repository'}: {crash.exception}. Its terms must be accepted by the "
        "account whose token the job uses, or the token lacks the right to read it.",
        key=key,
        runner_up="a repository of another name: the Hub answers 401 for one that does not exist, too",
        refuted_by="the same token reading that repository from another machine",
    )


def rate_limit(observations: Observations) -> Answer:
    crash = crashed_by(observations, Symptom.RATE_LIMIT)
    if crash is None:
        return None
    return finding(
        observations,
        Symptom.RATE_LIMIT,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.93,
        evidence=[seen("log", logged_step(observations), crash.exception), seen("status", None, 429)],
        cause=f"The Hub answered 429, too many requests{f' for {crash.subject}' if crash.subject else ''}: "
        f"{crash.exception}. Fetch model and data once and read them from the cache.",
        key=named_in(observations.recipe, f"{crash.subject} {crash.exception}", "data_sources", "init_from"),
        runner_up="many jobs of one account at the same minute",
        refuted_by="the same refusal a quarter of an hour later with nothing else running",
    )


def dataset_script(observations: Observations) -> Answer:
    crash = crashed_by(observations, Symptom.DATASET_SCRIPT)
    if crash is None:
        return None
    return finding(
        observations,
        Symptom.DATASET_SCRIPT,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.97,
        evidence=[
            seen("log", logged_step(observations), crash.exception),
            seen("script", None, crash.subject or "unknown"),
        ],
        cause=f"The data's repository holds a loading script, which datasets 4 and later never run: {crash.exception}. "
        "Name its Parquet branch (refs/convert/parquet) or a copy in Parquet.",
        key=named_in(observations.recipe, crash.exception, "data_sources", "dataset_name"),
        runner_up="deps: a release of datasets below 4 still ran such scripts",
        refuted_by="a revision of that repository with Parquet files alone",
    )


def dependencies(observations: Observations) -> Answer:
    """A library that is missing, of another release, or built for another one."""
    crash = crashed_by(observations, Symptom.DEPS)
    if crash is None:
        return None
    attention = "flash" in crash.exception.lower() and "attn_implementation" in observations.recipe
    vllm = "vllm" in crash.exception.lower() and observations.recipe.get("use_vllm") is True
    key = "attn_implementation" if attention else "use_vllm" if vllm else None
    own = crash.script_line if key is None else None
    file, line = own if own is not None else ("train.py" if key is None else RECIPE, None)
    package = crash.subject.split(".")[0] if crash.subject else "a library"
    return finding(
        observations,
        Symptom.DEPS,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.9,
        evidence=[seen("log", logged_step(observations), crash.exception), seen("package", None, package)],
        cause=f"The environment does not hold what the script needs ({package}): {crash.exception}"
        f"{' at ' + crash.where if crash.where else ''}.",
        key=key,
        suggested="sdpa" if attention else False if vllm else None,
        file=file,
        line=line,
        runner_up="script_error: a name that this release of the library no longer has",
        refuted_by="the same import in the same environment, by hand, that succeeds",
    )


RULES = (
    Rule(
        Symptom.AUTH,
        refused_access,
        "huggingface_hub's and transformers' messages for 401, 403 and gates",
        preflight=True,
    ),
    Rule(Symptom.RATE_LIMIT, rate_limit, "huggingface_hub issue 3312: 1000 calls in five minutes"),
    Rule(
        Symptom.DATASET_SCRIPT,
        dataset_script,
        "datasets 4 runs none; lm-evaluation-harness issue 3171",
    ),
    Rule(Symptom.DEPS, dependencies, "ImportError, undefined symbols, FlashAttention's and vLLM's own messages"),
)
