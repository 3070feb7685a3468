"""Text in disguise: base64, base85, hexadecimal, compressed, reversed, ROT13, and any of them inside another.

Everything is bounded: no input makes this slow or large. Not covered: encryption, and encodings of one's own making.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import codecs
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

_DEEPEST = 4
_MOST_BYTES = 16 << 20
_MOST_PIECES = 2_000
"""Of encoded pieces in one text."""
_SHORTEST = 16
# Letters, digits and what base64 and hexadecimal are written with; a line break may stand anywhere in it.
_ENCODED = re.compile(r"[A-Za-z0-9+/_=\-]{16,}(?:\s*\\?\n\s*[A-Za-z0-9+/_=\-]+)*")
_BASE85 = re.compile(r"[!-~]{40,}(?:\s*\n\s*[!-~]+)*")
_READABLE = re.compile(rb"[\x20-\x7e\xc2-\xf4\x80-\xbf\n\t]{8,}")


class Decoded(NamedTuple):
    text: str
    by: tuple[str, ...]
    """Names of the encodings, outermost first."""


def decoded_texts(text: str) -> Iterator[Decoded]:
    """Every text that stands in `text` in disguise; `text` itself is not among them."""
    budget = [_MOST_BYTES]
    yield from _within(text, (), budget)
    yield Decoded(text[::-1], ("reversed",))
    yield Decoded(codecs.encode(text, "rot13"), ("rot13",))


def decoded_bytes(data: bytes) -> Iterator[Decoded]:
    """The same for bytes: text in them, compressed or not."""
    yield from _opened(data, (), [_MOST_BYTES])


def _within(text: str, by: tuple[str, ...], budget: list[int]) -> Iterator[Decoded]:
    if len(by) >= _DEEPEST:
        return
    for count, piece in enumerate(_ENCODED.finditer(text)):
        if count >= _MOST_PIECES or budget[0] <= 0:
            return
        compact = re.sub(r"[\s\\]+", "", piece[0])
        for name, decode in _TEXT_ENCODINGS.items():
            if (data := decode(compact)) is not None:
                yield from _opened(data, (*by, name), budget)
    if not by or by[-1] != "base85":
        for piece in _BASE85.finditer(text):
            for decode85 in (base64.b85decode, base64.a85decode):
                if (data := _tried(decode85, re.sub(r"\s+", "", piece[0]))) is not None:
                    yield from _opened(data, (*by, "base85"), budget)


def _opened(data: bytes, by: tuple[str, ...], budget: list[int]) -> Iterator[Decoded]:
    """The text of `data`, of what it is when decompressed, and of what stands encoded in either."""
    budget[0] -= len(data)
    if budget[0] <= 0 or len(by) > _DEEPEST:
        return
    for name, decompress in _COMPRESSIONS.items():
        for inner in decompress(data, budget[0]):
            yield from _opened(inner, (*by, name), budget)
    text = _text_of(data)
    if len(text) >= _SHORTEST:
        yield Decoded(text, by)
        yield from _within(text, by, budget)


def _text_of(data: bytes) -> str:
    """All of it where it is text, else the readable runs in it: a pickle holds its strings as they are."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text and sum(c.isprintable() or c.isspace() for c in text[:2000]) > 0.9 * min(len(text), 2000):
        return text
    return "\n".join(run.decode("utf-8", "replace") for run in _READABLE.findall(data))


def _tried(decode: Callable[[str], bytes], text: str) -> bytes | None:
    try:
        return decode(text)
    except (ValueError, binascii.Error):
        return None


def _base64(text: str) -> bytes | None:
    text = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    if len(text) % 4 == 1:
        return None
    return _tried(lambda one: base64.b64decode(one, validate=True), text + "=" * (-len(text) % 4))


_TEXT_ENCODINGS: dict[str, Callable[[str], bytes | None]] = {
    "base64": _base64,
    "hexadecimal": lambda text: _tried(bytes.fromhex, text),
}


def _zlib(wbits: int) -> Callable[[bytes, int], Iterator[bytes]]:
    def decompress(data: bytes, limit: int) -> Iterator[bytes]:
        try:
            yield zlib.decompressobj(wbits).decompress(data, limit)
        except zlib.error:
            return

    return decompress


def _bz2(data: bytes, limit: int) -> Iterator[bytes]:
    try:
        yield bz2.BZ2Decompressor().decompress(data, limit)
    except (OSError, ValueError):
        return


def _lzma(data: bytes, limit: int) -> Iterator[bytes]:
    try:
        yield lzma.LZMADecompressor(memlimit=1 << 28).decompress(data, limit)
    except (lzma.LZMAError, ValueError):
        return


def _zip(data: bytes, limit: int) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist()[:100]:
                with archive.open(name) as file:
                    yield file.read(limit // 100)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError, zlib.error):
        return


_MAGIC: dict[bytes, tuple[str, Callable[[bytes, int], Iterator[bytes]]]] = {
    b"\x1f\x8b": ("gzip", _zlib(31)),
    b"\x78": ("zlib", _zlib(15)),
    b"BZh": ("bz2", _bz2),
    b"\xfd7zXZ": ("xz", _lzma),
    b"\x5d\x00\x00": ("lzma", _lzma),
    b"PK\x03\x04": ("zip", _zip),
}


def _only_with(
    magic: bytes, decompress: Callable[[bytes, int], Iterator[bytes]]
) -> Callable[[bytes, int], Iterator[bytes]]:
    return lambda data, limit: decompress(data, limit) if data.startswith(magic) else iter(())


_COMPRESSIONS = {name: _only_with(magic, decompress) for magic, (name, decompress) in _MAGIC.items()}
