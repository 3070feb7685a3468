"""Compares readings with the truth, and says the figures with their intervals.

| figure | over |
| --- | --- |
| recall | runs with a gross or medium fault of which anything more than advice is said |
| precision | runs of which something is said that have a fault; see below for healthy ones that want more steps |
| top1 | runs with a fault whose first diagnosis has a right label |
| line | runs with a fault whose first diagnosis blames a right line (or rightly none) |
| false_aborts | healthy runs that the monitor ends, or preflight refuses |
| median_detection_fraction | runs of 400 steps or more with a fault that only training shows, without those that |
| | preflight refused: share of the run |
| | that was gone when a right label was first said; 1 where that was never or only after the end |
| steps_saved | doomed runs whose fault only training shows, without those that preflight refused: share of their |
| | steps that the monitor spared |
| abstention | runs with a fault whose first diagnosis is `unknown` |

A healthy run may have been told a target above what it reaches. That it wants more steps, or that no cause shows, and
nothing else, is then no false alarm and is told apart (`told_short`). Healthy runs are counted once more with those
that tuning may have seen (`every_healthy`), since none of them may be aborted.

Where a whole fault was held out of tuning, `unknown` and the neighbouring labels are right too, and silence is wrong;
those runs are told apart (`held_out_faults`), and so are pairs of faults and replayed logs.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bot.domain.statistics import wilson_interval
from bot.zoo.reading import Reading
from bot.zoo.specimen import LONG_STEPS, Json
from bot.zoo.traces import Truth

UNKNOWN, PREFLIGHT = "unknown", "preflight"
AGGRAVATED = ("gross", "medium")


@dataclass(frozen=True, slots=True)
class Judged:
    """One trace's truth beside what was said of it."""

    name: str
    truth: Truth
    reading: Reading

    @property
    def detected(self) -> bool:
        return self.reading.flagged

    @property
    def told_short(self) -> bool:
        """A healthy run that missed its target, of which nothing is said but to train longer, or that no cause
        shows."""
        truth, answers = self.truth, self.reading.answers
        right = (a.label in truth.labels and (a.key in truth.line_keys or a.key is None) for a in answers)
        return truth.healthy and self.detected and all(right)

    @property
    def right_labels(self) -> tuple[str, ...]:
        more = (*self.truth.neighbours, UNKNOWN) if self.truth.held_out == "fault" else ()
        return (*self.truth.labels, *more)

    @property
    def named(self) -> bool:
        """The first diagnosis has a right label; of two faults, that of either."""
        return self.detected and self.reading.answers[0].label in (*self.right_labels, *self.truth.second)

    @property
    def both_named(self) -> bool:
        said = {answer.label for answer in self.reading.answers}
        return bool(said.intersection(self.truth.labels)) and bool(said.intersection(self.truth.second))

    @property
    def located(self) -> bool:
        if not self.detected:
            return False
        first = self.reading.answers[0]
        if not self.truth.line_keys:
            return first.key is None
        return first.key in self.truth.line_keys or (first.key is None and first.file in self.truth.line_keys)

    @property
    def unknown(self) -> bool:
        return self.detected and self.reading.answers[0].label == UNKNOWN

    @property
    def saved(self) -> int:
        """Steps that the monitor spared."""
        return 0 if self.reading.aborted is None else self.truth.steps - self.reading.aborted

    @property
    def detection_share(self) -> float:
        """Of the run that was gone when a right label was first said."""
        noticed = self.reading.noticed or {}
        steps = [noticed[label] for label in self.truth.labels if label in noticed]
        return min(1.0, min(steps) / self.truth.steps) if steps and self.truth.steps else 1.0


def score(judged: Sequence[Judged]) -> Json:
    """Everything but the baselines."""
    runs = [one for one in judged if not one.truth.replayed]
    kept_back = any(one.truth.held_out in ("seed", "severity") and not one.truth.healthy for one in runs)
    told = [one for one in runs if one.truth.held_out] if kept_back else runs
    single = [one for one in told if not one.truth.second]
    seen = [one for one in single if one.truth.held_out != "fault"]
    return {
        "labels": label_table(seen),
        "summary": summary(seen),
        "split": "seeds 3 and 4 and severities that nothing was tuned on" if told is not runs else "all: no trace here "
        "was held out of tuning",
        "by_severity": {severity: summary([one for one in seen if one.truth.severity in (severity, "")])
                        for severity in ("gross", "medium", "subtle")},
        "held_out_severities": summary([o for o in seen if o.truth.held_out == "severity" or o.truth.healthy]),
        "held_out_faults": summary([o for o in single if o.truth.held_out == "fault" or o.truth.healthy]),
        "pairs": pair_summary([one for one in told if one.truth.second]),
        "replayed": summary([one for one in judged if one.truth.replayed]),
        "tuned": summary([one for one in runs if not one.truth.held_out and not one.truth.second]),
        "every_healthy": summary([one for one in runs if one.truth.healthy]),
        "wrong": [complaint(one) for one in judged if complaint(one)],
    }  # fmt: skip


def summary(judged: Sequence[Judged]) -> Json:
    """The figures over these runs; None where nothing was there to count."""
    faulty = [one for one in judged if not one.truth.healthy]
    healthy = [one for one in judged if one.truth.healthy]
    hard = [one for one in faulty if one.truth.severity in AGGRAVATED]
    flagged = [one for one in judged if one.detected and not one.told_short]
    training = [one for one in faulty if one.truth.shows == "training"]
    ran = [one for one in training if one.truth.steps and one.reading.tier != PREFLIGHT]
    long = [one for one in ran if one.truth.steps >= LONG_STEPS]
    doomed = [one for one in ran if one.truth.doomed]
    steps = sum(one.truth.steps for one in doomed)
    saved = sum(one.saved for one in doomed)
    shares = {
        "recall": (sum(one.detected for one in hard), len(hard)),
        "recall_subtle": (sum(o.detected for o in faulty if o.truth.severity == "subtle"),
                          sum(o.truth.severity == "subtle" for o in faulty)),
        "precision": (sum(not one.truth.healthy for one in flagged), len(flagged)),
        "top1": (sum(one.named for one in faulty), len(faulty)),
        "line": (sum(one.located for one in faulty), len(faulty)),
        "abstention": (sum(one.unknown for one in faulty), len(faulty)),
        "healthy_flagged": (sum(one.truth.healthy for one in flagged), len(healthy)),
        "told_short": (sum(one.told_short for one in healthy), sum(bool(one.truth.labels) for one in healthy)),
        "false_aborts": (sum(one.reading.aborted is not None for one in healthy), len(healthy)),
        "before_training": (sum(one.detection_share == 0 for one in faulty if one.truth.shows == "data"),
                            sum(one.truth.shows == "data" for one in faulty)),
    }  # fmt: skip
    return {
        **{name: share(*counted) for name, counted in shares.items() if name != "false_aborts"},
        "false_aborts": shares["false_aborts"][0],
        "healthy": len(healthy),
        "faulty": len(faulty),
        "median_detection_fraction": round(median(one.detection_share for one in long), 4) if long else None,
        "long_runs": len(long),
        "steps_saved": round(saved / steps, 4) if steps else None,
        "doomed": len(doomed),
        "intervals": {name: interval(*counted) for name, counted in shares.items()}
        | {
            "median_detection_fraction": median_interval([one.detection_share for one in long]),
            "steps_saved": ratio_interval([(one.saved, one.truth.steps) for one in doomed]),
        },
    }


def share(hits: int, n: int) -> float | None:
    return round(hits / n, 4) if n else None


def interval(hits: int, n: int) -> list[float] | None:
    """Wilson's, 95 %."""
    if not n:
        return None
    found = wilson_interval(hits, n)
    return [round(found.low, 4), round(found.high, 4)]


def median_interval(values: Sequence[float]) -> list[float] | None:
    """Of the median, 95 %: the order statistics that it lies between with that probability, whatever the distribution
    (Conover, Practical Nonparametric Statistics, 3.2); the extremes where the values are fewer than six."""
    n = len(values)
    if not n:
        return None
    ordered = sorted(values)
    outside = max((k for k in range(n // 2) if 2 * _at_most(k, n) <= 0.05), default=0)
    return [round(ordered[outside], 4), round(ordered[n - 1 - outside], 4)]


def _at_most(k: int, n: int) -> float:
    """Probability of at most k heads in n throws."""
    return float(sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


def ratio_interval(pairs: Sequence[tuple[int, int]], draws: int = 1000) -> list[float] | None:
    """Of the sum of the first over that of the second, 95 %: percentiles of the bootstrap over runs, from one seed."""
    if not pairs:
        return None
    chance = random.Random(0)
    ratios = sorted(
        sum(a for a, _ in drawn) / sum(b for _, b in drawn)
        for drawn in (chance.choices(pairs, k=len(pairs)) for _ in range(draws))
    )
    return [round(ratios[int(0.025 * draws)], 4), round(ratios[int(0.975 * draws)], 4)]


def label_table(judged: Iterable[Judged]) -> Json:
    """Recall and precision of each label as the first diagnosis; a fault counts for the first of its labels."""
    wanted, found, said = Counter[str](), Counter[str](), Counter[str]()
    confused: dict[str, Counter[str]] = defaultdict(Counter)
    right = Counter[str]()
    for one in judged:
        answer = one.reading.answers[0].label if one.detected else "nothing"
        if answer != "nothing":
            said[answer] += 1
            right[answer] += one.named and not one.truth.healthy
        if one.truth.healthy:
            continue
        label = one.truth.labels[0]
        wanted[label] += 1
        found[label] += one.named
        if not one.named:
            confused[label][answer] += 1
    return {
        label: {
            "recall": share(found[label], wanted[label]), "precision": share(right[label], said[label]),
            "n": wanted[label], "instead": dict(confused[label].most_common()),
        }
        for label in sorted(wanted | said)
    }  # fmt: skip


def pair_summary(judged: Sequence[Judged]) -> Json:
    named = sum(one.named for one in judged)
    both = sum(one.both_named for one in judged)
    n = len(judged)
    return {
        "n": n, "recall": share(sum(one.detected for one in judged), n), "either_first": share(named, n),
        "both_named": share(both, n), "interval": interval(both, n),
    }  # fmt: skip


def complaint(one: Judged) -> Json | None:
    """What a person who tunes rules wants to see of a wrong answer."""
    truth = one.truth
    aborted = one.reading.aborted
    if truth.healthy and (one.told_short or not one.detected) and aborted is None:
        return None
    if not truth.healthy and (one.both_named if truth.second else one.named and one.located):
        return None
    return {
        "trace": one.name, "case": truth.case, "wanted": list(truth.labels), "lines": list(truth.line_keys),
        "said": [[answer.label, answer.key or answer.file] for answer in one.reading.answers], "aborted": aborted,
        "value": truth.value, "control": truth.control, "healthy": truth.healthy,
    }  # fmt: skip


def lines(result: Json) -> list[str]:
    """For people: the bars' figures with their intervals, and what was said wrongly most often."""
    said = [f"figures over {result['split']}"]
    for name, part in (("engine", result["summary"]), *result.get("baselines", {}).items()):
        said.append(
            f"  {name:<12} recall {_percent(part, 'recall')} · precision {_percent(part, 'precision')} · "
            f"label {_percent(part, 'top1')} · line {_percent(part, 'line')} · false aborts {part['false_aborts']} of "
            f"{part['healthy']}"
        )
    own = result["summary"]
    said.append(
        f"  time to detection {_percent(own, 'median_detection_fraction')} of the run (median of {own['long_runs']} "
        f"runs of {LONG_STEPS} steps or more) · steps saved {_percent(own, 'steps_saved')} of {own['doomed']} doomed "
        f"runs that preflight lets through · before training "
        f"{_percent(own, 'before_training')} · unknown {_percent(own, 'abstention')}"
    )
    every = result["every_healthy"]
    if every["healthy"]:
        said.append(
            f"  every healthy run: {every['false_aborts']} of {every['healthy']} aborted "
            f"(at most {100 * every['intervals']['false_aborts'][1]:.1f} %) · something said of "
            f"{_percent(every, 'healthy_flagged')} · short of a target and told so, or to "
            f"train longer {_percent(every, 'told_short')}"
        )
    for name in ("held_out_severities", "held_out_faults", "replayed", "tuned"):
        part = result[name]
        if part["faulty"]:
            said.append(
                f"  {name.replace('_', ' ')}: recall {_percent(part, 'recall')} · label {_percent(part, 'top1')} · "
                f"line {_percent(part, 'line')} of {part['faulty']}"
            )
    pairs = result["pairs"]
    if pairs["n"]:
        said.append(f"  two faults at once: both named in {_plain(pairs['both_named'])} of {pairs['n']}")
    if "repairs" in result:
        for name, part in result["repairs"].items():
            said.append(
                f"  repaired by {name}: after one try {_percent(part, 'repair_1')}, after three "
                f"{_percent(part, 'repair_3')} of {part['n']}"
            )
    return said


def _percent(part: Json, name: str) -> str:
    value, between = part.get(name), (part.get("intervals") or {}).get(name)
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" + (f" ({100 * between[0]:.0f} to {100 * between[1]:.0f})" if between else "")


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
