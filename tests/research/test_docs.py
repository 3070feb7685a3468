"""What the installed training libraries say of themselves, read without importing them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.research.docs import search_docs, search_site, unknown_keywords
from bot.research.errors import Malformed, NotFound, ResearchError
from bot.research.installed import Installed, parameter_docs
from tests.research.stand_in import Answer, StandIn, web_at


@pytest.fixture(scope="module")
def installed() -> Installed:
    return Installed()


def test_nothing_of_the_libraries_is_imported() -> None:
    code = (
        "import sys\nfrom bot.research.installed import Installed\nfrom bot.research.docs import search_docs\n"
        "assert Installed().signature('trl.SFTConfig').parameters and search_docs('packing')\n"
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets', 'peft', 'accelerate') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow  # importing the libraries takes 20 s
def test_signatures_are_those_that_python_itself_sees() -> None:
    """The judge is `inspect` in a process that does import the libraries."""
    names = [
        "trl.SFTConfig", "trl.GRPOConfig", "trl.DPOConfig", "trl.SFTTrainer", "trl.ModelConfig", "peft.LoraConfig",
        "transformers.TrainingArguments", "transformers.BitsAndBytesConfig", "datasets.load_dataset",
        "datasets.Dataset.map", "accelerate.Accelerator", "peft.get_peft_model",
    ]  # fmt: skip
    code = (
        "import importlib, inspect, json, sys\nfound = {}\n"
        "for name in sys.argv[1:]:\n"
        "    package, *rest = name.split('.')\n"
        "    thing = importlib.import_module(package)\n"
        "    for part in rest: thing = getattr(thing, part)\n"
        "    shown = inspect.signature(thing).parameters.values()\n"
        "    found[name] = sorted(p.name for p in shown if p.kind is not p.VAR_KEYWORD and p.name != 'self')\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    import json

    seen = json.loads(done.stdout.splitlines()[-1])
    read = {name: sorted(each.name for each in Installed().signature(name).parameters) for name in names}
    assert read == seen


def test_fields_come_from_the_bases_with_the_nearest_default_and_text(installed: Installed) -> None:
    found = installed.signature("trl.SFTConfig")
    rate, saving = found.parameter("learning_rate"), found.parameter("save_steps")
    assert rate is not None
    assert saving is not None
    assert (rate.declared_in, float(str(rate.default))) == ("SFTConfig", 2e-5)
    assert saving.declared_in == "TrainingArguments"
    assert "checkpoint" in saving.doc
    assert found.source.startswith(f"trl {installed.places()['trl'][1]}, trainer/sft_config.py:")
    assert "Parameters:" not in found.doc


def test_function_and_method_are_found_through_overloads_and_lazy_imports(installed: Installed) -> None:
    load = installed.signature("datasets.load_dataset")
    assert load.takes_anything
    assert load.parameters[0].name == "path"
    assert load.parameters[0].doc
    method = installed.signature("transformers.AutoTokenizer.from_pretrained")
    assert (method.kind, method.file) == ("function", "models/auto/tokenization_auto.py")


@pytest.mark.parametrize("name", ["trl.NoSuchConfig", "trl.SFTConfig.nothing", "numpy.array", "nothing", "trl"])
def test_name_that_is_not_there_is_one_clear_error(installed: Installed, name: str) -> None:
    with pytest.raises(NotFound, match=r"has no class or function|is not installed"):
        installed.signature(name)


def test_python_that_does_not_run_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ResearchError, match="POSTDOC_JOB_PYTHON"):
        Installed(tmp_path / "python").signature("trl.SFTConfig")


def test_unknown_keywords_come_with_what_was_meant(installed: Installed) -> None:
    given = {"learning_rate": 1e-5, "lr": 1, "epsylon": 0.2, "warmup_ratio": 0.1, "qqq": 1}
    found = {each.keyword: each.instead for each in unknown_keywords("trl.GRPOConfig", given, installed)}
    assert found == {"lr": ("learning_rate",), "epsylon": ("epsilon",), "warmup_ratio": ("warmup_steps",), "qqq": ()}
    assert unknown_keywords("datasets.load_dataset", ["anything"], installed) == ()


@pytest.mark.parametrize(
    ("query", "name"),
    [("packing", "SFTConfig.packing"), ("lora dropout", "lora_dropout"), ("KL coefficient beta", ".beta")],
)
def test_search_finds_the_parameter(installed: Installed, query: str, name: str) -> None:
    hits = search_docs(query, installed, limit=3)
    assert hits[0].name.endswith(name)
    assert hits[0].text
    assert hits[0].source.split(" ")[0] in installed.places()


def test_search_for_what_nobody_says_finds_nothing(installed: Installed) -> None:
    assert search_docs("qqqwwweee", installed) == []
    assert search_docs("!?", installed) == []


def test_docstring_entries_keep_to_their_depth() -> None:
    doc = """Does things.

    Args:
        first (`int`, *optional*, defaults to 3):
            One: see `x`.
              note (not an entry): still first.
        second: The second.

    Returns:
        `int`: nothing of second.
    """
    found = parameter_docs(inspect.cleandoc(doc))
    assert found == {"first": "One: see `x`. note (not an entry): still first.", "second": "The second."}


INDEX = """# Trl

## Docs

- [SFT Trainer](https://huggingface.co/docs/trl/v1.16.0/en/sft_trainer.md)
- [Speeding Up Training](https://huggingface.co/docs/trl/v1.16.0/en/speeding_up_training.md)
- [Evil](https://evil.example/docs/trl/training.md)
- [Elsewhere](https://huggingface.co/docs/peft/training.md)
"""


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with StandIn().serve() as stand_in:
        stand_in.answers["/docs/trl/llms.txt"] = Answer(INDEX, content_type="text/plain")
        yield stand_in


async def test_site_is_searched_by_its_own_list(tmp_path: Path, hub: StandIn) -> None:
    web = web_at(tmp_path, {"huggingface.co": hub.url})
    hits = await search_site(web, "trl", "training faster")
    assert [hit.name for hit in hits] == ["Speeding Up Training"]
    assert hits[0].source == "https://huggingface.co/docs/trl/v1.16.0/en/speeding_up_training.md"


async def test_site_that_lists_nothing_or_is_another_is_an_error(tmp_path: Path, hub: StandIn) -> None:
    web = web_at(tmp_path, {"huggingface.co": hub.url})
    hub.answers["/docs/peft/llms.txt"] = Answer("<html>moved</html>")
    with pytest.raises(Malformed):
        await search_site(web, "peft", "lora")
    with pytest.raises(NotFound):
        await search_site(web, "../../api", "x")
