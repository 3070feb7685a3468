"""Apps, their JWTs and installation tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from .conftest import REPOSITORY, World


def test_app_jwt_reads_the_app(world: World):
    answer = world.as_app().get("/app")
    assert answer.status_code == 200
    assert (answer.json()["slug"], answer.json()["installations_count"]) == ("postdoc", 1)


def test_app_jwt_with_client_id_is_accepted(world: World):
    assert world.client(world.app_token(iss=world.app.client_id)).get("/app").status_code == 200


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": -1}, "'exp'"),
        ({"exp": 3600}, "too far in the future"),
        ({"exp": 599, "iat": -60}, "too far in the future"),
        ({"iat": 120, "exp": 300}, "'iat'"),
        ({"iss": "999"}, "'iss'"),
    ],
)
def test_app_jwt_with_wrong_claims_is_refused(world: World, claims: dict[str, int | str], reason: str):
    now = int(time.time())
    moved = {name: now + value if isinstance(value, int) else value for name, value in claims.items()}
    answer = world.client(world.app_token(**moved)).get("/app")
    assert answer.status_code == 401
    assert reason in answer.json()["message"]


@pytest.mark.parametrize("missing", ["exp", "iat"])
def test_app_jwt_without_a_time_is_refused(world: World, missing: str):
    now = int(time.time())
    claims = {"iss": str(world.app.app_id), "iat": now - 30, "exp": now + 300}
    del claims[missing]
    token = jwt.encode(claims, world.app.private_key_pem, algorithm="RS256")
    assert world.client(token).get("/app").status_code == 401


def test_app_jwt_with_wrong_key_or_algorithm_is_refused(world: World):
    now = int(time.time())
    claims = {"iss": str(world.app.app_id), "iat": now - 30, "exp": now + 300}
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = stranger.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    tokens = [
        jwt.encode(claims, pem, algorithm="RS256"),
        jwt.encode(claims, "0" * 32, algorithm="HS256"),
        jwt.encode(claims, None, algorithm="none"),  # type: ignore[arg-type]
        jwt.encode(claims, world.app.private_key_pem, algorithm="RS384"),
    ]
    assert [world.client(token).get("/app").status_code for token in tokens] == [401] * 4


def test_public_key_as_hmac_secret_is_refused(world: World):
    """The classic confusion of algorithms."""
    app = world.forge.apps[world.app.app_id]
    now = int(time.time())
    body = [{"alg": "HS256", "typ": "JWT"}, {"iss": str(app.id), "iat": now, "exp": now + 60}]
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in body)
    mac = hmac.new(app.public_key_pem.encode(), signed, hashlib.sha256).digest()
    token = (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()
    assert world.client(token).get("/app").status_code == 401


@pytest.mark.parametrize("token", ["garbage", "ghp_" + "0" * 36, "ghs_1_a.b.c", "a.b.c", "ghs_"])
def test_unknown_tokens_are_refused(world: World, token: str):
    assert world.client(token).get("/user").status_code == 401
    assert world.client(token).get(world.repo()).status_code == 401


def test_installation_token_is_long_and_lists_its_permissions(world: World):
    answer = world.as_app().post(f"/app/installations/{world.installation_id}/access_tokens")
    body = answer.json()
    assert answer.status_code == 201
    assert body["token"].startswith(f"ghs_{world.app.app_id}_")
    assert len(body["token"]) > 400
    assert body["permissions"]["contents"] == "write"
    assert "repositories" not in body


def test_installation_token_narrowed_to_read_cannot_write(world: World):
    narrow = world.as_bot(permissions={"issues": "read"}, repositories=["lab"])
    assert narrow.get(world.repo("/issues")).status_code == 200
    answer = narrow.post(world.repo("/issues"), json={"title": "no"})
    assert (answer.status_code, answer.json()["message"]) == (403, "Resource not accessible by integration")


@pytest.mark.parametrize(
    "asked",
    [
        {"permissions": {"administration": "write"}},
        {"permissions": {"metadata": "write"}},
        {"repositories": ["secret"]},
        {"repositories": ["nowhere"]},
        {"repository_ids": [1]},
    ],
)
def test_installation_token_cannot_be_widened(world: World, asked: dict[str, object]):
    path = f"/app/installations/{world.installation_id}/access_tokens"
    assert world.as_app().post(path, json=asked).status_code == 422


def test_installation_token_expires_after_an_hour(world: World):
    bot = world.as_bot()
    world.clock.advance(minutes=59)
    assert bot.get(world.repo()).status_code == 200
    world.clock.advance(minutes=2)
    assert bot.get(world.repo()).status_code == 401


def test_revoked_installation_token_is_refused(world: World):
    bot = world.as_bot()
    assert bot.delete("/installation/token").status_code == 204
    assert bot.get(world.repo()).status_code == 401


def test_installation_is_found_by_its_repository(world: World):
    app = world.as_app()
    assert app.get(f"/repos/{REPOSITORY}/installation").json()["id"] == world.installation_id
    assert app.get("/repos/acme/secret/installation").status_code == 404
    assert [each["id"] for each in app.get("/app/installations").json()] == [world.installation_id]
    assert app.get(f"/app/installations/{world.installation_id}").json()["app_slug"] == "postdoc"
    assert app.get("/app/installations/1").status_code == 404


def test_installation_repositories_are_those_it_was_installed_on(world: World):
    body = world.as_bot().get("/installation/repositories").json()
    assert [each["full_name"] for each in body["repositories"]] == [REPOSITORY]
    assert body["repositories"][0]["permissions"]["push"] is True


def test_private_repository_is_hidden_from_everybody_without_access(world: World):
    for client in (world.client(), world.as_user("eve"), world.as_bot()):
        assert client.get("/repos/acme/secret").status_code == 404
        assert client.post("/repos/acme/secret/issues", json={"title": "x"}).status_code == 404


def test_app_cannot_subscribe_without_the_permission(world: World):
    with pytest.raises(ValueError, match="check_run"):
        world.forge.register_app(slug="other", permissions={"issues": "write"}, events=["check_run"])


def test_request_without_user_agent_is_refused(world: World):
    client = world.client()
    client.headers["user-agent"] = ""
    assert client.get("/meta").status_code == 403
