"""Making a recorded run again on this machine: `postdoc reproduce`.

Everything is looked for before anything is paid for, the training set is built and compared before it is trained on,
and the jobs have the commands, the threads and the seeds that the first ones had.

Not covered: runs of several GPUs or machines, whose sums depend on how many share the work.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from bot.domain.data_source import AddressSource, HubSource, parse_source
from bot.domain.evaluation import Evaluation
from bot.domain.goal import slug
from bot.domain.metrics import metric_named
from bot.domain.recipe import earlier_run, run_name
from bot.domain.reproduction import (
    Difference,
    ReproductionReport,
    Trial,
    environment_differences,
    judged,
    not_rebuilt,
)
from bot.domain.scripts import builds_data
from bot.errors import PlatformError, UserError
from bot.evaluation.benchmark_file import Benchmark, read_benchmark_file
from bot.evaluation.benchmarks import evaluation_words, load_benchmark, write_job_files
from bot.evaluation.tasks import training_rows
from bot.loop import hub
from bot.loop.actions.specs import (
    BENCHMARK_ROWS,
    BENCHMARK_SOURCE,
    DATA_WORDS,
    jsonl,
    lines_without,
    sources_of,
    training_words,
    write_input,
)
from bot.loop.address import fetch_address
from bot.loop.models import fetched_model, local_model, model_problem, weights_digest
from bot.loop.recorded import Archive, RecordedRun, file_digest, read_run
from bot.loop.surroundings import check_environment, environment_here
from runners.job import Caps, Hardware, JobId, JobSpec, JobState, Runner
from runners.metrics import metric_rows
from runners.outputs import read_output

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Bench:
    """What a run is made again on."""

    runner: Runner
    model_folders: tuple[Path, ...]
    """Looked through in order for `<name>/config.json`; what the Hub has is put into the last."""
    folder: Path
    """For what jobs are given, and for data that is fetched."""
    base_model: Path | None = None
    """The base model's folder, where its name is not what finds it."""
    known_models: Mapping[str, Path] = field(default_factory=dict)
    """Models that lie elsewhere, by their names."""
    hub_token: str = ""
    notice: Callable[[str], None] = lambda words: None
    """Told what is known before it is paid for, line by line."""
    doing: Callable[[str, float], None] = lambda words, since: None
    """Told every moment what goes on, and since when (Unix seconds)."""
    jobs: list[JobId] = field(default_factory=list)
    """Every job that was started, the latest last."""


@dataclass(frozen=True, slots=True)
class Ready:
    """All that the run is made from, at hand."""

    recorded: RecordedRun
    scripts: Mapping[str, str]
    """Path in the job's folder -> file on this machine."""
    sources: Mapping[str, str]
    trusted: bool
    mounts: Mapping[str, Path]
    before: tuple[Ready, ...]
    """Earlier runs whose models it starts from or learns from; `names` has which."""
    names: Mapping[int, str]
    """Run -> the mount that its model is."""
    benchmark: Benchmark
    differences: tuple[Difference, ...]


def reproduce(folder: Path, bench: Bench) -> ReproductionReport:
    """Make the run in `folder` again and judge what comes out.

    Raises: UserError for what is missing or contradicts itself; PlatformError when a job fails.
    """
    ready = made_ready(read_run(folder), bench)
    for line in notices(ready):
        bench.notice(line)
    trained = _trained(ready, bench)
    if isinstance(trained, Difference):
        return not_rebuilt(trained, ready.differences)
    recorded = ready.recorded
    evaluated = _evaluated(ready, trained / "out" / "model", bench)
    losses = {
        int(row["step"]): float(row["loss"])
        for row in metric_rows(trained)
        if isinstance(row.get("loss"), (int, float)) and "step" in row
    }
    seen = json.loads(read_output(trained, "out/environment.json") or b"{}")
    differences = environment_differences(recorded.facts["environment"], environment_here(bench.runner) | seen)
    return judged(Trial(recorded.evaluation, recorded.losses), Trial(evaluated, losses), differences)


def notices(ready: Ready) -> list[str]:
    """What is known before anything is trained: which runs are made, and each difference of the surroundings."""
    recorded = ready.recorded
    lines = [f"{recorded.folder}: {recorded.values.get('method', 'sft')}, commit {recorded.facts['commit'][:12]}"]
    lines += [f"{run_name(each.recorded.n)} is trained first: this run goes on from its model" for each in ready.before]
    if not ready.differences:
        return [*lines, "no difference between the surroundings then and here is known"]
    return lines + [f"not the same here: {each.sentence()}" for each in ready.differences]


# --- What is looked for first -----------------------------------------------------------------------------------------


def made_ready(recorded: RecordedRun, bench: Bench) -> Ready:
    """Everything that the run needs, or the one thing that is missing. Raises: UserError."""
    archive, inputs = Archive(recorded), bench.folder / f"{recorded.n:02d}"
    scripts = {path: archive.script(path) for path in recorded.scripts}
    here = environment_here(bench.runner)
    check_environment(recorded, here, scripts)
    mounts, before, names = _models(recorded, bench)
    benchmark = _benchmark(recorded, archive, inputs)
    if benchmark.needs_judge:
        raise UserError(
            f"Benchmark `{benchmark.name}` is scored by a judge model, which this command does not ask: write "
            f"`/postdoc reproduce {recorded.n}` on the pull request."
        )
    return Ready(
        recorded,
        {path: write_input(inputs / path, content) for path, content in scripts.items()},
        _sources(recorded, archive, benchmark, inputs / "sources", bench),
        archive.is_shipped(),
        mounts,
        before,
        names,
        benchmark,
        environment_differences(recorded.facts["environment"], here),
    )


def _models(recorded: RecordedRun, bench: Bench) -> tuple[dict[str, Path], tuple[Ready, ...], dict[int, str]]:
    """The models that lie here already, and the earlier runs whose models have to be made again."""
    mounts, before, names = {"init": _base_model(recorded, bench)}, [], {}
    for key, mount in (("init_from", "init"), ("teacher", "teacher")):
        value = recorded.values.get(key)
        if (n := earlier_run(value)) is not None:
            if n >= recorded.n:
                raise UserError(f"The recipe of {recorded.folder} names {run_name(n)}, which is not an earlier run.")
            before.append(made_ready(read_run(recorded.sibling(n)), bench))
            names[n] = mount
        elif key == "teacher" and value is not None:
            name, _, revision = str(value).partition("@")
            mounts[mount] = _model(bench, name, revision or "main")
    return mounts, tuple(before), names


def _base_model(recorded: RecordedRun, bench: Bench) -> Path:
    name, wanted = str(recorded.facts["base_model"]), str(recorded.facts.get("base_weights") or "")
    path = bench.base_model or _model(bench, name, str(recorded.facts["base_revision"]))
    if wanted and (found := weights_digest(path)) != wanted:
        raise UserError(
            f"The base model `{name}` in {path} has other weights than the run started from ({found[:12]} here, "
            f"{wanted[:12]} then). Name a folder that holds revision {recorded.facts['base_revision']} with --model."
        )
    return path


def _model(bench: Bench, name: str, revision: str) -> Path:
    if name in bench.known_models:
        return bench.known_models[name]
    if local_model(bench.model_folders, name) is None and (
        problem := model_problem(bench.model_folders[-1:], name, revision)
    ):
        raise UserError(f"{problem} Name a folder that holds it with --model.")
    return fetched_model(bench.model_folders, name, revision)


def _benchmark(recorded: RecordedRun, archive: Archive, inputs: Path) -> Benchmark:
    """As it was pinned when the goal was read. Raises: UserError."""
    named = recorded.facts["benchmark"]
    pin = named.get("pin")
    if not pin:
        return load_benchmark(str(named.get("name")))
    place = inputs / "benchmark"
    file = place / PurePosixPath(pin["path"]).name
    beside = PurePosixPath(pin["items_path"]).relative_to(PurePosixPath(pin["path"]).parent)
    write_input(file, archive.source(pin["path"], pin["digest"]))
    write_input(place / beside, archive.source(pin["items_path"], pin["items_digest"]))
    return read_benchmark_file(str(pin["path"]).rpartition(".")[0], file)


def _sources(
    recorded: RecordedRun, archive: Archive, benchmark: Benchmark, folder: Path, bench: Bench
) -> dict[str, str]:
    """Path below the data job's inputs -> file on this machine, of all that the rows were built from."""
    fetched: dict[str, str] = {}
    for line in sources_of(recorded.recipe):
        if line != BENCHMARK_SOURCE:
            fetched |= _fetched(line, folder, bench)
    found = {}
    for source in recorded.facts["data"].get("sources") or ():
        path, wanted = str(source["path"]), str(source["sha256"])
        if path == BENCHMARK_SOURCE:
            if benchmark.task is None:
                raise UserError(f"The benchmark `{benchmark.name}` draws no training rows here, and the run had some.")
            rows = jsonl(training_rows(benchmark.task, BENCHMARK_ROWS, int(recorded.facts["seed"])))
            found[path] = write_input(folder / path, rows)
        elif path in fetched:
            found[path] = fetched[path]
        else:
            found[path] = write_input(folder / path, archive.source(path, wanted))
    return found


def _fetched(line: str, folder: Path, bench: Bench) -> dict[str, str]:
    """What a data set of the Hub or an address holds at its pin; nothing for a path of the repository."""
    source = parse_source(line)
    if isinstance(source, HubSource):
        place = folder / f"hub-{slug(source.repo)}"
        if not place.is_dir():
            asyncio.run(_fetch_hub(source, place, bench.hub_token))
        names = [name for name, _, _ in json.loads((place / "manifest.json").read_text(encoding="utf-8"))["files"]]
        return {f"hf/{source.repo}/{name}": str((place / name).resolve()) for name in names}
    if isinstance(source, AddressSource):
        # The address was allowed when the run was agreed to, and its digest is what makes it the same file.
        pinned = asyncio.run(fetch_address(source, folder / "https", allowed=lambda asked: None))
        name = source.url.rpartition("/")[2].replace("%", "_")
        return {f"https/{pinned.sha256[:12]}/{name}": str((folder / "https" / pinned.sha256).resolve())}
    return {}


async def _fetch_hub(source: HubSource, place: Path, token: str) -> None:
    await hub.fetch(await hub.resolve(source, token), place, token)


# --- What is done -----------------------------------------------------------------------------------------------------


def _trained(ready: Ready, bench: Bench) -> Path | Difference:
    """The folder of the training job; or what the training set was, when it did not come out the same."""
    recorded, mounts = ready.recorded, dict(ready.mounts)
    for each in ready.before:
        made = _trained(each, bench)
        if isinstance(made, Difference):
            return replace(made, what=f"{run_name(each.recorded.n)}, {made.what}")
        mounts[ready.names[each.recorded.n]] = made / "out" / "model"
    inputs = bench.folder / f"{recorded.n:02d}"
    recipe = {"recipe.yaml": write_input(inputs / "recipe.yaml", recorded.recipe.encode())}
    files = recipe | {path: file for path, file in ready.scripts.items() if builds_data(path)}
    files |= {f"inputs/{path}": file for path, file in ready.sources.items()}
    words = f"building the training set of {run_name(recorded.n)}"
    built = _run(ready, bench, "data", words, DATA_WORDS, files, outputs=("data",))
    now = file_digest(built / "data" / "train.jsonl")
    if now != recorded.rows_digest:
        return Difference("training data (SHA-256)", recorded.rows_digest[:12], now[:12])
    files = recipe | {path: file for path, file in ready.scripts.items() if not builds_data(path)}
    left_out = recorded.facts["data"]
    rows = lines_without(read_output(built, "data/train.jsonl"), set(left_out.get("dropped_rows", ())))
    files |= {"data/train.jsonl": write_input(inputs / "train.jsonl", rows)}
    validation = read_output(built, "data/validation.jsonl") if (built / "data" / "validation.jsonl").exists() else b""
    validation = lines_without(validation, set(left_out.get("dropped_validation_rows", ())))
    if validation:
        files["data/validation.jsonl"] = write_input(inputs / "validation.jsonl", validation)
    argv = ("{python}", *training_words(teacher="teacher" in mounts, validation=bool(validation)))
    return _run(ready, bench, "train", f"training {run_name(recorded.n)} again", argv, files, mounts)


def _evaluated(ready: Ready, model: Path, bench: Bench) -> Evaluation:
    recorded = ready.recorded
    inputs = bench.folder / f"{recorded.n:02d}" / "evaluation"
    split = str(recorded.evaluation.split)
    files = write_job_files(ready.benchmark, split, inputs, int(recorded.facts["seed"]))
    argv = evaluation_words(ready.benchmark, split, recorded.evaluation.model)
    words = f"evaluating {run_name(recorded.n)} again"
    # The evaluator ships with Postdoc, whoever wrote what it measures.
    shipped = replace(ready, trusted=True)
    folder = _run(shipped, bench, "evaluate", words, argv, files, {"model": model})
    return Evaluation.from_dict(json.loads(read_output(folder, "out/evaluation.json")))


def _run(
    ready: Ready, bench: Bench, role: str, words: str, argv: tuple[str, ...], files: Mapping[str, str],
    mounts: Mapping[str, Path] | None = None, outputs: tuple[str, ...] = ("out",),
) -> Path:  # fmt: skip
    """Run one job to its end; returns its working folder. Raises: PlatformError when it fails."""
    place = ready.recorded.facts["place"]
    threads = int(ready.recorded.facts["environment"].get("threads") or place.get("threads") or 1)
    gpus_wanted = 0 if role == "data" else min(1, int(place.get("gpus") or 0))
    job_id = JobId(f"reproduce-{role}-{ready.recorded.n:02d}-{secrets.token_hex(4)}")
    caps = Caps(memory_gib=float(place.get("memory_gib") or 8.0), cpu_threads=threads, pids=512, timeout_seconds=86_400)
    spec = JobSpec(
        job_id, argv, files=files, mounts={name: str(path.resolve()) for name, path in (mounts or {}).items()},
        caps=caps, trusted=ready.trusted, hardware=Hardware(gpus=gpus_wanted), outputs=outputs,
    )  # fmt: skip
    bench.jobs.append(job_id)
    bench.runner.launch(spec)
    since = time.time()
    try:
        while (status := bench.runner.status(job_id)) is not None and not status.state.ended:
            bench.doing(words, since)
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        bench.runner.cancel(job_id)
        raise
    folder = bench.runner.folder(job_id)
    if status is None or status.state is not JobState.SUCCEEDED:
        said = (bench.runner.log_tail(job_id, 5).strip().splitlines() or ["it wrote nothing"])[-1]
        why = status.failure or status.state if status is not None else "lost"
        raise PlatformError(f"{words} failed ({why}): {said} (folder: {folder})")
    return folder


def outcome_line(report: ReproductionReport) -> str:
    """The verdict in one line, for a terminal."""
    if report.comparison is None:
        return str(report.verdict)
    found = report.comparison
    change = metric_named(found.metric).said_change(found.difference, found.ci_low, found.ci_high)
    return f"{report.verdict}: the new value minus the old is {change}, n = {found.n}"
