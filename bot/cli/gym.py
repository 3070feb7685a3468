"""The gym: tasks on tiny models, pursued through the real loop."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bot.cli.common import (
    DONE,
    FAILED,
    INTERRUPTED,
    JsonFile,
    check_json,
    complain,
    empty_folder,
    end_as_by_ctrl_c,
    write_json,
)
from bot.errors import PostdocError, UserError

if TYPE_CHECKING:
    from bot.gym.report import Result
    from bot.gym.task_file import Task


def gym(
    json_file: JsonFile = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="This task; may be repeated.")
    ] = None,
    tasks: Annotated[Path | None, typer.Option("--tasks", metavar="DIR", help="Task files of your own.")] = None,
    policy: Annotated[str, typer.Option("--policy", help="playbook, random, tpe or none.")] = "playbook",
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="Each task is pursued with so many.")] = 1,
    first_seed: Annotated[int, typer.Option("--seed", min=0, help="The first of them.")] = 0,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="FILE", help="Goals that this report holds are not pursued again."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FILE", help="Another policy's report, to compare the runs with."),
    ] = None,
    at_once: Annotated[int, typer.Option("--at-once", min=1, max=16, help="Goals under way side by side.")] = 1,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where everything is kept; must be empty.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Try each task's KNOWN_GOOD recipe outside of the loop instead.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="Name the tasks and do nothing.")] = False,
) -> int:
    """Pursue goals on tiny models through the real loop and say how many are reached, and in how many runs."""
    from bot.gym.place import chosen
    from bot.gym.pursuing import POLICIES
    from bot.gym.report import read_report, read_results
    from bot.gym.task_file import SHIPPED, load_tasks

    check_json(json_file)
    if policy not in POLICIES:
        raise UserError(f"There is no policy `{policy}`. Write --policy with one of: {', '.join(POLICIES)}.")
    wanted = chosen(load_tasks(tasks or SHIPPED), only or [])
    if listed:
        for task in wanted:
            print(f"{task.name:<24} {task.kind:<20} {task.method or 'any':<12} {task.title}")
        return DONE
    if check:
        return _check(wanted, range(first_seed, first_seed + seeds))
    done: list[Result] = []
    if resume is not None:
        report = read_report(resume)
        if report["policy"] != policy:
            raise UserError(
                f"--resume {resume} is a report of `{report['policy']}`. Write --policy {report['policy']}."
            )
        done = read_results(report)
    other = read_report(against) if against is not None else None
    if other is not None and not {row.name for row in read_results(other)} & {task.name for task in wanted}:
        raise UserError(f"--against {against} holds none of these goals. Name a report of the same tasks.")
    end_as_by_ctrl_c()
    try:
        _pursue_all(wanted, range(first_seed, first_seed + seeds), policy, done, json_file, other, at_once, folder)
    except KeyboardInterrupt:
        again = (
            f"go on with --resume {json_file}" if json_file not in (None, "-") else "with --json FILE it can be resumed"
        )
        return complain(f"interrupted after {len(done)} goals; {again}", INTERRUPTED)
    return DONE


def _check(tasks: list[Task], seeds: range) -> int:
    """One line for each task and seed; 1 when a target is out of reach, or met by the base model already."""
    import tempfile

    from bot.gym.trial import try_recipe
    from bot.practice.warm import EVALUATION_IMPORTS, IMPORTS, Warm

    code = DONE
    with Warm((*IMPORTS, *EVALUATION_IMPORTS)) as warm:
        for task in tasks:
            for seed in seeds:
                try:
                    with tempfile.TemporaryDirectory(prefix="postdoc-gym-") as folder:
                        found = try_recipe(task, seed, Path(folder), warm)
                except PostdocError as error:
                    code = FAILED
                    print(f"{task.name:<20} seed {seed}: {error}", flush=True)
                    continue
                said = found.verdict(task)
                code = FAILED if said != "in reach" else code
                print(
                    f"{task.name:<20} seed {seed}: base {found.base:.3f}, dev {found.dev:.3f}, sealed "
                    f"{found.sealed:.3f}, target {task.target:g}, {found.trainer_seconds:.0f} s: {said}",
                    flush=True,
                )
    return code


def _pursue_all(
    tasks: list[Task], seeds: range, policy: str, done: list[Result], json_file: str | None,
    against: dict[str, Any] | None, at_once: int, folder: Path | None,
) -> None:  # fmt: skip
    """Pursue what is not in `done`, adding to it; the report is written after every goal."""
    import tempfile

    from bot.gym.host import WarmHost
    from bot.gym.pursuing import Gym
    from bot.gym.report import as_json
    from bot.gym.table import Board, final_table, summary_lines
    from bot.practice.terminal import new_console

    known = {(result.name, result.seed) for result in done}
    left = {seed: [task for task in tasks if (task.name, seed) not in known] for seed in seeds}
    place = empty_folder(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="postdoc-gym-"))
    kept = folder is not None
    console = new_console(to_stderr=json_file == "-")

    def keep(result: Result) -> None:
        done.append(result)
        board.ended(result)
        if json_file != "-":
            write_json(json_file, as_json(policy, done, against))

    try:
        with Board(console, sum(map(len, left.values()))) as board, WarmHost(place / "warm", at_once) as host:
            pursuit = Gym(host, policy, at_once)
            for seed, remaining in left.items():
                if remaining:
                    pursuit.pursue(remaining, seed, place / f"seed-{seed}", on_turn=board.under_way, on_result=keep)
                    if not kept:
                        shutil.rmtree(place / f"seed-{seed}", ignore_errors=True)
    finally:
        if not kept:
            shutil.rmtree(place, ignore_errors=True)
    report = as_json(policy, done, against)
    write_json(json_file, report)
    console.print(final_table(done))
    for line in summary_lines(report["summary"]):
        console.print(line, soft_wrap=True)


COMMANDS = (gym,)
