"""Planted secrets do not survive, ordinary text does."""

from __future__ import annotations

import base64
import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.conversation.redaction import MARK, redact

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiIxMjM0NSIsImV4cCI6MX0.c2lnbmF0dXJlLXBhcnQtb2YtdGhlLXRva2Vu"
PEM = "-----BEGIN RSA PRIVATE KEY-----\n" + ("MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn/ygWyF8PbnGy" + "\n") * 6
CANARIES = {
    "ghs_old": "ghs_" + "a1B2c3D4e5" * 3 + "f6G7h8",
    "ghs_new": "ghs_123456_" + JWT + "x" * 380,
    "ghp": "ghp_" + "Z9y8X7w6V5" * 3 + "u4T3s2",
    "github_pat": "github_pat_11ABCDEFG0" + "q" * 59,
    "hf": "hf_" + "AbCdEfGhIj" * 3 + "KlMn",
    "anthropic": "sk-ant-api03-" + "Xy_z-12345" * 9,
    "openai": "sk-proj-" + "abcDEF1234" * 5,
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "jwt": JWT,
    "pem": PEM + "-----END RSA PRIVATE KEY-----",
    "pem_cut": PEM,
    "pem_escaped": PEM.replace("\n", "\\n") + "-----END RSA PRIVATE KEY-----",
    "slack": "xoxb-1234567890-abcdefghij",
}


@pytest.mark.parametrize("name", CANARIES)
@pytest.mark.parametrize("around", ["{}", "token={} end", '{{"a": "{}"}}', "`{}`", "line\n{}\nline", "Bearer {}."])
def test_known_shapes_are_removed_wherever_they_stand(name: str, around: str) -> None:
    secret = CANARIES[name]

    text = redact(around.format(secret))

    assert MARK in text
    for piece in (secret[4:24], secret[-20:].strip("-\n"), secret[len(secret) // 2 :][:12]):
        assert piece not in text or piece in "-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "secret", ["correct horse battery staple?", "s3cr3t/with+signs=", "webhook-secret", "p\u00e4ssw\u00f6rt"]
)
@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:"])
def test_known_values_are_removed_in_every_encoding(secret: str, before: str) -> None:
    raw = before.encode() + secret.encode()
    forms = [
        secret,
        quote(secret, safe=""),
        base64.b64encode(raw + b":rest").decode(),
        base64.urlsafe_b64encode(raw).decode(),
    ]

    for form in forms:
        text = redact(f"x={form}&y", [secret])
        assert MARK in text, form
        for part in text.split(MARK):
            assert secret not in part


def test_long_known_value_is_removed_from_broken_base64_lines() -> None:
    secret = "ab1!" * 60
    wrapped = base64.encodebytes(secret.encode()).decode()

    assert wrapped.splitlines()[0] not in redact(wrapped, [secret])
    assert wrapped.splitlines()[1] not in redact(wrapped, [secret])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567", "WANDB_API_KEY="),
        ("wandb: logged in with 0123456789abcdef0123456789abcdef01234567", "wandb: logged in with "),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer "),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = "),
        ("https://user:hunter22@example.org/x", "https://user:"),
        ('password: "hunter2222"', 'password: "'),
    ],
)
def test_secret_named_by_what_stands_before_it_is_removed(text: str, kept: str) -> None:
    assert redact(text).startswith(kept + MARK)


@pytest.mark.parametrize(
    "text",
    [
        "commit 0123456789abcdef0123456789abcdef01234567 changed learning_rate",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "max_completion_length: 512, eos_token: <|im_end|>",
        "step 1,240/3,000 · loss 1.31",
        "See https://example.org/a?b=c and mail alice@example.org",
        "risk-averse task-specific hf_hub_download sk-learn",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact(text, ["abc", ""]) == text


@pytest.mark.parametrize(
    "pattern", ["-----BEGIN PRIVATE KEY-----\n", "ghs_", "eyJ", "wandb ", "a://b", "sk-", "password=", "A"]
)
def test_long_text_takes_bounded_time(pattern: str) -> None:
    text = (pattern * 65_536)[:65_536]
    started = time.perf_counter()

    redact(text, ["some-known-value"])

    assert time.perf_counter() - started < 5


@given(st.text(min_size=6, max_size=40), st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_known_value_is_gone_afterwards(secret: str, around: str) -> None:
    text = redact(f"{around}{secret}{around}", [secret])

    assert secret not in text.replace(MARK, "\0")
