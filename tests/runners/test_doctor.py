"""What `postdoc doctor` is told about a machine."""

from __future__ import annotations

import subprocess
import sys

from runners import doctor, sandbox
from runners.doctor import Finding, examine
from runners.tier import Tier


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_findings_are_unique_and_every_lack_comes_with_advice(tmp_path):
    findings = examine(root=tmp_path)
    assert len({finding.name for finding in findings}) == len(findings)
    assert all(finding.detail for finding in findings)
    assert all(bool(finding.advice) != finding.ok for finding in findings)
    assert {f"sandbox {tier}" for tier in Tier} <= set(by_name(findings))


def test_examining_does_not_import_the_training_stack():
    code = (
        "import sys\nfrom runners.doctor import Finding, examine\nexamine()\n"
        "print([name for name in ('torch', 'transformers', 'trl', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_environment_without_the_training_packages_is_told_what_to_install(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    finding = by_name(doctor._packages(tmp_path / "bare/bin/python"))["training environment"]
    assert not finding.ok
    assert "lacks torch" in finding.detail
    assert "pip install 'postdoc[train]'" in finding.advice


def test_machine_with_no_tools_at_all_is_described_and_not_a_traceback(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    nowhere = {"POSTDOC_DOCKER_URL": f"unix://{tmp_path}/sock"}
    found = by_name([doctor._git(), doctor._node(), doctor._container_engine(nowhere)])
    assert [finding.ok for finding in found.values()] == [False, False, False]
    assert "apt-get install git" in found["git"].advice
    assert found["node"].advice.startswith("optional")
    assert found["container engine"].advice.startswith("optional")


def test_weaker_tier_makes_the_missing_one_optional(monkeypatch):
    reports = [
        sandbox.TierReport(Tier.BUBBLEWRAP_CGROUP, False, "no control group: none", "run as root"),
        sandbox.TierReport(Tier.BUBBLEWRAP_RLIMITS, True, "a program ran inside bubblewrap"),
        sandbox.TierReport(Tier.PLAIN, True, "no isolation"),
    ]
    monkeypatch.setattr(sandbox, "probe", lambda _python: reports)
    assert doctor._sandbox(None)[0].advice == "optional, a weaker tier is there: run as root"
    monkeypatch.setattr(sandbox, "probe", lambda _python: [reports[0], reports[2]])
    assert doctor._sandbox(None)[0].advice == "run as root"


def test_processor_quota_of_both_layouts_is_read(tmp_path):
    assert doctor._processor_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert doctor._processor_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert doctor._processor_quota(tmp_path) is None
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert doctor._processor_quota(tmp_path) == 0.5


def test_gpu_is_named_by_the_drivers_own_tool(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-1, NVIDIA H200, 143771, 90000, 00000000:41:00.0'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert doctor._gpus() == doctor.Finding("gpu", True, "GPU 0 (NVIDIA H200), 140 GiB, in use")


def test_layers_behind_the_walls_are_told_one_by_one():
    assert doctor._seccomp(True).ok
    assert "CONFIG_SECCOMP_FILTER" in doctor._seccomp(False).advice
    assert doctor._landlock(True).ok
    assert "lsm=" in doctor._landlock(False).advice
