"""What a job on this machine will see, and whether a recorded run can be made again in it."""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import bot
from bot.domain.reproduction import missing_libraries
from bot.errors import UserError
from bot.evaluation.benchmarks import bundle_digest
from bot.loop.recorded import RecordedRun
from runners import gpus
from runners.job import Runner

_HEADER = re.compile(r"^# /// script$\n((?:^#(?: .*)?$\n)+)^# ///$", re.MULTILINE)
"""PEP 723: https://packaging.python.org/en/latest/specifications/inline-script-metadata/"""


def environment_here(runner: Runner) -> dict[str, Any]:
    """What jobs of a runner on this machine will see, as far as that is known without starting one."""
    names = re.findall(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return {
        "runner": runner.name,
        "postdoc": bot.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": names[0] if names else platform.processor(),
        "gpus": [gpu.model for gpu in gpus.place().gpus()],
        "libraries": installed_libraries(),
    }


def installed_libraries() -> dict[str, str]:
    """Name -> version of what is installed beside this interpreter, as a training script writes it down.

    https://packaging.python.org/en/latest/specifications/recording-installed-packages/
    """
    found: dict[str, str] = {}
    for place in sys.path:
        for folder in sorted(Path(place or ".").glob("*.dist-info")):
            name, _, version = folder.stem.partition("-")
            found.setdefault(name.lower().replace("_", "-"), version)
    return dict(sorted(found.items()))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def check_environment(recorded: RecordedRun, here: Mapping[str, Any], scripts: Mapping[str, bytes]) -> None:
    """Refuse what cannot come to a verdict. Raises: UserError."""
    then = recorded.facts["environment"]
    place = recorded.facts["place"]
    if int(place.get("gpus") or 0) > 1 or int(place.get("nodes") or 1) > 1:
        raise UserError(
            f"{recorded.folder} was trained on several GPUs together, and this command trains on one machine with one. "
            f"Write `/postdoc reproduce {recorded.n}` on its pull request."
        )
    if then.get("gpus") and not here["gpus"]:
        raise UserError(
            f"{recorded.folder} was trained on {', '.join(then['gpus'])}, and this machine has no GPU. Run the command "
            "where there is one."
        )
    if missing := missing_libraries(then, here, _needed(scripts.values())):
        words = " ".join(f"'{each}'" for each in missing)
        raise UserError(f"The run used libraries that are not installed here. Install them: `uv pip install {words}`.")
    harness = recorded.facts.get("evaluator") or {}
    wrong = [
        f"{name} is {here['libraries'].get(name.replace('_', '-'))} here and was {wanted}"
        for name, wanted in (harness.get("versions") or {}).items()
        if here["libraries"].get(name.replace("_", "-")) != wanted
    ]
    if wrong:
        raise UserError(
            f"The evaluator would be another one ({'; '.join(wrong)}), and results of two evaluators never compare. "
            "Install what the run had, and write the command again."
        )
    if harness.get("bundle") != bundle_digest():
        raise UserError(
            f"The evaluator of this version of Postdoc ({bot.__version__}) is not the one that measured the run (of "
            f"Postdoc {place.get('postdoc', 'unknown')}), and results of two evaluators never compare. Use the version "
            "that trained it."
        )


def _needed(scripts: Iterable[bytes]) -> list[str]:
    """Libraries that the scripts' own headers ask for."""
    found: list[str] = []
    for content in scripts:
        header = _HEADER.search(content.decode("utf-8", "replace"))
        if header is None:
            continue
        lines = "\n".join(line.removeprefix("#").removeprefix(" ") for line in header[1].splitlines())
        try:
            named = tomllib.loads(lines).get("dependencies", [])
        except tomllib.TOMLDecodeError:
            continue
        found += [name[0].lower().replace("_", "-") for each in named if (name := re.match(r"[\w.-]+", str(each)))]
    return found
