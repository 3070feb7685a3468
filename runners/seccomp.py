"""A seccomp filter for jobs: system calls that no training needs and that holes in the kernel were found behind.

The filter is compiled here to the kernel's own form, so that no library is wanted. A refused call fails with an error
number and kills nothing. What is left of the kernel's surface (files, memory, threads, loopback sockets, the ioctls of
a GPU) is what torch, its DataLoader and accelerate live on.

Not covered: arguments that lie in memory. That is why `clone3`, whose flags do, answers as an old kernel would; the C
library then falls back on `clone`, whose flags are looked at.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf_common.h, .../seccomp.h, .../audit.h
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _JUMP_IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_X32_BIT = 0x40000000
"""Calls of the x32 form on x86_64 carry it; a list of plain numbers would not see them."""

_NAMESPACE_FLAGS = 0x7E020080
"""CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET of linux/sched.h."""
_THREAD_FLAGS_MASK = _NAMESPACE_FLAGS & ~0xFF
"""The lowest byte of clone's flags is the signal of the child's end, so NEWTIME cannot be asked for there."""
_TERMINAL_IOCTLS = (0x5412, 0x541C)
"""TIOCSTI types into a terminal as if its owner had, TIOCLINUX does the same on a console."""
_SOCKET_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. The others are rarely used and often repaired; AF_VSOCK, which reaches the
host of a virtual machine, is not held by a network namespace."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the kernel calls an architecture, and its numbers of system calls."""

    audit: int
    numbers: dict[str, int]
    has_x32: bool = False


# arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h. From 424 on both are the same.
_SHARED = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435, "pidfd_getfd": 438,
    "mount_setattr": 442, "quotactl_fd": 443,
}  # fmt: skip
_X86_64 = _SHARED | {
    "ioctl": 16, "socket": 41, "clone": 56, "ptrace": 101, "syslog": 103, "personality": 135, "uselib": 134,
    "ustat": 136, "sysfs": 139, "vhangup": 153, "modify_ldt": 154, "pivot_root": 155, "_sysctl": 156, "adjtimex": 159,
    "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168,
    "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "create_module": 174,
    "init_module": 175, "delete_module": 176, "quotactl": 179, "nfsservctl": 180, "lookup_dcookie": 212,
    "clock_settime": 227, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272,
    "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304,
    "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
}  # fmt: skip
_AARCH64 = _SHARED | {
    "lookup_dcookie": 18, "ioctl": 29, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42, "chroot": 51,
    "vhangup": 58, "quotactl": 60, "acct": 89, "personality": 92, "unshare": 97, "kexec_load": 104,
    "init_module": 105, "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142,
    "sethostname": 161, "setdomainname": 162, "settimeofday": 170, "adjtimex": 171, "socket": 198, "add_key": 217,
    "request_key": 218, "keyctl": 219, "clone": 220, "swapon": 224, "swapoff": 225, "perf_event_open": 241,
    "fanotify_init": 262, "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
    "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "bpf": 280,
    "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip
MACHINES = {
    "x86_64": Machine(0xC000003E, _X86_64, has_x32=True),
    "aarch64": Machine(0xC00000B7, _AARCH64),
}

_LOOKED_INTO = ("clone", "clone3", "ioctl", "socket", "personality")
_ABSENT = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register")
"""Refused as if the kernel were too old for them, because libraries then take another way."""
_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, the same with 32-bit names, and the question which one is set: what containers may ask for too."""


def machine(name: str | None = None) -> Machine | None:
    """This machine when `name` is None; None for an architecture whose numbers are not written down here."""
    return MACHINES.get(name or os.uname().machine)


def refused_calls(of: Machine) -> frozenset[str]:
    """Those that fail whatever their arguments are."""
    return frozenset(of.numbers) - (frozenset(_LOOKED_INTO) - frozenset(_ABSENT))


def program(of: Machine) -> bytes:
    """The filter as an array of `struct sock_filter`, what `bwrap --seccomp` reads."""
    refuse, absent = _REFUSE | errno.EPERM, _REFUSE | errno.ENOSYS
    numbers = of.numbers
    code: list[_Word] = [
        _load(_ARCHITECTURE_AT),
        *_unless_equal((of.audit,), _KILL_PROCESS),
        _load(_NUMBER_AT),
        *([_Word(_JUMP_IF_AT_LEAST, _X32_BIT, 0, 1), _answer(absent)] if of.has_x32 else []),
    ]
    for name in sorted(refused_calls(of)):
        code += [_Word(_JUMP_IF_EQUAL, numbers[name], 0, 1), _answer(absent if name in _ABSENT else refuse)]
    code += _for_call(numbers["clone"], [
        _load(_argument(0)), _Word(_JUMP_IF_ANY_BIT, _THREAD_FLAGS_MASK, 0, 1), _answer(refuse), _answer(_ALLOW),
    ])  # fmt: skip
    code += _for_call(numbers["ioctl"], [
        _load(_argument(1)), *_if_equal(_TERMINAL_IOCTLS, refuse), _answer(_ALLOW),
    ])  # fmt: skip
    code += _for_call(numbers["socket"], [
        _load(_argument(0)), *_unless_equal(_SOCKET_FAMILIES, _REFUSE | errno.EAFNOSUPPORT), _answer(_ALLOW),
    ])  # fmt: skip
    code += _for_call(numbers["personality"], [
        _load(_argument(0)), *_unless_equal(_PERSONALITIES, refuse), _answer(_ALLOW),
    ])  # fmt: skip
    code.append(_answer(_ALLOW))
    return b"".join(word.packed() for word in code)


def program_file() -> int | None:
    """A descriptor from which the filter for this machine can be read; None where there is no filter for it."""
    here = machine()
    if here is None:
        return None
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    os.write(descriptor, program(here))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@dataclass(frozen=True, slots=True)
class _Word:
    """One instruction; `yes` and `no` are how many instructions a jump leaves out."""

    code: int
    value: int
    yes: int = 0
    no: int = 0

    def packed(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.yes, self.no, self.value)


def _load(offset: int) -> _Word:
    return _Word(_LOAD, offset)


def _answer(value: int) -> _Word:
    return _Word(_RETURN, value)


def _argument(index: int) -> int:
    """Where the low half of an argument lies in `struct seccomp_data`; both architectures are little-endian."""
    return 16 + 8 * index


def _if_equal(values: Iterable[int], answer: int) -> list[_Word]:
    return [word for value in values for word in (_Word(_JUMP_IF_EQUAL, value, 0, 1), _answer(answer))]


def _unless_equal(values: Sequence[int], answer: int) -> list[_Word]:
    """Each comparison that holds jumps behind the answer."""
    last = len(values)
    return [*(_Word(_JUMP_IF_EQUAL, value, last - i, 0) for i, value in enumerate(values)), _answer(answer)]


def _for_call(number: int, body: Sequence[_Word]) -> list[_Word]:
    """`body`, which ends in an answer, for one call; every other one goes on behind it."""
    return [_Word(_JUMP_IF_EQUAL, number, 0, len(body)), *body]
