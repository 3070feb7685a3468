"""Run a command as a user who can read nothing of the process that holds the token, inside one container.

    python -I -S unprivileged.py UID TOKEN_HOLDER_PID TOKEN_VARIABLE JOBS_FOLDER COMMAND...

It is run by path, before a job's own command, and imports the standard library alone. Where it is started as root it
gives the job's folder to UID and becomes that user; set-user-id programs give nothing back (no_new_privs). In any case
it looks for the token where a process of this user could find it, and refuses to start the job when it is there.

Not covered: a kernel or container escape, and the network, which the platform leaves open to every process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

REFUSED = 125
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def main() -> None:
    uid, holder, variable, jobs = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    command, parent = sys.argv[5:], os.getppid()
    if os.getuid() == 0 and uid != 0:
        _give_away(uid, jobs)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        _refuse("this kernel cannot take set-user-id programs away from the job")
    # Changing the user has cleared it, and a job must not outlive its supervisor.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(REFUSED)
    for pid in _holders(holder):
        if _shows(pid, f"{variable}=".encode()):
            _refuse(
                f"process {pid} of this container shows the jobs' token to the job; use an image that starts as root "
                "and has no entry point of its own"
            )
    os.execv(command[0], command)


def _give_away(uid: int, jobs: str) -> None:
    """The working folder and the scratch folder become the user's; the way to them may be walked, not listed."""
    work = os.getcwd()
    for top in {work, os.environ["TMPDIR"]}:
        os.chown(top, uid, uid)
        for parent, folders, files in os.walk(top):
            for name in folders + files:
                os.chown(os.path.join(parent, name), uid, uid, follow_symlinks=False)
    for folder in (jobs, os.path.dirname(work)):
        os.chmod(folder, 0o711)  # noqa: S103 - as said above


def _holders(holder: int) -> set[int]:
    """Who may have been started with the token: its holder, the first process, and everybody between us and it."""
    found, pid = {holder, 1}, os.getpid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.add(pid)
    return found - {0, os.getpid()}


def _shows(pid: int, variable: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(each.startswith(variable) for each in file.read().split(b"\0"))
    except OSError:
        return False


def _refuse(why: str) -> None:
    print(f"postdoc: the job is not started: {why}", file=sys.stderr, flush=True)
    os._exit(REFUSED)


if __name__ == "__main__":
    main()
