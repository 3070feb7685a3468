"""The filter as the kernel reads it, run here instruction by instruction, for both architectures on any machine."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import struct

import pytest

from runners import seccomp
from runners.seccomp import MACHINES, Machine, program, refused_calls

ALLOWED, KILLED = "allowed", "killed"
# What the kernel's own documentation of each calls it; numbers that stay allowed, by machine.
NEEDED = {
    "x86_64": {"read": 0, "mmap": 9, "execve": 59, "futex": 202, "sched_setaffinity": 203, "mbind": 237, "shmget": 29,
               "prctl": 157, "seccomp": 317, "memfd_create": 319, "pidfd_open": 434, "landlock_restrict_self": 446,
               "chmod": 90, "wait4": 61, "epoll_wait": 232, "set_mempolicy": 238},
    "aarch64": {"read": 63, "mmap": 222, "execve": 221, "futex": 98, "sched_setaffinity": 122, "mbind": 235,
                "shmget": 194, "prctl": 167, "seccomp": 277, "memfd_create": 279, "pidfd_open": 434,
                "landlock_restrict_self": 446, "fchmodat": 53, "wait4": 260, "epoll_pwait": 22, "set_mempolicy": 237},
}  # fmt: skip
WANTED = {
    "ptrace", "process_vm_readv", "process_vm_writev", "mount", "umount2", "pivot_root", "move_mount", "fsopen", "bpf",
    "keyctl", "add_key", "request_key", "userfaultfd", "perf_event_open", "kexec_load", "kexec_file_load",
    "init_module", "finit_module", "delete_module", "open_by_handle_at", "unshare", "setns", "io_uring_setup", "reboot",
}  # fmt: skip


@pytest.fixture(params=sorted(MACHINES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def machine(name: str) -> Machine:
    return MACHINES[name]


def answer(code: bytes, number: int, *arguments: int, audit: int) -> str:
    """What the kernel would do: https://docs.kernel.org/networking/filter.html, the few instructions that are used."""
    words = list(struct.iter_unpack("=HBBI", code))
    data = struct.pack("=IIQ", number, audit, 0) + struct.pack("=6Q", *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    at, value = 0, 0
    while True:
        operation, yes, no, constant = words[at]
        at += 1
        if operation == 0x06:
            kind = constant & 0xFFFF0000
            return {0x7FFF0000: ALLOWED, 0x80000000: KILLED}.get(kind) or errno.errorcode[constant & 0xFFFF]
        if operation == 0x20:
            (value,) = struct.unpack_from("=I", data, constant)
        else:
            holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[operation]
            at += yes if holds else no


def test_calls_are_refused_as_if_forbidden_or_unknown(machine):
    code = program(machine)
    assert refused_calls(machine) >= WANTED
    for call in refused_calls(machine):
        found = answer(code, machine.numbers[call], audit=machine.audit)
        assert found == ("ENOSYS" if call.startswith("io_uring") or call == "clone3" else "EPERM"), call


def test_calls_that_training_needs_pass(name, machine):
    code = program(machine)
    for call, number in NEEDED[name].items():
        assert answer(code, number, audit=machine.audit) == ALLOWED, call
    assert not set(NEEDED[name].values()) & set(machine.numbers.values())


def test_threads_and_children_pass_and_new_namespaces_do_not(machine):
    code, clone = program(machine), machine.numbers["clone"]
    threads, vfork = 0x3D0F00, 0x4111
    for flags in (threads, vfork, 17, 0x1200011):
        assert answer(code, clone, flags, audit=machine.audit) == ALLOWED
    for bit in (17, 25, 26, 27, 28, 29, 30):
        assert answer(code, clone, 1 << bit | 17, audit=machine.audit) == "EPERM"
        assert answer(code, clone, 1 << bit | threads, audit=machine.audit) == "EPERM"


def test_sockets_ioctls_and_personalities_are_told_apart(machine):
    code, numbers = program(machine), machine.numbers

    def found(call: str, *arguments: int) -> str:
        return answer(code, numbers[call], *arguments, audit=machine.audit)

    assert {found("socket", family) for family in (1, 2, 10, 16)} == {ALLOWED}
    assert {found("socket", family) for family in (0, 3, 15, 17, 38, 40, 44, 45)} == {"EAFNOSUPPORT"}
    assert {found("ioctl", 0, request) for request in (0x5412, 0x541C, 0x1_0000_5412)} == {"EPERM"}
    nvidia, terminal_size, kfd = 0xC020462A, 0x5413, 0xC0184B02
    assert {found("ioctl", 0, request) for request in (nvidia, terminal_size, kfd)} == {ALLOWED}
    assert {found("personality", which) for which in (0, 0xFFFFFFFF)} == {ALLOWED}
    assert found("personality", 0x0040000) == "EPERM"


def test_calls_of_another_architecture_end_the_process(machine):
    other = next(each for each in MACHINES.values() if each is not machine)
    for audit in (other.audit, 0x40000003):
        assert answer(program(machine), 0, audit=audit) == KILLED


def test_x32_form_of_a_call_is_no_way_round():
    x86 = MACHINES["x86_64"]
    for number in (0x40000000 | x86.numbers["bpf"], 0x40000000, 0xFFFFFFFF):
        assert answer(program(x86), number, audit=x86.audit) == "ENOSYS"


def test_numbers_are_those_that_libseccomp_knows(machine):
    path = ctypes.util.find_library("seccomp")
    if path is None:
        pytest.skip("libseccomp is not installed")
    library = ctypes.CDLL(path)
    wrong = {call: number for call, number in machine.numbers.items() if library.seccomp_syscall_resolve_name_arch(
        ctypes.c_uint32(machine.audit), call.encode()) not in (number, -1)}  # fmt: skip
    assert wrong == {}


def test_machine_with_other_numbers_has_no_filter():
    assert seccomp.machine("riscv64") is None
