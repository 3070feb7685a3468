"""Every place where a text of the bot ends up: what it wrote, committed, logged and serves."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import httpx
from starlette.routing import Route

from bot.server.app import create_app
from tests.openapi import Exchange
from tests.openapi_requests import AGENT
from tests.world import REPOSITORY, World


def writes(world: World) -> list[Exchange]:
    """What the bot asked the forge to change, by the time it was asked."""
    return [each for each in world.recorder.exchanges if AGENT in each.agent and each.method != "GET"]


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, content in value.items():
            yield from strings(key)
            yield from strings(content)
    elif isinstance(value, list):
        for content in value:
            yield from strings(content)


def sent_texts(world: World) -> Iterator[tuple[str, str]]:
    """(where, text) of every string of every write; a commit's files are read from git instead."""
    for each in writes(world):
        body = json.loads(each.request) if each.request else {}
        if each.path == "/graphql":
            body.get("variables", {}).get("input", {}).pop("fileChanges", None)
        for text in strings(body):
            yield f"{each.method} {each.path}", text


def git(world: World, *arguments: str) -> bytes:
    place = world.forge.repository(REPOSITORY).git.path
    return subprocess.run(["git", *arguments], cwd=place, capture_output=True, check=True).stdout


def committed(world: World) -> Iterator[tuple[str, bytes]]:
    """(path, content) of every blob and (commit, message) of every commit that the bot's branches add to main."""
    refs = git(world, "for-each-ref", "--format=%(refname)", "refs/heads/postdoc", "refs/postdoc").decode().split()
    for ref in refs:
        for line in git(world, "rev-list", "--objects", f"main..{ref}").decode().splitlines():
            name, _, path = line.partition(" ")
            kind = git(world, "cat-file", "-t", name).decode().strip()
            if kind in ("blob", "commit"):
                yield f"{ref} {path or name}", git(world, "cat-file", kind, name)


def get_paths() -> list[str]:
    """Every path that the server answers to GET, whichever module it comes from."""
    bot = MagicMock()
    bot.settings.github_url = "https://api.github.com"
    found, waiting = [], list(create_app(bot).routes)
    while waiting:
        route = waiting.pop()
        # FastAPI keeps an included router as one route with the others inside.
        waiting += getattr(getattr(route, "original_router", None), "routes", [])
        if isinstance(route, Route) and "GET" in (route.methods or ()):
            found.append(route.path)
    return sorted(found)


def served(world: World) -> Iterator[tuple[str, str]]:
    """(path, text) of every page and view that the server answers to GET, for every goal."""
    values = {"owner": "acme", "repository": "speller", "repo": "speller", "name": "speller"}

    def filled(path: str, number: str) -> str:
        return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: values.get(found[1], number), path)

    paths = {filled(path, number) for path in get_paths() for number in ("1", "2", "3")}
    for path in sorted(paths):
        answer = httpx.get(f"{world.bot_url}{path}", timeout=20)
        assert answer.status_code < 500, f"{path}: {answer.text[:500]}"
        yield f"GET {path}", answer.text


def sinks(world: World) -> Iterator[tuple[str, str]]:
    """(where, text) of everything."""
    yield from sent_texts(world)
    for where, content in committed(world):
        yield where, content.decode("utf-8", "replace")
    yield from served(world)
    yield "the server's log", (world.folder / "bot.log").read_text(errors="replace")
