"""Landlock: a wall that a process builds around itself, and that everything it starts then lives behind.

    python -I -S landlock.py RULES_AS_JSON PROCESSES COMMAND...

It is the second wall inside bubblewrap, started there by its path as the first thing that runs: what a mistake in the
mounts would open, it still keeps closed. The rules are `null` where the kernel has no Landlock; PROCESSES, where it is
not 0, caps how many the job may have in its user namespace. This file stands alone, imports nothing of ours and little
of Python's.

Not covered: `chmod`, `chown`, `utime`, `setxattr` and `stat` of files outside the rules, connecting to a Unix socket
that lies in a folder (https://docs.kernel.org/userspace-api/landlock.html, "Current limitations"), and, where /proc may
be read, the environment of this user's other processes (seen on Linux 6.18). For these reasons Landlock alone is no
sandbox for code that nobody trusts.
"""

import ctypes
import errno
import json
import os
import resource
import sys

# The three calls have the same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_QUESTION_VERSION = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_MAKE_DEVICES = 1 << 6 | 1 << 11
"""MAKE_CHAR and MAKE_BLOCK."""
_OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that a rule on a single file may name; the others are for folders."""
_KNOWN_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_SCOPES = 3
"""Since version 6: abstract Unix sockets and signals, both only within the same wall."""

READ = EXECUTE | READ_FILE | READ_DIR
LIST = READ_DIR
DEVICE = READ_FILE | WRITE_FILE | READ_DIR | TRUNCATE | IOCTL_DEV
WRITE = ((1 << 16) - 1) & ~_MAKE_DEVICES
ALL_WRITES = ((1 << 16) - 1) & ~(READ | IOCTL_DEV)
LEAST_VERSION = 2
"""Version 1 forbids every move from one folder to another, inside the rules too."""

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Of the kernel's Landlock; 0 where it has none, or where it is not switched on."""
    found = int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_QUESTION_VERSION)))
    return max(0, found)


def restrict(rules: "list[tuple[int, str]]", handled: int = (1 << 16) - 1, *, scoped: bool = True) -> None:
    """Keep this process and all that it will start to what `rules` (rights, path) allow, out of the rights `handled`.

    A path that does not exist allows nothing.

    Raises: OSError where the kernel does not take it.
    """
    here = version()
    if here < LEAST_VERSION:
        raise OSError(errno.ENOSYS, f"the kernel has version {here} of it, {LEAST_VERSION} is needed")
    known = _KNOWN_BY_VERSION[min(5, here)] & handled
    attributes = (ctypes.c_uint64 * 3)(known, 0, _SCOPES if scoped and here >= 6 else 0)
    size = 24 if here >= 6 else 8
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)))
    try:
        for rights, path in rules:
            _add(ruleset, rights & known, path)
        _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(_libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


def _add(ruleset: int, rights: int, path: str) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_A_FILE
        if rights:
            rule = _PathBeneath(rights, beneath)
            _checked(
                _libc.syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), ctypes.byref(rule), 0)
            )
    finally:
        os.close(beneath)


def _checked(answer: int) -> int:
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer


def _main() -> None:
    command = sys.argv[3:]
    try:
        if (rules := json.loads(sys.argv[1])) is not None:
            restrict(rules)
        if processes := int(sys.argv[2]):
            resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    except OSError as error:
        sys.exit(f"postdoc: the job could not be confined: {error}")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"postdoc: {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    _main()
