"""A small PDF made by hand, as LaTeX would set it: lines of Helvetica, powers smaller and higher."""

from __future__ import annotations

import re
import zlib


def pdf_of(text: str) -> bytes:
    """Lines of `text` on pages; `10^{-6}` becomes a raised power, a first line that starts with `# ` the title."""
    lines = text.strip().splitlines()
    pages = [lines[start : start + 50] for start in range(0, len(lines), 50)]
    objects: list[bytes] = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    for number, page in enumerate(pages):
        content = zlib.compress(_content(page))
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(
            f"<< /Length {len(content)} /Filter /FlateDecode >>\nstream\n".encode() + content + b"\nendstream"
        )
    body, offsets = b"%PDF-1.5\n", []
    for number, each in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n".encode() + each + b"\nendobj\n"
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{at:010d} 00000 n \n" for at in offsets)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + (table + trailer).encode()


def _content(lines: list[str]) -> bytes:
    pieces = [b"BT 12 TL 72 740 Td"]
    for line in lines:
        size = 16 if line.startswith("# ") else 10
        pieces.append(f"/F1 {size} Tf {28 if size == 16 else 12} TL".encode())
        for part in re.split(r"(\^\{[^}]*\})", line.removeprefix("# ")):
            raised = part.startswith("^{")
            shown = part[2:-1] if raised else part
            escaped = shown.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)").encode("cp1252")
            pieces.append(b"/F1 7 Tf 4 Ts (" + escaped + b") Tj 0 Ts /F1 10 Tf" if raised else b"(" + escaped + b") Tj")
        pieces.append(b"T*")
    return b"\n".join([*pieces, b"ET"])
