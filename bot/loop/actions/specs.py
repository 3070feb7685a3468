"""What each job is given, and nothing more: its files, its models, its command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from bot.domain.ablation import Ablation, Arm
from bot.domain.experiment import BASELINE, Experiment, JobRole, Run
from bot.domain.goal import digest_of, slug
from bot.domain.recipe import earlier_run, run_name
from bot.domain.scripts import PREPARE, TRAIN, builds_data
from bot.errors import UserError
from bot.evaluation.benchmarks import evaluation_words, write_job_files
from bot.evaluation.tasks import training_rows
from bot.loop.actions.machines import LIGHT_GIB, data_machine, flavors_of, machine_without_gpu
from bot.loop.actions.scripts import script_of
from bot.loop.models import fetched_model, hub_origin
from bot.loop.own_benchmark import benchmark_of
from bot.loop.sources import source_files
from bot.loop.spending import data_key
from bot.loop.world import TEMPLATES, World
from runners.hardware.estimate import MemoryEstimate, memory_of
from runners.hardware.shape import shape_in
from runners.hardware.training import training_of
from runners.job import Caps, Hardware, JobId, JobSpec
from runners.launching import CONFIG_FILE, SCRIPT_FILE, launch_plan
from runners.outputs import read_output

BENCHMARK_SOURCE = "benchmark/train.jsonl"
"""The `data_sources` name of the benchmark's own training rows; no repository path can be it, `benchmark/` is ours."""
KEPT_RESULTS = "evaluations"
"""Folder of a goal's evaluations, by job, where the data folder may not last."""
CHECKPOINTS, LATEST = "out", "latest"
"""Where a training script makes its `checkpoint-N` folders, and the file there that names the newest whole one."""
EARLIER_RUN_KEYS = ("init_from", "teacher")
"""Keys of a recipe that may name an earlier run of the goal, `runs/02`."""
SMOKE = ("--smoke",)
"""What makes a training script take two steps on a few rows."""
VALIDATION = "data/validation.jsonl"
WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx"})
"""Endings of files that an audit does without."""
CONFIGURATION = "init"
"""Where a job finds the rest of a model's files."""
BENCHMARK_ROWS = 3000
"""Training rows drawn from a benchmark that makes its own."""


DATA_WORDS = ("{python}", PREPARE, "--config", "recipe.yaml", "--inputs", "inputs", "--output", "data")
"""The command that builds a training set."""


def training_words(*, teacher: bool, validation: bool, init: str = "{mount:init}") -> tuple[str, ...]:
    """The command that trains, without what starts it."""
    words = (TRAIN, "--config", "recipe.yaml", "--init_from", init)
    taught = ("--teacher", "{mount:teacher}") if teacher else ()
    rows = ("--train_file", "data/train.jsonl", "--output_dir", "out")
    return words + taught + rows + (("--validation_file", VALIDATION) if validation else ())


def kept_name(job_id: str, path: str) -> str:
    """Under which name the result that a job wrote to `path` is kept for its goal."""
    beside = "" if path.endswith("/evaluation.json") else f"-{PurePosixPath(path).stem}"
    return f"{KEPT_RESULTS}/{job_id}{beside}.json"


async def spec_of(world: World, x: Experiment, role: JobRole, run: int, job_id: JobId) -> JobSpec:
    assert x.goal is not None
    match role:
        case JobRole.DATA:
            return await _data_spec(world, x, job_id)
        case JobRole.BASELINE:
            base = await base_model(world, x)
            return await _evaluation_spec(world, x, job_id, base, "dev", x.goal.base_model, beside=True)
        case JobRole.EVALUATE:
            return await _evaluation_spec(
                world, x, job_id, trained_model(world, x, run), "dev", f"{x.folder}/runs/{run:02d}"
            )
        case JobRole.CONFIRM if run == BASELINE:
            return await _evaluation_spec(world, x, job_id, await base_model(world, x), "sealed", x.goal.base_model)
        case JobRole.CONFIRM:
            return await _evaluation_spec(
                world, x, job_id, trained_model(world, x, run), "sealed", f"{x.folder}/runs/{run:02d}"
            )
        case JobRole.TRAIN:
            return await _training_spec(world, x, job_id, Trained.of_run(x.runs[run - 1]), ())
        case JobRole.AUDIT:
            return await _audit_spec(world, x, job_id, Trained.of_run(x.runs[run - 1]))
        case JobRole.SMOKE:
            key = data_key(x.recipe, x.recipe_digests)
            return await _training_spec(world, x, job_id, Trained(x.recipe, x.recipe_digests, x.head_sha, key), SMOKE)
        case JobRole.ABLATE:
            return await _training_spec(world, x, job_id, Trained.of_arm(*arm_of(x, run)), ())
        case JobRole.WEIGH:
            model = finished(world, x, JobRole.ABLATE, run) / "out" / "model"
            return await _evaluation_spec(world, x, job_id, model, "dev", f"{x.folder}/ablation arm {run}")
        case JobRole.REBUILD:
            return await _data_spec(world, _as_at(x, reproduced_run(x, run)), job_id)
        case JobRole.RETRAIN:
            return await _retraining_spec(world, x, job_id, run)
        case JobRole.REASSESS:
            again = reproduced_run(x, run)
            model = finished(world, x, JobRole.RETRAIN, run) / "out" / "model"
            return await _evaluation_spec(world, x, job_id, model, "dev", f"{x.folder}/runs/{again.n:02d}")
        case JobRole.PROBE:
            remedy = x.runs[run - 1].remedy
            assert remedy is not None
            rates = ",".join(f"{rate:g}" for rate in remedy["rates"])
            probed = Trained.of_run(x.runs[run - 1])
            return await _training_spec(world, x, job_id, probed, ("--learning_rate_probe", rates))


async def light_machine(world: World, x: Experiment, role: JobRole, run: int) -> Hardware | None:
    """The machine of a job that neither trains a model nor asks one; None for any other job."""
    match role:
        case JobRole.AUDIT:
            return await machine_without_gpu(world)
        case JobRole.DATA:
            return await data_machine(world, x)
        case JobRole.REBUILD:
            return await data_machine(world, _as_at(x, reproduced_run(x, run)))
    return None


async def _data_spec(world: World, x: Experiment, job_id: JobId) -> JobSpec:
    inputs = goal_folder(world, x) / "inputs" / data_key(x.recipe, x.recipe_digests)
    files = {
        path: write_input(inputs / path, await script_of(world, x, path, wanted, x.head_sha))
        for path, wanted in x.recipe_digests.items()
        if builds_data(path)
    }
    files["recipe.yaml"] = write_input(inputs / "recipe.yaml", x.recipe.encode())
    for source in sources_of(x.recipe):
        for path, file in (await _source_files(world, x, source, inputs / "sources")).items():
            files[f"inputs/{path}"] = file
    caps = _caps(world, memory_gib=2.0)
    trusted = _trusted(x, x.recipe_digests)
    machine = await data_machine(world, x)
    return JobSpec(job_id, DATA_WORDS, files=files, caps=caps, trusted=trusted, hardware=machine, outputs=("data",))


class Trained(NamedTuple):
    """What a training job is made from: a run of the goal, or an arm of an ablation."""

    recipe: str
    digests: Mapping[str, str]
    head_sha: str
    data_key: str
    data_job: str = ""
    """The job that built the rows; empty: the one that the journal knows by `data_key`."""

    @classmethod
    def of_run(cls, run: Run, data_job: str = "") -> Trained:
        return cls(run.recipe, run.digests, run.head_sha, data_key(run.recipe, run.digests), data_job)

    @classmethod
    def of_arm(cls, ablation: Ablation, arm: Arm) -> Trained:
        return cls(arm.recipe, ablation.digests, ablation.head_sha, ablation.data_key)


def arm_of(x: Experiment, n: int) -> tuple[Ablation, Arm]:
    """The arm with this number among all arms of the goal."""
    return next((ablation, arm) for ablation in x.ablations for arm in ablation.arms if arm.n == n)


def reproduced_run(x: Experiment, n: int) -> Run:
    """The run that the goal's reproduction `n` makes again."""
    return x.runs[next(each.run for each in x.reproductions if each.n == n) - 1]


def _as_at(x: Experiment, run: Run) -> Experiment:
    """The experiment with what stood at the commit of `run` at its head."""
    return replace(x, recipe=run.recipe, recipe_digests=run.digests, head_sha=run.head_sha)


async def _retraining_spec(world: World, x: Experiment, job_id: JobId, n: int) -> JobSpec:
    """The run's training once more, on the rows that were built again, with as many threads as it had: sums of floats
    depend on how they are divided."""
    run, built = reproduced_run(x, n), x.job_for(JobRole.REBUILD, n)
    assert built is not None
    spec = await _training_spec(world, x, job_id, Trained.of_run(run, built.job_id), ())
    first = x.job_for(JobRole.TRAIN, run.n)
    threads = first.place.get("threads") if first is not None else None
    return replace(spec, caps=replace(spec.caps, cpu_threads=threads)) if threads else spec


async def _training_spec(
    world: World, x: Experiment, job_id: JobId, trained: Trained, extra: tuple[str, ...]
) -> JobSpec:
    recipe, digests = trained.recipe, trained.digests
    inputs = goal_folder(world, x) / "inputs" / job_id
    files = await _training_files(world, x, trained, inputs)
    mounts = {"init": await _model_named(world, x, recipe, "init_from") or await base_model(world, x)}
    start, launcher = await _launcher(world, recipe, mounts["init"], inputs)
    files |= launcher
    if (teacher := await _model_named(world, x, recipe, "teacher")) is not None:
        mounts["teacher"] = teacher
    return JobSpec(
        job_id,
        (*start, *training_words(teacher=teacher is not None, validation=VALIDATION in files), *extra),
        files=files,
        mounts={name: str(path) for name, path in mounts.items()},
        origins=origins_of(world, x, mounts),
        environment=world.environment,
        caps=_caps(world, memory_gib=world.train_memory_gib),
        trusted=_trusted(x, digests),
        hardware=world.hardware,
        checkpoints=CHECKPOINTS,
    )


async def _training_files(world: World, x: Experiment, trained: Trained, inputs: Path) -> dict[str, str]:
    """The script with what it imports, the recipe and the rows that passed their gates."""
    checked = x.data[trained.data_key]
    built = world.runner.folder(JobId(trained.data_job or checked["job_id"]))
    files = {
        path: write_input(inputs / path, await script_of(world, x, path, wanted, trained.head_sha))
        for path, wanted in trained.digests.items()
        if not builds_data(path)
    }
    files["recipe.yaml"] = write_input(inputs / "recipe.yaml", trained.recipe.encode())
    # Read here, not copied by path: what a script wrote may be a link to something it could not read itself.
    for path, dropped in (("data/train.jsonl", "dropped_rows"), (VALIDATION, "dropped_validation_rows")):
        rows = lines_without(read_output(built, path), set(checked.get(dropped, ())))
        if rows or path != VALIDATION:
            files[path] = write_input(inputs / PurePosixPath(path).name, rows)
    return files


async def _audit_spec(world: World, x: Experiment, job_id: JobId, trained: Trained) -> JobSpec:
    """The training's script with `--audit_only`, and of the model what is not its weights: no machine for training."""
    files = await _training_files(world, x, trained, goal_folder(world, x) / "inputs" / job_id)
    model = await base_model(world, x)
    beside = (path for path in sorted(model.iterdir()) if path.is_file() and path.suffix not in WEIGHTS)
    files |= {f"{CONFIGURATION}/{path.name}": str(path.resolve()) for path in beside}
    words = training_words(teacher=False, validation=VALIDATION in files, init=CONFIGURATION)
    caps = _caps(world, memory_gib=min(LIGHT_GIB, world.train_memory_gib))
    return JobSpec(
        job_id, ("{python}", *words, "--audit_only"), files=files, environment=world.environment, caps=caps,
        trusted=_trusted(x, trained.digests), hardware=await machine_without_gpu(world), outputs=("out",),
    )  # fmt: skip


async def _model_named(world: World, x: Experiment, recipe: str, key: str) -> Path | None:
    """The folder of the model that the recipe's `key` names: an earlier run's, or for `teacher` a model of the Hub or
    of the server's folders, `owner/name@revision`. None where the line is absent, or names the goal's base model.

    Raises: UserError when there is no such model.
    """
    assert x.goal is not None
    value = (yaml.safe_load(recipe) or {}).get(key)
    if value is None or (key == "init_from" and str(value) == x.goal.base_model):
        return None
    if (n := earlier_run(value)) is not None:
        if (problem := earlier_run_problem(x, key, n)) is not None:
            raise UserError(problem)
        return trained_model(world, x, n)
    if key == "init_from":
        return None  # the recipe of a goal whose base model has been renamed since: the goal's word counts
    return await _fetched(world, str(value))


async def teacher_model(world: World, x: Experiment) -> tuple[str, Path] | None:
    """(name, folder) of the model that the head's recipe names as its teacher; None where it names none, or a run of
    this goal. Raises: UserError when there is no such model."""
    value = (yaml.safe_load(x.recipe) or {}).get("teacher")
    if value is None or earlier_run(value) is not None:
        return None
    return str(value), await _fetched(world, str(value))


async def _fetched(world: World, named: str) -> Path:
    """The folder of the model `owner/name@revision`."""
    name, _, revision = named.partition("@")
    return await asyncio.to_thread(fetched_model, world.model_folders, name, revision or "main")


def earlier_run_problem(x: Experiment, key: str, n: int) -> str | None:
    """Why `key: runs/NN` cannot be trained from, a sentence; None when that run left a model."""
    job = x.job_for(JobRole.TRAIN, n) if n <= len(x.runs) else None
    if job is not None and job.succeeded:
        return None
    left = [run.n for run in x.runs if (its := x.job_for(JobRole.TRAIN, run.n)) is not None and its.succeeded]
    instead = f"write one of {', '.join(run_name(each) for each in left)}" if left else "remove the line"
    return f"`{key}: {run_name(n)}` names a run that left no model: {instead}."


def earlier_run_problems(x: Experiment, values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the earlier runs that a recipe names."""
    named = ((key, earlier_run(values.get(key))) for key in EARLIER_RUN_KEYS)
    found = (earlier_run_problem(x, key, n) for key, n in named if n is not None)
    return [problem for problem in found if problem is not None]


async def _launcher(world: World, recipe: str, init: Path, inputs: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """What starts the script on all GPUs that a job is given, and the files that it needs there.

    Raises: TransientError when the runner cannot say what GPUs it has.
    """
    wanted = world.hardware
    if wanted.gpus <= 1 and wanted.nodes == 1:
        return ("{python}",), {}
    size = await _gpu_memory_gib(world) if wanted.gpus else 0.0
    plan = launch_plan(_estimate(recipe, init, size), wanted.gpus, size, wanted.nodes)
    script = (TEMPLATES / SCRIPT_FILE).read_bytes()
    return plan.prefix, {
        SCRIPT_FILE: write_input(inputs / SCRIPT_FILE, script),
        CONFIG_FILE: write_input(inputs / CONFIG_FILE, plan.config.encode()),
    }


def _estimate(recipe: str, init: Path, gpu_memory_gib: float) -> MemoryEstimate | None:
    """None where the model or the recipe says too little; the script itself then has the word."""
    try:
        training = training_of(yaml.safe_load(recipe) or {}, gpu=True)
        return memory_of(shape_in(init), training, gpu=True, device_gib=gpu_memory_gib)
    except UserError:
        return None


async def _gpu_memory_gib(world: World) -> float:
    """Of one GPU; 0 where the backend does not say."""
    wanted = world.hardware.flavor
    return next((flavor.gpu_memory_gib for flavor in await flavors_of(world) if wanted in ("", flavor.name)), 0.0)


async def _evaluation_spec(
    world: World, x: Experiment, job_id: JobId, model: Path, split: str, name: str, *, beside: bool = False
) -> JobSpec:
    inputs = goal_folder(world, x) / "inputs" / job_id
    benchmark = await benchmark_of(world, x)
    files = await asyncio.to_thread(write_job_files, benchmark, split, inputs, _seed(x), beside=beside)
    # A folder of this machine is of use on this machine alone; elsewhere the jobs' image has what a benchmark needs.
    here = world.engine_environments if world.runner.name == "local" else {}
    environment = here.get(benchmark.environment or "")
    caps = _caps(world, memory_gib=world.train_memory_gib)
    return JobSpec(
        job_id,
        evaluation_words(benchmark, split, name, environment=environment is not None),
        files=files,
        mounts={"model": str(model)} | ({"environment": str(environment)} if environment is not None else {}),
        origins=origins_of(world, x, {"model": model}),
        environment=world.environment,
        caps=caps,
        trusted=not benchmark.runs_code,
        # One process asks the model; only training is divided.
        hardware=replace(world.hardware, gpus=min(1, world.hardware.gpus), nodes=1),
    )


def _caps(world: World, *, memory_gib: float) -> Caps:
    """Everything but the time-out, which is set from what the job was granted."""
    return Caps(memory_gib=memory_gib, cpu_threads=world.cpu_threads, pids=512)


def _trusted(x: Experiment, digests: Mapping[str, str]) -> bool:
    """True when every script is byte for byte the shipped one."""
    return bool(digests) and digests == x.shipped_digests


def _seed(x: Experiment) -> int:
    assert x.goal is not None
    return x.goal.seed


def sources_of(recipe: str) -> list[str]:
    """What `data_sources` names: paths, data sets of the Hub, addresses. Whether one may be read is `sources`' part."""
    value = (yaml.safe_load(recipe) or {}).get("data_sources") or ""
    parts = [str(part).strip() for part in (value if isinstance(value, list) else str(value).split(","))]
    for part in parts:
        path = PurePosixPath(part)
        if path.is_absolute() or ".." in path.parts or "\\" in part:
            raise UserError(f"`data_sources` names `{part}`; write a path inside this repository, `data/train.jsonl`.")
    return [part for part in parts if part]


async def _source_files(world: World, x: Experiment, source: str, folder: Path) -> Mapping[str, str]:
    """Path among the data job's inputs -> file on this machine."""
    if source != BENCHMARK_SOURCE:
        return await source_files(world, x, source, folder)
    task = (await benchmark_of(world, x)).task
    if task is None:
        raise UserError(f"`data_sources` names `{source}`, but this benchmark makes no training rows. Name a file.")
    return {source: write_input(folder / source, jsonl(training_rows(task, BENCHMARK_ROWS, _seed(x))))}


def origins_of(world: World, x: Experiment, mounts: Mapping[str, Path]) -> dict[str, str]:
    """Where another machine finds the same: the Hub, or `job:ID/PATH` for what an earlier job of the runner left."""
    found = {}
    for name, path in mounts.items():
        # A teacher is always `owner/name`; a base model need not be.
        known_as = "/".join(path.parts[-2:]) if name == "teacher" else x.goal.base_model if x.goal is not None else ""
        if origin := hub_origin(path, known_as):
            found[name] = origin
        elif path.parts[-3:] == ("work", "out", "model"):
            found[name] = f"job:{path.parts[-4]}/out/model"
    return found


async def base_model(world: World, x: Experiment) -> Path:
    assert x.goal is not None
    return await asyncio.to_thread(fetched_model, world.model_folders, x.goal.base_model, x.goal.base_revision)


def trained_model(world: World, x: Experiment, run: int) -> Path:
    return finished(world, x, JobRole.TRAIN, run) / "out" / "model"


def finished(world: World, x: Experiment, role: JobRole, run: int) -> Path:
    """The working folder of the ended job that did `role` for run `run`."""
    job = x.job_for(role, run)
    assert job is not None, f"no {role} job for run {run}"
    return world.runner.folder(JobId(job.job_id))


def goal_folder(world: World, x: Experiment) -> Path:
    """The bot's own folder for this goal: inputs it gave to jobs and full traces."""
    return world.data_folder / "goals" / f"{slug(x.full_name)}-{x.issue}-{digest_of(x.goal_id)[:6]}"


def lines_without(content: bytes, dropped: Collection[int]) -> bytes:
    """JSON lines without the rows of these numbers; empty lines are no rows."""
    if not dropped:
        return content
    lines = [line for line in content.split(b"\n") if line]
    return b"".join(line + b"\n" for number, line in enumerate(lines) if number not in dropped)


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_input(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path.resolve())
