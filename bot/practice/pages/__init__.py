"""The practice forge's pages: what a person sees in a browser in place of github.com, made from the forge's own API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bot.practice.pages import acts, issues, new_app, pulls, repository
from bot.practice.pages.door import open_door
from bot.practice.pages.live import CountChanges
from bot.practice.pages.site import Handler, Site

if TYPE_CHECKING:
    from bot.practice.forge import Forge

__all__ = ["mount"]

STATIC = Path(__file__).parent / "static"
STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

_R = "/{owner}/{repo}"
LOOKING: tuple[tuple[str, Handler], ...] = (
    ("/", repository.home),
    (_R, repository.code),
    (_R + "/tree/{rest:path}", repository.tree),
    (_R + "/blob/{rest:path}", repository.blob),
    (_R + "/raw/{rest:path}", repository.raw),
    (_R + "/edit/{rest:path}", repository.edit),
    (_R + "/commits/{rest:path}", repository.commits),
    (_R + "/commit/{sha}", repository.commit),
    (_R + "/issues", issues.listed),
    (_R + "/pulls", issues.listed),
    (_R + "/issues/new/choose", issues.choose),
    (_R + "/issues/new", issues.new),
    (_R + "/issues/{number}", issues.show),
    (_R + "/pulls/{number}", pulls.old_address),
    (_R + "/pull/{number}", pulls.show),
    (_R + "/pull/{number}/files", pulls.files),
    (_R + "/pull/{number}/commits", pulls.commits),
    (_R + "/pull/{number}/checks", pulls.checks),
    (_R + "/runs/{id}", pulls.run),
)
ACTING: tuple[tuple[str, Handler], ...] = (
    ("/-/sign-in", acts.sign_in),
    ("/-/preview", acts.preview),
    ("/-/apps/new", new_app.create),
    (_R + "/edit/{rest:path}", repository.save),
    (_R + "/issues/new", issues.create),
    (_R + "/issues/{number}/comments", acts.comment),
    (_R + "/issues/{number}/title", acts.retitle),
    (_R + "/issues/{number}/labels", acts.set_labels),
    (_R + "/-/{kind}/{id}/edit", acts.edit),
    (_R + "/-/{kind}/{id}/tick", acts.tick),
    (_R + "/-/{kind}/{id}/delete", acts.delete),
    (_R + "/-/{kind}/{id}/react", acts.react),
    (_R + "/pull/{number}/review-comments", acts.review_comment),
    (_R + "/pull/{number}/reviews", acts.review),
    (_R + "/pull/{number}/suggestions/{id}", acts.accept_suggestion),
    (_R + "/pull/{number}/merge", acts.merge),
    (_R + "/pull/{number}/draft", acts.set_draft),
    (_R + "/check-runs/{id}/actions", acts.press_button),
    (_R + "/check-runs/{id}/rerun", acts.rerun),
)


def mount(app: FastAPI, forge: Forge) -> Site:
    """Adds the pages to the forge's app, after all other routes: `/{owner}/{repo}` would shadow them."""
    site = Site(open_door(forge), forge)
    app.add_middleware(CountChanges, generation=site.generation)
    routes = app.router.routes
    routes.append(Route("/-/static/{name}", _static, methods=["GET"]))

    async def propose_app(request: Request) -> Response:
        return await new_app.propose(site, request)

    for path in ("/settings/apps/new", "/organizations/{organisation}/settings/apps/new"):
        routes.append(Route(path, propose_app, methods=["POST"]))
    routes.extend(Route(path, site.endpoint(handler), methods=["GET"]) for path, handler in LOOKING)
    routes.extend(Route(path, site.endpoint(handler), methods=["POST"]) for path, handler in ACTING)
    return site


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    known = {file.name: file for file in STATIC.iterdir() if file.suffix in STATIC_TYPES}
    if name not in known:
        return Response("Not Found", status_code=404, media_type="text/plain")
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(known[name].read_bytes(), media_type=STATIC_TYPES[known[name].suffix], headers=headers)
