"""Scales the learning rate of somebody else's optimizer for one update, and gives it back."""

from collections.abc import Callable, Mapping
from typing import Any

from storage.records import StepMetrics

from ..governing import Governor, Schedule, checked_factor, told, worth_telling

MakeGovernor = Callable[[Mapping[str, Any], int | None, Schedule], Governor]


class Throttle:
    """Applies a governor to an optimizer that a scheduler of its own drives.

    The rate is scaled just before an update and given back just after it, so that no scheduler that
    goes on from the present rate ever sees the scaled one.
    """

    def __init__(self, governor: Governor) -> None:
        """Ask the governor for the first step."""
        self._governor = governor
        factor, self._reason = governor(None)
        self._factor = checked_factor(factor)
        self._told = 1.0
        self._scaled: list[tuple[dict[str, Any], float]] = []

    def before_update(self, optimizer: Any) -> None:
        """Scale the rate of every parameter group down."""
        self.after_update()
        for group in optimizer.param_groups:
            self._scaled.append((group, group["lr"]))
            group["lr"] = group["lr"] * self._factor

    def after_update(self) -> None:
        """Give the rates back."""
        for group, rate in self._scaled:
            group["lr"] = rate
        self._scaled = []

    def heed(self, row: StepMetrics) -> None:
        """Ask the governor for the next step.

        Raises:
            ValueError: the factor is not in (0, 1].
        """
        factor, self._reason = self._governor(row)
        self._factor = checked_factor(factor)

    def news(self) -> str | None:
        """Return in words what changed since it was told last; None if nothing did."""
        if not worth_telling(self._told, self._factor):
            return None
        self._told = self._factor
        return told(self._factor, self._reason)

    @property
    def factor(self) -> float:
        """The factor of the next step."""
        return self._factor
