"""Reads a paper in the best form there is (arXiv's HTML, ar5iv's, LaTeX source, PDF) and says which."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bot.errors import UserError
from bot.research.errors import Busy, Malformed, NotFound, Refused, ResearchError
from bot.research.papers.html import read_html
from bot.research.papers.latex import read_latex
from bot.research.papers.model import Form, Paper
from bot.research.papers.pdf import read_pdf
from bot.research.web import Page, Web

MOST_BYTES = 32 << 20
AGE_SECONDS = 30 * 86_400.0
"""A version of a paper does not change; one without its version may get a new one."""
_IDENTIFIER = re.compile(
    r"(?:https?://)?(?:(?:www\.|export\.)?arxiv\.org/(?:abs|pdf|html|e-print|"
    r"src)/|huggingface\.co/papers/|ar5iv(?:\.labs)?\.(?:arxiv\.)?org/(?:html|"
    r"abs)/|arxiv:\s*)?"
    r"(?P<id>\d{4}\.\d{4,5}(?:v\d{1,2})?|[a-z-]{2,16}(?:\.[A-Z]{2})?/\d{7}(?:v\d{1,2})?)(?:\.pdf)?/?",
    re.IGNORECASE,
)


def arxiv_id(text: str) -> str:
    """The identifier in `2305.18290`, `arXiv:2305.18290v3` or a paper's address. Raises: UserError."""
    found = _IDENTIFIER.fullmatch(text.strip())
    if found is None:
        raise UserError(f"`{text[:80]}` is no arXiv identifier. Write it like 2305.18290 or arxiv.org/abs/2305.18290.")
    return found["id"]


async def read_paper(web: Web, reference: str) -> Paper:
    """The paper, in the first of the forms that can be read.

    Raises: UserError for what is no identifier; NotFound, Busy; Malformed where no form is a paper.
    """
    identifier = arxiv_id(reference)
    missed: list[str] = []
    later: Busy | None = None
    problem: ResearchError | None = None
    for form, url in _addresses(identifier):
        try:
            page = await web.get(url, max_age_seconds=AGE_SECONDS, most_bytes=MOST_BYTES)
            paper = await asyncio.to_thread(_read, form, page, identifier)
        except Busy as error:
            later = later or error
            missed.append(f"{form.value} could not be asked for now")
        except NotFound:
            missed.append(f"there is no {form.value}")
        except (Malformed, Refused) as error:
            problem = problem or error
            missed.append(f"the {form.value} could not be used: {error}")
        else:
            return replace(paper, notes=(*paper.notes, *missed)) if missed else paper
    if later is not None:
        raise later
    if problem is not None:
        raise Malformed(f"No form of the paper {identifier} can be read; {'; '.join(missed)}")
    raise NotFound(f"arXiv has no paper {identifier}, in no form")


def _addresses(identifier: str) -> tuple[tuple[Form, str], ...]:
    # Sources and PDFs are meant to be fetched by programs from the export site: https://info.arxiv.org/help/bulk_data.html
    return (
        (Form.HTML, f"https://arxiv.org/html/{identifier}"),
        (Form.AR5IV, f"https://ar5iv.labs.arxiv.org/html/{identifier}"),
        (Form.LATEX, f"https://export.arxiv.org/e-print/{identifier}"),
        (Form.PDF, f"https://export.arxiv.org/pdf/{identifier}"),
    )


def _read(form: Form, page: Page, identifier: str) -> Paper:
    if form in (Form.HTML, Form.AR5IV):
        return read_html(page.body, id=identifier, source=page.url, fetched_at=page.fetched_at, form=form)
    if form is Form.PDF or page.body[:5] == b"%PDF-":  # some papers' source is a PDF
        return read_pdf(page.body, id=identifier, source=page.url, fetched_at=page.fetched_at)
    return read_latex(page.body, id=identifier, source=page.url, fetched_at=page.fetched_at)


def read_file(path: Path, *, clock: Callable[[], float] = time.time) -> Paper:
    """A paper from a file of any of the forms; the network is not asked. Raises: UserError, Malformed."""
    try:
        if path.is_dir() or path.stat().st_size > 2 * MOST_BYTES:
            raise UserError(f"{path} is no file of a paper. Name an HTML, LaTeX, tar.gz or PDF file of at most 64 MiB.")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Name a file that can be read, or an arXiv identifier.") from error
    said = {"id": path.name, "source": str(path), "fetched_at": clock()}
    if data[:5] == b"%PDF-":
        return read_pdf(data, **said)  # type: ignore[arg-type]
    start = data[:4096].lstrip().lower()
    looks_html = b"<html" in start or b"<!doctype html" in start or b"<article" in start
    if looks_html or path.suffix.lower() in {".html", ".htm", ".xhtml"}:
        form = Form.AR5IV if b"ar5iv" in data[:200_000].lower() else Form.HTML
        return read_html(data, form=form, **said)  # type: ignore[arg-type]
    return read_latex(data, **said)  # type: ignore[arg-type]
