"""`postdoc serve` with settings that are wrong: one clear line that names the variable, exit code 2, no secret."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bot.config import load_settings
from tests.world import ROOT

SECRET = "a-webhook-secret-that-nobody-may-see"
PASSWORD = "hunter22-of-the-database"


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> str:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, protection).decode()


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    whole = _pem(key)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    return {
        "whole": whole,
        "cut": whole[: len(whole) // 2],
        "cut within": whole[:500] + whole[900:],
        "public": public.decode(),
        "encrypted": _pem(key, b"password"),
        "elliptic": _pem(ec.generate_private_key(ec.SECP256R1())),
        "words": "not a key at all",
    }


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


def serve(keys: dict[str, str], folder: Path, **settings: str | None) -> subprocess.CompletedProcess[str]:
    given: dict[str, str | None] = {
        "POSTDOC_APP_ID": "1", "POSTDOC_PRIVATE_KEY": keys["whole"], "POSTDOC_WEBHOOK_SECRET": SECRET,
        "POSTDOC_PORT": "0", "POSTDOC_DATA_FOLDER": str(folder / "data"),
    }  # fmt: skip
    given |= {f"POSTDOC_{name}": value for name, value in settings.items()}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTDOC_")}
    environment |= {name: value for name, value in given.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-m", "bot", "serve"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
    )  # fmt: skip


def complaint(found: subprocess.CompletedProcess[str], keys: dict[str, str]) -> str:
    """The one line, after what holds for every complaint."""
    assert found.returncode == 2, found.stderr
    assert found.stdout == ""
    [line] = found.stderr.splitlines()
    assert line.startswith("postdoc: ")
    assert "Traceback" not in line
    for secret in (SECRET, PASSWORD, "BEGIN RSA", *(part for key in keys.values() for part in key.splitlines()[1:3])):
        assert secret not in line
    return line


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"WEBHOOK_SECRET": None}, "POSTDOC_WEBHOOK_SECRET is not set"),
        ({"WEBHOOK_SECRET": "short"}, "POSTDOC_WEBHOOK_SECRET: write at least 8 characters"),
        ({"WEBHOOK_SECRET": ""}, "POSTDOC_WEBHOOK_SECRET"),
        ({"APP_ID": ""}, "POSTDOC_APP_ID"),
        ({"PRIVATE_KEY": None}, "POSTDOC_PRIVATE_KEY_PATH"),
        ({"PRIVATE_KEY": None, "PRIVATE_KEY_PATH": "/nowhere/app.pem"}, "/nowhere/app.pem: No such file or directory"),
        ({"PRIVATE_KEY": None, "PRIVATE_KEY_PATH": "/"}, "POSTDOC_PRIVATE_KEY_PATH: /: Is a directory"),
        ({"PORT": "eighty"}, "POSTDOC_PORT"),
        ({"PORT": "70000"}, "POSTDOC_PORT"),
        ({"HOST": "256.1.1.1"}, "POSTDOC_HOST"),
        ({"GITHUB_URL": "github.com"}, "POSTDOC_GITHUB_URL: write `https:"),
        ({"GITHUB_URL": "ftp://github.com"}, "POSTDOC_GITHUB_URL"),
        ({"GITHUB_URL": "https://"}, "POSTDOC_GITHUB_URL"),
        ({"GITHUB_URL": f"https://ada:{PASSWORD}@github.com"}, "POSTDOC_GITHUB_URL"),
        ({"DATA_FOLDER": "/dev/null/data"}, "POSTDOC_DATA_FOLDER: /dev/null/data cannot be written"),
        pytest.param({"DATA_FOLDER": "/proc/data"}, "POSTDOC_DATA_FOLDER", marks=pytest.mark.slow),
        ({"DATABASE_URL": "nonsense"}, "POSTDOC_DATABASE_URL: the database cannot be opened"),
        pytest.param(
            {"DATABASE_URL": f"oracle+cx://ada:{PASSWORD}@h/db"}, "POSTDOC_DATABASE_URL", marks=pytest.mark.slow
        ),
        ({"DATABASE_URL": f"postgresql+psycopg://ada:{PASSWORD}@127.0.0.1:1/db"}, "POSTDOC_DATABASE_URL"),
        pytest.param({"DATABASE_URL": "sqlite:////dev/null/x"}, "POSTDOC_DATABASE_URL", marks=pytest.mark.slow),
        ({"JOB_SLOTS": "0"}, "POSTDOC_JOB_SLOTS"),
        ({"JUDGE": "openai:qwen3"}, "Set POSTDOC_JUDGE_PRICE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_wrong_setting_is_one_line(
    keys: dict[str, str], tmp_path: Path, settings: dict[str, str | None], says: str
) -> None:
    assert says in complaint(serve(keys, tmp_path, **settings), keys)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("cut", "cannot be read: it is cut off or damaged"),
        ("cut within", "cannot be read: it is cut off or damaged"),
        ("public", "is a public key"),
        ("encrypted", "is encrypted with a password"),
        ("elliptic", "is not an RSA key"),
        ("words", "is not a PEM key"),
    ],
)
def test_wrong_key_is_one_line_whether_given_or_named(
    keys: dict[str, str], tmp_path: Path, key: str, says: str
) -> None:
    path = tmp_path / "app.pem"
    path.write_text(keys[key])
    line = complaint(serve(keys, tmp_path, PRIVATE_KEY=None, PRIVATE_KEY_PATH=str(path)), keys)
    assert line.startswith(f"postdoc: POSTDOC_PRIVATE_KEY_PATH: the App's private key {says}")


def test_taken_port_is_one_line(keys: dict[str, str], tmp_path: Path, taken: int) -> None:
    line = complaint(serve(keys, tmp_path, PORT=str(taken)), keys)
    assert f"127.0.0.1:{taken} cannot be listened on" in line
    assert "POSTDOC_PORT" in line


def test_key_of_several_lines_may_be_written_on_one(keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTDOC_APP_ID", "1")
    monkeypatch.setenv("POSTDOC_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("POSTDOC_PRIVATE_KEY", keys["whole"].replace("\n", "\\n"))
    settings = load_settings()
    assert settings.key() == keys["whole"]
    assert set(settings.secrets()) == {SECRET, keys["whole"]}
