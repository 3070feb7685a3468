"""The `postdoc` command: one function for each subcommand, thin, importing what it needs when it is called.

`practice` holds the demo and pursuing without GitHub, `serving` what a server's owner needs, `workflow` the bot without
a server, `tools` what works on files alone, `reproduction` a run that is made again, `provenance` what tells whose
weights a model has, `papers` what papers tell, `research` what there is to train on and with, `schedules` what runs by
the clock, `gym` many goals on tiny models, `zoo` the diagnosis on faulty and healthy runs. Exit codes: 0 done, 1 the
job or goal failed, 2 the caller's words or settings are wrong (one line on stderr says which), 130 interrupted with
everything saved. No traceback reaches a person: a bug is one line with where its log lies.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bot.cli import (
    data,
    gym,
    papers,
    practice,
    provenance,
    reproduction,
    research,
    schedules,
    serving,
    tools,
    workflow,
    zoo,
)
from bot.cli.common import DONE, FAILED, INTERRUPTED, WRONG_WORDS, complain
from bot.errors import PostdocError, UserError

app = typer.Typer(
    name="postdoc", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Post-trains language models through pull requests. Start with `postdoc demo`.",
)  # fmt: skip
for command in (
    *practice.COMMANDS,
    *serving.COMMANDS,
    *workflow.COMMANDS,
    *tools.COMMANDS,
    *reproduction.COMMANDS,
    *provenance.COMMANDS,
    *papers.COMMANDS,
    *research.COMMANDS,
    *schedules.COMMANDS,
    *gym.COMMANDS,
    *zoo.COMMANDS,
):
    app.command()(command)
app.command("map")(data.map_data)
app.command("audit")(data.audit_data)
app.command("check-data")(data.check_data)


def main() -> NoReturn:
    """The command's entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what went wrong is one line on stderr."""
    try:
        result = app(args=list(arguments), standalone_mode=False, prog_name="postdoc")
        return result if isinstance(result, int) else DONE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); Python would complain again at exit.
        sys.stdout = io.StringIO()
        return DONE
    except UserError as error:
        return complain(str(error), WRONG_WORDS)
    except PostdocError as error:
        return complain(str(error), FAILED)
    except Exception as error:
        if (wrong := _usage_problem(error)) is not None:
            return complain(wrong, WRONG_WORDS)
        return complain(f"something went wrong on our side ({type(error).__name__}); see {_log_bug(error)}", FAILED)


def _usage_problem(error: Exception) -> str | None:
    """What typer says of words it does not know. Its exception classes are private, their method is not."""
    tell = getattr(error, "format_message", None)
    if tell is None:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "postdoc"
    return f"{str(tell()).rstrip('.')}. `{command} --help` lists what there is."


def _log_bug(error: Exception) -> Path:
    import traceback

    from bot.config import cache_folder

    path = cache_folder() / "logs" / f"postdoc-{time.strftime('%Y%m%d-%H%M%S')}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return path


def _version(wanted: bool) -> None:
    if wanted:
        from bot import __version__

        print(f"postdoc {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
