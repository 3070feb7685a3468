"""What a verdict means after several looks: a goal's runs are all compared with one baseline, on the same items.

Ten comparisons at 5 % claim a gain that is not there in up to 40 % of goals. Here "better" and "worse" are said below a
level that the run's place in the goal decides, so that all of a goal's runs together claim something false with a
probability of 5 % at most, however many are added later and however they depend on each other.

The levels are those of online fallback (Tian and Ramdas, "Online control of the familywise error rate", Statistical
Methods in Medical Research 2021, https://arxiv.org/abs/1910.04900, section 3): level(k) = 0.05 * share(k), and the
level of the comparison before is added where that one rejected. With share(k) = 1 / (k (k + 1)), which sums to 1: 2.5 %
for the first run, 0.83 % for the second, and so on; a goal whose runs keep being better loses nothing.

Several arms of one ablation are told together and are corrected by Holm (1979, https://www.jstor.org/stable/4615733).
"""

from __future__ import annotations

from collections.abc import Sequence

from bot.domain.statistics import CONFIDENCE

FALSE_CLAIMS = 1 - CONFIDENCE
"""Of a goal as a whole."""


def level_after(rejected: Sequence[bool]) -> float:
    """The level of the next comparison, after those that found a difference (True) or could not tell (False)."""
    level = 0.0
    for k in range(1, len(rejected) + 2):
        kept = level if k > 1 and rejected[k - 2] else 0.0
        level = FALSE_CLAIMS / (k * (k + 1)) + kept
    return level


def holm_levels(p_values: Sequence[float], level: float = FALSE_CLAIMS) -> list[float]:
    """What each p-value has to stay below for its own verdict, in their order: Holm's step-down levels, and 0 for those
    after the first that failed."""
    found = [0.0] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        found[index] = level / (len(p_values) - rank)
        if p_values[index] >= found[index]:
            break
    return found
