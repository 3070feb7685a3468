"""The comparison on a GPU, as far as a machine without one can try it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.gpu import CASES, ROOT, loss_difference, measured


def bench(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "tests.bench.gpu", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500, check=False)


def test_without_a_cuda_device_one_line_says_so() -> None:
    done = bench(CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "bench-gpu needs a CUDA device, and torch sees none here: nothing was measured\n"


@pytest.mark.slow
def test_script_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit('the recipe is wrong')\n")
    assert measured(tmp_path, "ours", tmp_path / "broken.py", []) == {"failed": "the recipe is wrong"}


def test_loss_curves_are_compared_over_the_steps_of_both() -> None:
    assert loss_difference({"losses": [1.0, 2.0, 3.0]}, {"losses": [1.5, 2.0]}) == 0.25
    assert loss_difference({"losses": [1.0]}, {}) is None


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_dry_run_tries_every_case_beside_trl(tmp_path: Path) -> None:
    done = bench("--dry", "--steps", "4", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr
    cases = json.loads((tmp_path / "found.json").read_text())["cases"]
    assert [case["name"] for case in cases] == [case.name for case in CASES]
    for case in cases:
        assert "failed" not in case["ours"] and "failed" not in case.get("theirs", {}), (case["ours"], case["theirs"])
        assert case["ours"]["tokens_per_second"] > 0 and len(case["ours"]["losses"]) == 4
    curves = {case["name"]: loss_difference(case["ours"], case["theirs"]) for case in cases}
    assert curves["sft"] == pytest.approx(0, abs=1e-3) and curves["dpo"] == pytest.approx(0, abs=1e-3), curves
