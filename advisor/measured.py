"""A probe as the advisor reads it: its segments, outcomes beside it, its limits at any setting.

Pure.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from storage.records import Calibration
from storage.words import counted
from trainer.config import TrainerConfig

from .learned_reward import horizon_limit
from .learning_rate import Trial
from .limits import RateLimit, survival_limit
from .posterior import Outcome, Shift, shift_of
from .run_facts import RunFacts
from .safe_levels import SafeLevels, safe_levels
from .same_setting import differences
from .segments import Segment, segment_from
from .transfers import RefusedTransfer, transfer

CARRIED = {"prompts", "group_size", "hidden_size", "clip_epsilon", "clip_epsilon_high"}
"""Fields of the setting that a rule of ``transfers`` carries over; others are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A probe as the advisor reads it, and what outcomes of runs of its setting add to it."""

    calibration: Calibration
    setting: TrainerConfig
    segments: tuple[Segment, ...]
    outcomes: tuple[RunFacts, ...] = ()
    shift: Shift | None = None

    @property
    def holds(self) -> list[Segment]:
        """The segments at a constant rate."""
        return [s for s in self.segments if not s.is_ramp]

    @property
    def stale(self) -> list[Segment]:
        """The holds at the staleness that was asked about."""
        return [s for s in self.holds if s.max_staleness == self.setting.max_staleness]

    @property
    def step_seconds(self) -> tuple[float, float] | None:
        """Seconds that generating and learning took in a step, medians; None if not timed."""
        generate = [s.seconds_generate for s in self.holds if s.seconds_generate]
        learn = [s.seconds_learn for s in self.holds if s.seconds_learn]
        if not generate or not learn:
            return None
        return statistics.median(generate), statistics.median(learn)


def readable_probes(calibrations: Iterable[Calibration]) -> list[Measured]:
    """Return the calibrations that this version can read, in their order."""
    found = []
    for calibration in calibrations:
        try:
            found.append(measured(calibration))
        except (ValidationError, TypeError, KeyError):
            continue
    return found


def measured(calibration: Calibration) -> Measured:
    """Read a stored calibration.

    Raises:
        ValidationError: this version cannot read its setting.
        KeyError, TypeError: nor its segments.
    """
    return Measured(
        calibration=calibration,
        setting=TrainerConfig.model_validate(calibration.setting),
        segments=tuple(segment_from(each) for each in calibration.segments),
    )


def refusal(found: Measured, asked: TrainerConfig) -> str | None:
    """Say why a calibration does not speak of a setting; None if it does, or a rule leads there."""
    apart = [
        each for each in differences(found.setting, asked) if each.split(" ")[0] not in CARRIED
    ]
    if apart:
        return f"it was measured on another setting: {', '.join(apart)}"
    try:
        limits_at(found, asked, safe_levels())
    except RefusedTransfer as error:
        return str(error)
    return None


def held(found: Measured) -> list[Trial]:
    """Return the holds as dots for a chart: a hold that lost counts as unsafe."""
    return [
        Trial(
            learning_rate=s.learning_rate,
            max_staleness=s.max_staleness,
            steps=s.steps,
            unsafe=s.gain is None or not s.gain > 0,
            label=f"hold {s.run_id}: η={s.learning_rate:g}, S={s.max_staleness}, "
            f"{counted(s.steps, 'step')}",
        )
        for s in found.holds
    ]


def limits_at(found: Measured, asked: TrainerConfig, levels: SafeLevels) -> list[RateLimit]:
    """Return the limits at the asked setting, moved by what outcomes of runs say.

    Raises:
        RefusedTransfer: no rule leads there.
    """
    limits = _probed_limits(found, asked, levels)
    return [limit if found.shift is None else found.shift.applied(limit) for limit in limits]


def with_outcomes(found: Measured, runs: Sequence[RunFacts], levels: SafeLevels) -> Measured:
    """Return a probe that has learned from the outcomes of runs of its setting.

    Runs of another setting, without an outcome, or at an S to which no rule leads are left out.
    """
    outcomes, used = [], []
    for run in runs:
        if run.unsafe is None or differences(found.setting, run.config):
            continue
        try:
            there = _probed_limits(found, run.config, levels)
        except RefusedTransfer:
            continue
        rate = run.config.learning_rate
        outcomes.append(Outcome(learning_rate=rate, limits=there, unsafe=run.unsafe))
        used.append(run)
    shift = shift_of(_probed_limits(found, found.setting, levels), outcomes)
    return found if shift is None else replace(found, outcomes=tuple(used), shift=shift)


def _probed_limits(found: Measured, asked: TrainerConfig, levels: SafeLevels) -> list[RateLimit]:
    limits = []
    survival = survival_limit(found.setting, found.segments, levels)
    if survival is not None:
        limits.append(transfer(survival, found.setting, asked, found.segments))
    horizon = horizon_limit(asked, found.segments, levels)
    if horizon is not None:
        limits.append(_horizon_to(horizon, found.setting, asked))
    return limits


def _horizon_to(limit: RateLimit, probed: TrainerConfig, asked: TrainerConfig) -> RateLimit:
    """Carry a horizon to another S; T is in it already, and nothing else is known to carry it."""
    changed = [each.split(" ")[0] for each in differences(probed, asked)]
    if changed:
        raise RefusedTransfer(f"no rule carries a horizon to another {', '.join(changed)}")
    if asked.max_staleness != probed.max_staleness:
        further = max(0.0, math.log((asked.max_staleness + 1) / (probed.max_staleness + 1)))
        limit = limit.moved(1.0, 0.25 * further, f"probed at S = {probed.max_staleness}")
    return limit
