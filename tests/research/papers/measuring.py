"""The reader on papers that were written without sight of it.

    python -m tests.research.papers.measuring [-v]

Prints precision with its interval, recall and every wrong answer, of `corpus/`, and of `unseen/`, `fresh/`,
`later/` and `latest/`, which came after it; `-v` also what was missed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bot.research.papers.html import read_html
from bot.research.papers.latex import read_latex
from bot.research.papers.model import Form, Paper
from bot.research.papers.pdf import read_pdf
from bot.research.papers.recipe import extract
from tests.research.papers.scoring import CORPUS, FRESH, LATER, LATEST, UNSEEN, Score, latex_archive, papers, score


def read(name: str, held: Path = CORPUS) -> Paper:
    """A paper as arXiv would hand it out."""
    paper = papers(held)[name]
    folder = held / name
    said: dict[str, Any] = {"id": paper["id"], "source": f"https://arxiv.org/abs/{paper['id']}", "fetched_at": 0.0}
    if paper["format"] == "latex":
        return read_latex(latex_archive(folder / "source"), **said)
    data = (folder / paper["file"]).read_bytes()
    if paper["format"] == "pdf":
        return read_pdf(data, **said)
    return read_html(data, form=Form.AR5IV if paper["format"] == "ar5iv_html" else Form.HTML, **said)


def answers(name: str, held: Path = CORPUS) -> Iterator[dict[str, Any]]:
    """What was read from a paper, in the corpus's words."""
    for stage in extract(read(name, held)).stages:
        for each in stage.values:
            key, value = each.key, each.value
            if key == "precision":
                key, value = str(value), True
            yield {
                "stage": stage.method, "model": each.variant or None, "key": key, "value": value, "quote": each.quote,
            }  # fmt: skip


def measured(held: Path = CORPUS) -> Score:
    return score({name: list(answers(name, held)) for name in papers(held)}, held)


def main() -> None:
    for held in (CORPUS, UNSEEN, FRESH, LATER, LATEST):
        result = measured(held)
        print(f"{held.name}, {len(papers(held))} papers", *result.lines(), sep="\n")
        for paper, entry in result.missed if "-v" in sys.argv else ():
            told = (entry.get("stage"), entry.get("model"), entry["key"], entry["value"])
            print("missed:", paper, *told, "|", entry["quote"])


if __name__ == "__main__":
    main()
