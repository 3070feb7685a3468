"""Starting and stopping: loopback only, nothing left behind, quick, idle when nobody asks."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from bot.practice.forge import Forge
from bot.practice.server import serve

from .conftest import World


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "8.8.8.8"])
def test_addresses_that_others_could_reach_are_refused(forge: Forge, host: str):
    with pytest.raises(ValueError, match="this machine only"), serve(forge, host=host):
        pass


def test_taken_port_is_an_error(forge: Forge):
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, pytest.raises(OSError, match="in use"), serve(forge, port=taken.getsockname()[1]):
        pass


def test_base_url_is_in_every_answer(world: World, ada: httpx.Client):
    assert world.url.startswith("http://127.0.0.1:")
    shown = ada.get(world.repo()).json()
    assert shown["url"] == f"{world.url}/api/v3/repos/acme/lab"
    assert shown["clone_url"] == f"{world.url}/acme/lab.git"


def children() -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        try:
            if (
                name.isdigit()
                and int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid()
            ):
                found.add(int(name))
        except (OSError, ValueError):
            continue
    return found


def test_nothing_is_left_behind(tmp_path: Path):
    before, threads = children(), threading.active_count()
    forge = Forge(tmp_path)
    forge.add_user("ada")
    forge.add_repository("ada", "lab", {"x": "1"})
    with serve(forge) as url:
        token = forge.user_token("ada")
        client = httpx.Client(base_url=f"{url}/api/v3", headers={"authorization": f"token {token}"}, trust_env=False)
        with client:
            put = client.put("/repos/ada/lab/contents/y", json={"message": "m", "content": "eA=="})
            assert put.status_code == 201
        assert len(children()) > len(before)
    forge.close()
    assert children() == before
    assert threading.active_count() == threads
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_repository_stays_readable_by_git_after_the_forge_is_gone(tmp_path: Path):
    forge = Forge(tmp_path)
    path = forge.add_repository("acme", "lab", {"README.md": "x\n"}).git.path
    forge.close()
    assert path == tmp_path / "acme/lab.git"
    shown = subprocess.run(["git", "show", "main:README.md"], cwd=path, capture_output=True, text=True, check=True)
    assert shown.stdout == "x\n"


def test_answers_are_quick_over_a_kept_connection(world: World, ada: httpx.Client):
    """Nagle's algorithm with delayed acknowledgements would make each of these 40 ms."""
    ada.get(world.repo())
    times = []
    for _ in range(20):
        started = time.perf_counter()
        ada.get(world.repo())
        times.append(time.perf_counter() - started)
    assert min(times) < 0.02


@pytest.mark.parametrize("login", ["", "-x", "a--b", "a b", "x" * 40, "ada"])
def test_bad_or_taken_logins_are_refused(forge: Forge, login: str):
    with pytest.raises(ValueError, match="login"):
        forge.add_user(login)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "lab"])
def test_bad_or_taken_repository_names_are_refused(forge: Forge, name: str):
    with pytest.raises(ValueError, match="repository"):
        forge.add_repository("acme", name)


def test_concurrent_writers_lose_nothing(world: World, ada: httpx.Client):
    ada.post(world.repo("/issues"), json={"title": "x"})
    token = world.forge.user_token("ada")

    def write(number: int) -> None:
        with httpx.Client(base_url=world.api, headers={"authorization": f"token {token}"}, trust_env=False) as client:
            for index in range(5):
                client.post(world.repo("/issues/1/comments"), json={"body": f"{number}.{index}"})

    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    bodies = [each.body for each in world.forge.repository("acme/lab").issues[1].comments]
    assert sorted(bodies) == sorted(f"{number}.{index}" for number in range(6) for index in range(5))
    assert world.names("issue_comment").count("issue_comment.created") == 30
