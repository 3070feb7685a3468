"""Papers in HTML, LaTeX source and PDF, and what hostile ones are told."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.errors import UserError
from bot.research.errors import Malformed
from bot.research.papers.archive import unpack
from bot.research.papers.html import read_html
from bot.research.papers.latex import read_latex
from bot.research.papers.model import Form, Paper
from bot.research.papers.pdf import read_pdf
from bot.research.papers.reading import arxiv_id, read_file
from bot.research.papers.tex_math import math_text
from tests.research.papers.pdf_writer import pdf_of

SAID = {"id": "2401.00001", "source": "https://arxiv.org/e-print/2401.00001", "fetched_at": 5.0}
HEAD = "\\documentclass{article}\\title{T}\\begin{document}"


def tar_of(files: dict[str, str], **members: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        for name, kind in members.items():
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "/etc/passwd"
            archive.addfile(info)
    return stream.getvalue()


def tex(body: str) -> Paper:
    return read_latex(f"{HEAD}{body}\\end{{document}}".encode(), **SAID)  # type: ignore[arg-type]


def paragraphs(paper: Paper) -> list[str]:
    return [paragraph for section in paper.sections for paragraph in section.paragraphs]


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (r"2\times 10^{-5}", "2 × 10^-5"),
        (r"5 \! \times \! 10^{-7}", "5 × 10^-7"),
        (r"\beta_{1}=0.9", "β1=0.9"),
        (r"10{,}000", "10,000"),
        (r"2\mathrm{e}{-5}", "2e-5"),
        (r"2e\text{-}5", "2e-5"),
        (r"\frac{1}{8}", "1/8"),
        (r"x\in\{1, 3\}", "x ∈ {1, 3}"),
    ],
)
def test_formulas_become_numbers_that_can_be_read(formula: str, text: str) -> None:
    assert math_text(formula) == text


def test_latexml_page_is_read_by_section_with_footnotes_and_spans() -> None:
    page = """<article class="ltx_document"><h1 class="ltx_title ltx_title_document">A Title</h1>
    <div class="ltx_abstract"><h6 class="ltx_title ltx_title_abstract">Abstract</h6><p class="ltx_p">In short.</p></div>
    <section class="ltx_section"><h2 class="ltx_title ltx_title_section">
    <span class="ltx_tag">2 </span>Method</h2>
    <section class="ltx_subsection"><h3 class="ltx_title ltx_title_subsection">
    <span class="ltx_tag">2.1 </span>SFT</h3>
    <p class="ltx_p">Rate <math alttext="2\\times 10^{-5}"><mn>2</mn></math><span class="ltx_note"><sup
    class="ltx_note_mark">1</sup><span class="ltx_note_content"><sup
     class="ltx_note_mark">1</sup>A note.</span></span> here.</p>
    <figure class="ltx_table"><figcaption class="ltx_caption">Table 3: All.</figcaption><table class="ltx_tabular">
    <tr class="ltx_tr"><th class="ltx_td ltx_th ltx_th_column">K</th>
    <th class="ltx_td ltx_th ltx_th_column" colspan="2">V</th></tr>
    <tr class="ltx_tr"><td class="ltx_td" rowspan="2">a</td><td class="ltx_td">1</td><td class="ltx_td">2</td></tr>
    <tr class="ltx_tr"><td class="ltx_td">3</td><td class="ltx_td">4</td></tr></table></figure></section></section>
    <section class="ltx_bibliography">
    <h2 class="ltx_title ltx_title_bibliography">References</h2><p>Other, 1e-4.</p></section></article>"""
    paper = read_html(page, **SAID)  # type: ignore[arg-type]
    assert (paper.title, paper.abstract) == ("A Title", "In short.")
    section = paper.section("sft")
    assert section is not None
    assert section.where == "Method › SFT"
    assert (section.paragraphs, section.notes) == (("Rate 2 × 10^-5 here.",), ("A note.",))
    (table,) = section.tables
    assert table.label == "Table 3"
    assert table.header == (("K", "V", "V"),)
    assert table.body == (("a", "1", "2"), ("a", "3", "4"))
    assert "Other" not in " ".join(paragraphs(paper))


def test_powers_of_plain_html_are_kept_and_footnote_marks_are_not() -> None:
    page = "<html><body><h1>T</h1><h2>M</h2><p>A rate<sup>3</sup> of 2 × 10<sup>−4</sup>.</p></body></html>"
    assert paragraphs(read_html(page, **SAID)) == ["A rate of 2 × 10^-4."]  # type: ignore[arg-type]


@pytest.mark.parametrize("page", ["", "<html></html>", "<html><body><script>x</script></body></html>"])
def test_a_page_without_text_is_one_clear_error(page: str) -> None:
    with pytest.raises(Malformed):
        read_html(page, **SAID)  # type: ignore[arg-type]


def test_entities_of_a_page_are_not_fetched() -> None:
    page = '<!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/passwd">]><html><body><h2>M</h2><p>a &x; b</p></body></html>'
    assert "root" not in " ".join(paragraphs(read_html(page, **SAID)))  # type: ignore[arg-type]


def test_latex_in_several_files_with_macros_and_comments() -> None:
    files = {
        "main.tex": HEAD
        + "\\newcommand{\\lr}{2e-5}\\newcommand{\\ours}[1]{Ours-#1}\\section{A} We use \\lr{}. % not 3e-5\n"
        "\n\\iffalse hidden 9e-9 \\else shown \\fi \\input{parts/more} \\begin{comment}7e-7\\end{comment}"
        "\\end{document}",
        "parts/more.tex": "\\paragraph{SFT.} The \\ours{7B} model, 50\\% of it.\\footnote{Small.}",
        "notes.tex": "unused 8e-8",
    }
    paper = read_latex(tar_of(files), **SAID)  # type: ignore[arg-type]
    assert [section.title for section in paper.sections] == ["A", "SFT"]
    assert paragraphs(paper) == ["We use 2e-5.", "shown", "The Ours-7B model, 50% of it."]
    assert [section.notes for section in paper.sections] == [(), ("Small.",)]


def test_optional_arguments_are_no_text() -> None:
    paper = tex("\\section[Short]{Long} We use\\footnote[1]{A note.} \\citep[see][p. 3]{a20} this.")
    assert [section.title for section in paper.sections] == ["Long"]
    assert paragraphs(paper) == ["We use (a20) this."]
    assert paper.sections[0].notes == ("A note.",)


def test_latex_tables_are_grids() -> None:
    paper = tex(
        "\\section{A}\\begin{table}\\caption{Hyper \\textbf{x}.}\\begin{tabular}{l|cc}\\toprule K & "
        "\\multicolumn{2}{c}{V}"
        "\\\\ \\midrule \\multirow{2}{*}{a} & $1\\times10^{-5}$ & \\makecell{b\\\\c} \\\\ & 3 & 4 \\\\ \\bottomrule"
        "\\end{tabular}\\end{table}"
    )
    ((_, table),) = paper.tables()
    assert table.caption == "Hyper x."
    assert table.header == (("K", "V", "V"),)
    assert table.body == (("a", "1 × 10^-5", "b c"), ("a", "3", "4"))


def test_one_gzipped_file_and_a_bare_file_are_sources_too() -> None:
    source = f"{HEAD}\\section{{A}} Text.\\end{{document}}".encode()
    for data in (source, gzip.compress(source)):
        assert paragraphs(read_latex(data, **SAID)) == ["Text."]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: tar_of({"../../etc/cron.d/x": "x"}), "outside of its folder"),
        (lambda: tar_of({"/etc/x": "x"}), "outside of its folder"),
        (lambda: tar_of({}, link=tarfile.SYMTYPE), "a link"),
        (lambda: tar_of({}, hard=tarfile.LNKTYPE), "a link"),
        (lambda: tar_of({}, device=tarfile.CHRTYPE), "a device"),
        (lambda: gzip.compress(b"\\" * (65 << 20)), "more than 64 MiB"),
        (lambda: tar_of({f"f{number}.tex": "" for number in range(2_001)}), "more than 2,000 files"),
        (lambda: gzip.compress(b"x" * 9000)[:-20], "broken"),
        (lambda: b"\x00\x01\x02", "neither LaTeX"),
    ],
)
def test_hostile_archives_are_refused_in_one_sentence(made: Callable[[], bytes], said: str) -> None:
    archive = made()  # not while tests are collected: a gzip file holds the time
    with pytest.raises(Malformed, match=said) as error:
        unpack(archive, "https://arxiv.org/e-print/1")
    assert "\n" not in str(error.value)


def test_macros_that_multiply_are_bounded() -> None:
    bomb = "".join(
        f"\\newcommand{{\\{b}}}{{{f'{chr(92)}{a}' * 10}}}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    paper = tex(f"\\newcommand{{\\a}}{{{'x' * 3000}}}{bomb}\\section{{A}} Text \\i.")
    assert sum(map(len, paragraphs(paper))) < 40 << 20


def test_environments_that_never_end_take_no_time() -> None:
    with pytest.raises(Malformed):
        tex("\\begin{verbatim}" * 20_000)


def test_pdf_is_read_by_section_with_powers_and_broken_words() -> None:
    text = (
        "# A Longer Title\nAbstract\nIn short.\n1 Introduction\nSome words here.\n2 Training details\n"
        "We fine-\ntune with a learn-\n"
        "ing rate of 2 × 10^{-5}.\nReferences\nOther 2024. A rate of 1e-4."
    )
    paper = read_pdf(pdf_of(text), **SAID)  # type: ignore[arg-type]
    assert (paper.title, paper.abstract) == ("A Longer Title", "In short.")
    section = paper.section("training details")
    assert section is not None
    assert section.paragraphs == ("We fine-tune with a learning rate of 2 × 10-5.",)
    assert "1e-4" not in " ".join(paragraphs(paper))
    assert "tables survive badly" in paper.notes[0]


@pytest.mark.parametrize("data", [b"%PDF-1.5\nbroken", pdf_of("x")[:200], b"no pdf"])
def test_a_broken_pdf_is_one_clear_error(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_pdf(data, **SAID)  # type: ignore[arg-type]


def test_files_are_known_by_what_they_hold(tmp_path: Path) -> None:
    html = "<!doctype html><html><body><h1>T</h1><h2>A</h2><p>Text.</p></body></html>"
    source = f"{HEAD}\\section{{A}} Text.\\end{{document}}"
    files = {
        "a": (html.encode(), Form.HTML),
        "b": (source.encode(), Form.LATEX),
        "c": (tar_of({"m.tex": source}), Form.LATEX),
        "d": (pdf_of("# T T\n1 Training\nWe train it well."), Form.PDF),
    }
    for name, (data, form) in files.items():
        (tmp_path / name).write_bytes(data)
        assert read_file(tmp_path / name).form is form


def test_what_is_no_file_and_no_identifier_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Name"):
        read_file(tmp_path)
    with pytest.raises(UserError, match=r"Write it like 2305\.18290"):
        arxiv_id("the DPO paper")


@pytest.mark.parametrize(
    "text",
    [
        "2305.18290",
        "arXiv:2305.18290",
        "https://arxiv.org/abs/2305.18290",
        "arxiv.org/pdf/2305.18290.pdf",
        "https://huggingface.co/papers/2305.18290",
    ],
)
def test_identifiers_are_read_from_addresses(text: str) -> None:
    assert arxiv_id(text) == "2305.18290"


def test_an_abstract_before_the_document_is_the_papers_and_its_macros_are_written_out() -> None:
    """acmart and revtex want it there."""
    text = (
        r"\documentclass{acmart}\newcommand{\ours}{Hangar-7B}\title[Short]{A Title}"
        r"\begin{abstract}We present \ours{}, tuned with QLoRA.\end{abstract}"
        r"\begin{document}\maketitle\section{Method}We train for 2 epochs.\end{document}"
    )
    paper = read_latex(text.encode(), id="x", source="x", fetched_at=0.0)
    assert (paper.title, paper.abstract) == ("A Title", "We present Hangar-7B, tuned with QLoRA.")
    assert [section.title for section in paper.sections] == ["Method"]
