"""What a governor is to the loop and the callback: one plain function. Knows no torch.

It scales the learning rate of the next step down, never above the schedule, and says why. The rule
itself is the advisor's (``advisor/governor.py``), of which nothing is known here.
"""

from collections.abc import Callable

from storage.records import StepMetrics

Schedule = Callable[[int], float]
"""The planned learning rate of every learner step, from 0."""

Governor = Callable[[StepMetrics | None], tuple[float, str]]
"""Told the row of every learner step, and None before the first of this process; returns the factor
in (0, 1] on the learning rate of the next step, and the reason. On resuming it is told the kept
rows again, so that what it knows is a function of them."""

GOVERNED = "guarded"
"""The kind of a run that is kept by a governor: its rate is not that of its configuration, so it is
no evidence of what a constant rate does, and it goes on under a governor only."""
NEWS = 1.25
"""A factor is told again when it has changed by this much, or is 1 again."""


def worth_telling(before: float, factor: float) -> bool:
    """Whether a factor differs enough from the one that was told last."""
    if factor == before:
        return False
    return factor == 1 or max(before / factor, factor / before) >= NEWS


def checked_factor(factor: float) -> float:
    """Return a factor that a governor has answered.

    Raises:
        ValueError: it is not in (0, 1].
    """
    if not 0 < factor <= 1:
        raise ValueError(f"a governor's factor is in (0, 1], and {factor} is not")
    return factor


def told(factor: float, reason: str) -> str:
    """Say what a governor does, for an event and for a log."""
    if factor == 1:
        return f"the learning rate is that of the schedule again: {reason}"
    return f"the learning rate is scaled by {factor:.3g}: {reason}"


def kept_by_governor(run_id: str) -> str:
    """Say how a run goes on that is kept by a governor."""
    return f"kept by a governor; let it go on with python -m advisor guard --resume {run_id}"
