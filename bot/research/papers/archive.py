"""A paper's LaTeX source as arXiv hands it out: a tar file in gzip, one file in gzip, or one file.

Archives come from strangers: nothing is written to disk, names that leave the folder, links, devices and archives that
grow beyond bounds are refused, each in one sentence.
"""

from __future__ import annotations

import gzip
import io
import posixpath
import tarfile
import zlib

from bot.research.errors import Malformed

MOST_BYTES = 64 << 20
"""Of everything unpacked; figures count too, although only text is kept."""
MOST_FILES = 2_000
_TEXT = (".tex", ".ltx", ".latex", ".txt", ".bbl", ".sty", ".cls", ".def")


def unpack(data: bytes, source: str) -> dict[str, str]:
    """The text files of an e-print by their names.

    Raises: Malformed for a hostile or broken archive.
    """
    if data[:2] == b"\x1f\x8b":
        data = _inflated(data, source)
    if _is_tar(data):
        return _untarred(data, source)
    if data[:5] == b"%PDF-":
        raise Malformed(f"{source} is a PDF, not LaTeX source")
    if b"\x00" in data[:4096]:
        raise Malformed(f"{source} is neither LaTeX nor an archive of it")
    return {"main.tex": _text(data)}


def _inflated(data: bytes, source: str) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            inside = stream.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Malformed(f"{source} is broken: its gzip stream ends in the middle or is damaged") from error
    if len(inside) > MOST_BYTES:
        raise Malformed(f"{source} is refused: it unpacks to more than {MOST_BYTES >> 20} MiB")
    return inside


def _is_tar(data: bytes) -> bool:
    return data[257:262] == b"ustar"


def _untarred(data: bytes, source: str) -> dict[str, str]:
    files: dict[str, str] = {}
    total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= MOST_FILES:
                    raise Malformed(f"{source} is refused: it holds more than {MOST_FILES:,} files")
                name = _checked_name(member, source)
                total += max(member.size, 0)
                if total > MOST_BYTES:
                    raise Malformed(f"{source} is refused: it unpacks to more than {MOST_BYTES >> 20} MiB")
                if member.isfile() and name.lower().endswith(_TEXT) and (stream := archive.extractfile(member)):
                    files[name] = _text(stream.read(MOST_BYTES))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise Malformed(f"{source} is a broken tar archive") from error
    return files


def _checked_name(member: tarfile.TarInfo, source: str) -> str:
    name = posixpath.normpath(member.name)
    if name.startswith(("/", "..")) or "\\" in name or ":" in name.split("/")[0]:
        raise Malformed(f"{source} is refused: a file in it has a path outside of its folder")
    if member.issym() or member.islnk():
        raise Malformed(f"{source} is refused: it holds a link ({name[:80]})")
    if not (member.isfile() or member.isdir()):
        raise Malformed(f"{source} is refused: it holds a device ({name[:80]})")
    return name


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
