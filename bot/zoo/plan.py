"""Which runs the zoo consists of, and what each of them is for.

A case is built from its own description alone, so that one can be made again by its name. Thresholds may be tuned on
seeds 0 to 2 of the severities and faults that are not held out; figures are told of everything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bot.domain.goal import digest_of
from bot.errors import UserError
from bot.zoo.faults import CONTROLS, FAULTS, SEVERITIES, Fault
from bot.zoo.healthy import healthy_method, healthy_specimen
from bot.zoo.specimen import Specimen, plain

SEEDS = (0, 1, 2, 3, 4)
TUNED_SEEDS = (0, 1, 2)
HEALTHY_RUNS = 375
"""At least 300 are wanted, controls among them, after those that do not reach their level are dropped."""
PAIRS = ((2, 17), (19, 13), (22, 17), (2, 22), (9, 14), (17, 19), (13, 22), (1, 19), (12, 2), (26, 22))
"""Faults that are injected together: both show, and neither makes the other impossible."""
PAIR_SEEDS = (0, 3, 4)
FAULT, CONTROL, HEALTHY, PAIR = "fault", "control", "healthy", "pair"
KINDS = (FAULT, CONTROL, HEALTHY, PAIR)


@dataclass(frozen=True, slots=True)
class Case:
    """One run of the plan."""

    kind: str
    faults: tuple[int, ...] = ()
    """Injected; of a control, those whose control it is (only the one that needs something else, where there is)."""
    severity: str = ""
    seed: int = 0
    setting: tuple[str, str, bool] = ("", "", False)
    """(method, task, LoRA) of a control."""
    long: bool = False

    @property
    def name(self) -> str:
        """Twelve hex digits: what a folder, a log and the engine may see."""
        return "run-" + digest_of(self.description)[:12]

    @property
    def description(self) -> str:
        """What a person reads in the manifest, and what the name is a digest of."""
        what = "+".join(map(str, self.faults))
        method, task, lora = self.setting
        setting = f"{method}{'+' if lora else ''} {task}{' long' if self.long else ''}".strip()
        return " ".join(part for part in (self.kind, what, self.severity, f"seed {self.seed}", setting) if part)

    @property
    def method(self) -> str:
        return healthy_method(self.seed) if self.kind == HEALTHY else self.setting[0]

    @property
    def held_out(self) -> str:
        """Why no threshold may be tuned on it; empty when one may."""
        if any(FAULTS[number].held_out for number in self.faults) and self.kind in (FAULT, PAIR):
            return "fault"
        if self.kind == FAULT and self.severity == FAULTS[self.faults[0]].held_out_severity:
            return "severity"
        if self.kind == HEALTHY:
            return "seed" if self.seed % 5 not in TUNED_SEEDS else ""
        return "seed" if self.seed not in TUNED_SEEDS else ""

    def specimen(self) -> Specimen:
        if self.kind == HEALTHY:
            return healthy_specimen(self.seed)
        method, task, lora = self.setting
        made = plain(method, task, self.seed, lora=lora, long=self.long)
        if self.kind == CONTROL:
            for number in self.faults:
                CONTROLS[number](made)
            return made
        for number in self.faults:
            FAULTS[number].inject(made, self.severity)
        return made

    def control(self) -> Case:
        """The same run without the fault. Of two faults only what a control needs of either is kept."""
        needs = tuple(number for number in self.faults if number in CONTROLS)
        return Case(CONTROL, needs, "", self.seed, self.setting, self.long)


def fault_case(fault: Fault, severity: str, seed: int) -> Case:
    """Every other seed trains for 400 steps or more where only training shows the fault."""
    long = fault.shows == "training" and seed % 2 == 1 and fault.number not in (9,)
    return Case(FAULT, (fault.number,), severity, seed, fault.setting(seed), long)


def pair_case(pair: tuple[int, int], seed: int) -> Case:
    """Two faults at once, in the setting of the one that needs an adapter, or else of the second."""
    settings = [FAULTS[number].setting(seed) for number in pair]
    setting = next((s for s in settings if s[2]), next((s for s in settings[::-1] if s[0] == "sft"), settings[1]))
    return Case(PAIR, pair, "gross", seed, setting)


def all_cases() -> Iterator[Case]:
    """In the order in which a making that is stopped early is of most use: one of everything first."""
    seen: set[Case] = set()

    def with_control(case: Case) -> Iterator[Case]:
        for one in (case.control(), case):
            if one not in seen:
                seen.add(one)
                yield one

    for seed in SEEDS:
        for severity in SEVERITIES:
            for fault in FAULTS.values():
                if severity in fault.severities:
                    yield from with_control(fault_case(fault, severity, seed))
        for pair in PAIRS if seed in PAIR_SEEDS else ():
            yield from with_control(pair_case(pair, seed))
        share = HEALTHY_RUNS // len(SEEDS)
        for number in range(share):
            yield Case(HEALTHY, seed=number * len(SEEDS) + seed)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which part of the plan is made or scored."""

    kinds: frozenset[str] = frozenset(KINDS)
    faults: frozenset[int] | None = None
    severities: frozenset[str] = frozenset(SEVERITIES)
    seeds: frozenset[int] | None = None
    methods: frozenset[str] | None = None
    most_healthy: int | None = None

    def cases(self) -> list[Case]:
        """With the controls of what was chosen, before it."""
        chosen: dict[Case, None] = {}
        healthy = 0
        for case in all_cases():
            if not self._holds(case):
                continue
            if case.kind == HEALTHY:
                healthy += 1
                if self.most_healthy is not None and healthy > self.most_healthy:
                    continue
            if case.kind in (FAULT, PAIR):
                chosen.setdefault(case.control())
            chosen.setdefault(case)
        return list(chosen)

    def _holds(self, case: Case) -> bool:
        if case.kind not in self.kinds or case.kind == CONTROL:
            return False
        if self.methods is not None and case.method not in self.methods:
            return False
        if self.seeds is not None and case.seed % len(SEEDS) not in self.seeds:
            return False
        if case.kind == HEALTHY:
            return True
        if self.faults is not None and not self.faults.issuperset(case.faults):
            return False
        return case.kind == PAIR or case.severity in self.severities


def choice_of(words: str | None, methods: frozenset[str]) -> Choice:
    """What `--only` says: `1,12-18,gross,seed0,healthy40,pairs,dpo`. Raises: UserError."""
    kinds: set[str] = set()
    faults: set[int] = set()
    severities: set[str] = set()
    seeds: set[int] = set()
    wanted: set[str] = set()
    most: int | None = None
    for word in filter(None, re.split(r"[,\s]+", (words or "").strip().lower())):
        numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        seed, number = re.fullmatch(r"seed(\d)", word), re.fullmatch(r"healthy(\d*)", word)
        if numbers:
            named = range(int(numbers[1]), int(numbers[2] or numbers[1]) + 1)
            faults |= {n for n in named if n in FAULTS}
            kinds.add(FAULT)
            if not faults.intersection(named):
                raise UserError(f"--only {word}: no such fault. They are {min(FAULTS)} to {max(FAULTS)}.")
        elif number:
            kinds.add(HEALTHY)
            most = int(number[1]) if number[1] else None
        elif seed and int(seed[1]) in SEEDS:
            seeds.add(int(seed[1]))
        elif word in SEVERITIES:
            severities.add(word)
        elif word in ("pairs", "faults"):
            kinds.add(PAIR if word == "pairs" else FAULT)
        elif word in methods:
            wanted.add(word)
        else:
            known = f"fault numbers (12 or 1-11), faults, pairs, healthy or healthy40, {', '.join(SEVERITIES)}, seed0"
            raise UserError(f"--only {word}: not known. Write {known} to seed4, or {', '.join(sorted(methods))}.")
    if not kinds:
        kinds = {FAULT} if severities or seeds else {FAULT, HEALTHY, PAIR}
    return Choice(
        kinds=frozenset(kinds), faults=frozenset(faults) or None, severities=frozenset(severities or SEVERITIES),
        seeds=frozenset(seeds) or None, methods=frozenset(wanted) or methods, most_healthy=most,
    )  # fmt: skip
