"""What is claimed by chance, what is found, and what opening the seal costs: simulated, decided by Postdoc's own code.

false claims   2,000 goals of 1 to 20 runs whose models are all as good as the base model
power          a true +5 points on 448 items, by the exact test alone
opening        goals whose runs get better: how often the seal fails, by the chance that is asked of it
"""

from __future__ import annotations

import os
import random
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from bot.domain.comparison import compare
from bot.domain.evaluation import Evaluation, Sample, Verdict
from bot.domain.experiment import Score, State
from bot.domain.sealing import WISE, chance_of_confirming
from bot.domain.statistics import proportion_standard_error, wilson_interval
from tests.bench.simulated import Ended, SimulatedGoal

GOALS, MOST_RUNS, BAR = 2_000, 20, 0.05
POWER_BARS = {0.1: 0.91, 0.2: 0.62, 0.3: 0.46}
"""Discordance -> power for +5 points on 448 items, each within .03."""
POWER_ITEMS, POWER_GAIN, POWER_ROUNDS = 448, 0.05, 4_000


def measure(goals: int = GOALS) -> tuple[list[str], dict[str, Any]]:
    """Lines to print, and what they were made of."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        ended = list(pool.map(null_goal, range(goals), chunksize=8))
    claimed = sum(one.better for one in ended)
    met = sum(one.state is State.MET for one in ended)
    powers = {share: power_at(share) for share in POWER_BARS}
    opened = {need: opening(need) for need in (0.0, 0.5, WISE, 0.7, 0.8)}
    lines = [
        f"Statistics, {goals} simulated goals of 1 to {MOST_RUNS} runs without any effect (448 items, base 30 %)",
        _share("`better` said", claimed, goals),
        _share("MET, base + 3 points", met, goals),
        f"  power for +5 points on {POWER_ITEMS} items, exact McNemar, {POWER_ROUNDS} rounds each:",
        *(f"    {share:.0%} discordant  {found:.3f}  (bar {POWER_BARS[share]:.2f} within .03)"
          for share, found in powers.items()),
        "  the seal opened from this chance of confirming on (goals that get better, 12 runs at most, 2,000 each):",
        *(f"    {need:.1f}{' (ours)' if need == WISE else '':<7} confirmed {found['met']:.3f}, failed "
          f"{found['failed']:.3f}, runs {found['runs']:.2f}" for need, found in opened.items()),
    ]  # fmt: skip
    results = {"goals": goals, "better": claimed / goals, "met": met / goals, "power": powers, "opening": opened}
    return lines, results


def null_goal(seed: int) -> Ended:
    return SimulatedGoal(seed, runs=random.Random(f"runs/{seed}").randint(1, MOST_RUNS)).pursued()


def _share(name: str, count: int, n: int) -> str:
    low, high = wilson_interval(count, n)
    return f"  {name:<22} {count / n:.3f}  ({low:.3f} to {high:.3f})  bar {BAR}"


def power_at(discordance: float, rounds: int = POWER_ROUNDS) -> float:
    """Share of comparisons that say better, where B is right on 5 points more."""
    rng = random.Random(f"power/{discordance}")
    gained = (discordance + POWER_GAIN) / 2
    return sum(_told(rng, discordance, gained) for _ in range(rounds)) / rounds


def _told(rng: random.Random, discordance: float, gained: float) -> bool:
    draws = [rng.random() for _ in range(POWER_ITEMS)]
    a = _evaluation("a", [float(gained <= draw < discordance) for draw in draws])
    b = _evaluation("b", [float(draw < gained) for draw in draws])
    return compare(a, b).verdict is Verdict.BETTER


def _evaluation(model: str, scores: list[float]) -> Evaluation:
    samples = tuple(Sample(str(i), score) for i, score in enumerate(scores))
    value = sum(scores) / len(scores)
    return Evaluation("b", "d", model, "exact_match", value, 0.02, len(scores), "dev", samples=samples)


# --- When to open the seal --------------------------------------------------------------------------------------------

TARGET, DEV, SEALED, GYM_RUNS = 0.85, 200, 300, 12


def opening(need: float, goals: int = GOALS) -> dict[str, float]:
    """Of goals whose runs get better up to a plateau a little above the target: what asking for `need` brings."""
    rng = random.Random("opening")
    found = [_pursued(rng, need) for _ in range(goals)]
    return {
        "met": sum(state == "met" for state, _ in found) / goals,
        "failed": sum(state == "failed" for state, _ in found) / goals,
        "runs": sum(runs for _, runs in found) / goals,
    }


def _pursued(rng: random.Random, need: float) -> tuple[str, int]:
    """(met, failed or exhausted; runs). Abilities: a plateau 0.5 points and an exponential 4 above the target, seven of
    ten first runs around the target, the others far below; six of ten changes help, two of ten harm."""
    plateau = min(0.995, TARGET + 0.005 + rng.expovariate(1 / 0.04))
    start = TARGET + rng.gauss(0, 0.1) if rng.random() < 0.7 else TARGET - rng.uniform(0.1, 0.5)
    ability, best, behind = max(0.02, min(start, plateau)), -1.0, 0.0
    for run in range(1, GYM_RUNS + 1):
        value = sum(rng.random() < ability for _ in range(DEV)) / DEV
        if value > best:
            best, behind = value, ability
        if best >= TARGET:
            score = Score(best, proportion_standard_error(best, DEV), DEV, 0.0, 1.0, "dev", "d")
            stuck = run == GYM_RUNS
            if stuck or best == 1 or chance_of_confirming(score, run, None, target=TARGET, sealed=SEALED) >= need:
                sealed = sum(rng.random() < behind for _ in range(SEALED)) / SEALED
                return ("met" if sealed >= TARGET else "failed"), run
        luck = rng.random()
        if luck < 0.6:
            ability += (plateau - ability) * rng.uniform(0.3, 1)
        elif luck > 0.8:
            ability = max(0.02, ability - rng.uniform(0, 0.1))
    return "exhausted", GYM_RUNS
