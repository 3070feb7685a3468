"""The verdict on a model's lineage, from its folder and its base's.

What cannot be told apart: a model trained further from somebody's published one, on much more than that one was trained
on, from one trained from the base; two trainings on the same rows from a copy; and whatever nobody has taken a
fingerprint of. The README has the measurements that the thresholds rest on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bot.domain.lineage import Change, Lineage, LineageVerdict
from bot.errors import UserError
from bot.evaluation.lineage import files
from bot.evaluation.lineage.adapter import CONFIGURATION, AdapterUse, adapter_use
from bot.evaluation.lineage.distance import Counterparts, ModelDistance, counterparts, measured
from bot.evaluation.lineage.published import Fingerprint, Likeness, is_copy, likeness
from bot.evaluation.lineage.weights import Tensor, weight_files, weights_in

# Measured on the models of tests/bench/lineage_models.py; see `python -m tests.bench.lineage`.
LEAST_COSINE = 0.35
"""Median over the matrices."""
LEAST_MATCHED = 0.5
"""Share of the base's parameters that have their counterpart."""
LEAST_EXPLAINED = 0.5
"""Share of the change that a merged adapter accounts for."""
_NAMED = 5
_PERCENT = 100


def lineage(
    model: Path,
    base: Path,
    *,
    published: Sequence[Fingerprint] = (),
    adapter: Path | None = None,
    start: Path | None = None,
    from_scratch: bool = False,
    template_asked: bool = False,
) -> Lineage:
    """Whether `model` descends from `base`.

    `adapter` is the folder of the adapter that the run saved, and `start` the model that it was put on where that is
    not the base. `from_scratch` says that the recipe draws new weights, `template_asked` that it names a template.

    Raises: UserError when the base's weights cannot be read.
    """
    try:
        theirs = weights_in(base)
    except UserError as error:
        raise UserError(f"The base model's weights cannot be read: {error}.") from error
    changed = tuple(files.changes(base, model))
    if (code := files.code_of_its_own(model)) is not None:
        reason = f"The model loads by code of its own ({code}), and trust_remote_code stays off."
        return Lineage(LineageVerdict.RUNS_CODE, reason, changes=changed)
    try:
        ours = weights_in(model)
    except UserError as error:
        return _without_weights(model, str(error), changed)
    pairs = counterparts(theirs, ours)
    far = measured(pairs)
    use, unread = _adapter(adapter, weights_in(start) if start is not None else theirs, ours)
    likenesses = [found for each in published if (found := likeness(each, theirs, ours)) is not None]
    nearest = min(likenesses, key=lambda each: each.apart, default=None)
    copied = _copied(published, base, model)
    verdict, reason = copied or _verdict(
        pairs, far, use, nearest, changed, from_scratch=from_scratch, asked=template_asked
    )
    cosines = far.cosines
    return Lineage(
        verdict,
        reason,
        tensors=len(far.tensors),
        changed_tensors=far.changed,
        relative_distance=_finite(far.relative),
        cosine_median=round(median(cosines), 6) if cosines else None,
        cosine_lowest=round(cosines[0], 6) if cosines else None,
        matched=round(pairs.matched, 4),
        added=pairs.added[:_NAMED],
        missing=pairs.missing[:_NAMED],
        adapter=use.as_dict() if use is not None else None,
        nearest=nearest.as_dict() if nearest is not None else None,
        # Others share no tensor with the base, or are the base.
        compared_with=len(likenesses) + sum(not each.probes for each in published),
        changes=changed,
        notes=tuple(_notes(model, pairs, far, nearest, unread)),
    )


def _copied(published: Sequence[Fingerprint], base: Path, model: Path) -> tuple[LineageVerdict, str] | None:
    """Among those whose weights may not be read, the one that the model is byte for byte, unless the base is it too."""
    for each in published:
        if each.probes or not is_copy(each, weight_files(model)) or is_copy(each, weight_files(base)):
            continue
        return LineageVerdict.PUBLISHED, (
            f"The files of weights are byte for byte those of the published model {each.name}, not of a training "
            "from the base."
        )
    return None


def _without_weights(model: Path, why: str, changed: tuple[Change, ...]) -> Lineage:
    if (model / CONFIGURATION).is_file():
        reason = "The model's folder holds an adapter that was not merged, and no weights of its own."
        return Lineage(LineageVerdict.ADAPTER_NOT_USED, reason, changes=changed)
    return Lineage(LineageVerdict.UNREADABLE, f"The model cannot be read: {why}.", changes=changed)


def _adapter(
    folder: Path | None, start: dict[str, Tensor], ours: dict[str, Tensor]
) -> tuple[AdapterUse | None, str | None]:
    """(how the adapter was used, why that cannot be told)."""
    if folder is None:
        return None, None
    try:
        found = adapter_use(folder, start, ours)
    except UserError as error:
        return None, str(error)
    return found, None if found is not None else "its kind is not one that can be compared"


def _verdict(
    pairs: Counterparts, far: ModelDistance, use: AdapterUse | None, nearest: Likeness | None,
    changed: Sequence[Change], *, from_scratch: bool, asked: bool,
) -> tuple[LineageVerdict, str]:  # fmt: skip
    """The gravest finding and its sentence."""
    if far.broken:
        return LineageVerdict.UNREADABLE, f"{far.broken:,} of the model's weights are not finite numbers."
    if nearest is not None and nearest.is_it:
        where = f" at {nearest.revision[:12]}" if nearest.revision else ""
        return LineageVerdict.PUBLISHED, (
            f"The weights are those of the published model {nearest.name}{where}, not of a training from the base: "
            f"they lie {nearest.apart:.2g} of that model's own way from the base apart from it."
        )
    if use is not None and (use.size == 0.0 or use.explained < LEAST_EXPLAINED):
        return LineageVerdict.ADAPTER_NOT_USED, _adapter_words(use, far)
    if not from_scratch and (other := _other_base(pairs, far)) is not None:
        return LineageVerdict.NOT_THIS_BASE, other
    if far.tensors and not far.changed and not pairs.added:
        return LineageVerdict.EQUALS_BASE, (
            "Every weight is the base model's: nothing was trained, or what was trained is not in the saved model."
        )
    if nearest is not None and nearest.comes_from_it:
        return LineageVerdict.PUBLISHED, (
            f"The weights come from the published model {nearest.name}, trained a little further, not from the base: "
            f"their difference from the base has its direction (cosine {nearest.same_direction:.2f})."
        )
    template = next((each for each in changed if each.file == files.TEMPLATE), None)
    if template is not None and None not in (template.before, template.after) and not asked:
        return LineageVerdict.TEMPLATE_SWAPPED, (
            "The chat template is not the base model's, and the recipe does not ask for another "
            "(chat_template_path): the base was measured on other prompts."
        )
    if from_scratch:
        return LineageVerdict.DESCENDS, "The recipe draws new weights in the base's shape, so nothing is inherited."
    return LineageVerdict.DESCENDS, _descent_words(pairs, far)


def _other_base(pairs: Counterparts, far: ModelDistance) -> str | None:
    """Why the weights are not of this base; None when they are."""
    if pairs.matched < LEAST_MATCHED:
        missing = f" ({pairs.missing[0]} is missing, for one)" if pairs.missing else ""
        return (
            f"Only {_PERCENT * pairs.matched:.0f} % of the base's parameters have a counterpart of their name and "
            f"shape{missing}: this is another architecture."
        )
    cosines = far.cosines
    if cosines and median(cosines) < LEAST_COSINE:
        return (
            f"The weight matrices do not point where the base's do: median cosine {median(cosines):.2f}, and training "
            f"from it leaves more than {LEAST_COSINE:g}."
        )
    return None


def _adapter_words(use: AdapterUse, far: ModelDistance) -> str:
    if use.size == 0.0:
        return "The trained adapter adds nothing: all that it would add is zero."
    if not far.changed:
        return "The adapter was trained and not merged: every weight of the saved model is the base's."
    return (
        f"The saved adapter explains only {_PERCENT * use.explained:.0f} % of how the weights changed: it was not "
        "merged into them, or something else was."
    )


def _descent_words(pairs: Counterparts, far: ModelDistance) -> str:
    cosines = far.cosines
    direction = f", median cosine {median(cosines):.4f}" if cosines else ""
    share = "" if pairs.matched == 1.0 else f", {_PERCENT * pairs.matched:.0f} % of its parameters"
    new = f"; {len(pairs.added)} new" if pairs.added else ""
    return (
        f"{far.changed} of {len(far.tensors)} tensors of the base changed{share}, by {_PERCENT * far.relative:.2g} % "
        f"of their size{direction}{new}."
    )


def _notes(
    model: Path, pairs: Counterparts, far: ModelDistance, nearest: Likeness | None, unread: str | None
) -> list[str]:
    found = []
    if (model / CONFIGURATION).is_file():
        found.append(f"{CONFIGURATION} lies beside the merged weights, and loading may put the adapter on once more.")
    if code := sorted(path.name for path in model.glob("*.py")):
        found.append(f"{code[0]} lies beside the weights; it is not run, and not published.")
    if unread is not None:
        found.append(f"Whether the adapter is in the weights cannot be told: {unread}.")
    if pairs.missing:
        found.append(f"{len(pairs.missing)} tensors of the base are gone, {pairs.missing[0]} for one.")
    if nearest is not None and nearest.apart < 1 and not nearest.is_it and not nearest.comes_from_it:
        found.append(
            f"The published model {nearest.name} is nearer than two trainings from one base mostly are "
            f"({nearest.apart:.2f} of its way from the base); training on the same rows gives that too."
        )
    return found


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
