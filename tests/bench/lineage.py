"""Measures what the lineage check's thresholds rest on, on models that were really trained.

    python -m tests.bench.lineage FOLDER [--json FILE]
    python -m tests.bench.lineage FOLDER --speed MIB      # how long one check takes, and its peak memory

FOLDER is what `python -m tests.bench.lineage_models FOLDER` made. Two tables: each model against the base, and each
model against what somebody published from the same base (`sibling`), beside pairs of honest trainings.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bot.evaluation.lineage.check import LEAST_COSINE, lineage
from bot.evaluation.lineage.published import SAME, SAME_DIRECTION, fingerprint_of, likeness
from bot.evaluation.lineage.weights import Tensor, weights_in
from bot.practice import tiny_base
from tests.bench.lineage_models import SEED_ONE, SPECIMENS
from tests.fakes.weights import write_weights

UNRELATED = (SEED_ONE, "from-scratch")
FROM_SIBLING = ("sibling-then-sft", "sibling-then-lora", "sibling-then-gentle")
MIXTURES = (0.25, 0.5, 0.75, 0.9)
"""Shares of the sibling in averages of its weights with an honest run's."""


def against_base(folder: Path, base: Path) -> list[dict[str, Any]]:
    rows = []
    for name in [*(each.name for each in SPECIMENS), SEED_ONE]:
        model, adapter = folder / name / "model", folder / name / "adapter"
        started = next((each.start for each in SPECIMENS if each.name == name), "")
        start = folder / started / "model" if started else None
        found = lineage(model, base, adapter=adapter if adapter.is_dir() else None, start=start)
        rows.append({"model": name, "verdict": str(found.verdict), "relative_distance": found.relative_distance,
                     "cosine_median": found.cosine_median, "cosine_lowest": found.cosine_lowest,
                     "adapter": found.adapter["explained"] if found.adapter else None})  # fmt: skip
    return rows


def against_published(folder: Path, base: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Pairs of (published, model), each where the published one is not the model itself but for `sibling`."""
    models = {name: weights_in(folder / name / "model") for name in [*(each.name for each in SPECIMENS), SEED_ONE]}
    prints = {name: fingerprint_of(folder / name / "model", name) for name in ("sibling", "sft")}
    rows = []
    for published, others in (("sibling", list(models)), ("sft", ["sft-seed-1", "sft-other-rows", "sft-long"])):
        for name in others:
            found = likeness(prints[published], base, models[name])
            assert found is not None
            said = "is it" if found.is_it else "comes from it" if found.comes_from_it else ""
            rows.append({"published": published, "model": name, **found.as_dict(), "said": said})
    return rows


def mixtures(folder: Path, base: Mapping[str, Tensor], work: Path) -> list[dict[str, Any]]:
    """Averages of the sibling's weights and an honest run's."""
    sibling, ours = (weights_in(folder / name / "model") for name in ("sibling", "sft"))
    known = fingerprint_of(folder / "sibling" / "model", "sibling")
    rows = []
    for share in MIXTURES:
        mixed = {
            name: (share * sibling[name].values() + (1 - share) * ours[name].values()).reshape(ours[name].shape)
            for name in ours
        }
        write_weights(work / f"{share}" / "model.safetensors", mixed)
        found = likeness(known, base, weights_in(work / f"{share}"))
        assert found is not None
        said = "is it" if found.is_it else "comes from it" if found.comes_from_it else ""
        rows.append({"share_of_sibling": share, **found.as_dict(), "said": said})
    return rows


def speed(folder: Path, mebibytes: int) -> None:
    """One check of two bfloat16 models of this size, in a process of its own: seconds of processor time, and memory."""
    rows = np.random.default_rng(0).normal(0, 0.02, (1 << 12, 1 << 12)).astype(np.float32)
    for name, factor in (("base", 1.0), ("model", 1.01)):
        tensors = {f"layers.{n}.weight": rows * np.float32(factor) for n in range(max(1, mebibytes // 32))}
        write_weights(folder / ".speed" / name / "model.safetensors", tensors, "BF16")
    code = (
        "import resource; from pathlib import Path; from bot.evaluation.lineage.check import lineage; "
        f"found = lineage(Path({str(folder / '.speed' / 'model')!r}), Path({str(folder / '.speed' / 'base')!r})); "
        "used = resource.getrusage(resource.RUSAGE_SELF); "
        # Not ru_maxrss, which a process takes over from the one that started it.
        "peak = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')); "
        "print(found.verdict, round(used.ru_utime + used.ru_stime, 2), peak // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    verdict, seconds, peak = done.stdout.rsplit(" ", 2)
    shutil.rmtree(folder / ".speed")
    print(f"two models of {mebibytes} MiB: {verdict}, {seconds} s of processor time, peak memory {peak.strip()} MiB")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lineage", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--speed", type=int, metavar="MIB")
    options = parser.parse_args(arguments)
    if options.speed is not None:
        speed(options.folder.resolve(), options.speed)
        return 0
    base = tiny_base.cached_path()
    rows = against_base(options.folder, base)
    pairs = against_published(options.folder, weights_in(base))
    mixed = mixtures(options.folder, weights_in(base), options.folder / ".mixtures")
    print(f"{'against the base':22} {'distance':>9} {'cos median':>10} {'lowest':>8} {'adapter':>8}  verdict")
    for row in rows:
        adapter = "" if row["adapter"] is None else f"{row['adapter']:.3f}"
        print(f"{row['model']:22} {row['relative_distance']:9.2g} {row['cosine_median']:10.4f} "
              f"{row['cosine_lowest']:8.4f} {adapter:>8}  {row['verdict']}")  # fmt: skip
    print(
        f"\n{'published':10} {'model':22} {'apart':>8} {'direction':>9}  said (apart < {SAME}, or > {SAME_DIRECTION})"
    )
    for row in pairs:
        print(
            f"{row['published']:10} {row['model']:22} {row['apart']:8.3f} {row['same_direction']:9.3f}  {row['said']}"
        )
    for row in mixed:
        what = f"{row['share_of_sibling']:.0%} of it, rest sft"
        print(f"{'sibling':10} {what:22} {row['apart']:8.3f} {row['same_direction']:9.3f}  {row['said']}")
    honest = [row for row in rows if row["model"] not in UNRELATED]
    apart = [row for row in rows if row["model"] in UNRELATED]
    lowest, highest = min(row["cosine_median"] for row in honest), max(row["cosine_median"] for row in apart)
    print(f"\nmedian cosine: trained from the base {lowest:.3f} and more, apart from it {highest:.3f} and less; "
          f"the threshold is {LEAST_COSINE}")  # fmt: skip
    if options.json is not None:
        options.json.write_text(json.dumps({"base": rows, "published": pairs, "mixtures": mixed}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
