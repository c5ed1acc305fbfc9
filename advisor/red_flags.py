"""Failures that the two constraints miss, each with its evidence and what to change (theory.md §7).

Pure. Works on whatever metrics a run has: one that was never measured raises no flag and clears
none. A flag is judged on the mean of a window at the end, so one odd batch raises nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.losses import LOSSES

WINDOW = 20
"""Rows of a metric that the end of a run means."""
FIRST = 50
"""Learner steps over which the level of the beginning is taken."""
LEAST_SEQUENCE_ESS = 0.3
LARGEST_AGE_0_KL = 1e-2
LEAST_ENTROPY_SHARE = 0.3
RISEN_BY = 0.25
"""Rise in the share of zero-variance groups that counts."""
STANDARD_ERRORS = 3.0
UNCLIPPED_ABOVE = 10.0
"""An upper clip range from which on a loss counts as unclipped: one token may weigh as ten."""

SERIES = (
    "step",
    "staleness_max",
    "sequence_ess_fraction",
    "approx_kl",
    "entropy",
    "zero_variance_groups",
    "reward_mean",
    "gold_reward_mean",
)
"""The columns that ``red_flags`` reads; any may be missing."""

FLAGS = (
    "few effective sequences",
    "stale and unclipped",
    "engine mismatch",
    "entropy gone",
    "nothing to compare",
    "reward rises, gold falls",
)
"""The names of all flags there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedFlag:
    """One finding: its name, what was seen in numbers, and what to change."""

    name: str
    evidence: str
    advice: str


def red_flags(series: Mapping[str, Sequence[Any]], config: Mapping[str, Any]) -> list[RedFlag]:
    """Return the red flags of a run as it stands.

    Args:
        series: columns of its steps by name, see ``SERIES``; None is not measured.
        config: its configuration; ``prompts`` and the clip range are read.
    """
    columns = {name: _floats(values) for name, values in series.items()}
    found = (
        _few_effective_sequences(columns, config),
        _stale_and_unclipped(columns, config),
        _engine_mismatch(columns),
        _entropy_gone(columns),
        _nothing_to_compare(columns, config),
        _reward_without_gold(columns),
    )
    return [flag for flag in found if flag is not None]


def _floats(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)


def _known(columns: Mapping[str, NDArray[np.float64]], name: str) -> NDArray[np.float64]:
    values = columns.get(name, np.array([]))
    return values[np.isfinite(values)]


def _few_effective_sequences(
    columns: Mapping[str, NDArray[np.float64]], config: Mapping[str, Any]
) -> RedFlag | None:
    """Kish's effective share of the sequences of stale batches, where their weights act.

    A loss that clips single tokens gives no sequence such a weight; over long answers the share is
    small for it in every healthy run.
    """
    loss = LOSSES.get(config.get("loss") or "")
    if loss is not None and loss.clips == "token":
        return None
    ess, age = columns.get("sequence_ess_fraction"), columns.get("staleness_max")
    if ess is None or age is None or len(ess) != len(age):
        return None
    stale = ess[np.isfinite(ess) & (age > 0)][-WINDOW:]
    if stale.size < WINDOW // 2 or stale.mean() >= LEAST_SEQUENCE_ESS:
        return None
    return RedFlag(
        name="few effective sequences",
        evidence=f"importance weights leave {stale.mean():.0%} of the sequences effective over the "
        f"last {stale.size} stale batches; below {LEAST_SEQUENCE_ESS:.0%} few of them decide",
        advice="halve the staleness or the learning rate",
    )


def _stale_and_unclipped(
    columns: Mapping[str, NDArray[np.float64]], config: Mapping[str, Any]
) -> RedFlag | None:
    """Stale rollouts under a range that holds nothing back; a range nobody knows raises nothing."""
    high = config.get("clip_epsilon_high") or config.get("clip_epsilon")
    age = _known(columns, "staleness_max")
    if high is None or high <= UNCLIPPED_ABOVE or not age.size or age.max() < 1:
        return None
    return RedFlag(
        name="stale and unclipped",
        evidence=f"rollouts are up to {age.max():.0f} steps old and the ratio of a token may grow "
        f"to {1 + high:g}; above {1 + UNCLIPPED_ABOVE:g} one token can outweigh all others",
        advice="lower clip_epsilon_high (grpo 0.2, cispo 4, tis 1 are usual), or take fresh "
        "rollouts, S = 0",
    )


def _engine_mismatch(columns: Mapping[str, NDArray[np.float64]]) -> RedFlag | None:
    """Fresh rollouts whose probabilities the learner does not reproduce."""
    kl, age = columns.get("approx_kl"), columns.get("staleness_max")
    if kl is None or age is None or len(kl) != len(age):
        return None
    fresh = kl[np.isfinite(kl) & (age == 0)][-WINDOW:]
    if not fresh.size or fresh.mean() <= LARGEST_AGE_0_KL:
        return None
    return RedFlag(
        name="engine mismatch",
        evidence=f"rollouts of age 0 differ from the learner by a KL of {fresh.mean():.2g} per "
        f"token; above {LARGEST_AGE_0_KL:g} sampler and learner are two policies",
        advice="make sampler and learner compute alike (precision, temperature, padding) or use "
        "the sampler's own log-probabilities",
    )


def _entropy_gone(columns: Mapping[str, NDArray[np.float64]]) -> RedFlag | None:
    entropy = _known(columns, "entropy")
    if entropy.size < FIRST + WINDOW:
        return None
    first, last = float(entropy[:FIRST].mean()), float(entropy[-WINDOW:].mean())
    if first <= 0 or last >= LEAST_ENTROPY_SHARE * first:
        return None
    return RedFlag(
        name="entropy gone",
        evidence=f"entropy is {last:.3g}, {last / first:.0%} of its mean over the first {FIRST} "
        f"steps, {first:.3g}; below {LEAST_ENTROPY_SHARE:.0%} the policy hardly explores",
        advice="lower the learning rate, widen the upper clip range or add a KL penalty",
    )


def _nothing_to_compare(
    columns: Mapping[str, NDArray[np.float64]], config: Mapping[str, Any]
) -> RedFlag | None:
    """Groups of equal reward get more while the reward does not rise: rising both is success."""
    groups, prompts = _known(columns, "zero_variance_groups"), config.get("prompts")
    reward = _known(columns, "reward_mean")
    if groups.size < FIRST + WINDOW or reward.size < FIRST + WINDOW or not prompts:
        return None
    first, last = groups[:FIRST].mean() / prompts, groups[-WINDOW:].mean() / prompts
    if last - first < RISEN_BY or _rose(reward):
        return None
    return RedFlag(
        name="nothing to compare",
        evidence=f"groups whose rewards are all equal rose from {first:.0%} to {last:.0%} while "
        f"the reward went from {reward[:FIRST].mean():.3g} to {reward[-WINDOW:].mean():.3g}",
        advice="the policy gives one answer only, and not a better one: lower the learning rate, "
        "or choose prompts of another difficulty",
    )


def _reward_without_gold(columns: Mapping[str, NDArray[np.float64]]) -> RedFlag | None:
    reward, gold = _known(columns, "reward_mean"), _known(columns, "gold_reward_mean")
    if gold.size < FIRST + WINDOW or reward.size < FIRST + WINDOW:
        return None
    if not _rose(reward) or not _rose(-gold):
        return None
    return RedFlag(
        name="reward rises, gold falls",
        evidence=f"reward went from {reward[:FIRST].mean():.3g} to {reward[-WINDOW:].mean():.3g}, "
        f"gold from {gold[:FIRST].mean():.3g} to {gold[-WINDOW:].mean():.3g}",
        advice="the reward is being exploited: stop here, train fewer steps, or add a KL penalty",
    )


def _rose(values: NDArray[np.float64]) -> bool:
    first, last = values[:FIRST], values[-WINDOW:]
    error = math.hypot(
        first.std(ddof=1) / math.sqrt(first.size), last.std(ddof=1) / math.sqrt(last.size)
    )
    return bool(last.mean() - first.mean() > STANDARD_ERRORS * error)
