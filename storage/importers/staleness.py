"""From a stack's own staleness setting to S in learner steps, and back."""

from collections.abc import Mapping
from typing import Any

from ..commandline import BadInput
from .stacks import Stack

MOST_STALENESS = 4096
MOST_COMPANION = 65_536
MOST_KNOB = MOST_STALENESS * MOST_COMPANION


def completed(stack: Stack, companions: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return the companions of a stack's knob, those that were not given at their defaults.

    Raises:
        BadInput: one is unknown to the stack, or no number from 1 to 65536.
    """
    given = dict(companions or {})
    faults = [
        f"{name}: {value!r:.60} is not allowed; allowed: {_allowed(stack)}"
        for name, value in given.items()
        if name not in stack.companions or not within(value, 1, MOST_COMPANION)
    ]
    if faults:
        raise BadInput(*faults)
    return {name: float(given.get(name, each.default)) for name, each in stack.companions.items()}


def within(value: Any, low: float, high: float) -> bool:
    """Whether this is a number, which a truth value is not, from ``low`` to ``high``."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and low <= value <= high


def _allowed(stack: Stack) -> str:
    names = ", ".join(stack.companions) or "no further setting"
    return f"a number from 1 to {MOST_COMPANION} for {names} of {stack.title}"


def staleness_of(stack: Stack, knob: float, companions: Mapping[str, float] | None = None) -> int:
    """Return S, the largest age of a rollout in learner steps, that a knob's value allows.

    Raises:
        BadInput: the knob is not what the stack takes, or a companion is not allowed.
    """
    if not within(knob, stack.knob_low, MOST_KNOB):
        raise BadInput(
            f"{stack.knob}: {knob!r:.60} is not allowed; allowed: {stack.knob_low} <= {stack.knob} "
            f"<= {MOST_KNOB}"
        )
    return stack.learner_steps(knob, completed(stack, companions))


def largest_knob(
    stack: Stack, staleness: int, companions: Mapping[str, float] | None = None
) -> dict[str, float] | None:
    """Return the knob's largest whole value that keeps the realised age at most S, and companions.

    Companions that were not given stay at their defaults where some knob then keeps S, and are
    lowered to 1 else. None when no value keeps S.

    Args:
        stack: a stack of the table.
        staleness: S in learner steps, 0 … 4096.
        companions: those that are fixed.

    Raises:
        BadInput: S is out of range, or a companion is not allowed.
    """
    if not 0 <= staleness <= MOST_STALENESS:
        raise BadInput(
            f"max_staleness: {staleness!r} is not allowed; allowed: whole number, "
            f"0 <= max_staleness <= {MOST_STALENESS}"
        )
    fixed = dict(companions or {})
    lowest: dict[str, float] = dict.fromkeys(stack.companions, 1.0)
    for beside in (completed(stack, fixed), completed(stack, lowest | fixed)):
        if stack.learner_steps(stack.knob_low, beside) <= staleness:
            return {stack.knob: _largest(stack, staleness, beside), **beside}
    return None


def _largest(stack: Stack, staleness: int, beside: Mapping[str, float]) -> int:
    """Find by bisection the last whole knob that keeps S; the smallest one does."""
    low, high = stack.knob_low, stack.knob_low + 1
    while stack.learner_steps(high, beside) <= staleness:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        if stack.learner_steps(middle, beside) <= staleness:
            low = middle
        else:
            high = middle
    return low
