"""What `postdoc doctor` says of containers: which engine answers, whether it can hold a job's caps, whether the image
is there. Nothing is started and nothing is fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.errors import PlatformError, UserError

if TYPE_CHECKING:
    from runners.containers.engine import Engine

Seen = tuple[bool, str, str]
"""Whether all is well, what was seen, what to do."""


def container_engine(url: str = "", image: str = "", *, wanted: bool = False) -> Seen:
    """`wanted`: the server's jobs run there, so that what is missing is no longer optional."""
    optional = "" if wanted else "optional, for jobs in containers: "
    try:
        from runners.containers.engine import Engine, socket_path
    except ImportError:
        return False, "the Docker SDK is not installed", f"{optional}`pip install 'postdoc[docker]'`"
    try:
        path = socket_path(url)
        return _look(Engine(f"unix://{path}"), path, image, optional)
    except (UserError, PlatformError) as error:
        return False, "none that can be used", f"{optional}{error}"


def _look(engine: Engine, path: str, image: str, optional: str) -> Seen:
    try:
        found = engine.describe()
        seen = f"{found.kind} {found.version}{', rootless' if found.rootless else ''}, at {path}"
        if not found.caps_hold:
            return False, seen, f"{optional}it cannot cap a container's memory and processes: `docker info` says why"
        if not image and not optional:
            return False, seen, "name the training image, with its digest, in POSTDOC_DOCKER_IMAGE"
        if image:
            engine.image(image)
        return True, f"{seen}, with the image {image}" if image else seen, ""
    finally:
        engine.close()
