"""Code that means harm, in the session of the `python` tool: what it gets, and what is left of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.brain.agent import sandboxed_python
from tests.brain.agent.test_sandboxed_python import ROOT, Place, needs_sandbox
from tests.runners.conftest import processes_naming

pytestmark = [needs_sandbox, pytest.mark.timeout(300)]
CANARY = "canary-5d1f"

ENVIRONMENT = """
import os, glob
found = dict(os.environ)
for path in glob.glob('/proc/[0-9]*/environ'):
    try: found[path] = open(path, 'rb').read()
    except OSError: pass
print(len(found), 'canary-5d1f' in repr(found))
print([p for p in PATHS if os.path.exists(p)])
print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[-1] < 60)
"""
NETWORK = """
import socket, urllib.request
def attempt(work):
    try: return work() and 'reached'
    except Exception as error: return type(error).__name__
print(attempt(lambda: socket.create_connection(('127.0.0.1', PORT), 2)))
print(attempt(lambda: socket.create_connection(('1.1.1.1', 53), 2)))
print(attempt(lambda: socket.getaddrinfo('huggingface.co', 443)))
print(attempt(lambda: urllib.request.urlopen('http://127.0.0.1:PORT/?x=secret', timeout=2)))
print(attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)))
print(attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)))
"""
DOOR = """
import os, errno
def attempt(work):
    try: work(); return 'done'
    except OSError as error: return errno.errorcode[error.errno]
d = '/mounts/door/'
print({attempt(lambda: os.unlink(d + 'socket')), attempt(lambda: os.rename(d + 'socket', d + 's')),
       attempt(lambda: os.symlink('/etc/passwd', d + 'x')), attempt(lambda: open(d + 'functions.json', 'w')),
       attempt(lambda: os.chmod(d + 'socket', 0o777)), attempt(lambda: os.link('/etc/passwd', d + 'y')),
       attempt(lambda: open(d + 'postdoc/__init__.py', 'a')), attempt(lambda: os.mkfifo(d + 'z'))})
"""
FORGED = """
import json, socket
from postdoc import _link, data
own = _link._links['own']
own.send({'done': 99, 'ended': 'ok'})
other = socket.socket(socket.AF_UNIX); other.connect(_link.SOCKET)
other.sendall(b'{"hello": "session"}\\n')
print('second session:', other.recv(10))
third = socket.socket(socket.AF_UNIX); third.connect(_link.SOCKET)
third.sendall(b'{"hello": "calls"}\\n' + json.dumps({'call': 1, 'function': 'os.system', 'arguments': {'c': 'id'}}).encode() + b'\\n')
print(third.recv(1000))
print(data.rows(1))
"""  # noqa: E501
ENDED_EARLY = """
from postdoc import _link
_link._links['own'].send({'done': NUMBER, 'ended': 'ok'})
import time; time.sleep(0.5)
print('after its end')
"""
JUNK = """
import socket, time
from postdoc import _link
try:
    for n in range(1000):
        s = socket.socket(socket.AF_UNIX); s.connect(_link.SOCKET); s.sendall(b'\\xff' * 10 + b'\\n'); s.close()
        time.sleep(0.001)
except OSError: pass
time.sleep(60)
"""
FLOOD = """
from postdoc import _link
line = b'{"call": 1, "function": "data.rows", "arguments": {"count": 9}}\\n' * 2000
import socket
own = socket.socket(socket.AF_UNIX); own.connect(_link.SOCKET); own.sendall(b'{"hello": "calls"}\\n')
while True: own.sendall(line); own.setblocking(True)
"""
FORKS = """
import os, time
made = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(100); os._exit(0)
        made += 1
except OSError as error:
    print('made', made, type(error).__name__)
"""
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for n in range(3, 100):
            try: os.close(n)
            except OSError: pass
        while True: time.sleep(1)
    os._exit(0)
print('left one')
"""
KILLS = """
import os, signal
def attempt(work):
    try: work(); return 'done'
    except OSError as error: return type(error).__name__
print(attempt(lambda: os.kill(1, signal.SIGKILL)), attempt(lambda: os.kill(os.getppid(), signal.SIGKILL)))
for p in os.listdir('/proc'):
    if p.isdigit() and int(p) not in (1, os.getpid()): attempt(lambda: os.kill(int(p), 9))
"""
LINKED_OUTPUT = """
import os
os.remove('outputs/NUMBER4.txt'); os.symlink('/etc/hostname', 'outputs/NUMBER4.txt')
"""
PIPED_OUTPUT = """
import os
os.remove('outputs/NUMBER4.txt'); os.mkfifo('outputs/NUMBER4.txt')
"""
DISK = """
for n in range(100):
    with open(f'fill-{n}', 'wb') as file: file.write(b'x' * (8 << 20))
import time; time.sleep(30)
"""
LOST_SOCKET = "import os; os.closerange(3, 4096); print('all closed')"
TERMINAL = r"print('\x1b]0;title\x07\x1b[2Jred\u202e\u200b ::add-mask::x ::stop-commands::')"
PLANTED = """
import os, sys, subprocess
for name in ('sitecustomize.py', 'usercustomize.py', 'json.py', 'x.pth'):
    open(name, 'w').write("import os; os.system('touch /mounts/door/owned; touch /owned')")
os.environ['LD_PRELOAD'] = '/job/evil.so'
subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True)
print(sorted(os.listdir('/')))
"""


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setenv("POSTDOC_HUB_TOKEN", CANARY)
    monkeypatch.setattr(sandboxed_python, "_INTERRUPT_SECONDS", 0.3)
    place = Place(tmp_path)
    yield place
    await place.python.close()
    async with asyncio.timeout(30):  # a supervisor ends a moment after it has said how its job ended
        while await asyncio.to_thread(processes_naming, tmp_path):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_it_reads_and_reaches_is_nothing_of_ours(place: Place, tmp_path: Path) -> None:
    paths = [str(ROOT / "bot"), str(tmp_path), "/etc/shadow", "/var", "/run", "/root/.ssh", "/sys/fs/cgroup"]
    shown = await place.run(ENVIRONMENT.replace("PATHS", repr(paths)))
    assert " False\n[]\nTrue\n" in shown
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        shown = await place.run(NETWORK.replace("PORT", str(listening.getsockname()[1])))
        assert "reached" not in shown and shown.lower().count("error") == 6
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert "{'EROFS'}" in await place.run(DOOR)
    shown = await place.run(PLANTED)
    assert "owned" not in shown and not (tmp_path / "work" / "door-1" / "owned").exists()


async def test_forged_lines_reach_nothing(place: Place) -> None:
    shown = await place.run(FORGED)
    assert "second session: b''" in shown and "There is no such function" in shown and "[{'row': 0}]" in shown
    shown = await place.run(ENDED_EARLY.replace("NUMBER", "2"))
    assert "after its end" not in shown and not place.failed
    assert "\n4\n" in await place.run("2 + 2"), "its next piece waits for the one that said too early that it had ended"
    assert "exit code 71" in await place.run(LOST_SOCKET)
    assert "\n6\n" in await place.run("3 + 3")


async def test_floods_end_the_session_and_not_the_bot(place: Place) -> None:
    for code in (JUNK, FLOOD):
        shown = await place.run(code, 60)
        assert place.failed and "The session was ended: it " in shown and ", 40 times" in shown
        assert "This is a new session" in await place.run("1")


async def test_processes_disk_and_daemons_are_held(place: Place) -> None:
    shown = await place.run(FORKS)
    assert "BlockingIOError" in shown and int(shown.partition("made ")[2].split()[0]) < 30
    await place.python.close()
    assert "left one" in await place.run(DAEMON)
    shown = await place.run(KILLS)
    assert "done PermissionError" not in shown
    await place.run("1")
    shown = await place.run(DISK, 60)
    assert place.failed and ("disk" in shown or "No space" in shown)


async def test_its_output_is_read_without_being_believed(place: Place) -> None:
    shown = await place.run(TERMINAL)
    assert "\x1b" not in shown and "\u202e" not in shown and "\u200b" not in shown and "red" in shown
    for code in (LINKED_OUTPUT, PIPED_OUTPUT):
        number = place.number + 1
        shown = await place.run(code.replace("NUMBER4", f"{number:04d}"))
        assert "no output can be read" in shown and "postdoc-job" not in shown
    assert "\n5\n" in await place.run("5")
    await place.run("import os, shutil; shutil.rmtree('outputs'); os.symlink('/etc', 'outputs')")
    broken = await place.run("6")
    assert place.failed and "no output can be written to outputs/" in broken
    assert "\n7\n" in await place.run("7"), "a session in which nothing can be run is begun anew"
