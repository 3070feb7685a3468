"""The page that registers an App from a manifest, which another site's form brings here."""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from bot.practice import manifests, replies
from bot.practice.pages.access import Refused, require_loopback_host
from bot.practice.pages.api import ApiError
from bot.practice.pages.site import Redirect, Site, View, Visit


async def propose(site: Site, request: Request) -> Response:
    """Show what the manifest asks for. Nothing happens before the person agrees, so any site may send one here."""
    visitor = site.sessions.visitor(request)
    organisation = str(request.path_params.get("organisation", ""))
    try:
        require_loopback_host(request)
        fields = parse_qs((await request.body())[:65_536].decode("utf-8", "replace"))
        text = fields.get("manifest", [""])[0]
        manifest = manifests.read(text)
    except (Refused, replies.ApiError) as error:
        return site.show(
            request, visitor, View("message.html", {"sentence": str(error.message), "typed": "", "back": "/"}, 422)
        )
    state = request.query_params.get("state", "")
    values = {"manifest": manifest, "text": text, "state": state, "organisation": organisation}
    reply = site.show(request, visitor, View("new_app.html", values))
    back = urlsplit(manifest["redirect_url"])
    # The form's answer leads to the site that asked, which a browser takes for a target of the form.
    reply.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        f"form-action 'self' {back.scheme}://{back.netloc}; base-uri 'none'; frame-ancestors 'none'"
    )
    return reply


async def create(visit: Visit) -> Redirect:
    """Register the App, and send the person back to where the manifest came from, with the code."""
    person = visit.person()
    manifest = manifests.read(visit.form["manifest"])
    owner = visit.form["organisation"] or person
    if visit.site.forge.find_user(owner) is None:
        raise ApiError(404, "There is no such organisation.")
    code = manifests.register(visit.site.forge, manifest, owner)
    return Redirect(f"{manifest['redirect_url']}?{urlencode({'code': code, 'state': visit.form['state']})}")
