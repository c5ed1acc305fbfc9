"""What the training loop tells and asks the world. Knows no database."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from storage.records import BiasProbe, Evaluation, LagDrift, Sample, StepMetrics

logger = logging.getLogger(__name__)


def _log(words: str, step: int) -> None:
    logger.warning("learner step %d: %s", step, words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the loop tells and asks the world, each a plain function.

    ``on_rest(step, stopping)`` is called between learner steps, with the number of steps taken:
    ``Learner.state_dict`` then holds all that the rest of the run depends on. ``on_notice(words,
    step)`` tells what went wrong on the way and was put right.
    """

    on_step: Callable[[StepMetrics], None]
    on_evaluation: Callable[[Evaluation], None]
    stop_requested: Callable[[], bool]
    on_drift: Callable[[LagDrift], None]
    on_bias: Callable[[BiasProbe], None]
    on_samples: Callable[[list[Sample]], None]
    on_rest: Callable[[int, bool], None]
    on_notice: Callable[[str, int], None] = _log
