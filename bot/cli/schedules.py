"""For a server's owner: evaluations of published models that Hugging Face Jobs starts by the clock."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bot.cli.common import DONE, JsonFile, Seed, check_json, say, write_json
from bot.errors import UserError

if TYPE_CHECKING:
    from runners.hf_jobs.backend import HubJobs
    from runners.hf_jobs.schedule import Scheduled


def reevaluate(
    model: Annotated[str, typer.Argument(metavar="[OWNER/NAME]", help="A public model on the Hub.")] = "",
    benchmark: Annotated[str, typer.Option("--benchmark", help="Name of a benchmark.")] = "",
    every: Annotated[str, typer.Option("--every", help='Five fields of cron, "0 6 * * 1", or @weekly.')] = "",
    split: Annotated[str, typer.Option("--split", help="dev, or sealed.")] = "dev",
    seed: Seed = 0,
    minutes: Annotated[float, typer.Option("--minutes", min=1, help="Longest time of one evaluation.")] = 60.0,
    remove: Annotated[str, typer.Option("--remove", metavar="ID", help="Have it evaluated no more.")] = "",
    show: Annotated[bool, typer.Option("--list", help="Show what is scheduled, with the last results.")] = False,
    json_file: JsonFile = None,
) -> int:
    """Have a published model evaluated by the clock, on Hugging Face Jobs.

    Nothing of this server has to run for it. It uses the server's hf_jobs settings, and its account pays.
    """
    from bot.config import load_settings
    from bot.server.backends import hub_jobs
    from runners.hf_jobs.schedule import Schedules

    check_json(json_file)
    if sum((bool(model), bool(remove), show)) != 1:
        raise UserError(
            'Write one of `postdoc reevaluate OWNER/NAME --benchmark B --every "0 6 * * 1"`, --list, --remove ID.'
        )
    settings = load_settings()
    jobs = hub_jobs(settings, settings.data_folder / "jobs")
    schedules = Schedules(jobs)
    if remove:
        schedules.remove(remove)
        say([f"{remove} is removed: nothing is evaluated by it any more."], json_file)
    elif model:
        handle = _add(schedules, jobs, model, benchmark, every, split, seed, minutes, settings.benchmark_folders)
        say(
            [f"{handle}: {model} is evaluated on {benchmark}, {split} split, `{every}`, on {jobs.machine.flavor}."],
            json_file,
        )
    found = schedules.all() if show or json_file else []
    if show:
        say([line for each in found for line in _lines(each)] or ["Nothing is scheduled."], json_file)
    write_json(json_file, [_as_json(each) for each in found])
    return DONE


def _add(
    schedules: Any, jobs: HubJobs, model: str, benchmark: str, every: str, split: str, seed: int, minutes: float,
    folders: tuple[Path, ...],
) -> str:  # fmt: skip
    """Raises: UserError."""
    import tempfile

    from bot.domain.evaluation import Split
    from bot.evaluation.benchmarks import load_benchmark, write_job_files
    from runners.hf_jobs.schedule import schedule_name
    from runners.job import Caps, JobId, JobSpec

    if not benchmark or not every:
        raise UserError('Say on what and when: `--benchmark practice/reverse --every "0 6 * * 1"`.')
    if split not in (Split.DEV, Split.SEALED):
        raise UserError(f"--split {split}: write dev or sealed.")
    if not jobs.hub.is_public_model(model, "main"):
        raise UserError(
            f"{model} is no model that everybody may read on the Hub, and the jobs' token opens the runs repository "
            "alone: publish it openly, or evaluate it here with `postdoc evaluate`."
        )
    about = {"model": model, "benchmark": benchmark, "split": split, "seed": seed}
    argv = ("{python}", "bundle/evaluate.py", "--model", "{mount:model}", "--benchmark", "benchmark.yaml",
            "--items", "items.jsonl", "--split", split, "--output", "out/evaluation.json",
            "--model_name", model)  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="postdoc-reevaluate-") as inputs:
        files = write_job_files(load_benchmark(benchmark, folders), split, Path(inputs), seed)
        # The newest revision each time: that one is what people load.
        spec = JobSpec(
            JobId(schedule_name(about)), argv, files=files, mounts={"model": ""},
            origins={"model": f"hub:{model}@main"}, caps=Caps(memory_gib=8.0, pids=512, timeout_seconds=minutes * 60),
            trusted=True,
        )  # fmt: skip
        return str(schedules.add(spec, every, about))


def _lines(found: Scheduled) -> list[str]:
    from bot.domain.metrics import metric_named

    about = found.about
    lines = [f"{found.id}  {about['model']} on {about['benchmark']}, {about['split']} split, `{found.every}`"]
    lines.append(f"  next {_time(found.next_at)}, last {_time(found.last_at)}")
    if found.result is not None:
        measure = metric_named(str(found.result["metric"]))
        error = measure.said_size(float(found.result["standard_error"]))
        lines.append(
            f"  last result {measure.said(float(found.result['value']))} {found.result['metric']}, "
            f"standard error {error}, n = {found.result['n']}"
        )
    elif found.problem:
        lines.append(f"  last time without a result: {found.problem}")
    return lines


def _as_json(found: Scheduled) -> dict[str, Any]:
    result = {key: value for key, value in found.result.items() if key != "samples"} if found.result else None
    at = {"next_at": found.next_at, "last_at": found.last_at}
    return {
        "id": found.id, **found.about, "every": found.every, "result": result, "problem": found.problem,
        **{key: value.isoformat() if value is not None else None for key, value in at.items()},
    }  # fmt: skip


def _time(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC") if at is not None else "never"


COMMANDS = (reevaluate,)
