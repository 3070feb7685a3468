"""The Linux calls that Python 3.11 does not wrap: parent-death signal, child subreaper, a network of one's own.

All of them are safe in the moment between fork and exec: the C library is loaded when this module is imported.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_AF_INET = 2
_SOCK_DGRAM = 2


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def die_with(parent: int) -> None:
    """Have this process killed when the thread that forked it ends.

    The parent may already be gone, and then the signal would never come: so its identity is checked afterwards.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Descendants whose own parent ends become this process's children, so a double fork does not escape it."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def go_before_others() -> bool:
    """Have this process, and what it starts until that says otherwise, run sooner than others; False without the right
    to."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    except PermissionError:
        return False
    return True


def counts_processes_by_namespace() -> bool:
    """Since Linux 5.14 RLIMIT_NPROC counts a user's processes in one user namespace; before, those on the whole machine
    (https://git.kernel.org/torvalds/c/21d1c5e386bc). It holds for every user but root."""
    major, _, rest = os.uname().release.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return os.getuid() != 0 and major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) >= (5, 14)


def leave_network() -> None:
    """Move this process into a network namespace that holds an empty loopback and nothing else.

    Raises: OSError where the kernel or the distribution does not let this user make namespaces.
    """
    uid, gid = os.getuid(), os.getgid()
    # A user who is not root gets the right to make a network namespace only together with a user namespace.
    flags = _CLONE_NEWNET if uid == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    if _libc.unshare(flags) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    _raise_loopback()


def _raise_loopback() -> None:
    probe = _libc.socket(_AF_INET, _SOCK_DGRAM, 0)
    if probe < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    try:
        answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        (flags,) = struct.unpack("16xh14x", answer)
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
    finally:
        os.close(probe)
