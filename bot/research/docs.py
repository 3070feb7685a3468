"""Documentation of the training libraries: what is installed speaks first, their sites where it says nothing.

What is installed is what a script will run with; a site shows its newest version, and a model's memory an old one.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from bot.research.errors import Malformed, NotFound
from bot.research.installed import PACKAGES, Definition, Installed, Signature, parameter_docs, parsed
from bot.research.web import Web

MOST_HITS = 20
# Models and tests say little about training, and are most of the text.
_SKIPPED = re.compile(
    r"\.(models|tests|test_utils|pipelines|kernels|packaged_modules|quantizers|experimental)\.|\.commands"
)
_WORD = re.compile(r"[a-z0-9]+")
_SENTENCE = re.compile(r"(?<=[.!?])\s")
RENAMED = {
    "max_seq_length": "max_length",
    "tokenizer": "processing_class",
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",
    "torch_dtype": "dtype",
    "no_cuda": "use_cpu",
    "group_size": "num_generations",
    "kl_coef": "beta",
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "lr": "learning_rate",
}
"""Names of older versions and of papers -> the trainers' own. One is suggested only where it is installed."""


@dataclass(frozen=True, slots=True)
class Hit:
    name: str
    """`trl.SFTConfig.packing`, or the title of a site's page."""
    text: str
    """What is said about it, at most some sentences."""
    source: str
    """Package, version, file and line; or the page's URL."""
    score: float


@dataclass(frozen=True, slots=True)
class UnknownKeyword:
    keyword: str
    instead: tuple[str, ...]
    """Nearest first; empty where nothing is near."""
    why: str
    """One sentence."""


def unknown_keywords(
    name: str, keywords: Collection[str], installed: Installed | None = None
) -> tuple[UnknownKeyword, ...]:
    """Those of `keywords` that the class or function `name` does not take, with what may have been meant.

    Raises: NotFound when there is no such name, ResearchError.
    """
    found = (installed or Installed()).signature(name)
    known = [parameter.name for parameter in found.parameters]
    if found.takes_anything:
        return ()
    return tuple(_unknown(found, known, keyword) for keyword in keywords if keyword not in known)


def _unknown(found: Signature, known: Sequence[str], keyword: str) -> UnknownKeyword:
    renamed = RENAMED.get(keyword, "")
    near = difflib.get_close_matches(keyword, known, n=3, cutoff=0.7)
    instead = tuple(dict.fromkeys([*([renamed] if renamed in known else []), *near]))
    why = f"{found.name} of {found.package} {found.version} takes no `{keyword}`"
    if renamed in known:
        why += f"; write `{renamed}`"
    elif instead:
        why += f"; did you mean {' or '.join(f'`{each}`' for each in instead)}?"
    return UnknownKeyword(keyword, instead, why if why.endswith("?") else f"{why}.")


def search_docs(
    query: str, installed: Installed | None = None, *, packages: Sequence[str] = PACKAGES, limit: int = 8
) -> list[Hit]:
    """What the installed docstrings say about `query`: classes, functions and parameters, best first.

    Raises: ResearchError when the packages cannot be found.
    """
    beside = installed or Installed()
    words = list(dict.fromkeys(_WORD.findall(query.lower())))
    if not words:
        return []
    hits: list[Hit] = []
    for package in packages:
        if package not in beside.places():
            continue
        folder, version = beside.places()[package]
        for module, path in beside.modules(package):
            if _SKIPPED.search(f".{module}."):
                continue
            text = path.read_text(encoding="utf-8", errors="replace").lower()
            if not all(word in text for word in words):
                continue
            for name, line, doc in _described(parsed(path).body, module):
                if (score := _score(words, name, doc)) > 0:
                    source = f"{package} {version}, {path.relative_to(folder).as_posix()}:{line}"
                    hits.append(Hit(name, _excerpt(doc, words), source, score))
    hits.sort(key=lambda hit: (-hit.score, len(hit.name), hit.name))
    return hits[: min(limit, MOST_HITS)]


def _described(body: Iterable[ast.stmt], owner: str) -> Iterator[tuple[str, int, str]]:
    """(name, line, docstring) of public definitions and of the parameters that their docstrings describe."""
    for node in body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        name, doc = f"{owner}.{node.name}", ast.get_docstring(node) or ""
        yield name, node.lineno, doc
        for parameter, text in parameter_docs(doc).items():
            yield f"{name}.{parameter}", node.lineno, text
        if isinstance(node, ast.ClassDef):
            yield from _described(node.body, name)


def _score(words: Sequence[str], name: str, doc: str) -> float:
    """Words in a name count most, and a short text about them more than a long one that mentions them."""
    own = _WORD.findall(name.lower().rpartition(".")[2])
    said = _WORD.findall(doc.lower())
    found = [3.0 * (word in own) + (1.0 + 20.0 / (20 + len(said)) if word in said else 0.0) for word in words]
    return sum(found) + 3.0 * (own == list(words)) if all(found) else 0.0


def _excerpt(doc: str, words: Sequence[str]) -> str:
    """The first sentence, and those that hold a word of the question."""
    sentences = _SENTENCE.split(" ".join(doc.split()))
    kept = [s for n, s in enumerate(sentences) if n == 0 or any(word in s.lower() for word in words)]
    return " ".join(kept)[:600]


_LINK = re.compile(
    r"^\s*-\s*\[(?P<title>[^\]\n]{1,200})\]\((?P<url>https://huggingface\.co/docs/[^)\s]{1,300})\)", re.MULTILINE
)


async def search_site(web: Web, package: str, query: str, *, limit: int = 5) -> list[Hit]:
    """Pages of a package's site whose titles answer `query`, best first: for what no docstring says.

    Each site lists its pages in `llms.txt`: https://github.com/huggingface/doc-builder/pull/641

    Raises: as `Web.get`; Malformed when the list is none.
    """
    if package not in PACKAGES:
        raise NotFound(f"`{package}` is none of {', '.join(PACKAGES)}.")
    page = await web.get(f"https://huggingface.co/docs/{package}/llms.txt")
    links = [(match["title"], match["url"]) for match in _LINK.finditer(page.text())]
    links = [(title, url) for title, url in links if url.startswith(f"https://huggingface.co/docs/{package}/")]
    if not links:
        raise Malformed(f"{page.url} lists no page of {package}.")
    words = _WORD.findall(query.lower())
    scored = [(sum(word in _WORD.findall(f"{title} {urlsplit(url).path}".lower()) for word in words), title, url)
              for title, url in links]  # fmt: skip
    best = sorted((each for each in scored if each[0]), key=lambda each: -each[0])
    return [Hit(title, "", url, float(score)) for score, title, url in best[:limit]]
