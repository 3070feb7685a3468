"""Metric `pass_at_1`: whether the program in a response passes its item's tests, each in a process of its own.

An item's `code` holds `prefix` (what the response goes on from, where it is no whole program), `entry_point` and
`test`, whose last lines call the tests (`check(f)` in HumanEval; Chen et al. 2021, https://arxiv.org/abs/2107.03374).
A program passes when it and its tests run to their end in time: leaving early with exit code 0 does not pass.

Caps: wall time and CPU time per program, 1 GiB of memory, files up to 1 MB, an empty environment and folder. The walls
around it (no network, no other files) are those of the job, which runs on no machine without a sandbox.

Not covered: a program that looks for this harness in its own process; files that it leaves for the next program.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from extraction import extracted
from scores import refused

SECONDS = 10.0
"""Of one program, where the benchmark says nothing."""
_DRIVER = """
import json, os, resource, sys
given = json.load(sys.stdin)
sys.stdin = open(os.devnull)
passed = os.dup(1)
quiet = os.open(os.devnull, os.O_WRONLY)
os.dup2(quiet, 1), os.dup2(quiet, 2)
for kind, most in ((resource.RLIMIT_AS, 1 << 30), (resource.RLIMIT_FSIZE, 1 << 20), (resource.RLIMIT_CORE, 0),
                   (resource.RLIMIT_CPU, int(given["seconds"]) + 1)):
    resource.setrlimit(kind, (most, most))
names = {"__name__": "program"}
exec(compile(given["program"], "program", "exec"), names)
exec(compile(given["test"], "test", "exec"), names)
os.write(passed, given["mark"].encode())
os._exit(0)
"""


def scores(
    samples: list[dict[str, Any]], benchmark: dict[str, Any], items: list[dict[str, Any]]
) -> list[tuple[float, float]]:
    """(strict, lenient) of every sample: the program that the strict rule finds, or any that the response holds."""
    if os.environ.get("POSTDOC_RUN_CODE") != "1":
        raise refused("this benchmark runs programs that a model wrote: pass --run_code, inside a sandbox")
    rule = (benchmark.get("extraction") or {}).get("strict") or {"take": "code"}
    seconds = float((benchmark.get("code") or {}).get("timeout_seconds", SECONDS))
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        return list(pool.map(lambda sample, item: _score(sample, item, rule, seconds), samples, items))


def _score(sample: dict[str, Any], item: dict[str, Any], rule: dict[str, Any], seconds: float) -> tuple[float, float]:
    code = item["code"]
    first, *others = candidates(sample["response"], code, rule)
    right = passes(first, code["test"], seconds)
    lenient = right or any(passes(each, code["test"], seconds) for each in others)
    return float(right and sample["finish"] == "stop"), float(lenient)


def candidates(response: str, code: dict[str, str], rule: dict[str, Any]) -> list[str]:
    """Programs that the response may stand for, what the strict rule finds first."""
    blocks = re.findall(r"```[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", response, re.DOTALL)
    found = [extracted(response, rule) or "", *blocks, "\n".join(blocks), response]
    whole = [_whole(each, code) for each in found]
    return list(dict.fromkeys(whole))


def _whole(found: str, code: dict[str, str]) -> str:
    """`found` with the prefix before it, where it does not define what is asked for itself."""
    if re.search(rf"^\s*(?:async\s+)?(?:def|class)\s+{re.escape(code['entry_point'])}\b", found, re.MULTILINE):
        # Imports and helpers of the prompt stand before what is asked for: they are there whatever the model repeats.
        before = re.split(
            rf"^(?:async\s+)?def\s+{re.escape(code['entry_point'])}\b", code["prefix"], flags=re.MULTILINE
        )
        return f"{before[0]}\n{found}" if len(before) > 1 else found
    return code["prefix"] + found


def passes(program: str, test: str, seconds: float) -> bool:
    mark = secrets.token_hex(16)
    given = json.dumps({"program": program, "test": test, "seconds": seconds, "mark": mark})
    with tempfile.TemporaryDirectory(prefix="program-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _DRIVER], cwd=folder, env={"PATH": os.defpath}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(given, timeout=seconds)
        except subprocess.TimeoutExpired:
            output = ""
        finally:
            _end(process)
    return output == mark


def _end(process: subprocess.Popen[str]) -> None:
    """With everything that it started and that stayed in its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
