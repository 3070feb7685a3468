"""runners/Dockerfile, built by a real engine on a base whose apt-get and pip write down what they were asked for."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runners import engines

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "runners" / "Dockerfile"


@pytest.fixture
def dockerd() -> Any:
    found = engines.engine("dockerd")
    if isinstance(found, str):
        pytest.skip(f"dockerd: {found}")
    return found


@pytest.fixture
def base(dockerd: Any, tmp_path: Path) -> Iterator[str]:
    """The tests' image with a recorder in the place of apt-get and pip, and the few programs that the file calls."""
    recorder = (
        '#!/bin/sh\necho "${0##*/} $*" >> /asked\n'
        'for word; do case "$word" in *.txt) cat "$word" >> /asked;; esac; done\n'
    )
    with tarfile.open(tmp_path / "base.tar", "w") as tar:
        for name in ("apt-get", "pip"):
            info = tarfile.TarInfo(f"usr/local/bin/{name}")
            info.size, info.mode = len(recorder), 0o755
            tar.addfile(info, io.BytesIO(recorder.encode()))
        engines.add_programs(tar, [str(shutil.which(name)) for name in ("rm", "cat")])
        engines.add_python(tar)
    said = dockerd.client.import_image_from_file(str(tmp_path / "base.tar"), repository="base", tag="1")
    identity = json.loads(said)["status"]
    yield identity
    dockerd.client.remove_image(identity, force=True)


@pytest.fixture
def build(dockerd: Any, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """What the engine says while it builds. Its context is what the ignore file leaves of the repository."""
    context = tmp_path / "context"
    context.mkdir()
    *_, everything, kept = (DOCKERFILE.with_name("Dockerfile.dockerignore")).read_text().split()
    assert everything == "*"
    shutil.copy(ROOT / kept.removeprefix("!"), context)

    def make(**arguments: str) -> list[dict[str, Any]]:
        return list(dockerd.client.build(
            path=str(context), dockerfile=str(DOCKERFILE), buildargs=arguments, tag="train:test", rm=True, forcerm=True,
            network_mode="none", decode=True,
        ))  # fmt: skip

    return make


def test_image_is_built_from_the_train_extra_and_runs_as_nobody_in_particular(dockerd, base, build):
    steps = build(BASE=base, EXTRA_INDEX="https://example.org/whl")
    try:
        assert "Successfully tagged" in steps[-1].get("stream", ""), steps[-3:]
        config = dockerd.client.inspect_image("train:test")["Config"]
        assert (config["User"], config["WorkingDir"]) == ("1000:1000", "/job")
        assert "HOME=/tmp" in config["Env"]
        asked = said(dockerd, "print(open('/asked').read())")
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        wanted = extras["train"] + extras["quantized"]
        assert asked.splitlines() == [
            "apt-get update",
            "apt-get install --yes --no-install-recommends gcc libc6-dev",
            "pip install --no-cache-dir --compile --extra-index-url https://example.org/whl "
            "--requirement /tmp/requirements.txt",
            *wanted,
        ]
        assert said(dockerd, "import os; print(os.getuid(), os.listdir('/tmp'), os.listdir('/job'))") == "1000 [] []"
    finally:
        dockerd.client.remove_image("train:test", force=True)


def test_image_without_a_base_is_not_built(build):
    assert "should not be blank" in build()[-1]["error"]


def said(dockerd: Any, code: str) -> str:
    limits = [{"Name": "nofile", "Soft": 1024, "Hard": 1024}]
    config = {"Image": "train:test", "Cmd": ["python3", "-c", code],
              "HostConfig": {"NetworkMode": "none", "Ulimits": limits}}  # fmt: skip
    made = dockerd.client.create_container_from_config(config)["Id"]
    try:
        dockerd.client.start(made)
        assert dockerd.client.wait(made, timeout=60)["StatusCode"] == 0, dockerd.client.logs(made)
        return str(dockerd.client.logs(made).decode().strip())
    finally:
        dockerd.client.remove_container(made, force=True)


def test_file_names_no_tag_no_secret_and_no_root() -> None:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    words = "\n".join(lines)
    assert re.findall(r"^FROM (.*)$", words, re.MULTILINE) == ["${BASE}"]
    assert not re.search(r"(?i)token|secret|password|private_key|\bADD\b|curl|wget|sudo", words)
    assert words.rindex("USER 1000:1000") > words.rindex("RUN ")
    assert len(re.findall(r"^(?:RUN|COPY) ", words, re.MULTILINE)) == 3
