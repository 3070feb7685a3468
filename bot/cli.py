"""The `postdoc` command: one function for each subcommand, thin, importing what it needs when it is called.

Exit codes: 0 done, 1 the job or goal failed, 2 the caller's words or settings are wrong (one line on stderr says
which), 130 interrupted with everything saved. No traceback reaches a person: a bug is one line with where its log lies.
"""

from __future__ import annotations

import io
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from bot.errors import PostdocError, SettingsError, UserError

if TYPE_CHECKING:
    import socket

    from bot.domain.evaluation import Evaluation
    from bot.practice.demo import Outcome
    from bot.practice.terminal import Screen

DONE, FAILED, WRONG_WORDS, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="postdoc", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Post-trains language models through pull requests. Start with `postdoc demo`.",
)  # fmt: skip

JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is stdout.")]
Require = Annotated[
    str | None, typer.Option("--require", metavar="met", help="Exit with 1 unless the goal is met and confirmed.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Decides the items, the data and the training.")]


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
        return _complain(str(error), WRONG_WORDS)
    except PostdocError as error:
        return _complain(str(error), FAILED)
    except Exception as error:
        if (wrong := _usage_problem(error)) is not None:
            return _complain(wrong, WRONG_WORDS)
        return _complain(f"something went wrong on our side ({type(error).__name__}); see {_log_bug(error)}", FAILED)


def _usage_problem(error: Exception) -> str | None:
    """What typer says of words it does not know. Its exception classes are private, their method is not."""
    tell = getattr(error, "format_message", None)
    if tell is None:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "postdoc"
    return f"{str(tell()).rstrip('.')}. `{command} --help` lists what there is."


def _complain(text: str, code: int) -> int:
    print(f"postdoc: {' '.join(text.split())}", file=sys.stderr)
    return code


def _log_bug(error: Exception) -> Path:
    import traceback

    from bot.config import cache_folder

    path = cache_folder() / "logs" / f"postdoc-{time.strftime('%Y%m%d-%H%M%S')}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return path


def _write_json(target: str | None, value: Any) -> None:
    if target is None:
        return
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {target}: {error.strerror}. Name a file that can be written, or - .") from error


def _check_json(target: str | None) -> None:
    """Find out before minutes of work that the file cannot be written."""
    if target not in (None, "-") and not Path(str(target)).absolute().parent.is_dir():
        raise UserError(f"--json {target}: there is no folder {Path(str(target)).parent}. Make it first.")


def _say(lines: Sequence[str], json_file: str | None) -> None:
    """The result for people; on stderr where stdout is taken by the JSON."""
    print("\n".join(lines), file=sys.stderr if json_file == "-" else sys.stdout)


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


@app.command()
def demo(
    json_file: JsonFile = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep serving the pages afterwards, until Ctrl-C.")] = False,
    seed: Seed = 0,
    goal: Annotated[int, typer.Option("--goal", min=1, max=2, help="1: a recipe at fault; 2: data at fault.")] = 1,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the forge; 0 takes a free one.")] = 0,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where everything is put; must be empty.")] = None,
    require: Require = None,
) -> int:
    """Watch the real bot pursue a goal on a practice forge."""
    from bot.practice.demo import run_demo

    _check_json(json_file)
    _check_require(require)
    _end_like_ctrl_c()
    place = _empty_folder(folder, "demo")
    outcomes: list[Outcome] = []

    def keep_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)
        _write_json(json_file, outcome.as_dict())

    try:
        run_demo(
            _screen(json_file), place, goal_number=goal, seed=seed, port=port, keep=keep, end_jobs=_end_jobs,
            on_outcome=keep_outcome,
        )  # fmt: skip
    except KeyboardInterrupt:
        if keep and outcomes:
            return _code(outcomes[0], require)
        return _complain(f"interrupted; everything so far lies in {place}", INTERRUPTED)
    return _code(outcomes[0], require)


@app.command()
def pursue(
    goal: Annotated[str, typer.Argument(metavar="GOAL", help="A goal.yaml, or the goal in words.")],
    json_file: JsonFile = None,
    runner: Annotated[str, typer.Option("--runner", help="Where jobs run: local.")] = "local",
    folder: Annotated[Path | None, typer.Option("--folder", help="Where everything is put; must be empty.")] = None,
    require: Require = None,
) -> int:
    """Pursue one goal over the git repository you are in.

    The bot works on a practice forge that holds a copy of HEAD; what it proposes comes back as a branch.
    """
    from bot.practice.pursue import repository_here, run_pursuit

    _check_json(json_file)
    _check_require(require)
    if runner != "local":
        raise UserError(f"There is no runner `{runner}` yet. Write --runner local.")
    title, answers, words = _goal_in(goal)
    repository = repository_here(Path.cwd())
    _end_like_ctrl_c()
    place = _empty_folder(folder, "pursue")
    try:
        outcome, _ = run_pursuit(
            _screen(json_file), place, repository, title=title, answers=answers, words=words, end_jobs=_end_jobs
        )
    except KeyboardInterrupt:
        return _complain(f"interrupted; everything so far lies in {place}", INTERRUPTED)
    _write_json(json_file, outcome.as_dict())
    if outcome.experiment.refusal is not None and not outcome.experiment.runs:
        return _complain(outcome.experiment.refusal, WRONG_WORDS)
    return _code(outcome, require)


def _goal_in(text: str) -> tuple[str, dict[str, str] | None, str]:
    """(the issue's title, the goal form's answers or None, the goal's words) of a file's name or of plain words."""
    from bot.practice.goals import answers_of

    if not text.endswith((".yaml", ".yml")):
        words = text.strip()
        if not words:
            raise UserError('Write the goal: `postdoc pursue "raise MODEL on BENCHMARK to 60 %"`, or name a goal.yaml.')
        return words.splitlines()[0][:200], None, words
    from bot.conversation.issue_form import goal_from_yaml
    from bot.evaluation.benchmarks import known_benchmarks

    try:
        content = Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{text} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}.") from error
    goal = goal_from_yaml(content, known_benchmarks=known_benchmarks())
    return goal.title or f"Raise {goal.base_model} on {goal.benchmark}", answers_of(goal), ""


def _code(outcome: Outcome, require: str | None) -> int:
    return FAILED if outcome.failed or (require is not None and not outcome.met) else DONE


def _check_require(require: str | None) -> None:
    if require not in (None, "met"):
        raise UserError(f"--require {require}: write `--require met`, or leave it out.")


def _end_like_ctrl_c() -> None:
    """`kill` and a closed terminal end a demo as Ctrl-C does: in order, with nothing left running."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)


def _screen(json_file: str | None) -> Screen:
    from bot.practice.terminal import Screen, new_console

    return Screen(new_console(to_stderr=json_file == "-"))


def _empty_folder(folder: Path | None, purpose: str) -> Path:
    """The folder that was named, made and empty, or a new temporary one."""
    import tempfile

    if folder is None:
        return Path(tempfile.mkdtemp(prefix=f"postdoc-{purpose}-"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise UserError(f"--folder {folder}: {error.strerror}. Name a folder that can be made.") from error
    if taken:
        raise UserError(f"--folder {folder} is not empty. Name a new one.")
    return folder.resolve()


def _end_jobs(data_folder: Path) -> None:
    """End what still runs there: a job outlives its bot on purpose."""
    from runners.local import LocalRunner

    if not (data_folder / "jobs").is_dir():
        return
    runner = LocalRunner(data_folder / "jobs")
    for job_id in runner.jobs():
        status = runner.status(job_id)
        if status is not None and not status.state.ended:
            runner.cancel(job_id)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option("--host", help="Instead of POSTDOC_HOST.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Instead of POSTDOC_PORT.")] = None,
    pull: Annotated[
        bool, typer.Option("--pull", help="Read deliveries from GitHub: for a machine without a public address.")
    ] = False,
    setup: Annotated[
        bool, typer.Option("--setup", help="Register the App in a browser first, if none is there.")
    ] = False,
) -> int:
    """Serve the GitHub App; its settings are POSTDOC_* variables."""
    import logging

    from bot.config import load_settings, load_setup_settings
    from bot.conversation.policy import load_server_policy

    said = {"host": host, "port": port, "pull": pull or None}
    given = {name: value for name, value in said.items() if value is not None}
    if setup and (unset := load_setup_settings()) is not None:
        from bot.server.setup.serving import serve_setup

        unset = unset.model_copy(update=given)
        if not serve_setup(unset, _listen(unset.host, unset.port)):
            return DONE
    settings = load_settings(**given)
    load_server_policy(settings.policy_file)  # a mistake in it is said before anything is opened
    listening = _listen(settings.host, settings.port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)

    from bot.server.app import Bot
    from bot.server.serving import Server

    server = Server(Bot(settings))
    address, bound = listening.getsockname()[:2]
    place = f"http://{address}:{bound}"
    pulls = f"reading deliveries from {settings.github_url}; pages at {place}"
    logging.getLogger("postdoc").info(pulls if settings.pull else f"listening for webhooks at {place}/webhook")
    server.run(sockets=[listening])
    return FAILED  # it returns only when serving could not begin


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: SettingsError when the address cannot be had."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        problem = f"{host}:{port} cannot be listened on: {error.strerror or error}."
        raise SettingsError(f"{problem} Set POSTDOC_HOST and POSTDOC_PORT, or --host and --port.") from error


@app.command()
def policy(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Instead of .github/postdoc.yml here.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the file instead.")] = False,
) -> int:
    """Say what a repository's policy grants, or what is wrong in it."""
    from bot.conversation.policy import POLICY_PATH, policy_schema, read_policy

    if schema:
        print(json.dumps(policy_schema(), indent=2))
        return DONE
    path = file or Path(POLICY_PATH)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}. Name a policy file, or run this in a repository with one."
        ) from error
    found, problems = read_policy(data)
    if found is None:
        for problem in problems[:-1]:
            _complain(f"{path}:{problem}", WRONG_WORDS)
        return _complain(f"{path}:{problems[-1]}", WRONG_WORDS)
    _say(found.lines(), None)
    return DONE


@app.command()
def doctor(
    json_file: JsonFile = None,
    github: Annotated[bool, typer.Option("--github", help="Look at the App on GitHub instead of the machine.")] = False,
    redeliver: Annotated[
        bool, typer.Option("--redeliver", help="With --github: have GitHub send its last delivery once more.")
    ] = False,
) -> int:
    """Say what this machine can do and what it lacks, or whether the App is set up on GitHub."""
    _check_json(json_file)
    if redeliver and not github:
        raise UserError("--redeliver asks GitHub: write `postdoc doctor --github --redeliver`.")
    if github:
        return _doctor_of_github(json_file, redeliver)
    from bot.doctor import as_json, examination, report_lines

    findings = examination()
    _say(report_lines(findings), json_file)
    _write_json(json_file, as_json(findings))
    return DONE


def _doctor_of_github(json_file: str | None, redeliver: bool) -> int:
    import asyncio

    from bot.config import load_settings
    from bot.doctor.github import github_examination, github_json, github_lines

    findings = asyncio.run(github_examination(load_settings(), redeliver=redeliver))
    _say(github_lines(findings), json_file)
    result = github_json(findings)
    _write_json(json_file, result)
    return DONE if result["ok"] else FAILED


@app.command()
def evaluate(
    model: Annotated[str, typer.Option("--model", help="A folder, or a model's name on the Hub.")],
    benchmark: Annotated[str, typer.Option("--benchmark", help="Name of a benchmark, practice/reverse for example.")],
    json_file: JsonFile = None,
    split: Annotated[str, typer.Option("--split", help="dev, or sealed.")] = "dev",
    seed: Seed = 0,
    memory_gib: Annotated[float, typer.Option("--memory-gib", min=0.5, help="Memory cap of the job.")] = 8.0,
) -> int:
    """Evaluate a model on a benchmark, in a sandboxed job."""
    from bot.domain.statistics import value_interval
    from bot.practice.narration import score_text

    _check_json(json_file)
    result, seconds = _evaluated(model, benchmark, split, seed, memory_gib, _screen("-"))
    _write_json(json_file, result.as_dict())
    low, high = value_interval(result)
    row = {"value": result.value, "ci_low": low, "ci_high": high, "n": result.n}
    lines = [f"{score_text(row)} · {result.metric} of {result.model} on {result.benchmark}, {result.split} split"]
    lines.append(f"standard error {100 * result.standard_error:.1f} points · harness {result.harness_digest[:12]}")
    lines.append(f"in {seconds:.1f} s")
    _say(lines, json_file)
    return DONE


def _evaluated(
    model: str, benchmark_name: str, split: str, seed: int, memory_gib: float, screen: Screen
) -> tuple[Evaluation, float]:
    """The evaluation, and the seconds its job took. Raises: UserError, or PlatformError when the job fails."""
    import secrets
    import tempfile

    from bot.config import cache_folder
    from bot.domain.evaluation import Evaluation, Split
    from bot.domain.goal import slug
    from bot.errors import PlatformError
    from bot.evaluation.benchmarks import load_benchmark, write_job_files
    from bot.practice.narration import Activity
    from runners.job import Caps, JobId, JobSpec, JobState
    from runners.local import LocalRunner
    from runners.outputs import read_output

    if split not in list(Split):
        raise UserError(f"--split {split}: write dev or sealed.")
    chosen = load_benchmark(benchmark_name)
    path = _model_folder(model)
    runner = LocalRunner(cache_folder() / "jobs")
    job_id = JobId(f"evaluate-{slug(benchmark_name)}-{secrets.token_hex(4)}")
    with tempfile.TemporaryDirectory(prefix="postdoc-evaluate-") as inputs:
        argv = ("{python}", "bundle/evaluate.py", "--model", "{mount:model}", "--benchmark", "benchmark.yaml",
                "--items", "items.jsonl", "--split", split, "--output", "out/evaluation.json",
                "--model_name", model)  # fmt: skip
        files = write_job_files(chosen, split, Path(inputs), seed)
        caps = Caps(memory_gib=memory_gib, pids=512)
        runner.launch(JobSpec(job_id, argv, files=files, mounts={"model": str(path)}, caps=caps, trusted=True))
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
    result = Evaluation.from_dict(json.loads(read_output(runner.folder(job_id), "out/evaluation.json")))
    runner.remove(job_id)
    return result, status.seconds or 0.0


def _model_folder(model: str) -> Path:
    """Where the model lies: a folder, the practice base, or a Hub model fetched into the cache."""
    from bot.config import cache_folder
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
    folders = (cache_folder() / "models",)
    if (problem := model_problem(folders, model)) is not None:
        raise UserError(problem)
    return fetched_model(folders, model, "main")


@app.command()
def diagnose(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder: recipe.yaml, metrics.jsonl ...")],
    json_file: JsonFile = None,
) -> None:
    """Name what went wrong in a run, and on which line.

    Says what to set there instead, and what would prove the diagnosis wrong.
    """
    from bot.diagnosis import diagnose as diagnosis_of_folder

    _check_json(json_file)
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
        if each.refuted_by:
            lines.append(f"  wrong if {each.refuted_by}")
    if report.healthy:
        lines.insert(0, "healthy: nothing but advice" if lines else "healthy: nothing was found")
    _say(lines, json_file)
    _write_json(json_file, report.as_dict())


@app.command()
def scan(
    train: Annotated[Path, typer.Option("--train", help="What is trained on: JSONL, Parquet or a folder of them.")],
    eval_: Annotated[Path, typer.Option("--eval", help="The evaluation items, in the same forms.")],
    json_file: JsonFile = None,
) -> None:
    """Look for evaluation items in training data."""
    from bot.data.scan import scan_files

    _check_json(json_file)
    report = scan_files(train, eval_)
    _say([report.summary()], json_file)
    _write_json(json_file, report.as_dict())


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="An evaluation.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another one of the same items.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say whether evaluation B is better than A."""
    from bot.evaluation.compare import compare_files

    json_file = "-" if as_json else None
    found = compare_files(a, b)
    sure = "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.2g}"
    lines = [
        f"{found.verdict}: B minus A is {100 * found.difference:+.1f} points "
        f"({100 * found.ci_low:+.1f} to {100 * found.ci_high:+.1f}, n = {found.n}, {sure})",
        f"only A right on {found.discordant[0]} items, only B right on {found.discordant[1]}",
        f"the smallest difference that {found.n} items would show is {100 * found.minimum_detectable:.1f} points"
        + (f"; to tell this one takes about {found.n_needed} items" if found.n_needed else ""),
    ]
    _say(lines, json_file)
    _write_json(json_file, found.as_dict())
