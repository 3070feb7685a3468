"""Finds or makes the Python environment that the other steps run in, and says what is missing.

Run as a script with whatever Python there is, so nothing here needs more than its standard library. A new environment
lies in the machine's tool cache under a hash of what it holds, so that a self-hosted machine makes it once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

MODES = ("train", "evaluate", "gate", "pursue", "respond")
NEEDED = {"train": ("yaml", "torch", "trl"), "respond": ("yaml", "githubkit", "dbos")}
NEEDED_BY_DEFAULT = ("yaml", "torch", "lm_eval")


def main() -> int:
    mode = os.environ.get("INPUT_MODE", "").strip()
    if sys.version_info < (3, 11):  # noqa: UP036 - here it may be any
        return refuse(f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}. Set `python`.")
    if mode not in MODES:
        return refuse(f"mode: {mode or '(empty)'} is not known; write one of {', '.join(MODES)}.")
    if os.environ.get("INPUT_PYTHON", "").strip():
        python = sys.executable
        if lacking := missing_modules(python, mode):
            return refuse(
                f"python: {python} lacks {', '.join(lacking)}. Install Postdoc there "
                "(pip install 'postdoc[train,action]'), or leave `python` empty."
            )
    else:
        try:
            python = environment_for(requirements(wants_training(mode)))
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            return refuse(str(error))
    folder = tempfile.mkdtemp(prefix="postdoc-", dir=os.environ.get("RUNNER_TEMP"))
    for name, value in (("python", python), ("folder", folder), ("mode", mode)):
        set_output(name, value)
    print(f"Postdoc runs {mode} with {python}", flush=True)
    return 0


def wants_training(mode: str) -> bool:
    """Whether jobs run on this machine: not when `respond` is told to send them to another."""
    return mode != "respond" or os.environ.get("POSTDOC_RUNNER", "local") in ("", "local")


def requirements(training: bool) -> list[str]:
    """What `pyproject.toml` of this action asks for. The action's own code is used from where it lies."""
    import tomllib

    with open(os.path.join(action_path(), "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)["project"]
    extras = project.get("optional-dependencies", {})
    return [
        *project.get("dependencies", []),
        *extras.get("action", []),
        *(extras.get("train", []) if training else []),
    ]


def environment_for(wanted: list[str]) -> str:
    """The interpreter of an environment with these requirements, made where there is none. Raises: RuntimeError."""
    folder = environment_folder(os.environ.get("RUNNER_TOOL_CACHE") or os.path.expanduser("~/.cache"), wanted)
    python = os.path.join(folder, "bin", "python")
    if os.path.isfile(os.path.join(folder, "complete")):
        print(f"the environment {folder} is there already", flush=True)
        return python
    # Built where it stays, because an environment cannot be moved; what an interrupted job left is taken away first.
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    print(f"::group::Installing Postdoc's requirements into {folder}", flush=True)
    try:
        made = subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=False)
        if made.returncode != 0:
            raise RuntimeError("python -m venv failed. On Debian and Ubuntu: apt-get install python3-venv.")
        install(python, wanted)
    finally:
        print("::endgroup::", flush=True)
    with open(os.path.join(folder, "complete"), "w", encoding="utf-8") as file:
        file.write("\n".join(wanted) + "\n")
    return python


def environment_folder(top: str, wanted: list[str]) -> str:
    key = hashlib.sha256("\n".join([sys.version, sys.platform, *wanted]).encode()).hexdigest()[:16]
    return os.path.join(top, "postdoc", key)


def install(python: str, wanted: list[str]) -> None:
    """Raises: RuntimeError that says what could not be had."""
    if not wanted:
        return
    # This Python's own pip installs there (pip 22.3 or newer): a pip of its own takes the environment many seconds.
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run([*command, "--progress-bar", "off", *wanted], stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(done.stderr)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip failed"]
        said = [line for line in lines if line.startswith("ERROR")] or lines
        raise RuntimeError(
            f"Postdoc's requirements could not be installed ({said[-1].removeprefix('ERROR: ')}). On a machine without "
            "a network, install them beforehand (pip install 'postdoc[train,action]') and name that environment's "
            "interpreter in `python`."
        )


def missing_modules(python: str, mode: str) -> list[str]:
    """Of what this mode imports, what `python` cannot find."""
    names = list(NEEDED.get(mode, NEEDED_BY_DEFAULT))
    if "torch" in names and not wants_training(mode):
        names.remove("torch")
    code = "import sys, importlib.util as u; print(' '.join(n for n in sys.argv[1:] if u.find_spec(n) is None))"
    done = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    return done.stdout.split()


def action_path() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def set_output(name: str, value: str) -> None:
    if path := os.environ.get("GITHUB_OUTPUT"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{name}={value}\n")


def refuse(why: str) -> int:
    escaped = why.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    print(f"::error title=Postdoc::{escaped}", flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
