"""Commands that prove the diagnosis: the zoo of faulty and healthy runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bot.cli.common import DONE, JsonFile, check_json, end_as_by_ctrl_c, say, write_json
from bot.errors import UserError

COMMITTED = Path(__file__).resolve().parents[2] / "tests" / "zoo" / "traces.tar.xz"
"""The traces of a checkout; an installed package has none."""


def zoo(
    traces: Annotated[
        Path | None, typer.Option("--traces", metavar="DIR", help="Score these: a folder of traces, or a .tar.xz.")
    ] = None,
    make: Annotated[
        Path | None, typer.Option("--make", metavar="DIR", help="Make traces there; goes on where it was stopped.")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="WORDS", help="A part of the plan: 1-11,gross,seed0,healthy40,dpo.")
    ] = None,
    budget_minutes: Annotated[
        float | None, typer.Option("--budget-minutes", min=0.1, help="Begin no run that would end later than that.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Runs side by side; one core each.")] = 1,
    repairs: Annotated[
        bool, typer.Option("--repairs", help="With --make: mend each faulty run by the playbook, and at random.")
    ] = False,
    json_file: JsonFile = None,
) -> int:
    """Score the diagnosis on runs with injected faults and on healthy ones.

    Without --traces it scores those of this checkout. With --make it makes them first: all of them take some hours of
    one core.
    """
    from bot.zoo.proof import scored
    from bot.zoo.traces import read_traces

    check_json(json_file)
    if traces is not None and make is not None:
        raise UserError("--traces and --make: name one of them. --make scores what it has made.")
    if repairs and make is None:
        raise UserError("--repairs needs --make DIR, the folder in which the runs to be mended were made.")
    place = traces or COMMITTED
    if make is not None:
        end_as_by_ctrl_c()
        place = _made(make, only, budget_minutes, workers=workers, repairs=repairs)
    elif only is not None or budget_minutes is not None:
        raise UserError("--only and --budget-minutes are for --make; --traces scores whatever is there.")
    elif traces is None and not COMMITTED.is_file():
        raise UserError("there are no traces here; write --traces with a folder of them, or --make DIR to make some.")
    result, told = scored(read_traces(place))
    say(told, json_file)
    write_json(json_file, result)
    return DONE


def _made(folder: Path, only: str | None, budget_minutes: float | None, *, workers: int, repairs: bool) -> Path:
    """The folder's archive, with every case of the plan that was chosen and could be made in time."""
    import sys

    from bot.practice.demo import built_base
    from bot.practice.terminal import Screen, new_console
    from bot.practice.tiny_base import cached_path, is_built
    from bot.zoo.making import Making
    from bot.zoo.plan import choice_of
    from bot.zoo.repairs import mend
    from bot.zoo.running import methods_here

    choice = choice_of(only, frozenset(methods_here()))
    if not is_built(cached_path()):
        with Screen(new_console(to_stderr=True)) as screen:
            built_base(screen)
    making = Making.opened(folder)
    cases = choice.cases()

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    missing = making.make(cases, tell, budget_minutes=budget_minutes, workers=workers)
    if repairs:
        mend(making, cases, tell, budget_minutes=budget_minutes, workers=workers)
    archive, size, census = making.packed(cases)
    tell(f"{census['kept']} traces, {size / 2**20:.2f} MiB in {archive}; {missing} cases of {len(cases)} not made")
    for why, count in census["dropped"].items():
        tell(f"  dropped: {count} · {why}")
    return archive


COMMANDS = (zoo,)
