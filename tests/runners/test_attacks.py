"""Jobs that mean harm, one property each, in every tier that claims to hold them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.errors import UserError
from runners import landlock, seccomp
from runners.bubblewrap import LANDLOCK, interpreter
from runners.job import Caps, FailureKind, JobId, JobState
from runners.local import LocalRunner
from runners.outputs import read_output
from runners.sandbox import Layer
from runners.tier import Tier
from tests.runners.conftest import REPORTS, processes_naming
from tests.runners.test_tiers import TREE, wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
CANARY = "canary-value-7f3a"
JOB = JobId("job")

TOOLS = """
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(work):
    try:
        work()
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    return 'done'
def call(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) < 0:
        return errno.errorcode[ctypes.get_errno()]
    return 'done'
def found(**what):
    json.dump(what, open('out.json', 'w'))
"""


@pytest.fixture(params=[tier for tier in Tier if tier is not Tier.PLAIN], ids=str)
def walled(request: pytest.FixtureRequest, new_runner: Callable[..., LocalRunner]) -> LocalRunner:
    """A runner with walls. Whether it also claims to hold code that nobody trusts is `isolates`."""
    report = REPORTS[request.param]
    if not report.available:
        pytest.skip(f"{report.tier}: {report.reason}")
    return new_runner(tier=report.tier, slots=4)


@pytest.fixture
def attack(script: Callable[..., Any], finish: Callable[..., Any]) -> Callable[..., Any]:
    """Run the code, which must come to its end; what it found."""

    def run(runner: LocalRunner, code: str, *arguments: object, **fields: Any) -> Any:
        argv = ("{python}", "script.py", *map(str, arguments))
        status = finish(runner, script(TOOLS + code, argv=argv, trusted=not runner.isolates, **fields))
        assert status.state is JobState.SUCCEEDED, runner.log_tail(JOB)
        return json.loads((runner.folder(JOB) / "out.json").read_text())

    return run


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Somebody else's process on this machine, with a secret in its environment."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(120)"],
                               env={"SECRET": CANARY})  # fmt: skip
    yield process
    process.kill()
    process.wait()


# the network


def test_network_is_not_there(runner, tier, attack):
    if not tier.isolates_network:
        pytest.skip(tier.reason)
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            "own = socket.create_server(('127.0.0.1', 0))\n"
            "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "found(outside=attempt(lambda: socket.create_connection(('192.0.2.1', 80), 3)),\n"
            "      datagram=attempt(lambda: udp.sendto(b'x', ('192.0.2.1', 53))),\n"
            "      names=attempt(lambda: socket.getaddrinfo('example.org', 80)),\n"
            "      metadata=attempt(lambda: socket.create_connection(('169.254.169.254', 80), 3)),\n"
            "      host=attempt(lambda: socket.create_connection(('127.0.0.1', int(sys.argv[1])), 3)),\n"
            "      own=attempt(lambda: socket.create_connection(own.getsockname(), 3)))\n"
        )
        found = attack(runner, code, server.getsockname()[1])
    assert found.pop("own") == "done", "processes of one job may talk to each other"
    assert found.pop("names") == "gaierror"
    assert found == {
        "outside": "ENETUNREACH", "datagram": "ENETUNREACH", "metadata": "ENETUNREACH", "host": "ECONNREFUSED",
    }  # fmt: skip


def test_sockets_that_no_network_namespace_holds_are_refused(walled, attack):
    need(walled, Layer.SECCOMP)
    code = "found(families={f: attempt(lambda: socket.socket(f, socket.SOCK_STREAM)) for f in (40, 38, 17, 44)})"
    assert set(attack(walled, code)["families"].values()) == {"EAFNOSUPPORT"}


def test_unix_socket_of_the_host_is_not_reachable(walled, attack, tmp_path):
    with socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as abstract:
        named.bind(str(tmp_path / "bus"))
        abstract.bind(f"\0postdoc-{os.getpid()}")
        for server in (named, abstract):
            server.listen()
        code = (
            "reach = lambda address: attempt(lambda: socket.socket(socket.AF_UNIX).connect(address))\n"
            "found(named=reach(sys.argv[1]), abstract=reach('\\0' + sys.argv[2]))\n"
        )
        found = attack(walled, code, tmp_path / "bus", f"postdoc-{os.getpid()}")
    assert found["named"] == "ENOENT"
    assert found["abstract"] in ("ECONNREFUSED", "EPERM")


# files


def test_files_of_the_host_are_not_there(walled, attack, tmp_path):
    secret = tmp_path / "secret.pem"
    secret.write_text("key")
    places = [
        secret, REPOSITORY / "pyproject.toml", REPOSITORY / "runners/local.py", Path(__file__), Path.home() / ".ssh",
        walled.root, walled.folder(JOB).parent, "/etc/shadow", "/etc/hostname", "/sys/kernel", "/boot", "/mnt",
        "/proc/1/root/etc/shadow", Path.home(), "/home", "/var", "/run", "/opt", LANDLOCK,
    ]  # fmt: skip
    # The interpreter itself may lie below one of these, as in /opt/python or a home's .venv.
    needed = [Path(folder) for folder in interpreter().folders]
    looked_at = [str(place) for place in places if not any(Path(place) in folder.parents for folder in needed)]
    if Layer.LANDLOCK not in REPORTS[walled.tier].layers:
        looked_at.remove(LANDLOCK)
    code = (
        "def readable(path):\n"
        "  try:\n"
        "    return bool(os.listdir(path)) if os.path.isdir(path) else bool(open(path).read(1))\n"
        "  except OSError:\n"
        "    return False\n"
        "found(seen=[path for path in json.loads(sys.argv[1]) if readable(path)], home=os.listdir('/tmp'))\n"
    )
    assert attack(walled, code, json.dumps(looked_at)) == {"seen": [], "home": []}


def test_mounts_evaluator_and_host_cannot_be_written_to(walled, attack, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "evaluate.py").write_text("kept")
    code = (
        "def writable(path, flags=os.O_WRONLY | os.O_NONBLOCK):\n"
        "  try:\n"
        "    os.close(os.open(path, flags))\n"
        "  except OSError:\n"
        "    return False\n"
        "  return True\n"
        "mount = sys.argv[1]\n"
        "new = [mount, sys.prefix, sys.base_prefix, '/usr', '/', '/etc', '/dev', '/mounts', '/job/..']\n"
        "seen = [place for place in new if writable(place + '/new', os.O_WRONLY | os.O_CREAT)]\n"
        "kernel = [os.path.join(parent, name) for top in os.listdir('/proc') if not top.isdigit()\n"
        "          and top not in ('self', 'thread-self')\n"
        "          for parent, _, names in os.walk('/proc/' + top) for name in names]\n"
        "kernel += ['/proc/sysrq-trigger', mount + '/evaluate.py', '/etc/passwd', '/usr/bin/env']\n"
        "assert len(kernel) > 100\n"
        "seen += [path for path in kernel if writable(path)]\n"
        "open('/tmp/scratch', 'w').write('allowed')\n"
        "open('/dev/shm/scratch', 'w').write('allowed')\n"
        "open('/dev/null', 'w').write('allowed')\n"
        "changes = {'chmod': lambda p: os.chmod(p, 0o777), 'unlink': os.unlink,\n"
        "           'truncate': lambda p: os.truncate(p, 0), 'times': os.utime,\n"
        "           'rename': lambda p: os.rename(p, p + 'x'), 'replace': lambda p: os.rename('script.py', p),\n"
        "           'link': lambda p: os.link(p, 'mine')}\n"
        "path = mount + '/evaluate.py'\n"
        "found(writable=seen, changed=[name for name, change in changes.items()\n"
        "                             if attempt(lambda: change(path)) == 'done'])\n"
    )
    assert attack(walled, code, "{mount:bundle}", mounts={"bundle": str(bundle)}) == {"writable": [], "changed": []}
    assert (bundle / "evaluate.py").read_text() == "kept"


def test_link_out_of_the_jobs_folder_leads_no_reader_astray(walled, script, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"step": 1, "key": CANARY}) + "\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "metrics.jsonl").write_text(secret.read_text())
    code = (
        "import os, sys, time\n"
        "os.mkdir('out')\nos.symlink(sys.argv[1], 'out/metrics.jsonl')\nos.symlink(sys.argv[2], 'elsewhere')\n"
        "print('linked', flush=True)\n"
        "while not os.path.exists('go'):\n  time.sleep(0.01)\n"
        "os.unlink('out/metrics.jsonl')\nos.rmdir('out')\nos.symlink(sys.argv[2], 'out')\n"
    )
    walled.launch(script(code, argv=("{python}", "script.py", str(secret), str(tmp_path / "folder"))))
    wait_for(lambda: "linked" in walled.log_tail(JOB))
    assert walled.metrics(JOB) == []
    for path in ("out/metrics.jsonl", "elsewhere/metrics.jsonl"):
        with pytest.raises(UserError, match="plain file"):
            read_output(walled.folder(JOB), path)
    (walled.folder(JOB) / "go").touch()
    assert walled.wait(JOB, 30).state is JobState.SUCCEEDED
    assert walled.metrics(JOB) == []
    assert sorted(os.listdir(walled.folder(JOB))) == ["go", "script.py"], "links that lead out are gone"
    assert CANARY not in walled.log_tail(JOB)


def test_second_wall_holds_what_the_first_would_let_through(walled, attack):
    need(walled, Layer.LANDLOCK)
    code = "found(listed=os.listdir(os.path.dirname(sys.argv[1])), read=attempt(lambda: open(sys.argv[1])))"
    # A file that is mounted, belongs to the job's own user number, and is in no rule.
    assert attack(walled, code, LANDLOCK) == {"listed": [Path(LANDLOCK).name], "read": "EACCES"}


def test_disk_cannot_be_filled(walled, script, finish):
    code = TOOLS + (
        "def fill(folder, limit):\n"
        "  for number in range(limit):\n"
        "    with open(f'{folder}/{number}', 'wb') as file:\n"
        "      file.write(bytes(4 << 20))\n"
        "found(memory=attempt(lambda: fill('/tmp', 64)))\n"
        "for number in os.listdir('/tmp'):\n  os.unlink('/tmp/' + number)\n"
        "fill('/scratch', 1 << 20)\n"
    )
    caps = Caps(memory_gib=0.125, disk_gib=32 / 1024, timeout_seconds=30)
    status = finish(walled, script(code, trusted=not walled.isolates, caps=caps))
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.DISK_FULL)
    assert json.loads((walled.folder(JOB) / "out.json").read_text()) == {"memory": "ENOSPC"}
    assert not (walled.folder(JOB).parent / "scratch").exists()


# processes


def test_other_processes_are_not_seen_and_cannot_be_signalled(walled, attack, bystander):
    code = (
        "pid = int(sys.argv[1])\n"
        "found(seen=[p for p in os.listdir('/proc') if p.isdigit()], kill=attempt(lambda: os.kill(pid, 9)),\n"
        "      everybody=attempt(lambda: os.kill(-1, 0)), first=attempt(lambda: os.kill(1, 9)),\n"
        "      environment=attempt(lambda: open(f'/proc/{pid}/environ').read()), uid=os.getuid())\n"
    )
    found = attack(walled, code, bystander.pid)
    assert (found["seen"], found["uid"]) == (["1", "2"], 1000)
    assert found["kill"] == "ESRCH"
    assert found["environment"] == "ENOENT"
    assert bystander.poll() is None


def test_environment_of_the_bot_and_of_all_parents_is_out_of_reach(runner, attack, monkeypatch):
    monkeypatch.setenv("POSTDOC_CANARY", CANARY)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    code = (
        "pids = [p for p in os.listdir('/proc') if p.isdigit()] if sys.argv[1] == 'all' else [str(os.getppid())]\n"
        "seen = {}\n"
        "for pid in [*pids, 'self']:\n"
        "  try:\n"
        "    seen[pid] = open(f'/proc/{pid}/environ', errors='replace').read()\n"
        "  except OSError:\n"
        "    pass\n"
        "found(environ=dict(os.environ), raw=seen)\n"
    )
    caps = Caps(memory_gib=1, timeout_seconds=60, cpu_threads=2)
    whose = "parent" if runner.tier is Tier.PLAIN else "all"
    seen = attack(runner, code, whose, environment={"SEED": "3"}, caps=caps)
    assert CANARY not in json.dumps(seen)
    assert seen["environ"]["SEED"] == "3"
    assert seen["environ"]["OMP_NUM_THREADS"] == seen["environ"]["MKL_NUM_THREADS"] == "2"
    assert seen["environ"]["HF_HUB_OFFLINE"] == seen["environ"]["TRANSFORMERS_OFFLINE"] == "1"


def test_fork_bomb_ends_with_its_job(walled, script, finish, tmp_path):
    # Nine doublings, no more: where a wall fails, the machine that runs the tests has to live on.
    code = (
        "import os, time\nfor _ in range(9):\n  try:\n    os.fork()\n  except OSError:\n    pass\n"
        "time.sleep(5)\nraise SystemExit(1)"
    )
    argv = ("{python}", "script.py", f"{tmp_path}/multiplies")
    caps = Caps(memory_gib=1, pids=24, timeout_seconds=20)
    status = finish(walled, script(code, argv=argv, trusted=not walled.isolates, caps=caps))
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.PROCESS_LIMIT)
    assert [line for line in processes_naming(tmp_path) if "multiplies" in line] == []


AS_A_USER = """
import sys
from pathlib import Path
from runners import sandbox
from runners.job import Caps, JobId, JobSpec
from runners.local import LocalRunner
from runners.tier import Tier
report = next(report for report in sandbox.probe() if report.tier is Tier.BUBBLEWRAP_RLIMITS)
print(report.isolates, report.reason)
folder = Path(sys.argv[1])
runner = LocalRunner(folder / "jobs", tier=Tier.BUBBLEWRAP_RLIMITS)
code = "import os, time\\nmade = 0\\nfor _ in range(60):\\n"
code += "  try:\\n    pid = os.fork()\\n  except BlockingIOError:\\n    break\\n"
code += "  if pid == 0:\\n    time.sleep(0.2)\\n    os._exit(0)\\n  made += 1\\nprint('made', made)"
(folder / "script.py").write_text(code)
spec = JobSpec(JobId("job"), ("{python}", "script.py"), files={"script.py": str(folder / "script.py")},
               caps=Caps(memory_gib=1, pids=24))
runner.launch(spec)
print(runner.wait(JobId("job"), 60).tier, runner.log_tail(JobId("job")))
"""


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("setpriv") or not Path("/usr/bin/python3").exists(),
    reason="only root can become another user, with setpriv and the machine's own Python",
)
def test_kernel_caps_the_processes_of_a_user_that_is_not_root():
    if not REPORTS[Tier.BUBBLEWRAP_RLIMITS].available:
        pytest.skip(REPORTS[Tier.BUBBLEWRAP_RLIMITS].reason)
    # The machine's own: a virtual environment often lies where no other user may look.
    python = "/usr/bin/python3"
    question = "import sys; raise SystemExit(sys.version_info < (3, 11))"
    if subprocess.run([python, "-c", question], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{python} is no Python 3.11")
    with tempfile.TemporaryDirectory(prefix="postdoc-user-") as place:
        folder = Path(place)
        for name in ("runners", "bot/domain"):
            shutil.copytree(REPOSITORY / name, folder / name)
        shutil.copy(REPOSITORY / "bot/errors.py", folder / "bot/errors.py")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534)
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c", AS_A_USER, folder],
            cwd=folder, env={"PYTHONPATH": place, "PATH": os.defpath}, capture_output=True, text=True, timeout=90,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    claims, said = done.stdout.splitlines()
    if claims.startswith("False"):
        pytest.skip(claims)
    # The script itself is the 24th.
    assert said.split() == ["bubblewrap+rlimits", "made", "23"]


def test_process_in_a_session_of_its_own_does_not_outlive_its_job(runner, script, finish):
    spec = script(TREE.replace("time.sleep(60)", "while not os.path.exists('beat'):\n  time.sleep(0.01)"))
    status = finish(runner, spec)
    beat = runner.folder(spec.job_id) / "beat"
    size = beat.stat().st_size
    assert status.state is JobState.SUCCEEDED
    time.sleep(0.15)  # seven beats of a survivor
    assert beat.stat().st_size == size


def test_other_processes_of_the_sandbox_cannot_be_traced(walled, attack):
    need(walled, Layer.SECCOMP)
    numbers = seccomp.machine().numbers
    code = (
        "n = json.loads(sys.argv[1])\n"
        "found(attach=call(n['ptrace'], 16, 1, 0, 0), seize=call(n['ptrace'], 0x4206, 1, 0, 0),\n"
        "      itself=call(n['ptrace'], 0, 0, 0, 0), read=call(n['process_vm_readv'], 1, 0, 0, 0, 0, 0),\n"
        "      descriptor=call(n['pidfd_getfd'], os.pidfd_open(1), 0, 0),\n"
        "      memory=attempt(lambda: open('/proc/1/mem', 'rb').read(1)))\n"
    )
    found = attack(walled, code, json.dumps(numbers))
    assert found.pop("memory") in ("EACCES", "EPERM", "EIO")
    assert set(found.values()) == {"EPERM"}


# the kernel


def test_no_namespace_can_be_made_or_entered(walled, attack):
    need(walled, Layer.SECCOMP)
    numbers = seccomp.machine().numbers
    code = (
        "n = json.loads(sys.argv[1])\n"
        "flags = [1 << bit for bit in (7, 17, 25, 26, 27, 28, 29, 30)]\n"
        "found(unshare={f: call(n['unshare'], f) for f in flags},\n"
        "      clone={f: call(n['clone'], f | 17, 0, 0, 0, 0) for f in flags[1:]},\n"
        "      enter=call(n['setns'], os.open('/proc/self/ns/net', os.O_RDONLY), 0),\n"
        "      new=call(n['clone3'], 0, 88))\n"
    )
    found = attack(walled, code, json.dumps(numbers))
    assert set(found["unshare"].values()) == set(found["clone"].values()) == {found["enter"]} == {"EPERM"}
    assert found["new"] == "ENOSYS"


def test_user_namespace_is_refused_by_the_first_wall_too(walled, script, finish, monkeypatch):
    monkeypatch.setitem(walled.__dict__, "_setting", replace(walled._setting, layers=frozenset()))
    code = "import ctypes\nraise SystemExit(0 if ctypes.CDLL(None).unshare(0x10000000) else 3)"
    assert finish(walled, script(code, trusted=not walled.isolates)).exit_code == 0


def test_calls_that_no_training_needs_are_refused(walled, attack):
    need(walled, Layer.SECCOMP)
    here = seccomp.machine()
    assert here is not None
    refused = {name: here.numbers[name] for name in seccomp.refused_calls(here)}
    code = (
        "import fcntl, pty\n"
        "answers = {name: call(number, 0, 0, 0, 0, 0, 0) for name, number in json.loads(sys.argv[1]).items()}\n"
        "ends = pty.openpty()\n"
        "found(wrong={n: a for n, a in answers.items() if a not in ('EPERM', 'ENOSYS')},\n"
        "      typing=[attempt(lambda: fcntl.ioctl(end, 0x5412, b'x')) for end in ends],\n"
        "      mount=attempt(lambda: os.mkdir('/job/m')) and libc.mount(b'x', b'/job/m', b'tmpfs', 0, None))\n"
    )
    found = attack(walled, code, json.dumps(refused))
    assert found == {"wrong": {}, "typing": ["EPERM", "EPERM"], "mount": -1}


def test_no_program_gives_its_job_more_rights(walled, attack):
    code = (
        "import subprocess\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())\n"
        "rights = {name: status[name].strip() for name in ('CapEff', 'CapPrm', 'CapBnd', 'CapInh', 'NoNewPrivs')}\n"
        "tool = next((t for t in ('/usr/bin/su', '/usr/bin/mount', '/bin/mount') if os.path.exists(t)), None)\n"
        "grows = 'import os; print(os.geteuid())'\n"
        "open('tool', 'w').write('#!' + sys.executable + '\\n' + grows)\nos.chmod('tool', 0o4755)\n"
        "found(rights=rights, root=attempt(lambda: os.setuid(0)),\n"
        "      euid=subprocess.run(['./tool'], capture_output=True, text=True).stdout.strip(),\n"
        "      tool=tool and subprocess.run([tool, '-c', 'id'], capture_output=True).returncode)\n"
    )
    found = attack(walled, code)
    assert found["rights"].pop("NoNewPrivs") == "1"
    assert {rights.strip("0") for rights in found["rights"].values()} == {""}
    assert found["root"] in ("EINVAL", "EPERM")
    assert found["euid"] == "1000"
    assert found["tool"] != 0
    assert (walled.folder(JOB) / "tool").stat().st_mode & 0o6000 == 0


# what the plain tier holds, and why it is no sandbox


def test_plain_tier_with_landlock_holds_writes_and_signals_but_not_everything(new_runner, attack, bystander, tmp_path):
    if Layer.LANDLOCK not in REPORTS[Tier.PLAIN].layers:
        pytest.skip(f"Landlock version {landlock.version()}")
    runner = new_runner(tier=Tier.PLAIN)
    mine = tmp_path / "mine"
    mine.write_text("kept")
    mine.chmod(0o600)
    code = (
        "path, pid = sys.argv[1], int(sys.argv[2])\n"
        "open('inside', 'w').write('allowed')\nos.mkdir('a')\nos.rename('inside', 'a/inside')\n"
        "open(os.environ['HOME'] + '/x', 'w').write('allowed')\nopen('/dev/null', 'w').write('allowed')\n"
        "found(write=attempt(lambda: open(path, 'a')), unlink=attempt(lambda: os.unlink(path)),\n"
        "      new=attempt(lambda: open(path + '.new', 'w')), rename=attempt(lambda: os.rename(path, 'taken')),\n"
        "      memory=attempt(lambda: open(f'/proc/{pid}/mem')), read=attempt(lambda: open(path).read()),\n"
        "      mode=attempt(lambda: os.chmod(path, 0o644)), kill=attempt(lambda: os.kill(pid, 9)))\n"
    )
    found = attack(runner, code, mine, bystander.pid)
    assert {found[name] for name in ("write", "unlink", "new", "memory")} == {"EACCES"}
    assert found["rename"] in ("EACCES", "EXDEV")
    if landlock.version() >= 6:
        assert (found["kill"], bystander.poll()) == ("EPERM", None)
    # Why code that did not ship with Postdoc is refused on this tier, however much of Landlock there is.
    assert (found["read"], found["mode"]) == ("done", "done")
    assert mine.read_text() == "kept"


def need(runner: LocalRunner, layer: Layer) -> None:
    if layer not in REPORTS[runner.tier].layers:
        pytest.skip(f"no {layer} here")
