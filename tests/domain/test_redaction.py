"""Planted secrets do not survive in any form, ordinary text does."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.domain.redaction import MARK, redact, redacted, redacted_bytes
from bot.practice.auth import new_key_pair
from tests.security.canaries import CANARIES, drawn, forms, leaks

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("name", CANARIES)
@pytest.mark.parametrize(
    "around", ["{}", '{"a": "{}"}', "line before\n{}\nline after", "token: {} end", "`{}`", "({})"]
)
def test_no_form_of_a_secret_survives_wherever_it_stands(name: str, around: str) -> None:
    for form, text, secret in forms(CANARIES[name]):
        cleaned = redact(around.replace("{}", text))
        assert MARK in cleaned, form
        assert leaks(secret, cleaned) == [], form
        before, after = around.split("{}")
        # Without its padding, base64 text cannot be told from what the next line begins with.
        shared = 4 if form.startswith(("unpadded", "base64", "wrapped")) and after.startswith("\n") else 0
        assert cleaned.startswith(before), form
        assert cleaned.endswith(after[1 + shared :]), form


def test_long_token_that_a_terminal_wrapped_goes_with_its_later_lines() -> None:
    secret = CANARIES["ghs_new"].secret
    wrapped = "\n".join(secret[at : at + 80] for at in range(0, len(secret), 80))
    cleaned = redact(f"token {wrapped}\nQwen2.5-0.5B-Instruct is trained at step 12\n")
    assert leaks(secret, cleaned) == []
    assert cleaned.endswith("\nQwen2.5-0.5B-Instruct is trained at step 12\n")


def test_secret_goes_and_the_encoded_text_around_it_stays() -> None:
    before, after = "the first half of a letter. " * 4, " and the second half of it." * 4
    encoded = base64.b64encode(f"{before}{CANARIES['ghp'].secret}{after}".encode()).decode()
    left, right = redact(encoded).split(MARK)
    assert encoded.startswith(left)
    assert encoded.endswith(right)
    assert len(left) > 140
    assert len(right) > 140


@pytest.mark.parametrize(
    "secret", ["correct horse battery staple?", "s3cr3t/with+signs=", "webhook-secret", "p\u00e4ssw\u00f6rt"]
)
@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:"])
def test_known_value_is_removed_in_every_encoding(secret: str, before: str) -> None:
    raw = before.encode() + secret.encode()
    encodings = [
        secret,
        quote(secret, safe=""),
        "".join(f"%{byte:02x}" for byte in secret.encode("latin-1")),
        json.dumps(secret)[1:-1],
        "".join(f"\\u{ord(character):04x}" for character in secret),
        secret.encode().hex(),
        base64.b64encode(raw + b":rest").decode(),
        base64.urlsafe_b64encode(raw).decode(),
        f"{secret[:5]}\n{secret[5:]}",
        f"{secret[:3]}\u200b{secret[3:]}",
    ]
    for form in encodings:
        text = redact(f"x={form}&y", [secret])
        assert MARK in text, form
        assert text.startswith("x=")
        assert text.endswith("&y")
        for part in text.split(MARK):
            assert secret not in part


def test_known_value_without_its_first_or_last_characters_is_recognised() -> None:
    secret = "a-long-webhook-secret-of-40-characters-xyz"
    for cut in range(9):
        assert leaks(secret, redact(f"it is {secret[cut:]} here", [secret]), piece=6) == []
        assert leaks(secret, redact(f"it is {secret[: len(secret) - cut]} here", [secret]), piece=6) == []


def test_app_key_is_removed_as_a_whole_line_by_line_and_encoded() -> None:
    key = new_key_pair()[0]
    lines = key.strip().splitlines()
    shown = [key, key.replace("\n", "\\n"), base64.b64encode(key.encode()).decode(),
             base64.encodebytes(key.encode()).decode(), quote(key), json.dumps({"key": key}),
             "\n".join(lines[1:-1]), "".join(lines[1:-1]), repr(lines), "\n".join(f"| {line}" for line in lines),
             *lines[1:-2]]  # fmt: skip
    for text in shown:
        cleaned = redact(text, [key])
        for line in lines[1:-1]:
            assert leaks(line, cleaned, piece=12) == [], text[:60]
        assert leaks(base64.b64encode(key.encode()).decode(), cleaned, piece=16) == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567", "WANDB_API_KEY="),
        ("wandb: logged in with 0123456789abcdef0123456789abcdef01234567", "wandb: logged in with "),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer "),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = "),
        ("https://user:hunter22@example.org/x", "https://user:"),
        ('password: "hunter2222"', 'password: "'),
        ("machine api.wandb.ai login user password abcdef0123", "machine api.wandb.ai login user password "),
    ],
)
def test_secret_named_by_what_stands_before_it_is_removed(text: str, kept: str) -> None:
    assert redact(text).startswith(kept + MARK)


def test_aws_secret_beside_its_key_id_is_removed() -> None:
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    for between in (" ", "\n", ": ", "\t", "\nsecret: "):
        assert secret not in redact(f"AKIAIOSFODNN7EXAMPLE{between}{secret}")


ORDINARY = [
    "commit 0123456789abcdef0123456789abcdef01234567 changed learning_rate",
    "wandb: run at commit 0123456789abcdef0123456789abcdef01234567",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "max_completion_length: 512, eos_token: <|im_end|>, pad_token_id: 151643",
    "step 1,240/3,000 · loss 1.31 · $4.12 of $20 · ETA 14:20",
    "See https://example.org/a?b=c&d=%20e and mail alice@example.org, or http://localhost:8080/x@y",
    "http://localhost:8080\nada@example.org",
    "risk-averse task-specific hf_hub_download sk-learn-compatible-estimator-wrappers-for-everybody",
    "weights_of_the_last_checkpoint_of_run_12, lengths_p95_of_all_completions_in_tokens",
    "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQsw\n-----END CERTIFICATE-----",
    base64.b64encode(b"An ordinary letter about learning rates and task-specific evaluation. " * 9).decode(),
    base64.b64encode(bytes(range(256)) * 20).decode(),
    "Qwen/Qwen3-1.7B-Instruct-2507 HuggingFaceTB/SmolLM2-135M-Instruct deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "experiments/0042-gsm8k/runs/01/evaluation.json acme-speller-42-3f2a1b-evaluate-01-1",
    "123e4567-e89b-12d3-a456-426614174000 PR_kwDOABCD1234567890 MDExOlB1bGxSZXF1ZXN0MQ==",
    '{"password": "", "api_key": null, "token": "eos", "max_new_tokens": 2048}',
    'api_key = os.environ["ANTHROPIC_API_KEY"]; url = "postgresql://user:${PASSWORD}@host/db"',
    "2024-05-01T10:00:00Z 1714557600123-0 1714557600-1714557700",
    "eyJ is how JSON begins in base64; ghp_ begins a token, AKIA a key id, hf_ a Hub token.",
    "AutoModelForCausalLM.from_pretrained('/srv/postdoc-data/jobs/speller-1-abcdef-train-02-1/work/out/model')",
    "The key must begin with -----BEGIN PUBLIC KEY----- and end with its last line.",
    "per_device_train_batch_size\ngradient_accumulation_steps\nlearning_rate: 2.0e-05\n",
    "\x1b[32mINFO\x1b[0m 50%|█████     | 50/100 [00:10<00:10, 5.00it/s]",
]  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact(text, ["abc", "", "a-webhook-secret-for-tests"]) == text
    assert redact(json.dumps(text)) == json.dumps(text)


def test_files_of_this_repository_stay_as_they_are() -> None:
    """Scripts and cards, which the bot commits, among them: the digest of a changed script would not match."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    wanted = [p for p in listed if p.startswith(("templates/", "bot/", "runners/", "tests/diagnosis/traces/"))]
    assert len(wanted) > 300
    changed = [path for path in wanted if redacted_bytes((ROOT / path).read_bytes()) != (ROOT / path).read_bytes()]
    assert changed == []


def test_json_values_and_bytes_are_redacted_whole() -> None:
    secret = CANARIES["ghp"].secret
    value = {"a": [secret, 1, None, {"b": f"x {secret}"}], secret: True, "n": 1.5}
    assert redacted(value) == {"a": [MARK, 1, None, {"b": f"x {MARK}"}], MARK: True, "n": 1.5}
    assert redacted_bytes(b"\xff\xfe" + secret.encode() + b"\x80") == b"\xff\xfe" + MARK.encode() + b"\x80"
    assert redacted_bytes(bytes(range(256))) == bytes(range(256))


HOSTILE = [
    *("-----BEGIN PRIVATE KEY-----\n", "ghs_", "eyJ-", "eyJaaaaa.", "wandb ", "a://b:", "sk-", "password=", "A"),
    *("AKIAIOSFODNN7EXAMPLE ", "MIIEpAIBAAKCabcdefgh ", "sk-proj-aaaaaaaaaaaaaaaaaaaaaaaaaaa\n", "a\n", "0123456789-"),
    *("%41", "\\u0041", "\\", "machine a login b ", "\u200b\u00e4", f"{drawn(40)}\n", f"ghp_{drawn(36)}\n"),
    *("password=a", "password='", "://:", "-----BEGIN RSA PRIVATE KEY-----\nabc "),
]


@pytest.mark.parametrize("pattern", HOSTILE)
def test_time_grows_with_the_length_and_no_faster(pattern: str) -> None:
    known = ["some-known-value-of-the-server", drawn(40)]
    seconds = []
    for size in (30_000, 240_000):
        text = (pattern * (size // len(pattern) + 1))[:size]
        started = time.process_time()
        redact(text, known)
        seconds.append(time.process_time() - started)
    # Eight times the text. A quadratic pattern would take 64 times as long.
    assert seconds[1] < max(24 * seconds[0], 0.5), seconds


@pytest.mark.slow
def test_ten_megabytes_of_log_take_seconds() -> None:
    line = "{'loss': 1.2345, 'grad_norm': 0.5, 'learning_rate': 2e-05, 'epoch': 0.12} step 1,240/3,000 at 12345\n"
    text = line * (10_000_000 // len(line)) + CANARIES["hf"].secret
    started = time.process_time()
    assert redact(text, [new_key_pair()[0], "a-webhook-secret-for-tests"]).endswith(MARK)
    assert time.process_time() - started < 20


@given(st.text(min_size=6, max_size=40), st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_known_value_is_gone_afterwards(secret: str, around: str) -> None:
    text = redact(f"{around}{secret}{around}", [secret])

    assert secret not in text.replace(MARK, "\0")


@given(st.text(alphabet="ab1Z_-./+=%\\n\n \"'eyJghs:@\u200b", max_size=200), st.sampled_from(sorted(CANARIES)))
@settings(max_examples=150, deadline=None)
def test_whatever_stands_around_it_a_secret_goes_and_a_second_pass_finds_nothing(noise: str, name: str) -> None:
    canary = CANARIES[name]
    cleaned = redact(f"{noise} {canary.text} {noise}")
    assert leaks(canary.secret, cleaned, piece=16) == []
    assert redact(cleaned) == cleaned
