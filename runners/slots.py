"""How many jobs run at once on this machine: queues of tickets and a lock for each slot, all in plain files, so that
neither a restart of the bot nor a killed supervisor can leave a slot taken for ever.

Jobs that want a GPU have a queue of their own: while somebody else's training keeps the GPUs, data is still prepared.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

QUEUE = ".queue"
GPU_QUEUE = ".gpu-queue"
_QUEUES = (QUEUE, GPU_QUEUE)
SLOTS = ".slots"
LOCK = "lock"
_START_GRACE_SECONDS = 5.0
"""A ticket is written just before its supervisor starts; for this long it counts although nobody holds the job yet."""


def open_lock(path: Path) -> int:
    """A descriptor of a lock file, made if need be, that no child inherits."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether a live process holds the lock. The kernel lets go of it however that process ends."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look at once do not take each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def enqueue(root: Path, job_id: str, queue: str = QUEUE) -> None:
    """Give the job its place in the queue, unless it has one."""
    folder = root / queue
    folder.mkdir(exist_ok=True)
    if not any(ticket.partition("_")[2] == job_id for ticket in os.listdir(folder)):
        (folder / f"{time.time_ns():020d}_{job_id}").touch()


def leave_queue(root: Path, job_id: str) -> None:
    for queue in _QUEUES:
        for ticket in _tickets(root / queue):
            if ticket.partition("_")[2] == job_id:
                (root / queue / ticket).unlink(missing_ok=True)


def is_first(root: Path, job_id: str, queue: str = QUEUE) -> bool:
    """Whether no job that waits, or is about to, came earlier. Tickets of the dead are thrown away on the way."""
    return _before(root, job_id, queue, stop=1) == 0


def place_in_line(root: Path, job_id: str) -> int | None:
    """How many jobs are before it in its queue; None when it waits in none."""
    for queue in _QUEUES:
        if any(ticket.partition("_")[2] == job_id for ticket in _tickets(root / queue)):
            return _before(root, job_id, queue)
    return None


def _before(root: Path, job_id: str, queue: str, stop: int | None = None) -> int:
    found = 0
    for ticket in _tickets(root / queue):
        made, _, owner = ticket.partition("_")
        if owner == job_id or found == stop:
            break
        waiting_seconds = (time.time_ns() - int(made)) / 1e9
        if is_held(root / owner / LOCK) or waiting_seconds < _START_GRACE_SECONDS:
            found += 1
        else:
            (root / queue / ticket).unlink(missing_ok=True)
    return found


def _tickets(folder: Path) -> list[str]:
    """The oldest first."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def taken_slots(root: Path) -> int:
    return sum(is_held(root / SLOTS / name) for name in _tickets(root / SLOTS))


def take_slot(root: Path, slots: int) -> int | None:
    """The descriptor of a free slot's lock, which holds the slot while it stays open; None when all are taken."""
    folder = root / SLOTS
    folder.mkdir(exist_ok=True)
    for number in range(slots):
        descriptor = open_lock(folder / str(number))
        if try_lock(descriptor):
            return descriptor
        os.close(descriptor)
    return None
