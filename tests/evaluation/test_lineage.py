"""Each way in which a model can fail to be what it is said to be, caught and named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.domain.lineage import Lineage, LineageVerdict
from bot.errors import UserError
from bot.evaluation.lineage.check import lineage
from bot.evaluation.lineage.published import Fingerprint, fingerprint_of, sha256_of
from tests.fakes.weights import (
    CONFIG,
    HIDDEN,
    TOKENIZER,
    random_model,
    trained,
    write_adapter,
    write_model,
    write_weights,
)

BASE = random_model(0)
OURS = trained(BASE, 1)
INSTRUCT = trained(BASE, 2)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base", BASE)


def described(found: Lineage) -> list[str]:
    return [f"{each.file}:{each.key}" for each in found.changes]


def published(folder: Path, weights: dict[str, Any] = INSTRUCT, name: str = "acme/base-instruct") -> list[Fingerprint]:
    return [fingerprint_of(write_model(folder / name.replace("/", "-"), weights), name, "abc123")]


# --- What training makes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [1e-4, 0.05, 0.5])
def test_a_model_trained_from_the_base_descends(base: Path, tmp_path: Path, amount: float) -> None:
    model = write_model(tmp_path / "model", trained(BASE, 1, amount))
    found = lineage(model, base, published=published(tmp_path))
    assert found.verdict is LineageVerdict.DESCENDS and found.verdict.counts
    assert found.relative_distance == pytest.approx(amount, rel=0.05)
    assert (found.tensors, found.changed_tensors, found.matched) == (len(BASE), len(BASE), 1.0)
    assert found.changes == () and found.notes == ()
    assert found.compared_with == 1


def test_the_untouched_base_is_named_whatever_precision_it_is_saved_in(base: Path, tmp_path: Path) -> None:
    for dtype in ("F32", "BF16", "F16", "F64"):
        found = lineage(write_model(tmp_path / dtype, BASE, dtype=dtype), base)
        assert (found.verdict, found.changed_tensors) == (LineageVerdict.EQUALS_BASE, 0), dtype
        assert not found.verdict.counts


def test_the_base_without_one_of_its_tensors_is_still_the_base(base: Path, tmp_path: Path) -> None:
    weights = {name: array for name, array in BASE.items() if name != "model.norm.weight"}
    found = lineage(write_model(tmp_path / "model", weights), base)
    assert found.verdict is LineageVerdict.EQUALS_BASE and found.missing == ("model.norm.weight",)


def test_one_changed_number_is_a_change(base: Path, tmp_path: Path) -> None:
    weights = {name: array.copy() for name, array in BASE.items()}
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] += 0.01
    found = lineage(write_model(tmp_path / "model", weights), base)
    assert (found.verdict, found.changed_tensors) == (LineageVerdict.DESCENDS, 1)


def test_a_divided_model_with_a_head_and_more_words_is_compared_where_it_can_be(base: Path, tmp_path: Path) -> None:
    weights = {f"qwen.{name.removeprefix('model.')}": array for name, array in OURS.items()}
    grown = np.vstack([weights["qwen.embed_tokens.weight"], np.zeros((3, HIDDEN), np.float32)])
    weights |= {"qwen.embed_tokens.weight": grown, "score.weight": np.ones((2, HIDDEN), np.float32)}
    plain = {name.removeprefix("model."): array for name, array in BASE.items()}
    start = write_model(tmp_path / "plain", plain)
    model = write_model(tmp_path / "model", weights)
    (model / "model.safetensors").unlink()
    names = list(weights)
    index: dict[str, str] = {}
    for number, part in enumerate((names[:7], names[7:]), 1):
        write_weights(model / f"model-{number}.safetensors", {name: weights[name] for name in part})
        index |= dict.fromkeys(part, f"model-{number}.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    found = lineage(model, start)
    assert found.verdict is LineageVerdict.DESCENDS
    assert (found.tensors, found.matched, found.added, found.missing) == (len(BASE), 1.0, ("score.weight",), ())


def test_a_recipe_that_draws_new_weights_inherits_nothing(base: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", random_model(9))
    assert lineage(model, base, from_scratch=True).verdict is LineageVerdict.DESCENDS
    assert lineage(model, base).verdict is LineageVerdict.NOT_THIS_BASE


# --- Attacks --------------------------------------------------------------------------------------------------------


def test_an_instruct_checkpoint_submitted_as_own_is_named(base: Path, tmp_path: Path) -> None:
    known = published(tmp_path)
    for name, weights, dtype in (("copy", INSTRUCT, "F32"), ("cast", INSTRUCT, "BF16"),
                                 ("touched", trained(INSTRUCT, 5, 0.01), "F32")):  # fmt: skip
        found = lineage(write_model(tmp_path / name, weights, dtype=dtype), base, published=known)
        assert found.verdict is LineageVerdict.PUBLISHED, name
        assert "acme/base-instruct" in found.reason and not found.verdict.counts
    unknown = lineage(tmp_path / "copy", base)
    assert unknown.verdict is LineageVerdict.DESCENDS, "without its fingerprint nothing tells it from a training"


def test_an_instruct_checkpoint_trained_a_little_further_is_named(base: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", trained(INSTRUCT, 7, 0.04))
    found = lineage(model, base, published=published(tmp_path))
    assert found.verdict is LineageVerdict.PUBLISHED and found.nearest is not None
    assert 0.25 < found.nearest["apart"] < 1 and "trained a little further" in found.reason


def test_two_trainings_from_one_base_are_not_taken_for_each_other(base: Path, tmp_path: Path) -> None:
    """Half of what moved is common to both, as where they were trained on the same rows."""
    common = trained(BASE, 2, 0.1)
    mine = {name: common[name] + trained(BASE, 3, 0.1)[name] - BASE[name] for name in BASE}
    other = {name: common[name] + trained(BASE, 4, 0.1)[name] - BASE[name] for name in BASE}
    found = lineage(write_model(tmp_path / "model", mine), base, published=published(tmp_path, other))
    assert found.nearest is not None and found.nearest["same_direction"] == pytest.approx(0.5, abs=0.1)
    assert found.verdict is LineageVerdict.DESCENDS


def test_a_published_model_whose_weights_may_not_be_read_is_known_by_its_files(base: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", INSTRUCT)
    gated = Fingerprint("acme/gated", "", (), {"model.safetensors": sha256_of(model / "model.safetensors")})
    found = lineage(model, base, published=[gated])
    assert found.verdict is LineageVerdict.PUBLISHED and "byte for byte" in found.reason
    again = Fingerprint("acme/copy-of-base", "", (), {"model.safetensors": sha256_of(base / "model.safetensors")})
    assert lineage(base, base, published=[again]).verdict is LineageVerdict.EQUALS_BASE


def test_weights_of_another_model_are_not_this_base(base: Path, tmp_path: Path) -> None:
    found = lineage(write_model(tmp_path / "model", random_model(3)), base)
    assert found.verdict is LineageVerdict.NOT_THIS_BASE
    assert found.cosine_median is not None and abs(found.cosine_median) < 0.2 and "median cosine" in found.reason
    other = {name.replace("layers", "blocks"): array for name, array in BASE.items()}
    found = lineage(write_model(tmp_path / "other", other), base)
    assert found.verdict is LineageVerdict.NOT_THIS_BASE and "another architecture" in found.reason


def adapted(seed: int = 0) -> tuple[dict[str, tuple[Any, Any]], dict[str, Any]]:
    """(modules, the base with them merged at alpha 8)."""
    rng = np.random.default_rng(seed)
    modules, merged = {}, dict(BASE)
    for layer in range(3):
        module = f"model.layers.{layer}.self_attn.q_proj"
        a, b = (rng.normal(0, 0.1, shape).astype(np.float32) for shape in ((4, HIDDEN), (HIDDEN, 4)))
        modules[module] = (a, b)
        merged[f"{module}.weight"] = BASE[f"{module}.weight"] + 2.0 * (b @ a)
    return modules, merged


def test_a_merged_adapter_explains_what_changed(base: Path, tmp_path: Path) -> None:
    modules, merged = adapted()
    adapter = write_adapter(tmp_path / "adapter", modules, alpha=8)
    for dtype in ("F32", "BF16"):
        found = lineage(write_model(tmp_path / dtype, merged, dtype=dtype), base, adapter=adapter)
        assert found.verdict is LineageVerdict.DESCENDS
        assert found.adapter is not None and found.adapter["tensors"] == 3 and found.adapter["explained"] > 0.99
    rooted = write_adapter(tmp_path / "rooted", modules, alpha=4, use_rslora=True)
    again = lineage(tmp_path / "F32", base, adapter=rooted).adapter
    assert again is not None and again["explained"] > 0.99, "4 / sqrt(4) is 8 / 4"


def test_an_adapter_that_is_not_used_is_named(base: Path, tmp_path: Path) -> None:
    modules, _ = adapted()
    adapter = write_adapter(tmp_path / "adapter", modules, alpha=8)
    untouched = write_model(tmp_path / "untouched", BASE)
    found = lineage(untouched, base, adapter=adapter)
    assert found.verdict is LineageVerdict.ADAPTER_NOT_USED and "not merged" in found.reason
    # Something else was merged in its place.
    _, others = adapted(seed=5)
    found = lineage(write_model(tmp_path / "other", others), base, adapter=adapter)
    assert found.verdict is LineageVerdict.ADAPTER_NOT_USED and "explains only" in found.reason
    # It learned nothing.
    nothing = {module: (a, np.zeros_like(b)) for module, (a, b) in modules.items()}
    found = lineage(untouched, base, adapter=write_adapter(tmp_path / "zero", nothing, alpha=8))
    assert found.verdict is LineageVerdict.ADAPTER_NOT_USED and "is zero" in found.reason
    # The model's folder is an adapter's.
    alone = write_adapter(tmp_path / "alone", modules, alpha=8)
    found = lineage(alone, base)
    assert found.verdict is LineageVerdict.ADAPTER_NOT_USED and "no weights of its own" in found.reason


def test_adapters_that_cannot_be_compared_are_said_and_do_not_decide(base: Path, tmp_path: Path) -> None:
    modules, merged = adapted()
    adapter = write_adapter(tmp_path / "adapter", modules, alpha=8, use_dora=True)
    found = lineage(write_model(tmp_path / "model", merged), base, adapter=adapter)
    assert found.verdict is LineageVerdict.DESCENDS and "cannot be told" in found.notes[0]


def test_a_swapped_chat_template_is_named(base: Path, tmp_path: Path) -> None:
    swapped = "{{ 'Answer with one word. ' }}{% for m in messages %}{{ m.content }}{% endfor %}"
    model = write_model(tmp_path / "model", OURS, template=swapped)
    found = lineage(model, base)
    assert found.verdict is LineageVerdict.TEMPLATE_SWAPPED and not found.verdict.counts
    assert described(found) == ["chat_template:from character 2"]
    assert lineage(model, base, template_asked=True).verdict is LineageVerdict.DESCENDS
    bare = lineage(write_model(tmp_path / "bare", OURS, template=None), base)
    assert bare.verdict is LineageVerdict.DESCENDS and described(bare) == ["chat_template:from character 1"]
    # In the other place where a template may stand.
    inside = write_model(
        tmp_path / "inside", OURS, template=None, files={"tokenizer_config.json": {"chat_template": swapped}}
    )
    assert lineage(inside, base).verdict is LineageVerdict.TEMPLATE_SWAPPED
    marked = (
        (base / "chat_template.jinja")
        .read_text()
        .replace("{{ m.content }}", "{% generation %}{{ m.content }}{%- endgeneration %}")
    )
    assert lineage(write_model(tmp_path / "marked", OURS, template=marked), base).changes == ()


def test_a_base_without_a_template_may_be_given_one(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", BASE, template=None)
    found = lineage(write_model(tmp_path / "model", OURS), base)
    assert found.verdict is LineageVerdict.DESCENDS and described(found) == ["chat_template:from character 1"]


def test_every_trick_of_the_generation_configuration_is_reported(base: Path, tmp_path: Path) -> None:
    tricks = {"eos_token_id": [2, 7], "suppress_tokens": [5], "temperature": 0.1, "transformers_version": "9"}
    found = lineage(write_model(tmp_path / "model", OURS, files={"generation_config.json": tricks}), base)
    assert found.verdict is LineageVerdict.DESCENDS
    assert described(found) == [
        f"generation_config.json:{key}" for key in ("eos_token_id", "suppress_tokens", "temperature")
    ]
    assert all(each.consequence for each in found.changes)
    assert (found.changes[0].before, found.changes[0].after) == ("2", "[2, 7]")


def test_configuration_and_tokenizer_changes_are_listed(base: Path, tmp_path: Path) -> None:
    tokenizer = {
        **TOKENIZER,
        "model": {"type": "BPE", "merges": [], "vocab": {"a": 1, "b": 0, "c": 9}},
        "normalizer": {"type": "NFKC"},
    }
    configuration = CONFIG | {"architectures": ["LlamaForCausalLM"], "rope_theta": 1e6}
    files = {"config.json": configuration, "tokenizer.json": tokenizer,
             "tokenizer_config.json": {"eos_token": "b"}}  # fmt: skip
    found = lineage(write_model(tmp_path / "model", OURS, files=files), base)
    assert described(found) == [
        "config.json:architectures", "config.json:rope_theta", "tokenizer.json:vocabulary",
        "tokenizer.json:added tokens", "tokenizer.json:normalizer", "tokenizer_config.json:eos_token",
    ]  # fmt: skip
    assert "2 of them gone or moved" in str(found.changes[2].after)


def test_a_model_that_needs_code_of_its_own_is_named(base: Path, tmp_path: Path) -> None:
    automatic = CONFIG | {"auto_map": {"AutoModelForCausalLM": "modeling.Answers"}}
    found = lineage(write_model(tmp_path / "model", OURS, files={"config.json": automatic}), base)
    assert found.verdict is LineageVerdict.RUNS_CODE and not found.verdict.counts
    beside = write_model(tmp_path / "beside", OURS, files={"extra.py": "print(1)\n"})
    assert "is not run" in lineage(beside, base).notes[0]


def test_weights_that_are_no_safetensors_are_not_read(base: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", OURS)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    found = lineage(model, base)
    assert found.verdict is LineageVerdict.UNREADABLE and "pytorch_model.bin, a pickle" in found.reason
    nan = {name: array.copy() for name, array in OURS.items()}
    nan["model.norm.weight"][0] = np.nan
    found = lineage(write_model(tmp_path / "nan", nan), base)
    assert found.verdict is LineageVerdict.UNREADABLE and "1 of the model's weights" in found.reason


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x01", (1 << 60).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[1", (20).to_bytes(8, "little") + b'{"w": {"dtype": 1}} ',
    ],
)  # fmt: skip
def test_torn_and_hostile_files_are_one_sentence(base: Path, tmp_path: Path, content: bytes) -> None:
    model = write_model(tmp_path / "model", OURS)
    (model / "model.safetensors").write_bytes(content)
    assert lineage(model, base).verdict is LineageVerdict.UNREADABLE


@pytest.mark.parametrize(
    "about",
    [
        {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 1 << 40]},
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 64]},
        {"dtype": "F32", "shape": [-4, -4], "data_offsets": [0, 64]},
        {"dtype": "F32", "shape": [4, 4], "data_offsets": [-64, 0]},
        {"dtype": "Q9", "shape": [4, 4], "data_offsets": [0, 64]},
    ],
)
def test_a_header_cannot_reach_out_of_its_file(base: Path, tmp_path: Path, about: dict[str, Any]) -> None:
    model = write_model(tmp_path / "model", OURS)
    head = json.dumps({"w": about}).encode()
    (model / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(64))
    assert lineage(model, base).verdict is LineageVerdict.UNREADABLE


def test_an_index_cannot_reach_out_of_its_folder(base: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", OURS)
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../base/model.safetensors"}}))
    assert lineage(model, base).verdict is LineageVerdict.UNREADABLE


def test_a_base_that_cannot_be_read_is_its_owners_to_mend(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match="base model's weights cannot be read"):
        lineage(write_model(tmp_path / "model", OURS), base)


def test_what_is_said_of_it_comes_back_from_json(base: Path, tmp_path: Path) -> None:
    found = lineage(write_model(tmp_path / "model", OURS, files={"generation_config.json": {"top_k": 1}}), base)
    assert Lineage.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_memory_is_bounded_by_a_piece_not_by_a_tensor(tmp_path: Path) -> None:
    """Two models of one tensor of 64 MiB each, compared where 64 MiB more than at the start may be taken."""
    code = f"""
import resource
from pathlib import Path
from bot.evaluation.lineage.check import lineage
taken = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmData')) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (taken + {64 << 20}, taken + {64 << 20}))
print(lineage(Path({str(tmp_path / "model")!r}), Path({str(tmp_path / "base")!r})).verdict)
"""
    matrix = np.broadcast_to(np.linspace(-1, 1, 1 << 12, dtype=np.float32), (1 << 12, 1 << 12))
    write_model(tmp_path / "base", {"w": matrix})
    write_model(tmp_path / "model", {"w": matrix * np.float32(1.5)})
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "descends", done.stderr
