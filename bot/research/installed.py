"""Signatures and docstrings of installed packages, read from their source files: nothing of them is imported or run.

The bot's process has no training library, so where the packages lie is asked of the jobs' interpreter; what they say
is read here. Names are followed through `__init__` files, lazy imports included, to where they are defined; the fields
of a dataclass are gathered over its bases, into other packages too.

Not covered: what a module computes when it is imported (signatures made by decorators, names set by `setattr`).
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from bot.research.errors import NotFound, ResearchError

PACKAGES = ("trl", "transformers", "datasets", "peft", "accelerate")
_ASK_SECONDS = 60
_MOST_HOPS = 12
_WHERE = """
import importlib.metadata as m, importlib.util as u, json, sys
found = {}
for name in sys.argv[1:]:
    spec = u.find_spec(name)
    if spec is not None and spec.submodule_search_locations:
        try:
            version = m.version(name)
        except m.PackageNotFoundError:
            version = ""
        found[name] = [list(spec.submodule_search_locations)[0], version]
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    annotation: str
    """As it is written; empty where it is not."""
    default: str | None
    """As it is written; None: it has to be given."""
    doc: str
    declared_in: str
    """The class whose field it is, or the function."""


@dataclass(frozen=True, slots=True)
class Signature:
    name: str
    """As it was asked for: `trl.SFTConfig`."""
    kind: str
    """class or function."""
    parameters: tuple[Parameter, ...]
    takes_anything: bool
    """Whether unknown keywords are accepted too (`**kwargs`)."""
    doc: str
    """Up to the description of its parameters."""
    package: str
    version: str
    file: str
    """Inside of the package."""
    line: int

    @property
    def source(self) -> str:
        return f"{self.package} {self.version}, {self.file}:{self.line}"

    def parameter(self, name: str) -> Parameter | None:
        return next((each for each in self.parameters if each.name == name), None)


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class _Found:
    """A definition and the module that holds it."""

    node: Definition
    module: str


@dataclass(slots=True)
class Installed:
    """The packages beside one interpreter: this one's when `python` is None."""

    python: Path | None = None
    packages: Sequence[str] = PACKAGES
    _places: dict[str, tuple[Path, str]] | None = field(default=None, repr=False)

    def places(self) -> Mapping[str, tuple[Path, str]]:
        """Package -> (folder, version) of those that are there. Raises: ResearchError."""
        if self._places is None:
            words = [str(self.python or sys.executable), "-I", "-c", _WHERE, *self.packages]
            try:
                done = subprocess.run(words, capture_output=True, timeout=_ASK_SECONDS, check=True)
                found = json.loads(done.stdout)
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                raise ResearchError(
                    f"The training environment's Python ({words[0]}) does not say where its packages are "
                    f"({type(error).__name__}): name another in POSTDOC_JOB_PYTHON."
                ) from error
            self._places = {name: (Path(place), str(version)) for name, (place, version) in found.items()}
        return self._places

    def signature(self, name: str) -> Signature:
        """Of a class or function by its public name: `trl.SFTConfig`, `transformers.AutoModel.from_pretrained`.

        Raises: NotFound, ResearchError.
        """
        package, version = self._package(name)
        found = self._resolve(name)
        if found is None:
            raise NotFound(f"{package} {version} has no class or function `{name}`.")
        doc = ast.get_docstring(found.node) or ""
        if isinstance(found.node, ast.ClassDef):
            kind, (parameters, anything) = "class", self._of_class(found.node, found.module)
        else:
            kind, (parameters, anything) = "function", _of_function(found.node, name.split(".", 1)[-1], doc)
        file = self._file(found.module)
        assert file is not None
        folder = self.places()[found.module.split(".")[0]][0]
        owner = found.module.split(".")[0]
        return Signature(
            name, kind, tuple(parameters), anything, _before_parameters(doc), owner, self.places()[owner][1],
            file.relative_to(folder).as_posix(), found.node.lineno,
        )  # fmt: skip

    def modules(self, package: str) -> Iterator[tuple[str, Path]]:
        """Every module of a package by its dotted name."""
        folder = self.places()[self._package(package)[0]][0]
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path

    def _package(self, name: str) -> tuple[str, str]:
        package = name.split(".")[0]
        places = self.places()
        if package not in places:
            there = ", ".join(f"{each} {version}" for each, (_, version) in sorted(places.items())) or "none of them"
            raise NotFound(f"`{package}` is not installed beside the training environment's Python; there is {there}.")
        return package, places[package][1]

    def _file(self, module: str) -> Path | None:
        package, *rest = module.split(".")
        if package not in self.places():
            return None
        path = self.places()[package][0].joinpath(*rest)
        return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)

    def _resolve(self, name: str) -> _Found | None:
        """Where the longest beginning of `name` that is a module defines the rest."""
        parts = name.split(".")
        for length in range(len(parts) - 1, 0, -1):
            module = ".".join(parts[:length])
            if self._file(module) is not None:
                found = self._defined(module, parts[length])
                for attribute in parts[length + 1 :]:
                    found = self._method(found, attribute) if found is not None else None
                return found
        return None

    def _defined(self, module: str, name: str, hops: int = 0) -> _Found | None:
        file = self._file(module)
        if file is None or hops > _MOST_HOPS:
            return None
        tree = parsed(file)
        if (node := _last(tree.body, name)) is not None:
            return _Found(node, module)
        for target, original, star in _imports(tree, module, file.name == "__init__.py", name):
            # What stands behind a star is looked for one module far: transformers has stars for 400 models.
            found = self._defined(target, original, _MOST_HOPS if star else hops + 1)
            if found is not None:
                return found
        # What a package's `__init__` finds out by itself: transformers' models.
        return self._written_in(module, name) if hops == 0 and "." not in module else None

    def _written_in(self, package: str, name: str) -> _Found | None:
        line = re.compile(rf"^(?:class|def) {re.escape(name)}\b", re.MULTILINE)
        for module, path in self.modules(package):
            text = path.read_text(encoding="utf-8", errors="replace")
            if name in text and line.search(text):
                node = _last(parsed(path).body, name)
                return _Found(node, module) if node is not None else None
        return None

    def _method(self, found: _Found, name: str) -> _Found | None:
        if not isinstance(found.node, ast.ClassDef):
            return None
        for node, module in self._lineage(found.node, found.module):
            if (method := _last(node.body, name)) is not None:
                return _Found(method, module)
        return None

    def _lineage(self, node: ast.ClassDef, module: str) -> Iterator[tuple[ast.ClassDef, str]]:
        """The class and those it is made from that can be found, the nearest first."""
        yield node, module
        for base in node.bases:
            if isinstance(base, ast.Name):
                found = self._defined(module, base.id)
            else:
                found = self._resolve(ast.unparse(base)) if isinstance(base, ast.Attribute) else None
            if found is not None and isinstance(found.node, ast.ClassDef) and found.node is not node:
                yield from self._lineage(found.node, found.module)

    def _of_class(self, node: ast.ClassDef, module: str) -> tuple[list[Parameter], bool]:
        lineage = list(self._lineage(node, module))
        for each, _ in lineage:
            method = next((m for m in each.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"), None)
            if method is not None:
                return _of_function(method, each.name, ast.get_docstring(each) or ast.get_docstring(method) or "")
            if _is_dataclass(each):
                break
        fields: dict[str, Parameter] = {}
        for each, _ in reversed(lineage):
            if _is_dataclass(each):
                for parameter in _fields(each):
                    before = fields.get(parameter.name)
                    if before is not None and not parameter.doc:
                        parameter = Parameter(
                            parameter.name, parameter.annotation, parameter.default, before.doc, parameter.declared_in
                        )
                    fields[parameter.name] = parameter
        return list(fields.values()), False


@lru_cache(maxsize=64)
def parsed(file: Path) -> ast.Module:
    """A source file, read. Raises: ResearchError."""
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        raise ResearchError(f"{file.name} of an installed package cannot be read ({type(error).__name__}).") from error


def _last(body: Sequence[ast.stmt], name: str) -> Definition | None:
    """The last definition of a name: those before it are overloads."""
    return next((node for node in reversed(body) if isinstance(node, Definition) and node.name == name), None)


def _imports(tree: ast.Module, module: str, is_package: bool, name: str) -> list[tuple[str, str, bool]]:
    """(module, name there, whether by a star) of each import in `tree` that may bring `name`, those under
    `if TYPE_CHECKING` too, and stars last."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        target = node.module or ""
        if node.level:
            parts = module.split(".")
            above = parts[: len(parts) - node.level + (1 if is_package else 0)]
            target = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            if (alias.asname or alias.name) == name:
                found.append((target, alias.name, False))
            elif alias.name == "*":
                found.append((target, name, True))
    return sorted(found, key=lambda each: each[2])


def _is_dataclass(node: ast.ClassDef) -> bool:
    names = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return any((isinstance(each, ast.Name) and each.id == "dataclass") or
               (isinstance(each, ast.Attribute) and each.attr == "dataclass") for each in names)  # fmt: skip


def _fields(node: ast.ClassDef) -> Iterator[Parameter]:
    docs = parameter_docs(ast.get_docstring(node) or "")
    for each in node.body:
        if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
            continue
        annotation = ast.unparse(each.annotation)
        if annotation.startswith(("ClassVar", "typing.ClassVar")):
            continue
        default, help_text = _field_value(each.value)
        if default == "not given":
            continue
        name = each.target.id
        yield Parameter(name, annotation, default, docs.get(name, "") or help_text, node.name)


def _field_value(value: ast.expr | None) -> tuple[str | None, str]:
    """(default, help); the default of a field that is none of the constructor's is "not given"."""
    if value is None:
        return None, ""
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name | ast.Attribute)
            and (value.func.id if isinstance(value.func, ast.Name) else value.func.attr) == "field"):  # fmt: skip
        return ast.unparse(value), ""
    given = {each.arg: each.value for each in value.keywords if each.arg}
    init = given.get("init")
    if isinstance(init, ast.Constant) and init.value is False:
        return "not given", ""
    help_text = ""
    if isinstance(given.get("metadata"), ast.Dict):
        help_text = _help(given["metadata"])
    if "default" in given:
        return ast.unparse(given["default"]), help_text
    if "default_factory" in given:
        factory = given["default_factory"]
        return ast.unparse(factory.body if isinstance(factory, ast.Lambda) else factory) + (
            "" if isinstance(factory, ast.Lambda) else "()"
        ), help_text
    return None, help_text


def _help(metadata: ast.expr) -> str:
    assert isinstance(metadata, ast.Dict)
    for key, value in zip(metadata.keys, metadata.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == "help":
            try:
                return " ".join(str(ast.literal_eval(value)).split())
            except ValueError:
                return ""
    return ""


def _of_function(
    node: ast.FunctionDef | ast.AsyncFunctionDef, declared_in: str, doc: str
) -> tuple[list[Parameter], bool]:
    docs = parameter_docs(doc)
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [*([None] * (len(positional) - len(args.defaults))), *args.defaults]
    both = [*zip(positional, defaults, strict=True), *zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    parameters = [
        Parameter(
            arg.arg,
            ast.unparse(arg.annotation) if arg.annotation is not None else "",
            ast.unparse(default) if default is not None else None,
            docs.get(arg.arg, ""),
            declared_in,
        )
        for number, (arg, default) in enumerate(both)
        if not (number == 0 and arg.arg in ("self", "cls"))
    ]
    return parameters, args.kwarg is not None


# `name (type, *optional*, defaults to X):` and its text, indented deeper: the form of the Hugging Face libraries.
_ENTRY = re.compile(
    r"^(?P<indent>[ \t]*)\*{0,2}`?(?P<name>[A-Za-z_]\w*)`?[ \t]*(?:\([^\n]*\))?[ \t]*:[ \t]*(?P<rest>.*)$"
)
_HEADING = re.compile(r"^[ \t]*(?:Args|Arguments|Parameters|Attributes|Params)[ \t]*:[ \t]*$", re.MULTILINE)


def _before_parameters(doc: str) -> str:
    heading = _HEADING.search(doc)
    return (doc[: heading.start()] if heading else doc).strip()


def parameter_docs(doc: str) -> dict[str, str]:
    """Parameter -> what a docstring says about it, in one line."""
    heading = _HEADING.search(doc)
    if heading is None:
        return {}
    found: dict[str, list[str]] = {}
    indent: int | None = None
    name = ""
    for line in doc[heading.end() :].splitlines():
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        entry = _ENTRY.match(line)
        if entry is not None and (indent is None or depth == indent):
            indent, name = depth, entry["name"]
            found[name] = [entry["rest"]] if entry["rest"] else []
        elif indent is not None and depth < indent:
            break
        elif name and indent is not None and depth > indent:
            found[name].append(line.strip())
    return {each: " ".join(lines) for each, lines in found.items()}
