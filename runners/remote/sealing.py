"""A job's last word and its outputs as one file that others may see and nobody but the bot can read.

Artifacts of a public repository can be downloaded by anybody, and an evaluation's outputs hold a benchmark's texts. So
what is handed to the backend for safe-keeping is sealed with a key that travels through the job's store alone.

AES-256-GCM over pieces of 1 MiB, in the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar,
https://eprint.iacr.org/2015/189): each nonce holds the piece's number and whether it is the last, so that pieces can
be neither changed, reordered nor cut off. Not covered: how large the outputs are, which everybody sees.
"""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bot.errors import PlatformError

SEALED = "outputs.sealed"
"""Its name in the folder that becomes the artifact."""
_MAGIC = b"postdoc sealed outputs 1\n"
_PIECE_BYTES = 1 << 20
_TAG_BYTES = 16
_LONGEST_HEADER = 1 << 18


def new_key() -> bytes:
    return AESGCM.generate_key(256).hex().encode()


def seal(status: Mapping[str, Any], archive: Path, key: bytes, target: Path) -> None:
    """Write `status` and the packed outputs `archive` to `target`; one that exists is replaced."""
    cipher, prefix = AESGCM(bytes.fromhex(key.decode())), secrets.token_bytes(7)
    partial = target.with_name(f".{target.name}")
    with open(archive, "rb") as outputs, open(partial, "wb") as sealed:
        sealed.write(_MAGIC + prefix)
        pieces = _pieces(json.dumps(dict(status)).encode() + b"\n", outputs)
        number = 0
        piece: bytes | None = next(pieces)
        while piece is not None:
            following = next(pieces, None)
            sealed.write(cipher.encrypt(_nonce(prefix, number, following is None), piece, _MAGIC))
            number, piece = number + 1, following
    partial.replace(target)


def unseal(source: IO[bytes], key: bytes, archive: Path) -> dict[str, Any]:
    """Write the outputs to `archive`; the status that was sealed with them.

    Raises: PlatformError when it was sealed with another key, is damaged or is cut off.
    """
    cipher = AESGCM(bytes.fromhex(key.decode()))
    if source.read(len(_MAGIC)) != _MAGIC:
        raise PlatformError("the artifact holds no sealed outputs of this version")
    prefix, number = source.read(7), 0
    header, begun = b"", False
    piece = source.read(_PIECE_BYTES + _TAG_BYTES)
    with open(archive, "wb") as outputs:
        while piece:
            following = source.read(_PIECE_BYTES + _TAG_BYTES)
            try:
                plain = cipher.decrypt(_nonce(prefix, number, not following), piece, _MAGIC)
            except (InvalidTag, ValueError) as error:
                raise PlatformError("the sealed outputs are damaged, or sealed for another job") from error
            if not begun:
                header, _, plain = plain.partition(b"\n")
                begun = True
            outputs.write(plain)
            number, piece = number + 1, following
    if not begun:
        raise PlatformError("the sealed outputs are cut off")
    found: dict[str, Any] = json.loads(header)
    return found


def _pieces(header: bytes, outputs: IO[bytes]) -> Iterator[bytes]:
    """The first holds the whole header; never none."""
    if len(header) > _LONGEST_HEADER:
        raise PlatformError("the job's status is too long to be sealed")
    yield header + outputs.read(_PIECE_BYTES - len(header))
    while piece := outputs.read(_PIECE_BYTES):
        yield piece


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    return prefix + struct.pack(">I?", number, last)
