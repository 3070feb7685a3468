"""Jobs in containers on this machine, under dockerd or podman: each in a folder of its own, as LocalRunner's, under a
supervisor that outlives the bot. The container outlives even its supervisor, and a new one takes it over."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bot.errors import PlatformError, UserError
from runners import intake, joblog, slots
from runners.bubblewrap import CACHE
from runners.containers import plan as container_plan
from runners.containers.engine import Description, Engine, Image, check_pinned, socket_path
from runners.containers.plan import ENDED, JOB_LABEL, OUTPUT, PIPES, RELEASE, ROOT_LABEL, Setting
from runners.gpus import GpuPlace
from runners.job import Flavor, JobId, JobSpec, JobStatus
from runners.layout import LAUNCH_LOCK, SCRATCH, WORK, read_status
from runners.local import LocalRunner, locked

_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from runners.containers.supervisor import main; main()"
_IMAGE_SECONDS = 60.0
"""How long an image that was seen counts as there."""


class ContainerRunner(LocalRunner):
    """The Runner protocol over containers of this machine."""

    name = "docker"
    _supervisor_words = ("-c", _START)

    def __init__(
        self,
        root: Path,
        image: str,
        url: str = "",
        *,
        python: str = "python3",
        pull: bool = False,
        slots: int | None = None,
        log_bytes: int = joblog.DEFAULT_CAP_BYTES,
        redact: Callable[[str], str] | None = None,
        cache: Path | None = None,
        gpu_place: GpuPlace | None = None,
    ) -> None:
        """`image` is pinned by its digest or its id; `url` is the engine's socket (`DOCKER_HOST`, else the usual
        places, when empty); `python` the interpreter inside the image; `pull` whether a missing image is fetched. The
        others are LocalRunner's.

        Raises: UserError when the image is not pinned or the engine is on another machine.
        """
        super().__init__(root, slots=slots, log_bytes=log_bytes, redact=redact, cache=cache, gpu_place=gpu_place)
        check_pinned(image)
        self._image_name = image
        self._url = url
        self._image_python = python
        self._pull = pull
        self._image: tuple[float, Image] | None = None

    @property
    def isolates(self) -> bool:
        return True

    @property
    def image(self) -> str:
        """What jobs run in, pinned by its digest or its id."""
        return self._image_name

    def flavors(self) -> Sequence[Flavor]:
        """One: this machine."""
        (here,) = super().flavors()
        return (replace(here, name=self.name),)

    @property
    def label(self) -> str:
        """Value of the label `postdoc.root` on every container of this runner."""
        return container_plan.root_label(self.root)

    # starting

    @cached_property
    def _engine(self) -> Engine:
        return Engine(f"unix://{socket_path(self._url)}")

    @cached_property
    def _description(self) -> Description:
        found = self._engine.describe()
        if not found.caps_hold:
            where = "rootless, it needs control groups of version 2 with delegation" if found.rootless else "its kernel"
            raise UserError(
                f"{found.kind} at {self._engine.place} cannot cap the memory and the processes of a container "
                f"({where}); `docker info` shows the warning. Use one that can, or another runner"
            )
        return found

    def _check_permitted(self, spec: JobSpec) -> None:
        """Raises: UserError when there is no engine, no right to use it, no image, or a cap that it cannot hold."""
        self._setting_now()

    def _setting_now(self) -> Setting:
        """Looked at for each launch, so that an image that was removed is missed before the job counts as launched."""
        description = self._description
        now = time.monotonic()
        if self._image is None or now - self._image[0] > _IMAGE_SECONDS:
            self._image = (now, self._engine.image(self._image_name, pull=self._pull))
        return Setting(
            self._engine.url,
            description,
            self._image[1],
            self.root,
            self._image_python,
            self._gpu_place,
            self._shared,
        )

    def _launch_plan(self, spec: JobSpec, folder: Path) -> dict[str, Any]:
        here = self._setting_now()
        if os.getuid() == 0:
            for name, source in spec.mounts.items():
                self._let_read(name, Path(intake.mount_point(name, source)[0]))
        self._shared.link_datasets(folder / SCRATCH, self._shared.moved_to(CACHE).datasets)
        plan = container_plan.launch_plan(spec, here, folder)
        pipes = folder / PIPES
        shutil.rmtree(pipes, ignore_errors=True)
        pipes.mkdir(mode=0o755)
        for name in (OUTPUT, ENDED, RELEASE):
            os.mkfifo(pipes / name, 0o600)
        if os.getuid() == 0:
            for name in (WORK, SCRATCH, PIPES):
                give(folder / name, here.user, here.group)
        return plan

    def _let_read(self, name: str, source: Path) -> None:
        """A job of a bot that is root runs as somebody else, who may read what everybody may.

        Raises: UserError when a file is for its owner alone, and is not a job's: nobody else's modes are changed.
        """
        for path in closed(source):
            if not path.is_relative_to(self.root):
                raise UserError(
                    f"mount {name}: {path} can be read by its owner alone, and jobs in containers run as another user; "
                    f"`chmod -R o+rX {source}` lets them read it"
                )
            # No other user comes that far: the folder of all jobs is closed.
            os.chmod(path, stat.S_IMODE(path.stat().st_mode) | (0o055 if path.is_dir() else 0o044))

    # ending

    def _without_supervisor(self, folder: Path) -> JobStatus:
        """The container may still run, or have ended well: a new supervisor finds out."""
        problem = ""
        try:
            with locked(folder / LAUNCH_LOCK):
                self._start_again(JobId(folder.name))
        except PlatformError as error:
            problem = str(error)
        status = read_status(folder)
        assert status is not None
        return replace(status, detail=problem) if problem else status

    def _start_if_never_started(self, job_id: JobId) -> bool:
        started = super()._start_if_never_started(job_id)
        if not started:
            self._start_again(job_id)
        return started

    def _start_again(self, job_id: JobId) -> None:
        folder = self.root / job_id
        status = read_status(folder)
        if status is not None and not status.state.ended and not slots.is_held(folder / slots.LOCK):
            self._start_supervisor(job_id)

    def _end_orphans(self) -> tuple[str, ...]:
        """Containers that carry this root's label and whose job has ended, or whose folder has gone."""
        ended = []
        try:
            found = self._engine.labelled({ROOT_LABEL: self.label})
            for name, labels in found:
                folder = self.root / labels.get(JOB_LABEL, "")
                if not self._is_owned(folder):
                    self._engine.remove(name)
                    ended.append(f"container {name}")
        except (PlatformError, UserError):
            # Without its engine no container runs away; the next sweep asks again.
            pass
        return tuple(ended)

    def _is_owned(self, folder: Path) -> bool:
        """Whether a supervisor has the container in its care, or the next one will."""
        if slots.is_held(folder / slots.LOCK) or slots.is_held(folder / LAUNCH_LOCK):
            return True
        status = read_status(folder)
        return status is not None and not status.state.ended


def closed(folder: Path) -> Iterator[Path]:
    """Files and folders of `folder`, itself included, that not everybody may read."""
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in files)):
            mode = path.lstat().st_mode
            wanted = 0o005 if stat.S_ISDIR(mode) else 0o004 if stat.S_ISREG(mode) else 0
            if mode & wanted != wanted:
                yield path
        folders.sort()


def give(folder: Path, user: int, group: int) -> None:
    """Make everything in `folder` belong to `user`; links themselves, never what they point to."""
    for parent, folders, files in os.walk(folder):
        os.chown(parent, user, group, follow_symlinks=False)
        for name in (*folders, *files):
            os.chown(os.path.join(parent, name), user, group, follow_symlinks=False)
