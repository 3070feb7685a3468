"""Apps registered from a manifest: what GitHub asks of one, and the code that is exchanged for the App's keys."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .auth import AppRegistration
from .replies import ApiError, not_found

if TYPE_CHECKING:
    from .forge import Forge

CODE_LIFETIME = timedelta(hours=1)
MAX_NAME = 34


@dataclass(frozen=True, slots=True)
class Issued:
    """What a code stands for until it is exchanged."""

    registration: AppRegistration
    webhook_secret: str
    client_secret: str
    expires_at: datetime


def read(text: str) -> dict[str, Any]:
    """The manifest, when it is one. Raises: ApiError 422."""
    try:
        manifest = json.loads(text)
    except ValueError:
        raise ApiError(422, "The manifest is not JSON.") from None
    if not isinstance(manifest, dict):
        raise ApiError(422, "The manifest is not an object.")
    name, hook = manifest.get("name"), manifest.get("hook_attributes")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not _slug(name):
        raise ApiError(422, f"name must have 1 to {MAX_NAME} characters.")
    if not _is_address(manifest.get("url")):
        raise ApiError(422, "url wasn't supplied.")
    if hook is not None and not (isinstance(hook, dict) and _is_address(hook.get("url"))):
        raise ApiError(422, "hook_attributes.url must be an address.")
    if not _is_address(manifest.get("redirect_url")):
        raise ApiError(422, "redirect_url must be an address.")
    if not isinstance(manifest.get("public", False), bool):
        raise ApiError(422, "public must be true or false.")
    return manifest


def register(forge: Forge, manifest: dict[str, Any], owner: str) -> str:
    """Register the App of a manifest; returns the code. Raises: ApiError 422."""
    slug, hook = _slug(manifest["name"]), manifest.get("hook_attributes") or {}
    with forge.lock:
        if forge.app_by_slug(slug) is not None:
            raise ApiError(422, "Name is already in use.")
        secret = secrets.token_hex(20)
        try:
            registration = forge.register_app(
                slug=slug, name=manifest["name"], permissions=manifest.get("default_permissions") or {},
                events=manifest.get("default_events") or (), webhook_url=hook.get("url"), webhook_secret=secret,
                owner=owner, installable_by_all=bool(manifest.get("public", False)),
            )  # fmt: skip
        except ValueError as error:
            raise ApiError(422, str(error)) from None
        code = secrets.token_hex(20)
        forge.manifest_codes[code] = Issued(registration, secret, secrets.token_hex(20), forge.clock() + CODE_LIFETIME)
        return code


def convert(forge: Forge, code: str) -> Issued:
    """What the code stands for, once. Raises: ApiError 404."""
    issued = forge.manifest_codes.pop(code, None)
    if issued is None or issued.expires_at <= forge.clock():
        raise not_found()
    return issued


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _is_address(value: object) -> bool:
    return isinstance(value, str) and urlsplit(value).scheme in ("http", "https") and bool(urlsplit(value).hostname)
