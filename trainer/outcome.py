"""How a run ended: collapsed, diverged, damaged, healthy or merely finished (theory.md §6).

Plain numbers, no torch: the trainer judges its live run with it, the advisor imported ones.
The clock of onset and slide is the *version* clock: the learner step whose weights sampled the
reward.
"""

import bisect
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

HALF_LIFE_BATCHES = 10
HELD_BATCHES = 20
STOP_AFTER_ONSET_BATCHES = 100
COLLAPSED_BELOW = 0.5
RECOVERED_ABOVE = 0.8
SLIDE_BELOW = 0.85
HEALTHY_AFTER_STEP = 20
NOISE_WIDTHS = 3 * 1.4826


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The reward of θ_0: its mean I, the deviation of one rollout, and how many were drawn."""

    reward: float
    reward_std: float
    rollouts: int

    @property
    def standard_error(self) -> float:
        """Standard error of the mean."""
        return self.reward_std / math.sqrt(self.rollouts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A verdict with its reason; ``onset`` and ``slide`` are version steps or None."""

    verdict: str
    reason: str
    onset: int | None = None
    slide: int | None = None
    reward_best: float | None = None


class OutcomeTracker:
    """Judges a run while its batch rewards come in.

    r̄ is the exponential moving average with a half-life of 10 batches, corrected for its start;
    P ≥ I its running peak; q = (r̄ − floor)/(P − floor).
    """

    def __init__(self, start: Start, floor: float | None) -> None:
        """Begin at θ_0; ``floor`` is the chance reward, None if the workload declares none."""
        self.start = start
        self.floor = start.reward - 2 * start.reward_std if floor is None else floor
        self.peak = start.reward
        self.onset: int | None = None
        self.batches = 0
        self._sum = self._weight = 0.0
        self._residuals: list[float] = []  # sorted
        self._held = 0
        self._held_from = 0
        self._since_onset = 0
        self._below_slide_from: int | None = None
        self._was_ever_low = False
        self._rewards: list[float] = []
        self._diverged: str | None = None
        if not math.isfinite(start.reward):
            self.diverge(f"the reward of the start is {start.reward}")

    def state_dict(self) -> dict[str, Any]:
        """Return all that ``load_state_dict`` needs to go on as if nothing had happened."""
        return vars(self) | {"start": asdict(self.start)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take on the state of another tracker."""
        vars(self).update(state, start=Start(**state["start"]))

    def diverge(self, reason: str) -> None:
        """Call the run diverged; the first reason stands."""
        self._diverged = self._diverged or reason

    def observe(self, reward: float, sampled_at_step: int, *, finite: bool = True) -> None:
        """Take in one batch: its mean reward and the version whose weights sampled it.

        ``finite`` is False when the loss, the gradient or the weights of the step were not.
        """
        self.batches += 1
        if not finite or not math.isfinite(reward):
            what = "loss, gradient or weight" if math.isfinite(reward) else f"reward, {reward},"
            self.diverge(f"a non-finite {what} at batch {self.batches - 1}")
            return
        decay = 0.5 ** (1 / HALF_LIFE_BATCHES)
        self._sum = decay * self._sum + (1 - decay) * reward
        self._weight = decay * self._weight + (1 - decay)
        smooth = self._sum / self._weight
        self._rewards.append(reward)
        self.peak = max(self.peak, smooth)
        bisect.insort(self._residuals, reward - smooth)
        self._watch_slide(smooth, sampled_at_step)
        self._watch_collapse(smooth, sampled_at_step)

    def _watch_slide(self, smooth: float, version: int) -> None:
        low = self.peak > 0 and smooth < SLIDE_BELOW * self.peak
        if not low:
            self._below_slide_from = None
        elif self._below_slide_from is None:
            self._below_slide_from = version
        self._was_ever_low |= low and self.batches - 1 > HEALTHY_AFTER_STEP

    def _watch_collapse(self, smooth: float, version: int) -> None:
        q = self._height(smooth)
        if self.onset is not None:
            self._since_onset += 1
            if q >= RECOVERED_ABOVE:
                self.onset, self._held, self._since_onset = None, 0, 0
            return
        if q >= COLLAPSED_BELOW or self.peak - smooth <= NOISE_WIDTHS * self._deviation():
            self._held = 0
            return
        if self._held == 0:
            self._held_from = version
        self._held += 1
        if self._held == HELD_BATCHES:
            self.onset, self._since_onset = self._held_from, HELD_BATCHES - 1

    def _height(self, smooth: float) -> float:
        room = self.peak - self.floor
        return (smooth - self.floor) / room if room > 0 else 1.0

    def _deviation(self) -> float:
        """Median absolute deviation of the residuals r − r̄ so far."""
        middle = statistics.median(self._residuals)
        return statistics.median(abs(residual - middle) for residual in self._residuals)

    @property
    def diverged(self) -> bool:
        """Whether a non-finite number was seen."""
        return self._diverged is not None

    @property
    def may_stop(self) -> bool:
        """Whether 100 batches have passed since the onset of a collapse that did not recover."""
        return self.onset is not None and self._since_onset >= STOP_AFTER_ONSET_BATCHES

    @property
    def undetermined(self) -> bool:
        """Whether the reward is down but has not been so for 20 batches: the run is extended."""
        return self.onset is None and self._held > 0 and not self.diverged

    def conclude(self) -> Outcome:
        """Judge the run as it stands now; a run that finished is no proof of safety."""
        found = self._verdict()
        best = self.peak if self.batches else None
        return Outcome(
            verdict=found[0],
            reason=found[1],
            onset=self.onset,
            slide=self._below_slide_from,
            reward_best=best,
        )

    def _verdict(self) -> tuple[str, str]:
        if self._diverged is not None:
            return "diverged", self._diverged
        if self.onset is not None:
            return "collapsed", (
                f"the smoothed reward fell below half of its peak {self.peak:.3f} at version "
                f"{self.onset}, stayed there for {HELD_BATCHES} batches and did not recover"
            )
        if self.undetermined:
            return "undetermined", f"the reward has been down for {self._held} batches only"
        if len(self._rewards) < 2:
            return "undetermined", f"{len(self._rewards)} batches are too few to judge"
        return self._survivor()

    def _survivor(self) -> tuple[str, str]:
        tail = self._rewards[-max(50, len(self._rewards) // 10) :]
        mean = statistics.fmean(tail)
        error = statistics.stdev(tail) / math.sqrt(len(tail))
        doubt = 2 * math.hypot(error, self.start.standard_error)
        if mean < self.start.reward - doubt:
            return "damaged", (
                f"it survived, but its last {len(tail)} batches average {mean:.3f}, below the "
                f"start's {self.start.reward:.3f} by more than two standard errors ({doubt:.3f})"
            )
        if self.peak <= 0:
            return "finished", f"its peak {self.peak:.3f} is not positive: no share of it is health"
        if not self._was_ever_low:
            return "healthy", f"the reward never fell below {SLIDE_BELOW} of its peak"
        return "finished", f"the reward fell below {SLIDE_BELOW} of its peak and did not collapse"


def judge(
    rewards: Sequence[float], sampled_at_steps: Sequence[int], start: Start, floor: float | None
) -> Outcome:
    """Judge a stored run from its batch rewards and the versions that sampled them."""
    tracker = OutcomeTracker(start, floor)
    for reward, version in zip(rewards, sampled_at_steps, strict=True):
        tracker.observe(reward, version)
    return tracker.conclude()
