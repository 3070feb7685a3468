"""Who is calling: people's tokens, App JWTs and installation tokens, checked as GitHub checks them."""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from .model import App, Installation, InstallationToken, User
from .replies import ApiError

JWT_LIFETIME_SECONDS = 600
JWT_SLACK_SECONDS = 5
TOKEN_LIFETIME = timedelta(hours=1)
BAD_CREDENTIALS = "Bad credentials"
UNREADABLE_JWT = "A JSON web token could not be decoded"


@dataclass(frozen=True, slots=True)
class AppRegistration:
    """What a person gets when registering an App: everything a bot server has to be told."""

    app_id: int
    client_id: str
    slug: str
    private_key_pem: str


@dataclass(frozen=True, slots=True)
class Actor:
    """The caller of one request. Exactly one kind: nobody, a person, an App (JWT), or an App's installation."""

    user: User | None = None
    """The person, or the App's bot account for an installation."""
    app: App | None = None
    token: InstallationToken | None = None
    rate_key: str = "anonymous"

    @property
    def is_app(self) -> bool:
        return self.app is not None and self.token is None

    @property
    def is_installation(self) -> bool:
        return self.token is not None

    @property
    def account(self) -> User:
        assert self.user is not None
        return self.user

    @property
    def via_app(self) -> App | None:
        return self.app if self.token else None


ANONYMOUS = Actor()


def new_key_pair() -> tuple[str, str]:
    """(private, public) PEM of a fresh RSA key, in the format that GitHub hands out."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return private.decode(), public_half(private.decode())


@lru_cache(maxsize=16)
def public_half(private_key_pem: str) -> str:
    key = serialization.load_pem_private_key(private_key_pem.encode(), password=None)
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def new_user_token() -> str:
    return "ghp_" + secrets.token_hex(18)


def new_installation_token(app: App) -> str:
    """The long form in use since 2026: `ghs_<app id>_<JWT>`, of no fixed length."""
    header = base64.urlsafe_b64encode(b'{"typ":"JWT","alg":"ES256"}').decode().rstrip("=")
    claims = secrets.token_urlsafe(210 + secrets.randbelow(60))
    return f"ghs_{app.id}_{header}.{claims}.{secrets.token_urlsafe(64)}"


def expires_at(now: datetime) -> datetime:
    return (now + TOKEN_LIFETIME).replace(microsecond=0)


def read_authorization(header: str | None) -> str | None:
    """The credential of an Authorization header (Bearer, token or Basic), or None where there is none.

    Raises: ApiError 401 for a header that cannot be read.
    """
    if not header:
        return None
    scheme, _, rest = header.partition(" ")
    rest = rest.strip()
    match scheme.lower():
        case "bearer" | "token" if rest:
            return rest
        case "basic":
            try:
                user, _, password = base64.b64decode(rest, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise ApiError(401, BAD_CREDENTIALS) from None
            return password if password not in ("", "x-oauth-basic") else user
        case _:
            raise ApiError(401, BAD_CREDENTIALS)


def app_of_jwt(token: str, apps: list[App], now: datetime) -> App:
    """The App whose key signed `token`. Raises: ApiError 401 with GitHub's reason."""
    try:
        if jwt.get_unverified_header(token).get("alg") != "RS256":
            raise ApiError(401, UNREADABLE_JWT)
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        raise ApiError(401, UNREADABLE_JWT) from None
    issuer = str(claims.get("iss", ""))
    app = next((app for app in apps if issuer in (str(app.id), app.client_id)), None)
    if app is None:
        raise ApiError(401, "'Issuer' claim ('iss') must be an Integer")
    try:
        jwt.decode(
            token,
            app.public_key_pem,
            algorithms=["RS256"],
            options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False},
        )
    except jwt.PyJWTError:
        raise ApiError(401, UNREADABLE_JWT) from None
    _check_times(claims, now.timestamp())
    return app


def _check_times(claims: dict[str, Any], now: float) -> None:
    issued, expires = claims.get("iat"), claims.get("exp")
    if not isinstance(expires, int) or expires <= now:
        raise ApiError(
            401,
            "'Expiration time' claim ('exp') must be a numeric value representing "
            "the future time at which the assertion expires",
        )
    if not isinstance(issued, int) or issued > now + JWT_SLACK_SECONDS:
        raise ApiError(
            401,
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        )
    if expires > now + JWT_LIFETIME_SECONDS + JWT_SLACK_SECONDS or expires - issued > JWT_LIFETIME_SECONDS:
        raise ApiError(401, "'Expiration time' claim ('exp') is too far in the future")


def narrow(installation: Installation, asked: dict[str, str] | None) -> dict[str, str]:
    """The permissions of a new token. Raises: ApiError 422 when more is asked for than was granted."""
    if asked is None:
        return dict(installation.permissions)
    for name, level in asked.items():
        granted = installation.permissions.get(name)
        if granted is None or (level == "write" and granted == "read"):
            raise ApiError(422, "The permissions requested are not granted to this installation.")
    return {"metadata": "read", **asked}
