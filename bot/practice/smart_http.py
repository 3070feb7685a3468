"""Clone, fetch and push over smart HTTP: `git http-backend` as a CGI, with the forge's permissions around it."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from . import commits
from .auth import Actor
from .git_process import ENVIRONMENT
from .git_store import ZERO
from .hooks_folder import REFUSE_WORKFLOWS
from .model import Repository, Role
from .permissions import can_see, grants, require
from .replies import ApiError

if TYPE_CHECKING:
    from .forge import Forge

SERVICES = ("git-upload-pack", "git-receive-pack")
_CHUNK = 64 * 1024


async def serve(forge: Forge, request: Request) -> Response:
    """One request of the smart protocol below /{owner}/{repo}.git/."""
    inner = request.path_params["inner"]
    service = request.query_params.get("service", "") if inner == "info/refs" else inner
    try:
        with forge.lock:
            actor = forge.authenticate(request.headers.get("authorization"))
            repository = _allowed(forge, actor, request, service)
    except ApiError as error:
        headers = {"www-authenticate": 'Basic realm="GitHub"'} if error.status == 401 else {}
        return Response(error.message + "\n", error.status, headers, "text/plain")
    if inner == "git-receive-pack":
        return await _receive(forge, actor, repository, request)
    return await _backend(forge, actor, repository, request, _body(request))


def _allowed(forge: Forge, actor: Actor, request: Request, service: str) -> Repository:
    repository = forge.repositories.get(f"{request.path_params['owner']}/{request.path_params['repo']}".lower())
    if service not in SERVICES:
        raise ApiError(403, "Please upgrade your git client: only the smart protocol is served.")
    if repository is None or not can_see(actor, repository):
        # GitHub asks for a password first, so that a stranger cannot tell a private repository from none.
        raise ApiError(401 if actor.user is None else 404, "Repository not found.")
    writing = service == "git-receive-pack"
    need = ("contents:write",) if writing else ("contents:read",)
    require(actor, repository, Role.WRITE if writing else Role.READ, need)
    return repository


async def _receive(forge: Forge, actor: Actor, repository: Repository, request: Request) -> Response:
    """A push: git moves the refs itself, then everything that follows from it happens as after an API commit."""
    body = await request.body()
    asked = _commands(body if request.headers.get("content-encoding") != "gzip" else gzip.decompress(body))
    response = await _backend(forge, actor, repository, request, _once(body), buffered=True)
    with forge.lock:
        for old, new, name in asked:
            if (repository.git.ref(name) or ZERO) == new:
                commits.announce(forge, actor, repository, name, new, old)
    return response


def _commands(body: bytes) -> list[tuple[str, str, str]]:
    """(old, new, ref) of each command in front of the pack (gitprotocol-pack(5): pkt-lines up to a flush)."""
    found, position = [], 0
    while position + 4 <= len(body):
        length = int(body[position : position + 4], 16)
        if length < 4:
            break
        line = body[position + 4 : position + length].split(b"\0")[0].decode(errors="replace").strip()
        parts = line.split(" ", 2)
        if len(parts) == 3 and len(parts[0]) == 40:
            found.append((parts[0], parts[1], parts[2]))
        position += length
    return found


async def _backend(
    forge: Forge,
    actor: Actor,
    repository: Repository,
    request: Request,
    body: AsyncIterator[bytes],
    buffered: bool = False,
) -> Response:
    process = await asyncio.create_subprocess_exec(
        "git",
        "http-backend",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=_cgi_environment(forge, actor, repository, request),
    )
    assert process.stdin is not None and process.stdout is not None
    feeding = asyncio.create_task(_feed(process.stdin, body))
    status, headers = await _read_head(process.stdout)
    if buffered:
        content = await process.stdout.read()
        await _finish(process, feeding)
        return Response(content, status, headers)
    return StreamingResponse(_stream(process, feeding), status, headers)


def _cgi_environment(forge: Forge, actor: Actor, repository: Repository, request: Request) -> dict[str, str]:
    environment = ENVIRONMENT | {
        "GIT_PROJECT_ROOT": str(forge.root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{repository.owner.login}/{repository.name}.git/{request.path_params['inner']}",
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": request.url.query,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "REMOTE_ADDR": "127.0.0.1",
    }
    if actor.user is not None:
        environment["REMOTE_USER"] = actor.user.login
    for header, name in (
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
        ("content-length", "CONTENT_LENGTH"),
    ):
        if value := request.headers.get(header):
            environment[name] = value
    if actor.is_installation and not grants(actor, repository, ("workflows:write",)):
        environment[REFUSE_WORKFLOWS] = "1"
    return environment


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        yield chunk


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _feed(stdin: asyncio.StreamWriter, body: AsyncIterator[bytes]) -> None:
    try:
        async for chunk in body:
            stdin.write(chunk)
            await stdin.drain()
    except (BrokenPipeError, ConnectionResetError, ClientDisconnect):
        pass  # the backend has answered already, or the client has gone
    finally:
        stdin.close()


async def _read_head(stdout: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    status, headers = 200, {}
    while line := (await stdout.readline()).strip():
        name, _, value = line.decode().partition(":")
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers[name.lower()] = value.strip()
    return status, headers


async def _stream(process: asyncio.subprocess.Process, feeding: asyncio.Task[None]) -> AsyncIterator[bytes]:
    assert process.stdout is not None
    try:
        while chunk := await process.stdout.read(_CHUNK):
            yield chunk
    finally:
        await _finish(process, feeding)


async def _finish(process: asyncio.subprocess.Process, feeding: asyncio.Task[None]) -> None:
    feeding.cancel()
    if process.returncode is None:
        try:
            await asyncio.wait_for(process.wait(), timeout=5)
        except TimeoutError:
            os.kill(process.pid, 9)
            await process.wait()
