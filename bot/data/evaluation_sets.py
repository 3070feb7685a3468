"""Data sets of the Hub that are benchmarks: what of them may never be trained on, whatever their splits are called.

Which split a benchmark is scored on is read from lm-evaluation-harness's task files
(https://github.com/EleutherAI/lm-evaluation-harness/tree/main/lm_eval/tasks, `dataset_path` and `test_split`), for the
others from the data set's own page. A split called `train` can be the test: GPQA, IFEval, AIME and BFCL have no other.

Not covered: benchmarks that are not listed, and copies under names of their own; the scan of the rows looks for those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HARNESS = "https://github.com/EleutherAI/lm-evaluation-harness/tree/main/lm_eval/tasks/"
_HUB = "https://huggingface.co/datasets/"


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    name: str
    ids: tuple[str, ...]
    """`owner/name`, in lower case. The first is the benchmark's own, the others are copies and parts of it."""
    names: tuple[str, ...]
    """What a copy under any owner is called, where that is no everyday word; in lower case."""
    source: str
    train: str = ""
    """The split or configuration that is meant for training; empty: there is none."""
    misnamed: bool = False
    """Whether the items that are scored stand in a split called `train`."""


def _set(name: str, ids: str, names: str, source: str, *, train: str = "", misnamed: bool = False) -> EvaluationSet:
    return EvaluationSet(name, tuple(ids.split()), tuple(names.split()), source, train, misnamed)


EVALUATION_SETS = (
    _set("GPQA", "idavidrein/gpqa hendrydong/gpqa_diamond hendrydong/gpqa_main",
         "gpqa gpqa_diamond gpqa-diamond gpqa_main gpqa_extended", f"{_HARNESS}gpqa", misnamed=True),
    _set("IFEval", "google/ifeval huggingfaceh4/ifeval", "ifeval", f"{_HARNESS}ifeval", misnamed=True),
    _set("AIME", "huggingfaceh4/aime_2024 maxwell-jia/aime_2024 ai-mo/aimo-validation-aime math-ai/aime24 "
         "math-ai/aime25 opencompass/aime2025 yentinglin/aime_2025",
         "aime_2024 aime_2025 aime24 aime25 aime2024 aime2025",
         f"{_HARNESS}aime", misnamed=True),
    _set("AMC", "ai-mo/aimo-validation-amc", "aimo-validation-amc", f"{_HUB}AI-MO/aimo-validation-amc", misnamed=True),
    _set("BFCL", "gorilla-llm/berkeley-function-calling-leaderboard", "berkeley-function-calling-leaderboard bfcl",
         f"{_HUB}gorilla-llm/Berkeley-Function-Calling-Leaderboard", misnamed=True),
    _set("MT-Bench", "huggingfaceh4/mt_bench_prompts lmsys/mt_bench_human_judgments",
         "mt_bench_prompts mt_bench mt-bench",
         f"{_HUB}HuggingFaceH4/mt_bench_prompts", misnamed=True),
    _set("OlympiadBench", "hothan/olympiadbench", "olympiadbench", f"{_HUB}Hothan/OlympiadBench", misnamed=True),
    _set("HumanEval", "openai/openai_humaneval evalplus/humanevalplus loubnabnl/humaneval_infilling "
         "nuprl/multipl-e bigcode/humanevalpack", "openai_humaneval humaneval humanevalplus humaneval-x humanevalpack",
         f"{_HARNESS}humaneval"),
    _set("MBPP+", "evalplus/mbppplus", "mbppplus", f"{_HARNESS}mbpp"),
    _set("MATH-500", "huggingfaceh4/math-500 math-ai/math500 di-zhang-fdu/math500", "math-500 math500",
         f"{_HARNESS}hendrycks_math"),
    _set("MMLU-Pro", "tiger-lab/mmlu-pro li-lab/mmlu-prox li-lab/mmlu-prox-lite", "mmlu-pro mmlu_pro",
         f"{_HARNESS}mmlu_pro"),
    _set("TruthfulQA", "truthfulqa/truthful_qa eleutherai/truthful_qa_mc", "truthful_qa truthfulqa",
         f"{_HARNESS}truthfulqa"),
    _set("BIG-Bench Hard", "saylortwift/bbh lukaemon/bbh maveriq/bigbenchhard", "bbh bigbenchhard", f"{_HARNESS}bbh"),
    # Its split `train` holds eight examples for prompts.
    _set("MGSM", "juletxara/mgsm", "mgsm", f"{_HARNESS}mgsm", misnamed=True),
    _set("GSM8K-Platinum", "madrylab/gsm8k-platinum", "gsm8k-platinum", f"{_HARNESS}gsm8k_platinum"),
    _set("HealthBench", "openai/healthbench", "healthbench", f"{_HUB}openai/healthbench"),
    _set("Humanity's Last Exam", "cais/hle", "hle", f"{_HUB}cais/hle"),
    _set("LiveCodeBench", "livecodebench/code_generation_lite livecodebench/code_generation", "livecodebench",
         f"{_HUB}livecodebench/code_generation_lite"),
    _set("BigCodeBench", "bigcode/bigcodebench", "bigcodebench", f"{_HUB}bigcode/bigcodebench"),
    _set("SWE-bench Verified",
         "princeton-nlp/swe-bench_verified princeton-nlp/swe-bench_lite swe-bench/swe-bench_verified",
         "swe-bench_verified swe-bench_lite", f"{_HUB}princeton-nlp/SWE-bench_Verified"),
    _set("SimpleQA", "basicv8vc/simpleqa", "simpleqa", f"{_HUB}basicv8vc/SimpleQA"),
    _set("GAIA", "gaia-benchmark/gaia", "", f"{_HUB}gaia-benchmark/GAIA"),
    _set("AlpacaEval", "tatsu-lab/alpaca_eval", "alpaca_eval", f"{_HUB}tatsu-lab/alpaca_eval"),
    _set("MMLU", "cais/mmlu hails/mmlu_no_train lukaemon/mmlu", "mmlu", f"{_HARNESS}mmlu", train="auxiliary_train"),
    _set("GSM8K", "openai/gsm8k", "gsm8k", f"{_HARNESS}gsm8k", train="train"),
    _set("MATH", "eleutherai/hendrycks_math hendrycks/competition_math lighteval/math",
         "competition_math hendrycks_math",
         f"{_HARNESS}minerva_math", train="train"),
    _set("MBPP", "google-research-datasets/mbpp", "mbpp", f"{_HARNESS}mbpp", train="train"),
    _set("ARC", "allenai/ai2_arc", "ai2_arc", f"{_HARNESS}arc", train="train"),
    _set("HellaSwag", "rowan/hellaswag", "hellaswag", f"{_HARNESS}hellaswag", train="train"),
    _set("WinoGrande", "allenai/winogrande", "winogrande", f"{_HARNESS}winogrande", train="train"),
)  # fmt: skip

_BY_ID = {name: each for each in EVALUATION_SETS for name in each.ids}
_BY_NAME = {name: each for each in EVALUATION_SETS for name in each.names}
_SCORED = re.compile(r"(?:^|[/_.-])(?:test|validation|valid|val|dev|eval|evaluation)(?:[/_.-]|$)", re.IGNORECASE)


def evaluation_set(repo: str) -> EvaluationSet | None:
    """The benchmark that a data set of the Hub is, or is a copy of by its name: `Idavidrein/gpqa`, `somebody/GPQA`."""
    repo = repo.lower()
    return _BY_ID.get(repo) or _BY_NAME.get(repo.rpartition("/")[2])


def training_refusal(repo: str, path: str = "") -> str | None:
    """Why `path` of a data set (all that it calls training rows where that is empty) may not be trained on, a sentence
    that says what to write instead; None when it may."""
    found = evaluation_set(repo)
    if found is None:
        return None
    if not found.train:
        split = ", and its split called `train` holds the very items that are scored" if found.misnamed else ""
        return (
            f"`{repo}` is the benchmark {found.name}{split} ({found.source}). It has no part for training: "
            "name other data."
        )
    if path and _SCORED.search(path) and found.train not in path:
        return (
            f"`{path}` of `{repo}` holds items that the benchmark {found.name} is scored on ({found.source}). "
            f"Name its split `{found.train}` instead."
        )
    if not path and found.train != "train":
        return (
            f"`{repo}` is the benchmark {found.name} ({found.source}), and only its `{found.train}` is meant for "
            f"training: name the path of that part."
        )
    return None


def showing_refusal(repo: str, config: str = "", split: str = "") -> str | None:
    """Why the rows of a split are not shown to whoever writes training data, a sentence; None when they may be. Without
    `split` it is about the part that is meant for training."""
    found = evaluation_set(repo)
    if found is None:
        return None
    if (found.train and found.train in (config, split)) or (found.train == "train" and not split):
        return None
    part = f"only its `{found.train}` is for training" if found.train else "it has no part for training"
    return f"`{repo}` is the benchmark {found.name} ({found.source}), and {part}."
