"""Papers searched, cited, linked and fetched through the real way out, against stand-ins of each interface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.cli import papers as commands
from bot.cli import run
from bot.research.errors import Busy, Malformed, NotFound, Refused
from bot.research.papers.citations import citations_of, references_of
from bot.research.papers.links import links_of
from bot.research.papers.model import Form
from bot.research.papers.reading import read_paper
from bot.research.papers.search import arxiv_papers, hub_papers, scholar_papers, search
from bot.research.web import Web
from tests.research.papers.pdf_writer import pdf_of
from tests.research.papers.test_forms import HEAD, tar_of
from tests.research.stand_in import Answer, StandIn, web_at

ID = "2305.18290"
HOSTS = ("huggingface.co", "export.arxiv.org", "arxiv.org", "ar5iv.labs.arxiv.org", "api.semanticscholar.org")
HUB = [
    {
        "paper": {
            "id": ID,
            "title": "Direct Preference\nOptimization",
            "summary": "Code: https://github.com/eric/dpo.",
            "authors": [{"_id": "1", "name": "Rafael Rafailov", "hidden": False}],
            "publishedAt": "2023-05-29T17:57:46.000Z",
            "upvotes": 64,
            "githubRepo": "https://github.com/eric-mitchell/dpo",
        },
        "publishedAt": "2023-05-29T13:57:46.000Z",
        "title": "Direct Preference Optimization",
        "numComments": 3,
    },
    {
        "paper": {
            "id": "2401.10020",
            "title": "Self-Rewarding",
            "summary": "",
            "authors": [],
            "publishedAt": "2024-01-18T00:00:00.000Z",
        },
        "title": "Self-Rewarding",
    },
]
ATOM = f"""<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>ArXiv Query</title><id>http://arxiv.org/api/x</id>
<opensearch:totalResults xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">1</opensearch:totalResults>
<entry><id>http://arxiv.org/abs/{ID}v3</id><updated>2024-07-29T22:26:36Z</updated><published>2023-05-29T17:57:46Z</published>
<title>Direct Preference Optimization</title><summary>  While large-scale
 models learn. </summary><author><name>Rafael Rafailov</name></author>
<arxiv:primary_category xmlns:arxiv="http://arxiv.org/schemas/atom" term="cs.LG"/></entry></feed>"""
ATOM_ERROR = """<?xml version="1.0" encoding="UTF-8"?><feed xmlns="http://www.w3.org/2005/Atom"><entry>
<id>http://arxiv.org/api/errors#incorrect</id><title>Error</title>
<summary>incorrect id format</summary></entry></feed>"""
SCHOLAR = {
    "paperId": "0d1c76d4",
    "externalIds": {"ArXiv": "2310.16944", "CorpusId": 264},
    "title": "Zephyr",
    "abstract": None,
    "year": 2023,
    "citationCount": 410,
    "authors": [{"authorId": "7", "name": "Lewis Tunstall"}],
}
CITED = {
    "offset": 0,
    "next": 2,
    "data": [
        {"isInfluential": False, "contexts": [], "intents": [], "citingPaper": {**SCHOLAR, "title": None}},
        {
            "isInfluential": False,
            "contexts": [],
            "intents": ["background"],
            "citingPaper": {**SCHOLAR, "citationCount": 900},
        },
        {
            "isInfluential": True,
            "contexts": ["We use DPO (Rafailov et al., 2023)."],
            "intents": ["methodology"],
            "citingPaper": SCHOLAR,
        },
    ],
}
REPOS = {
    "models": [{"id": "a/small", "downloads": 5, "likes": 1}, {"id": "a/large", "downloads": 900, "likes": 2}],
    "datasets": [{"id": "a/data", "downloads": 7, "likes": 0}],
    "spaces": [],
}
PAGE = """<article class="ltx_document"><h1 class="ltx_title ltx_title_document">DPO</h1><section class="ltx_section">
<h2 class="ltx_title ltx_title_section">SFT</h2><p class="ltx_p">The learning rate is 1e-5.</p></section></article>"""


@pytest.fixture
def api() -> Iterator[StandIn]:
    with StandIn().serve() as stand_in:
        yield stand_in


@pytest.fixture
def web(api: StandIn, tmp_path: Path) -> Web:
    return web_at(tmp_path, dict.fromkeys(HOSTS, api.url))


async def test_hub_search_reads_papers_and_their_code(api: StandIn, web: Web) -> None:
    api.answers["/api/papers/search"] = Answer(HUB)
    first, second = await hub_papers(web, "preference optimization", 5)
    assert api.asked[0].params == {"q": "preference optimization", "limit": "5"}
    assert (first.id, first.title, first.year, first.upvotes) == (ID, "Direct Preference Optimization", 2023, 64)
    assert first.code == ("https://github.com/eric-mitchell/dpo", "https://github.com/eric/dpo")
    assert first.authors == ("Rafael Rafailov",)
    assert first.source.startswith("https://huggingface.co/api/papers/search")
    assert first.fetched_at > 0
    assert second.id == "2401.10020"


async def test_arxiv_search_reads_atom(api: StandIn, web: Web) -> None:
    api.answers["/api/query"] = Answer(ATOM, content_type="application/atom+xml")
    (hit,) = await arxiv_papers(web, "preference optimization")
    assert api.asked[0].params["search_query"] == "all:preference AND all:optimization"
    assert (hit.id, hit.year, hit.abstract) == (ID, 2023, "While large-scale models learn.")


async def test_scholar_search_reads_identifiers_and_counts(api: StandIn, web: Web) -> None:
    api.answers["/graph/v1/paper/search"] = Answer({"total": 1, "offset": 0, "data": [SCHOLAR]})
    (hit,) = await scholar_papers(web, "zephyr")
    assert (hit.id, hit.citations, hit.authors, hit.abstract) == ("2310.16944", 410, ("Lewis Tunstall",), "")
    api.answers["/graph/v1/paper/search"] = Answer({"total": 0, "offset": 0})
    assert await scholar_papers(web, "nothing at all") == []


async def test_search_merges_catalogues_by_identifier(api: StandIn, web: Web) -> None:
    api.answers["/api/papers/search"] = Answer(list(reversed(HUB)))
    api.answers["/api/query"] = Answer(ATOM, content_type="application/atom+xml")
    found = await search(web, "preference optimization", limit=5)
    assert [hit.id for hit in found.hits] == [ID, "2401.10020"]
    assert found.hits[0].catalogues == ("huggingface.co", "export.arxiv.org")
    assert found.hits[0].abstract
    assert found.notes == ()


async def test_search_goes_on_without_a_catalogue_that_is_busy_and_says_so(api: StandIn, web: Web) -> None:
    api.answers["/api/papers/search"] = Answer(HUB)
    api.answers["/api/query"] = Answer("later", status=429, headers={"Retry-After": "40"})
    found = await search(web, "preference optimization")
    assert len(found.hits) == 2
    assert "export.arxiv.org answered 429" in found.notes[0]


async def test_search_that_nobody_answers_is_busy_and_nobody_has_slept(api: StandIn, web: Web) -> None:
    for path in ("/api/papers/search", "/api/query"):
        api.answers[path] = Answer("later", status=429, headers={"Retry-After": "40"})
    with pytest.raises(Busy) as error:
        await search(web, "preference optimization")
    assert error.value.retry_after_seconds == 40


@pytest.mark.parametrize(
    ("path", "ask", "answer"),
    [
        ("/api/papers/search", hub_papers, Answer({"error": "no list"})),
        ("/api/papers/search", hub_papers, Answer([{"paper": {"title": "no id"}}])),
        ("/api/papers/search", hub_papers, Answer("[{", content_type="application/json")),
        ("/api/query", arxiv_papers, Answer("<feed", content_type="application/atom+xml")),
        ("/api/query", arxiv_papers, Answer("<html></html>", content_type="application/atom+xml")),
        (
            "/api/query",
            arxiv_papers,
            Answer(ATOM.replace("<feed", '<!DOCTYPE f [<!ENTITY a "b">]><feed'), content_type="application/atom+xml"),
        ),
        (
            "/api/query",
            arxiv_papers,
            Answer(ATOM.replace(f"abs/{ID}v3", "nothing"), content_type="application/atom+xml"),
        ),
        ("/graph/v1/paper/search", scholar_papers, Answer([])),
        ("/graph/v1/paper/search", scholar_papers, Answer({"data": "none"})),
    ],
)
async def test_a_malformed_answer_is_one_clear_error(
    api: StandIn, web: Web, path: str, ask: Any, answer: Answer
) -> None:
    api.answers[path] = answer
    with pytest.raises(Malformed) as error:
        await ask(web, "preference optimization")
    assert "\n" not in str(error.value)


async def test_what_arxiv_refuses_is_refused(api: StandIn, web: Web) -> None:
    api.answers["/api/query"] = Answer(ATOM_ERROR, content_type="application/atom+xml")
    with pytest.raises(Refused, match="incorrect id format"):
        await arxiv_papers(web, "preference optimization")


async def test_citations_tell_why_and_the_influential_ones_come_first(api: StandIn, web: Web) -> None:
    api.answers[f"/graph/v1/paper/ARXIV:{ID}/citations"] = Answer(CITED)
    found = await citations_of(web, f"arXiv:{ID}v2")
    assert [(each.influential, each.intents) for each in found.citations] == [
        (True, ("methodology",)),
        (False, ("background",)),
    ]
    assert found.citations[0].contexts == ("We use DPO (Rafailov et al., 2023).",)
    assert found.citations[0].paper.id == "2310.16944"
    assert found.source.startswith("https://api.semanticscholar.org/graph/v1/paper/ARXIV:")


async def test_references_that_the_publisher_withholds_are_said_to_be(api: StandIn, web: Web) -> None:
    api.answers[f"/graph/v1/paper/ARXIV:{ID}/references"] = Answer({"citingPaperInfo": {}, "data": None})
    assert (await references_of(web, ID)).withheld
    api.answers[f"/graph/v1/paper/ARXIV:{ID}/citations"] = Answer({"message": "x"})
    with pytest.raises(Malformed):
        await citations_of(web, ID)


async def test_links_of_a_paper(api: StandIn, web: Web) -> None:
    api.answers[f"/api/arxiv/{ID}/repos"] = Answer(REPOS)
    api.answers[f"/api/papers/{ID}"] = Answer({"id": ID, "summary": "", "githubRepo": "https://github.com/e/dpo"})
    found = await links_of(web, ID)
    assert [each.id for each in found.models] == ["a/large", "a/small"]
    assert [each.id for each in found.datasets] == ["a/data"]
    assert found.code == ("https://github.com/e/dpo",)
    api.answers[f"/api/arxiv/{ID}/repos"] = Answer({"models": [{"name": "x"}]})
    with pytest.raises(Malformed):
        await links_of(web_at(Path(web._cache._folder).parent / "other", dict.fromkeys(HOSTS, api.url)), ID)


SOURCE = {"m.tex": HEAD + "\\section{SFT} The learning rate is 1e-5.\\end{document}"}
FORMS = {
    Form.HTML: ("arxiv.org", f"/html/{ID}", Answer(PAGE)),
    Form.AR5IV: ("ar5iv.labs.arxiv.org", f"/html/{ID}", Answer(PAGE)),
    Form.LATEX: ("export.arxiv.org", f"/e-print/{ID}", Answer(tar_of(SOURCE), content_type="application/gzip")),
    Form.PDF: (
        "export.arxiv.org",
        f"/pdf/{ID}",
        Answer(pdf_of("# A Long Title\n1 SFT\nThe learning rate is 1e-5."), content_type="application/pdf"),
    ),
}


@pytest.mark.parametrize("form", list(FORMS))
async def test_a_paper_is_read_in_the_first_form_there_is_and_says_which(form: Form, tmp_path: Path) -> None:
    host, path, answer = FORMS[form]
    with StandIn().serve() as there, StandIn().serve() as nothing:
        there.answers[path] = answer
        web = web_at(tmp_path, dict.fromkeys(HOSTS, nothing.url) | {host: there.url})
        paper = await read_paper(web, f"https://arxiv.org/abs/{ID}")
    assert paper.form is form
    assert paper.id == ID
    assert paper.source == f"https://{host}{path}"
    missed = list(FORMS)[: list(FORMS).index(form)]
    assert [note for note in paper.notes if note.startswith("there is no")] == [
        f"there is no {each.value}" for each in missed
    ]


async def test_a_source_that_is_a_pdf_is_read_as_one(tmp_path: Path) -> None:
    with StandIn().serve() as there:
        there.answers[f"/e-print/{ID}"] = FORMS[Form.PDF][2]
        paper = await read_paper(web_at(tmp_path, dict.fromkeys(HOSTS, there.url)), ID)
    assert paper.form is Form.PDF


async def test_a_paper_that_is_nowhere_is_not_found_and_a_hostile_one_is_refused(api: StandIn, web: Web) -> None:
    with pytest.raises(NotFound):
        await read_paper(web, ID)
    api.answers[f"/e-print/{ID}"] = Answer(tar_of({"../x": "x"}), content_type="application/gzip")
    with pytest.raises(Malformed, match="outside of its folder"):
        await read_paper(web, ID)
    api.answers[f"/html/{ID}"] = Answer("later", status=429, headers={"Retry-After": "7"})
    with pytest.raises(Busy):
        await read_paper(web, ID)


@pytest.fixture
def at_stand_in(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_web", lambda: web)


@pytest.mark.usefixtures("at_stand_in")
def test_command_tells_the_recipe_of_a_paper(api: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers[f"/html/{ID}"] = Answer(PAGE)
    assert run(["paper", ID, "--recipe", "--json", str(tmp_path / "out.json")]) == 0
    assert "learning_rate: 1e-05    “The learning rate is 1e-5.” (SFT)" in capsys.readouterr().out
    stage = json.loads((tmp_path / "out.json").read_text())["stages"][0]
    assert (stage["method"], stage["values"][0]["key"], stage["values"][0]["value"]) == ("sft", "learning_rate", 1e-5)
    assert run(["paper", ID]) == 0
    assert "SFT (1 paragraphs)" in capsys.readouterr().out


@pytest.mark.usefixtures("at_stand_in")
def test_command_finds_papers(api: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers["/api/papers/search"] = Answer(HUB)
    assert run(["papers", "preference optimization"]) == 0
    said = capsys.readouterr().out
    assert "2305.18290     2023  Direct Preference Optimization" in said
    assert "note: export.arxiv.org has nothing" in said


@pytest.mark.usefixtures("at_stand_in")
def test_commands_say_in_one_line_what_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["paper", "no-such-thing"]) == 2
    assert "Write it like 2305.18290" in capsys.readouterr().err
    (tmp_path / "a.html").write_text("<html><body><h2>A</h2><p>Text.</p></body></html>")
    assert run(["paper", str(tmp_path / "a.html"), "--section", "Nowhere"]) == 2
    assert "has none of that name" in capsys.readouterr().err
    assert run(["paper", ID]) == 1
