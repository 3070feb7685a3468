"""/user, /users, /meta, /rate_limit and the root."""

from __future__ import annotations

from ..rate_limits import LIMITS
from ..replies import ApiError, Reply, not_found
from ..routing import Call, Routes
from ..shapes import accounts as shapes

routes = Routes()


@routes.get("/meta")
def meta(call: Call) -> Reply:
    return Reply(body={"verifiable_password_authentication": False, "installed_version": "3.19.0"})


@routes.get("/rate_limit")
def rate_limit(call: Call) -> Reply:
    now = call.forge.clock().timestamp()
    windows = {name: call.forge.limits.window(call.actor.rate_key, name, now).as_dict() for name in LIMITS}
    return Reply(body={"resources": windows, "rate": windows["core"]})


@routes.get("/user")
def authenticated_user(call: Call) -> Reply:
    if call.actor.is_installation:
        raise ApiError(403, "Resource not accessible by integration")
    if call.actor.user is None:
        raise ApiError(401, "Requires authentication")
    return Reply(body=shapes.private_user(call.forge, call.actor.user))


@routes.get("/user/{id:int}")
def user_by_id(call: Call) -> Reply:
    user = call.forge.users.get(call.number("id"))
    if user is None:
        raise not_found()
    return Reply(body=shapes.public_user(call.forge, user))


@routes.get("/users/{login}")
def user_by_login(call: Call) -> Reply:
    user = call.forge.find_user(call.params["login"])
    if user is None:
        raise not_found()
    return Reply(body=shapes.public_user(call.forge, user))
