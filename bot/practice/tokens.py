"""The tokens that the forge has handed out, and whose request carries which."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from .auth import (
    ANONYMOUS,
    BAD_CREDENTIALS,
    Actor,
    app_of_jwt,
    expires_at,
    narrow,
    new_installation_token,
    new_user_token,
    read_authorization,
)
from .model import App, Installation, InstallationToken, Repository, User
from .replies import ApiError

NOT_IN_INSTALLATION = (
    "There is at least one repository that does not exist or is not accessible to the parent installation."
)
SUSPENDED = "This installation has been suspended"


class Tokens:
    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._users: dict[str, User] = {}
        self._installations: dict[str, InstallationToken] = {}

    def for_user(self, user: User) -> str:
        token = new_user_token()
        self._users[token] = user
        return token

    def for_installation(
        self,
        installation: Installation,
        repositories: list[Repository] | None = None,
        permissions: dict[str, str] | None = None,
    ) -> InstallationToken:
        """A token for an hour, narrowed as asked; one that is not reaches what the installation does at any time.

        Raises: ApiError 422 for more than was granted, 403 while the installation is suspended.
        """
        if installation.suspended_at is not None:
            raise ApiError(403, SUSPENDED)
        if repositories is not None and any(each not in installation.repositories for each in repositories):
            raise ApiError(422, NOT_IN_INSTALLATION)
        token = InstallationToken(
            token=new_installation_token(installation.app),
            installation=installation,
            repositories=installation.repositories if repositories is None else repositories,
            permissions=narrow(installation, permissions),
            narrowed=repositories is not None,
            expires_at=expires_at(self._clock()),
        )
        self._installations[token.token] = token
        return token

    def revoke(self, token: InstallationToken) -> None:
        self._installations.pop(token.token, None)

    def end(self, installation: Installation) -> None:
        """Every token of an installation that is gone."""
        self._installations = {
            t: kept for t, kept in self._installations.items() if kept.installation is not installation
        }

    def caller(self, authorization: str | None, apps: list[App]) -> Actor:
        """The caller that an Authorization header names. Raises: ApiError 401: an unknown token is nobody's."""
        token = read_authorization(authorization)
        if token is None:
            return ANONYMOUS
        if user := self._users.get(token):
            return Actor(user=user, rate_key=f"user:{user.id}")
        if found := self._installations.get(token):
            if found.expires_at <= self._clock():
                raise ApiError(401, BAD_CREDENTIALS)
            if found.installation.suspended_at is not None:
                raise ApiError(403, SUSPENDED)
            app, key = found.installation.app, f"installation:{found.installation.id}"
            return Actor(user=app.bot, app=app, token=found, rate_key=key)
        if token.count(".") == 2 and not token.startswith("ghs_"):
            app = app_of_jwt(token, apps, self._clock())
            return Actor(app=app, rate_key=f"app:{app.id}")
        raise ApiError(401, BAD_CREDENTIALS)
