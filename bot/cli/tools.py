"""Commands on files alone: evaluate a model, diagnose a run, scan data, compare two evaluations."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bot.cli.common import DONE, JsonFile, Seed, check_json, say, screen, write_json
from bot.errors import UserError

if TYPE_CHECKING:
    from bot.brain.giveaways import GiveawayJudge
    from bot.domain.evaluation import Evaluation
    from bot.evaluation.benchmark_file import Benchmark
    from bot.practice.terminal import Screen


def evaluate(
    model: Annotated[str, typer.Option("--model", help="A folder, or a Hub model: OWNER/NAME[@REVISION].")],
    benchmark: Annotated[
        str, typer.Option("--benchmark", help="Name of a benchmark (practice/reverse), or a benchmark's YAML file.")
    ],
    json_file: JsonFile = None,
    split: Annotated[str, typer.Option("--split", help="dev, or sealed.")] = "dev",
    seed: Seed = 0,
    memory_gib: Annotated[float, typer.Option("--memory-gib", min=0.5, help="Memory cap of the job.")] = 8.0,
    judge: Annotated[
        str, typer.Option("--judge", help="Model that scores answers by a rubric: OWNER/NAME, or an address.")
    ] = "",
) -> int:
    """Evaluate a model on a benchmark, in a sandboxed job.

    A benchmark's data come from the Hub with POSTDOC_HUB_TOKEN, a judge is asked with POSTDOC_JUDGE_TOKEN.
    """
    from bot.domain.evaluation import Evaluation
    from bot.domain.statistics import value_interval
    from bot.practice.narration import score_text

    check_json(json_file)
    found, seconds = _evaluated(model, benchmark, split, seed, memory_gib, judge, screen("-"))
    write_json(json_file, found)
    result = Evaluation.from_dict(found)
    low, high = value_interval(result)
    row = {"value": result.value, "ci_low": low, "ci_high": high, "n": result.n, "metric": result.metric}
    lines = [f"{score_text(row)} · {result.metric} of {result.model} on {result.benchmark}, {result.split} split"]
    lines += _beside(found, result)
    lines.append(
        f"standard error {result.measure.said_size(result.standard_error)} · harness {result.harness_digest[:12]}"
    )
    lines.append(f"in {seconds:.1f} s")
    say(lines, json_file)
    return DONE


def _beside(found: dict[str, Any], result: Evaluation) -> list[str]:
    """What is reported beside the value: strict and lenient, other metrics, with examples."""
    said = result.measure.said
    lines = []
    if result.strict is not None and result.lenient is not None:
        lines.append(f"strict {said(result.strict)} · lenient {said(result.lenient)}")
    others = [f"{name} {value:.3f}" for name, value in (found.get("metrics") or {}).items() if name != result.metric]
    if others:
        lines.append(" · ".join(others))
    if result.few_shot is not None:
        lines.append(f"with {result.few_shot['shots']} examples {said(float(result.few_shot['value']))}")
    return lines


def _evaluated(
    model: str, benchmark_name: str, split: str, seed: int, memory_gib: float, judge: str, screen: Screen
) -> tuple[dict[str, Any], float]:
    """What the evaluator wrote, and the seconds its job took.

    Raises: UserError, or PlatformError when the job fails.
    """
    import secrets
    import tempfile

    from bot.config import cache_folder
    from bot.domain.evaluation import Split
    from bot.domain.goal import slug
    from bot.errors import PlatformError
    from bot.evaluation.benchmarks import evaluation_words, items, write_job_files
    from bot.evaluation.judge import ask, judged
    from bot.practice.narration import Activity
    from runners.job import Caps, JobId, JobSpec, JobState
    from runners.local import LocalRunner
    from runners.outputs import read_output

    if split not in (Split.DEV, Split.SEALED):
        raise UserError(f"--split {split}: write dev or sealed.")
    chosen = benchmark_named(benchmark_name)
    if chosen.needs_judge != bool(judge):
        raise UserError(
            f"{benchmark_name} is scored by a judge model: name it, `--judge OWNER/NAME`."
            if chosen.needs_judge
            else f"--judge {judge}: {benchmark_name} needs no judge; leave it out."
        )
    path = _model_folder(model)
    environment = os.environ.get(f"POSTDOC_{chosen.environment.upper()}_ENVIRONMENT") if chosen.environment else None
    runner = LocalRunner(cache_folder() / "jobs")
    job_id = JobId(f"evaluate-{slug(chosen.name)}-{secrets.token_hex(4)}")
    with tempfile.TemporaryDirectory(prefix="postdoc-evaluate-") as inputs:
        argv = evaluation_words(chosen, split, model, environment=bool(environment))
        files = write_job_files(chosen, split, Path(inputs), seed, beside=split == Split.DEV)
        mounts = {"model": str(path)} | ({"environment": str(Path(environment).resolve())} if environment else {})
        caps = Caps(memory_gib=memory_gib, pids=512)
        runner.launch(JobSpec(job_id, argv, files=files, mounts=mounts, caps=caps, trusted=not chosen.runs_code))
    try:
        with screen:
            since = time.time()
            while (status := runner.status(job_id)) is not None and not status.state.ended:
                screen.show(Activity(f"evaluating {model} on {benchmark_name}", since=since))
                time.sleep(0.1)
    except KeyboardInterrupt:
        runner.cancel(job_id)
        raise
    if status is None or status.state is not JobState.SUCCEEDED:
        said = (runner.log_tail(job_id, 5).strip().splitlines() or ["it wrote nothing"])[-1]
        why = status.failure or status.state if status is not None else "lost"
        raise PlatformError(f"the evaluation failed ({why}): {said} (folder: {runner.folder(job_id)})")
    found: dict[str, Any] = json.loads(read_output(runner.folder(job_id), "out/evaluation.json"))
    if judge:
        found = judged(found, items(chosen, split, seed), ask(judge, os.environ.get("POSTDOC_JUDGE_TOKEN", "")), judge)
    runner.remove(job_id)
    return found, status.seconds or 0.0


def benchmark_named(name: str) -> Benchmark:
    """One that ships with Postdoc, by its name, or a team's own, by its file; with its items fetched from the Hub,
    where they lie there. Raises: UserError, PlatformError."""
    import asyncio

    from bot.config import cache_folder
    from bot.errors import PlatformError, TransientError
    from bot.loop.benchmark_data import with_data

    try:
        return asyncio.run(with_data(_benchmark(name), cache_folder(), os.environ.get("POSTDOC_HUB_TOKEN", "")))
    except TransientError as error:
        raise PlatformError(str(error)) from error


def _benchmark(name: str) -> Benchmark:
    """One that ships with Postdoc, by its name, or a team's own, by its file. Raises: UserError."""
    from bot.evaluation.benchmark_file import read_benchmark_file
    from bot.evaluation.benchmarks import load_benchmark

    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return load_benchmark(name)
    if not path.is_file():
        raise UserError(f"--benchmark {name}: there is no such file. Name a benchmark's YAML file, or a benchmark.")
    return read_benchmark_file(path.stem, path)


def _model_folder(model: str) -> Path:
    """Where the model lies: a folder, the practice base, or a Hub model fetched into the cache."""
    from bot.config import cache_folder
    from bot.domain.goal import slug
    from bot.loop.models import fetched_model, model_problem
    from bot.practice import tiny_base

    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"--model {model}: the folder holds no config.json, so it is no model.")
        return path.resolve()
    if model == tiny_base.NAME:
        if not tiny_base.is_built(tiny_base.cached_path()):
            raise UserError(f"{model} is not built yet. Build it with `python -m bot.practice.tiny_base`.")
        return tiny_base.cached_path()
    name, _, revision = model.partition("@")
    # Another revision of a model is another model: it lies in a folder of its own.
    folders = (cache_folder() / "models" / f"@{slug(revision)}",) if revision else (cache_folder() / "models",)
    if (problem := model_problem(folders, name, revision or "main")) is not None:
        raise UserError(problem)
    return fetched_model(folders, name, revision or "main")


def diagnose(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder: recipe.yaml, metrics.jsonl ...")],
    json_file: JsonFile = None,
) -> None:
    """Name what went wrong in a run, and on which line.

    Says what to set there instead, and what would prove the diagnosis wrong.
    """
    from bot.diagnosis import diagnose as diagnosis_of_folder
    from bot.domain.diagnosis import Symptom

    check_json(json_file)
    report = diagnosis_of_folder(folder)
    lines: list[str] = []
    for each in report.diagnoses:
        place = each.file + (f":{each.line}" if each.line else "") + (f" {each.key}" if each.key else "")
        lines.append(
            f"{str(each.symptom).replace('_', ' ')} ({each.severity}, {round(100 * each.confidence)} % sure) · {place}"
        )
        lines.append(f"  {each.cause}")
        if each.suggested is not None:
            lines.append(f"  try {each.key}: {each.suggested}")
        if each.runner_up:
            lines.append(f"  or {each.runner_up}")
        if each.refuted_by:
            lines.append(f"  wrong if {each.refuted_by}")
        if each.symptom is Symptom.UNKNOWN:
            lines += ["  looked for and not found:", *(f"    {line}" for line in report.ruled_out)]
    if report.healthy:
        lines.insert(0, "healthy: nothing but advice" if lines else "healthy: nothing was found")
    say(lines, json_file)
    write_json(json_file, report.as_dict())


def scan(
    train: Annotated[Path, typer.Option("--train", help="What is trained on: JSONL, Parquet or a folder of them.")],
    eval_: Annotated[Path, typer.Option("--eval", help="The evaluation items, in the same forms.")],
    json_file: JsonFile = None,
    embeddings: Annotated[
        str,
        typer.Option("--embeddings", help="Look for paraphrases too, by this embedding model: folder or OWNER/NAME."),
    ] = "",
    brain: Annotated[
        str,
        typer.Option("--brain", help="Ask PROVIDER:MODEL about each paraphrase found; its key is POSTDOC_BRAIN_KEY."),
    ] = "",
    most_usd: Annotated[float, typer.Option("--most-usd", min=0.0, help="That --brain may cost.")] = 1.0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that large data is divided between.")] = 2,
) -> None:
    """Look for evaluation items in training data."""
    from bot.data.rows import read_items, read_rows
    from bot.data.scan import scan_files

    check_json(json_file)
    if brain and not embeddings:
        raise UserError("--brain judges what --embeddings finds: name an embedding model, or leave --brain out.")
    judge = _giveaway_judge(brain, most_usd) if brain else None
    report = scan_files(train, eval_, workers=workers)
    lines = []
    if embeddings:
        from bot.data.paraphrases import ModelEmbedder, find_paraphrases

        with ModelEmbedder(embeddings) as embed:
            found = find_paraphrases(read_rows(train), read_items(eval_), embed, judge=judge)
        report = report.with_matches(found.matches)
        by = f"said {brain}, for {judge.usd:.4f} USD" if judge is not None else "by their cosine alone"
        lines.append(f"{len(found.matches)} of {found.pairs} near pairs are paraphrases, {by}")
    say([report.summary(), *lines], json_file)
    write_json(json_file, report.as_dict())


def _giveaway_judge(brain: str, most_usd: float) -> GiveawayJudge:
    """Raises: SettingsError."""
    from bot.brain.giveaways import GiveawayJudge
    from bot.brain.model.choice import BrainSettings, model_of

    key, url, effort, price = (
        os.environ.get(f"POSTDOC_BRAIN_{name}", "") for name in ("KEY", "URL", "EFFORT", "PRICE")
    )
    return GiveawayJudge(model_of(BrainSettings(brain, key, url, effort, price)), most_usd)


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="An evaluation, or a folder with one for each seed.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one of the same items, or a folder of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say whether evaluation B is better than A."""
    from bot.domain.metrics import Counting, metric_named
    from bot.evaluation.compare import compare_files

    json_file = "-" if as_json else None
    found = compare_files(a, b)
    measure = metric_named(found.metric)
    sure = "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.2g}"
    change = measure.said_change(found.difference, found.ci_low, found.ci_high)
    change = f"{change[:-1]}, n = {found.n}, {sure})"
    right = "right" if measure.counting is Counting.RIGHT else "better"
    lines = [
        f"{found.verdict}: B minus A is {change}",
        f"only A {right} on {found.discordant[0]} items, only B {right} on {found.discordant[1]}",
        f"the smallest difference that {found.n} items would show is {measure.said_size(found.minimum_detectable)}"
        + (f"; to tell this one takes about {found.n_needed} items" if found.n_needed else ""),
    ]
    if found.seeds != (1, 1):
        lines.append(f"pooled over {found.seeds[0]} and {found.seeds[1]} seeds, with the variance between them")
    say(lines, json_file)
    write_json(json_file, found.as_dict())


COMMANDS = (
    evaluate,
    diagnose,
    scan,
    compare,
)
